"""Run the command line by ``python -m ms2``."""

from ms2.cli.commands import main

main()
