"""The site's page about Python shows every public name; `make docs` checks the rest of the site."""

import re
import runpy
from pathlib import Path

import ms2

TOOLS = Path(__file__).parents[1] / "tools"
DOCS = Path(__file__).parents[1] / "docs"


def test_every_public_name_has_its_entry() -> None:
    """By the name of its module, which is where the reader of docstrings looks for it."""
    shown = re.findall(r"^::: (.*)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M)
    assert sorted(shown) == sorted(f"ms2.{module}.{name}" for module, names in ms2.PUBLIC.items() for name in names)


def test_each_picture_of_the_gallery_is_above_the_command_that_makes_it() -> None:
    tool = runpy.run_path(str(TOOLS / "gallery.py"))
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    found = re.findall(r"^!\[.*\]\(images/gallery_(\w+)\.png\)\n\n```\n(.*)\n```$", page, re.M)
    assert found == [(kind, tool["command"](kind)) for kind in tool["KINDS"]]
    assert {path.stem for path in tool["PICTURES"].glob("gallery_*.png")} == {
        f"gallery_{kind}" for kind in tool["KINDS"]
    }
