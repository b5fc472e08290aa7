"""Text files are read and written as UTF-8, whatever the locale is."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CALLS = {"read_text": 0, "write_text": 1, "open": 1}
"""Functions that decode or encode text by the locale unless told, with the position of what tells them the mode."""

SUBPROCESS = {"run", "Popen", "check_output", "check_call"}


def without_encoding(source: str) -> Iterator[int]:
    """Lines of calls that read or write text without saying how it is encoded."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        keywords = {word.arg: word.value for word in node.keywords}
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if isinstance(node.func, ast.Name) and name != "open":
            continue  # functions of ms2.core.files, which say so themselves
        of = ast.unparse(node.func).partition(".")[0]
        if name in CALLS and of not in ("Image", "tarfile", "os", "zipfile", "gzip"):
            mode = [*node.args, keywords.get("mode")] if name == "open" else []
            binary = any(isinstance(m, ast.Constant) and m.value in ("rb", "wb", "ab", "r+b") for m in mode)
            positional = name == "read_text" and node.args
            if "encoding" not in keywords and not binary and not positional:
                yield node.lineno
        elif name in SUBPROCESS and "encoding" not in keywords and {"text", "universal_newlines"} & set(keywords):
            yield node.lineno


def test_calls_without_an_encoding_are_found() -> None:
    bad = ["p.read_text()", "open('x')", "p.open()", "open('x', 'w')", "p.write_text('a')", "os.run(c, text=True)"]
    good = ["p.read_text(encoding='utf-8')", "open('x', 'rb')", "Image.open(p)", "p.open('wb')", "write_text(p, 'a')"]
    assert all(list(without_encoding(line)) == [1] for line in bad)
    assert all(list(without_encoding(line)) == [] for line in good)


@pytest.mark.parametrize("folder", ["src", "benchmarks", "experiments", "examples"])
def test_every_text_has_an_encoding(folder: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / folder).rglob("*.py")
        for line in without_encoding(path.read_text(encoding="utf-8"))
    }
    assert not found


def test_the_locale_c_prints_and_reads_what_is_not_ascii(tmp_path: Path) -> None:
    (tmp_path / "world.txt").write_text("Scene -> größe Scene | ε\n", encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "ms2", "lint", str(tmp_path / "world.txt")]
    said = subprocess.run(words, capture_output=True, env=environment, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    assert "gr\\xf6\\xdfe Scene" in said.stdout.decode("ascii")
