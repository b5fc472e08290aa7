"""``ms2 report``: one page that shows a run, or a data set."""

import argparse
from pathlib import Path

from ms2.report import write_report


def report_command(argv: list[str]) -> None:
    """Write the page."""
    made = argparse.ArgumentParser(
        "ms2 report",
        description="Write one HTML page of a run or a data set, which needs no network.",
        allow_abbrev=False,
    )
    made.add_argument("folder", type=Path, help="folder of a run or of a data set")
    made.add_argument("--output", type=Path, help="file of the page; report.html in the folder by default")
    args = made.parse_args(argv)
    print(write_report(args.folder, args.output))
