"""``python -m medzsad``."""

from medzsad.cli.main import main

main()
