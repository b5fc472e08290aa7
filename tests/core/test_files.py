"""Tests of atomic file writes, hashes, and expansion of paths that users type."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from ms2.core.errors import UserError
from ms2.core.files import atomic_path, expand_path, write_bytes, write_json, write_tensors, write_text
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


def test_a_path_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert expand_path("$HERE/a") == expand_path("${HERE}/a") == tmp_path / "a"
    assert expand_path("~/a") == tmp_path / "home" / "a"
    monkeypatch.delenv("HERE")
    with pytest.raises(UserError, match=r"needs the environment variable HERE, which is not set. Try: export HERE="):
        expand_path("$HERE/a")
