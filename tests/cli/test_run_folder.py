"""Whose folder a run's is: settings decide, nothing is overwritten, and only one process writes at a time."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ms2.cli.lock import LOCK_NAME, Lock, LockedError, process_start
from ms2.cli.run_folder import Identity, RunFolder
from ms2.core.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs", "first")


A, B, C = (Identity(name) for name in "abc")


def test_a_new_folder_is_made_with_the_configuration_and_a_note(folder: RunFolder) -> None:
    assert folder.identity is None and not folder.finished
    assert folder.claim(A, "name: first\n", measured_with="evaluation") == ""
    assert (folder.path / "config.yaml").read_text() == "name: first\n"
    assert folder.identity == A and folder.measured_with == "evaluation" and not folder.finished
    folder.finish()
    assert folder.finished and folder.identity == A and folder.measured_with == "evaluation"


def test_equal_settings_go_on_in_the_same_folder(folder: RunFolder) -> None:
    folder.claim(A, "name: first\n")
    folder.finish()
    assert folder.claim(A, "wandb: disabled\n") == ""
    assert (folder.path / "config.yaml").read_text() == "wandb: disabled\n"
    assert folder.finished and not folder.path.with_name("first.1").exists()


def test_an_earlier_run_with_other_settings_is_renamed(folder: RunFolder) -> None:
    for number, identity in enumerate((A, B, C)):
        message = folder.claim(identity, f"fingerprint: {identity.settings}\n")
        kept = folder.path.with_name(f"first.{number}")
        assert message == (f"an earlier run called first is kept as {kept}: it had other settings" if number else "")
    assert [
        (folder.path.with_name(name) / "config.yaml").read_text()[-2] for name in ("first.1", "first.2", "first")
    ] == [
        "a",
        "b",
        "c",
    ]


def test_an_earlier_run_of_other_code_is_renamed(folder: RunFolder) -> None:
    folder.claim(Identity("a", "then"), "")
    assert folder.claim(Identity("a", "now"), "").endswith("first.1: its code has been changed since")
    assert folder.identity == Identity("a", "now")


def test_a_fresh_run_keeps_the_earlier_one_too(folder: RunFolder) -> None:
    folder.claim(A, "")
    folder.finish()
    assert folder.claim(A, "", fresh=True) == f"an earlier run called first is kept as {folder.path}.1"
    assert not folder.finished


def test_a_checkpoint_of_the_folder_itself_goes_on_there_whatever_has_changed(
    folder: RunFolder, tmp_path: Path
) -> None:
    folder.claim(A, "")
    folder.finish()
    assert folder.claim(B, "", checkpoint=folder.last_checkpoint) == ""
    assert folder.identity == B and not folder.finished
    assert folder.claim(C, "", checkpoint=tmp_path / "elsewhere.ckpt").endswith("it had other settings")


def test_a_folder_that_cannot_be_made_is_a_readable_error(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "runs").touch()

    def lock() -> None:
        with folder.locked():
            pass

    for create in (lock, lambda: folder.claim(A, "")):
        with pytest.raises(UserError, match=r"can't write to the folder of the run, .*first: .*Give another one with"):
            create()


def test_a_missing_checkpoint_is_named(folder: RunFolder) -> None:
    with pytest.raises(UserError, match=r"there is no checkpoint .*last.ckpt: run 'ms2 fit'"):
        folder.checkpoint()
    folder.checkpoints.mkdir(parents=True)
    folder.last_checkpoint.touch()
    assert folder.checkpoint() == folder.last_checkpoint


@pytest.mark.parametrize("content", ["", '{"settings": "a"', "[]", "\0", "3"])
def test_a_broken_note_is_named(folder: RunFolder, content: str) -> None:
    folder.claim(A, "")
    (folder.path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json.*give another --name, or move .*first away"):
        folder.claim(A, "")


# --- names ---


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../up", "a/b", "/tmp/a", "a/", "cache", "a\0b", "a\\b", "~", "~me", "$HOME", "a\n"]
)
def test_a_name_that_is_none_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="name"):
        RunFolder(tmp_path, name)


@pytest.mark.parametrize("name", ["first", "a.b", "first run", "größer", "-", "..."])
def test_other_names_are_names(tmp_path: Path, name: str) -> None:
    assert RunFolder(tmp_path, name).path == tmp_path / name


def test_a_name_that_is_too_long_is_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long"):
        RunFolder(tmp_path, "a" * 300).claim(A, "")


def test_a_folder_of_something_else_is_left_alone(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "thesis.tex").write_text("a year's work")
    with pytest.raises(UserError, match=r"first is not the folder of a run, and holds thesis\.tex"):
        folder.claim(A, "", fresh=True)
    assert [path.name for path in folder.path.iterdir()] == ["thesis.tex"]


# --- results beside those of the run ---


def test_results_of_other_settings_go_beside(folder: RunFolder) -> None:
    last, other = folder.last_checkpoint, folder.checkpoints / "step50.ckpt"
    assert folder.results_folder("target", other) == folder.path  # no run is there
    folder.claim(A, "", measured_with="target")
    assert folder.results_folder("target", last) == folder.path
    beside = {folder.results_folder("another", last), folder.results_folder("target", other)}
    assert len(beside) == 2 and all(path.parent == folder.path and path.name.startswith("test_") for path in beside)
    assert folder.results_folder("another", last) in beside


# --- one process at a time ---


def holder(**changes: Any) -> str:
    """A lock's content, of this process save for some changes."""
    own = {"pid": os.getpid(), "host": socket.gethostname(), "process_started": process_start(os.getpid())}
    return json.dumps({**own, "since": "2026-01-01 12:00:00", **changes})


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_has_one_owner(folder: RunFolder) -> None:
    with folder.locked():
        folder.claim(A, "")
        said = rf"first is under way: process {os.getpid()} on .*, since .*Give this run another --name"
        with pytest.raises(LockedError, match=said), RunFolder(folder.path.parent, "first").locked():
            pass
        assert (folder.path / LOCK_NAME).exists()
    assert not (folder.path / LOCK_NAME).exists()
    with folder.locked():
        pass


def test_a_folder_that_is_renamed_keeps_its_owner(folder: RunFolder) -> None:
    folder.claim(A, "")
    with folder.locked():
        folder.claim(B, "")
        with pytest.raises(LockedError), RunFolder(folder.path.parent, "first").locked():
            pass
        assert not (folder.path.with_name("first.1") / LOCK_NAME).exists()
    assert not (folder.path / LOCK_NAME).exists()


def test_an_error_gives_the_folder_back_and_leaves_no_empty_one(folder: RunFolder) -> None:
    with pytest.raises(KeyboardInterrupt), folder.locked():
        raise KeyboardInterrupt
    assert not folder.path.exists()


@pytest.mark.parametrize("pid", [None, 0, -1, 2**40])
def test_a_process_that_is_gone_owns_nothing(folder: RunFolder, pid: int | None) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / LOCK_NAME).write_text(holder(pid=ended() if pid is None else pid))
    with folder.locked():
        assert json.loads((folder.path / LOCK_NAME).read_text())["pid"] == os.getpid()


@pytest.mark.skipif(process_start(os.getpid()) is None, reason="needs a system that tells when a process started")
def test_another_process_with_the_same_number_owns_nothing(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / LOCK_NAME).write_text(holder(process_started="1"))
    with folder.locked():
        pass


def test_another_hosts_process_is_respected(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    lock = folder.path / LOCK_NAME
    lock.write_text(holder(host="elsewhere", pid=ended()))
    with pytest.raises(LockedError, match=rf"on elsewhere, since .*If that process is gone, delete {lock} and"):
        Lock(folder.path)
    assert lock.exists()


def test_a_lock_that_leads_nowhere_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ms2.cli.lock.MAX_TRIES", 3)
    folder.path.mkdir(parents=True)
    (folder.path / LOCK_NAME).symlink_to("nowhere")
    with pytest.raises(LockedError, match=r"lock can't be taken: delete it if no run is under way"):
        Lock(folder.path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "host": "y"}', "null"])
def test_half_a_lock_is_that_of_a_process_that_ended_while_it_wrote(folder: RunFolder, content: str) -> None:
    folder.path.mkdir(parents=True)
    lock = folder.path / LOCK_NAME
    lock.write_text(content)
    os.utime(lock, (time.time() - 60,) * 2)
    with folder.locked():
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert list(folder.path.parent.iterdir()) == []
