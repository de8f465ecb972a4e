"""medzsad-mini, the small embedded detector."""
