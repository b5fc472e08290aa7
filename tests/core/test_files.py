"""Tests of atomic file writes, hashes, and expansion of paths that users type."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from ms2.core.errors import UserError
from ms2.core.files import (
    atomic_path,
    read_cached,
    read_json,
    read_tensors,
    read_text,
    reading,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)
from ms2.core.hashing import digest, sha256


def test_a_file_is_replaced_in_one_piece(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with atomic_path(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(file) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_missing_or_a_file_is_the_systems_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "a.txt", "")
    with pytest.raises(NotADirectoryError):
        write_bytes(tmp_path / "file" / "a.txt", b"")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_bytes(tmp_path / "bytes", b"\x00\xff")
    write_text(tmp_path / "text", "εé")
    write_json(tmp_path / "json", {"a": [1, None]})
    write_tensors(tmp_path / "new" / "tensors.pt", {"a": torch.arange(3), "b": 1.5})
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert (tmp_path / "text").read_text(encoding="utf-8") == "εé"
    assert json.loads((tmp_path / "json").read_text()) == {"a": [1, None]}
    found = torch.load(tmp_path / "new" / "tensors.pt", weights_only=True)
    assert found["a"].tolist() == [0, 1, 2] and found["b"] == 1.5
    assert len(list(tmp_path.rglob("*"))) == 5


def test_half_a_character_is_an_error_or_replaced(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "text", "a\ud83d")
    assert not list(tmp_path.iterdir())
    write_text(tmp_path / "text", "a\ud83d", errors="replace")
    assert (tmp_path / "text").read_text() == "a?"


def test_hashes_are_those_of_the_standard_library() -> None:
    assert digest("é") == hashlib.blake2b("é".encode(), digest_size=8).hexdigest()
    assert digest(b"ab", 16) == hashlib.blake2b(b"ab", digest_size=16).hexdigest() == digest(iter(["a", b"b"]), 16)
    assert sha256("ab") == hashlib.sha256(b"ab").hexdigest() == sha256([b"a", "b"])
    assert digest("a") != digest("b") and digest([]) == digest("")


# --- what was written is read again ---

BROKEN = [b"", b"\0", b"no JSON", b'{"a": 1', b"PK\x03\x04 half", bytes(range(256)), b"[" * 100_000]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"file: this is not JSON .*\. It was cut off or edited; make it again"):
        read_json(path, "make it again")
    with (
        pytest.raises(UserError, match=r"file can't be read as a result \(\w+\): make it again") as found,
        reading(path, "a result", "make it again"),
    ):
        read_tensors(path)
    assert "weights_only" not in str(found.value)


def test_a_file_that_is_missing_or_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none: there is no such file; make it again"):
        read_json(tmp_path / "none", "make it again")
    with pytest.raises(UserError, match=r"can't be read \(Is a directory\); run the command that wrote it again"):
        read_text(tmp_path)
    (tmp_path / "list").write_text("[1]")
    assert read_json(tmp_path / "list", kind=list) == [1]
    with pytest.raises(UserError, match="holds a list, where an object was expected"):
        read_json(tmp_path / "list")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"x": Path("anything")}, tmp_path / "file")  # a pickled object, which could be any
    with pytest.raises(UserError, match=r"can't be read as a result"), reading(tmp_path / "file", "a result"):
        read_tensors(tmp_path / "file")


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_cache_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    assert read_cached(path, dict) is None
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"file can't be read as a cached result \(\w+\); it is made anew"):
        assert read_cached(path, dict) is None
    write_tensors(path, {"a": 1})
    assert read_cached(path, dict) == {"a": 1}
    with pytest.warns(UserWarning, match=r"\(KeyError\); it is made anew"):
        assert read_cached(path, lambda saved: saved["b"]) is None
