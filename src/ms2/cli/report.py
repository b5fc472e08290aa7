"""``ms2 report``: one page about a run or a data set."""

from pathlib import Path
from typing import TYPE_CHECKING

from ms2.core import configurations
from ms2.core.paths import OptionalPath, UserPath
from ms2.report import write_report

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def report_command(command: "Command", argv: list[str]) -> None:
    """Write the page."""
    parser, models = command.parser(), configurations.learned_models()
    parser.add_argument(
        "folder", type=UserPath, help=f"folder of a run or of a data set, or one of {', '.join(models)}"
    )
    by_default = "file of the page; by default report.html in the folder, or NAME.html of a learned model"
    parser.add_argument("--output", type=OptionalPath, help=by_default)
    args = parser.parse_args(argv)
    name = str(args.folder)
    if name in models:  # in the package's own folder, where nothing is to be written
        print(write_report(models[name], args.output or Path(f"{name}.html")))
    else:
        print(write_report(args.folder, args.output))
