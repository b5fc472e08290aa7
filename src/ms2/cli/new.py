"""``ms2 new``: write the package of a new world, which works, to be changed into one's own."""

import importlib.util
import keyword
import re
import shlex
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ms2.core.errors import UserError
from ms2.core.files import write_text

if TYPE_CHECKING:
    from ms2.cli.commands import Command

TEMPLATES = Path(__file__).parent / "new_world"
PLACES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "module.py": "src/{name}/__init__.py",
    "world.yaml": "{name}.yaml",
    "test_world.py": "tests/test_{name}.py",
}
"""Where the text of each template goes in the folder of the package."""


def new_command(command: "Command", argv: list[str]) -> None:
    """Write a package, and print the commands that use it."""
    parser = command.parser()
    parser.add_argument("folder", type=str, help="folder to make, whose name is that of the package")
    folder = Path(parser.parse_args(argv).folder).expanduser()
    write_package(folder)
    print(f"wrote {folder}, a world of squares and discs. Next:\n")
    print("\n".join(next_commands(folder)))


def write_package(folder: Path) -> None:
    """Write the package of a world: module, configuration, tests, README, metadata.

    Args:
        folder: Folder to make; its name becomes that of the package and of its classes.

    Raises:
        UserError: If the name can't be a package's, or is taken, or something is in the folder.
    """
    name = folder.absolute().name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} can't be the name of a package: use lower-case letters, digits and underscores, such as "
            f"{re.sub(r'[^a-z0-9_]+', '_', name.lower()).strip('_0123456789') or 'rooms'}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not empty: name a folder that is to be made")
    if importlib.util.find_spec(name):
        raise UserError(f"a package {name!r} is installed already, which this one would hide: take another name")
    words = {
        "name": name,
        "Name": "".join(part.capitalize() for part in name.split("_")),
        "commands": "\n".join(next_commands(Path(name))),
    }
    for template, place in PLACES.items():
        file = folder / place.format(name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, Template((TEMPLATES / f"{template}.template").read_text(encoding="utf-8")).substitute(words))


def next_commands(folder: Path) -> list[str]:
    """List the commands that install, check, test and learn a world that was written."""
    path, configuration = shlex.quote(str(folder)), shlex.quote(str(folder / f"{folder.absolute().name}.yaml"))
    return [
        f"pip install -e {path}",
        f"ms2 check {configuration} --output samples.png",
        f"pytest {path}",
        f"ms2 fit --config {configuration}",
    ]
