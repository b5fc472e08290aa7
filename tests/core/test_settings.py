"""What is cached for an object depends on its settings, and on the source code behind its class."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ms2.core.settings import _imports, _with_imports, source_fingerprint
from ms2.features.dense import DenseCounts
from ms2.objectives.kde import KDE
from ms2.worlds.multimnist.priors import UniformDigits

FILES = {
    "__init__": "from acme_lamps.bulbs import Bulb, watts",
    "bulbs": "from ms2.core.settings import Configured\nfrom . import sockets\ndef watts(): return 60\nclass Bulb: ...",
    "sockets": "from ms2.core.errors import UserError\nSIZE = 27",
    "late": "COLOUR = 'red'",
    "typing_only": "Name = str",
    "lamps": """
from typing import TYPE_CHECKING
import json
from acme_lamps import watts
from ms2.core.settings import Configured
if TYPE_CHECKING:
    from acme_lamps.typing_only import Name
class Lamp(Configured):
    def __init__(self, size: int = 1) -> None:
        from acme_lamps.late import COLOUR
class Stranger(Configured): ...
""",
    "other": "NOTHING = 1",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose class imports helpers: directly, by way of the package, and within a function."""
    folder = tmp_path / "acme_lamps"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("acme_lamps")]:
        del sys.modules[name]
    _imports.cache_clear()
    importlib.invalidate_caches()


def lamps() -> ModuleType:
    forget()
    import linecache

    linecache.checkcache()
    return importlib.import_module("acme_lamps.lamps")


def test_imports_are_followed_within_a_package(package: Path) -> None:
    lamps()
    names = ("lamps", "bulbs", "sockets", "late")
    assert _with_imports({"acme_lamps.lamps"}) == {f"acme_lamps.{name}" for name in names}


@pytest.mark.parametrize("name", ["lamps", "bulbs", "sockets", "late"])
def test_a_helpers_change_changes_the_fingerprint(package: Path, name: str) -> None:
    before = source_fingerprint(lamps().Lamp())
    assert source_fingerprint(lamps().Lamp()) == before
    file = package / f"{name}.py"
    file.write_text(file.read_text() + "\nEDITED = True\n")
    assert source_fingerprint(lamps().Lamp()) != before


@pytest.mark.parametrize("name", ["other", "typing_only"])
def test_what_is_not_imported_changes_nothing(package: Path, name: str) -> None:
    before = source_fingerprint(lamps().Lamp())
    (package / f"{name}.py").write_text("EDITED = True\n")
    assert source_fingerprint(lamps().Lamp()) == before


def test_arguments_count_and_containers_are_looked_into(package: Path) -> None:
    lamp = lamps().Lamp()
    alone = source_fingerprint(lamp)
    assert source_fingerprint([lamp]) == source_fingerprint({"a": (lamp,)}) == source_fingerprint(lamp, 1, "x") == alone
    assert source_fingerprint(lamp, UniformDigits()) not in (alone, source_fingerprint(UniformDigits()))


def test_what_features_depend_on() -> None:
    found = _with_imports({DenseCounts.__module__})
    assert {"ms2.features.dense", "ms2.features.base", "ms2.scene.batch"} <= found
    assert not {name for name in found if name.startswith(("ms2.cli", "ms2.learning", "ms2.report", "ms2.worlds"))}
    assert all(name.startswith("ms2.") and not name.startswith("ms2.core.errors") for name in found)


def test_what_an_objective_depends_on_is_not_what_features_do() -> None:
    assert source_fingerprint(KDE(1.0)) == source_fingerprint(KDE(2.0))
    assert not {name for name in _with_imports({KDE.__module__}) if name.startswith(("ms2.render", "ms2.worlds"))}


def test_a_class_without_a_file_is_told_by_its_module(package: Path) -> None:
    cls = lamps().Lamp
    home = type("Home", (cls,), {"__module__": "__notebook__"})
    assert source_fingerprint(home()) != source_fingerprint(cls())
