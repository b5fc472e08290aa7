"""``ms2 report``: one page about a run or a data set."""

from typing import TYPE_CHECKING

from ms2.core.paths import OptionalPath, UserPath
from ms2.report import write_report

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def report_command(command: "Command", argv: list[str]) -> None:
    """Write the page."""
    parser = command.parser()
    parser.add_argument("folder", type=UserPath, help="folder of a run or of a data set")
    parser.add_argument("--output", type=OptionalPath, help="file of the page; by default report.html in the folder")
    args = parser.parse_args(argv)
    print(write_report(args.folder, args.output))
