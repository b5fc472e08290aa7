"""A stranger reads a file, a class and a function on few screens: how long each may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "ms2"
MAX_ENTRIES = 20
MAX_LINES = {"file": 400, "class": 250, "function": 60}
EXEMPT = ("worlds/", "render/engines/warp/")
"""Meshes and layouts of a world are lists of measures, and Warp compiles a kernel from one function."""


def too_long(src: Path) -> Iterator[str]:
    """A sentence for each file, class and function that exceeds its limit."""
    for file in sorted(src.rglob("*.py")):
        place = file.relative_to(src).as_posix()
        if place.startswith(EXEMPT):
            continue
        text = file.read_text(encoding="utf-8")
        sizes = [("file", place, len(text.splitlines()))]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                sizes.append((kind, f"{place}: {node.name}", (node.end_lineno or 0) - node.lineno + 1))
        for kind, name, lines in sizes:
            if lines > MAX_LINES[kind]:
                yield f"{name} has {lines} lines; a {kind} may have {MAX_LINES[kind]}"


def test_nothing_is_too_long() -> None:
    found = list(too_long(SRC))
    assert not found, "\n" + "\n".join(found)


def test_the_listing_is_short() -> None:
    entries = {path.name for path in SRC.iterdir() if not path.name.startswith("__") and path.name != "py.typed"}
    assert len(entries | {"configs"}) <= MAX_ENTRIES, sorted(entries)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.py", "x = 1\n" * 401, "a.py has 401 lines; a file may have 400"),
        ("a.py", "class A:\n" + "    x = 1\n" * 250, "a.py: A has 251 lines; a class may have 250"),
        ("a/b.py", "def f():\n" + "    x = 1\n" * 60, "a/b.py: f has 61 lines; a function may have 60"),
    ],
)
def test_what_is_too_long_is_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert list(too_long(tmp_path)) == [complaint]


def test_worlds_and_kernels_are_exempt(tmp_path: Path) -> None:
    for place in EXEMPT:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.py").write_text("x = 1\n" * 500)
    assert not list(too_long(tmp_path))
