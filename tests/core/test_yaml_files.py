"""YAML: keys given twice, bounds on what a text expands to, and values that YAML does not allow."""

import re
import time
from typing import Any

import pytest
import yaml

from ms2.core.errors import UserError
from ms2.core.yaml_files import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, load_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("a: 3e-3", {"a": 0.003}),
        ("a: &x {p: 1}\nb: *x", {"a": {"p": 1}, "b": {"p": 1}}),
        ("x: &a {q: 1}\ny: {<<: *a, r: 2}\nz: {<<: *a, q: 3}", {"x": {"q": 1}, "y": {"q": 1, "r": 2}, "z": {"q": 3}}),
        ("1: a\n'1': b", {1: "a", "1": "b"}),
        ("a: {b: 1}\nc: {b: 2}", {"a": {"b": 1}, "c": {"b": 2}}),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
    ],
)  # fmt: skip
def test_a_text_is_parsed(text: str, expected: Any) -> None:
    assert load_yaml(text) == expected or expected is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3 gives the key 'a' again, given in line 1"),
        ("a:\n  b: 1\n  c: 2\n  'b': 3", "line 4 gives the key 'b' again, given in line 2"),
        ("{a: 1, a: 1}", "line 1 gives the key 'a' again"),
        ("- {a: 1}\n- {c: {x: 1, y: 2, x: 3}}", "line 2 gives the key 'x' again"),
        ("&k a: 1\nb: 2\n3: 4\n3: 5", "line 4 gives the key '3' again"),
    ],
)
def test_a_key_is_given_once(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_yaml(text)


def bomb(levels: int, kind: str = "[{}]") -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, levels):
        aliases = ", ".join(f"k{j}: *a{i - 1}" if kind == "{{{}}}" else f"*a{i - 1}" for j in range(9))
        lines.append(f"a{i}: &a{i} {kind.format(aliases)}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), f"has more than {MAX_NODES:,} values, aliases filled in"),
        (bomb(9, "{{{}}}"), f"has more than {MAX_NODES:,} values"),
        ("a: &a [b, *a]", "the alias *a contains itself"),
        ("a: &a {b: {c: *a}}", "the alias *a contains itself"),
        ("[" * 3000 + "]" * 3000, f"more than {MAX_DEPTH} collections within each other"),
        ("- " * 300 + "a", f"more than {MAX_DEPTH} collections within each other"),
        ("{a: " * 300, f"more than {MAX_DEPTH} collections within each other"),
        ("x" * (MAX_CHARACTERS + 1), f"has {MAX_CHARACTERS + 1:,} characters"),
        ("a: 2020-13-45", "month must be in 1..12"),
        ("a: !!int x", "a value that YAML does not allow"),
        ("a: !!timestamp x", "a value that YAML does not allow"),
    ],
    ids=lambda text: text[:20],
)
def test_what_a_text_expands_to_is_bounded(text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(UserError, match=re.escape(message)):
        load_yaml(text)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", ["a: [1", "a: *b", "? [a]\n: 1", "a: !!python/name:os.system ''", "\0"])
def test_what_is_no_yaml_is_an_error_of_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
