"""The site's page about Python shows every public name; `make docs` checks the rest of the site."""

import re
from pathlib import Path

import ms2

DOCS = Path(__file__).parents[1] / "docs"


def test_every_public_name_has_its_entry() -> None:
    """By the name of its module, which is where the reader of docstrings looks for it."""
    shown = re.findall(r"^::: (.*)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M)
    assert sorted(shown) == sorted(f"ms2.{module}.{name}" for module, names in ms2.PUBLIC.items() for name in names)
