"""Run the command as ``python -m jobcast.cli``."""

from jobcast.cli.main import main

main()
