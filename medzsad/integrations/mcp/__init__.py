"""medzsad as tools of an agent, over the Model Context Protocol: ``medzsad mcp``. See docs/agents.md."""
