"""Imports point down: a unit of `ms2` imports only from the layers below its own, and siblings not at all.

A unit is a module or a package that stands directly under `src/ms2`. Its inner imports are its own business.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "ms2"

LAYERS = [  # from the ground up
    {"__init__"},  # runs before every unit, so it must not pull any of them in
    {"core"},
    {"grammar", "objectives"},
    {"scene"},
    {"metrics", "priors", "render"},
    {"features", "world", "worlds"},
    {"contracts", "models"},
    {"datasets", "gradients"},
    {"report", "targets"},
    {"evaluation", "learning"},
    {"cli"},
    {"__main__"},
]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}

LIGHTNING = {"lightning", "lightning_fabric", "pytorch_lightning"}
KNOW_LIGHTNING = ("cli/", "learning/", "evaluation/callbacks.py", "evaluation/writers.py", "evaluation/detectors/")


def imported_names(file: Path, src: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and dotted name of all that a file imports, also inside functions; relative names made absolute.

    The package's own __init__ names all that is public for type checkers, which imports nothing when it runs.
    """
    package = ["ms2", *file.relative_to(src).parent.parts]
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    if file == src / "__init__.py":
        typing_only = [
            node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ]
        tree.body = [node for node in tree.body if node not in typing_only]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = base + (node.module.split(".") if node.module else [])
            for name in [module] if len(module) > 1 else [[*module, alias.name] for alias in node.names]:
                yield node.lineno, name


def violations(src: Path) -> Iterator[str]:
    """What is wrong with the imports of the package in the folder `src`, a sentence for each."""
    for file in sorted(src.rglob("*.py")):
        place = file.relative_to(src)
        unit = place.with_suffix("").parts[0]
        if unit not in LEVEL:
            yield f"{place}: {unit!r} has no layer yet; add it to LAYERS in tests/test_layers.py"
            continue
        for line, (root, *inner) in imported_names(file, src):
            target = inner[0] if inner else "__init__"
            if root in LIGHTNING and not place.as_posix().startswith(KNOW_LIGHTNING):
                module = ".".join(place.with_suffix("").parts)
                yield f"{place}:{line}: {module!r} must not know Lightning"
            if root == "ms2" and target in LEVEL and target != unit and LEVEL[target] >= LEVEL[unit]:
                relation = "a sibling" if LEVEL[target] == LEVEL[unit] else "from a layer above"
                yield f"{place}:{line}: {unit!r} must not import {target!r}, {relation}"


def test_imports_point_down():
    found = list(violations(SRC))
    assert not found, "\n" + "\n".join(found)


def written(folder: Path, files: dict[str, str]) -> Path:
    """The folder, with these files in it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("scene.py", "import ms2.learning", "scene.py:1: 'scene' must not import 'learning', from a layer above"),
        (
            "scene.py",
            "\nfrom ms2.learning import A, B",
            "scene.py:2: 'scene' must not import 'learning', from a layer above",
        ),
        ("scene.py", "from ms2 import learning", "scene.py:1: 'scene' must not import 'learning', from a layer above"),
        ("scene.py", "from . import learning", "scene.py:1: 'scene' must not import 'learning', from a layer above"),
        ("scene.py", "def f():\n    import ms2.cli", "scene.py:2: 'scene' must not import 'cli', from a layer above"),
        ("render/a.py", "from .. import priors", "render/a.py:1: 'render' must not import 'priors', a sibling"),
        ("__init__.py", "import ms2.scene", "__init__.py:1: '__init__' must not import 'scene', from a layer above"),
        ("world.py", "from pytorch_lightning import Trainer", "world.py:1: 'world' must not know Lightning"),
        (
            "evaluation/plots.py",
            "import pytorch_lightning",
            "evaluation/plots.py:1: 'evaluation.plots' must not know Lightning",
        ),
        ("gizmo.py", "", "gizmo.py: 'gizmo' has no layer yet; add it to LAYERS in tests/test_layers.py"),
        ("gizmo/a.py", "", "gizmo/a.py: 'gizmo' has no layer yet; add it to LAYERS in tests/test_layers.py"),
    ],
)
def test_a_violation_is_named(tmp_path, name, text, complaint):
    assert list(violations(written(tmp_path, {name: text}))) == [complaint]


def test_imports_that_point_down_pass(tmp_path):
    files = {
        "__init__.py": '"""A package."""',
        "features/__init__.py": "from .resnet import ResNet",
        "features/resnet.py": "import torch\nfrom ms2.scene import Scenes\nfrom ..grammar import Grammar",
        "learning/structure.py": "import pytorch_lightning as pl\nfrom ms2 import __version__, features",
        "evaluation/callbacks.py": "from pytorch_lightning import Callback",
        "evaluation/detectors/detector.py": "from pytorch_lightning import LightningModule",
        "__main__.py": "from ms2.cli import main",
    }
    assert list(violations(written(tmp_path, files))) == []
