"""``ms2 assets``: check a folder of one's own meshes, and draw them on a sheet."""

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ms2.cli import plugins
from ms2.cli.check import check_picture
from ms2.core import configurations
from ms2.core.errors import UserError
from ms2.core.paths import OptionalPath, UserPath
from ms2.models.opening import open_model
from ms2.render.scene3d.asset_report import contact_sheet
from ms2.render.scene3d.renderer import Renderer3D

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def assets_command(command: "Command", argv: list[str]) -> int:
    """Check the meshes; return exit code 1 if there is anything that the images would show.

    Raises:
        UserError: If the world takes no meshes, or the folder can't be used.
    """
    parser = command.parser()
    worlds = ", ".join(configurations.worlds())
    parser.add_argument("source", type=str, help=f"a configuration, the folder of a run, or a world: {worlds}")
    folder = "folder with GLB or OBJ files in subfolders named by class, as the renderer's setting assets takes it"
    parser.add_argument("folder", type=UserPath, help=folder)
    mend = "write the turns of vehicles whose front is found, and is not ahead, to the folder's turns.json"
    parser.add_argument("--mend", action="store_true", help=mend)
    parser.add_argument("--output", type=OptionalPath, help="file of the sheet; FOLDER_sheet.png by default, here")
    args = parser.parse_args(argv)
    plugins.load()
    check_picture(args.output)
    renderer = open_model(args.source, structure="prior", parameters="prior").model.world.renderer
    if not isinstance(renderer, Renderer3D):
        raise UserError(f"{type(renderer).__name__} renders in 2D, without meshes: name a world in 3D")
    reports = renderer.check_assets(args.folder, args.mend)
    for report in reports:
        print("\n".join(report.lines()))
    counts = dict.fromkeys(("error", "warning", "note"), 0)
    for finding in (finding for report in reports for finding in report.findings):
        counts[finding.severity] += 1
    files = sum(bool(report.name) for report in reports)
    numbers = [f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in {"file": files, **counts}.items()]
    sheet = contact_sheet(reports, renderer.engine.label_engine)
    place = "no sheet, as there is nothing to show"
    if sheet is not None:
        picture: Path = args.output or Path(f"{args.folder.resolve().name}_sheet.png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(picture)
        place = f"sheet: {picture}"
    print(f"{', '.join(numbers)}; {place}")
    return int(counts["error"] + counts["warning"] > 0)
