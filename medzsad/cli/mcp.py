"""``medzsad mcp``."""

from __future__ import annotations

import click

from medzsad.cli.options import threads_option


@click.command()
@click.option(
    "--folder",
    required=True,
    metavar="DIR",
    help="What the agent works in: results are written there alone. Created where missing.",
)
@click.option(
    "--allow", multiple=True, metavar="DIR", help="A further folder that scans may be read from. Repeatable."
)
@threads_option
def mcp(folder: str, allow: tuple[str, ...]) -> None:
    """Give an agent tools over the Model Context Protocol: list models and scans, predict, read, show.

    It speaks the protocol on its standard input and output, until the input ends; an agent's settings name
    this command. Nothing outside the folders is read, and nothing outside --folder written; links are
    followed before that is decided. See docs/agents.md. Needs: pip install "medzsad[mcp]"
    """
    from medzsad.integrations.mcp.folders import Folders

    folders = Folders(folder, allow)
    from medzsad.integrations.mcp.server import create_server

    create_server(folders).run("stdio")
