"""``python -m ms2`` is ``ms2``."""

from ms2.cli.commands import main

main()
