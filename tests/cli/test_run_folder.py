"""Whose folder a run's is: settings decide, and nothing is overwritten."""

from pathlib import Path

import pytest

from ms2.cli.run_folder import RunFolder
from ms2.core.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs", "first")


def test_a_new_folder_is_made_with_the_configuration_and_a_note(folder: RunFolder) -> None:
    assert folder.fingerprint is None and not folder.finished
    assert folder.claim("a", "name: first\n") == ""
    assert (folder.path / "config.yaml").read_text() == "name: first\n"
    assert folder.fingerprint == "a" and not folder.finished
    folder.write_status("a", finished=True)
    assert folder.finished


def test_equal_settings_go_on_in_the_same_folder(folder: RunFolder) -> None:
    folder.claim("a", "name: first\n")
    folder.write_status("a", finished=True)
    assert folder.claim("a", "wandb: disabled\n") == ""
    assert (folder.path / "config.yaml").read_text() == "wandb: disabled\n"
    assert folder.finished and not folder.path.with_name("first.1").exists()


def test_an_earlier_run_with_other_settings_is_renamed(folder: RunFolder) -> None:
    for number, fingerprint in enumerate("abc"):
        message = folder.claim(fingerprint, f"fingerprint: {fingerprint}\n")
        kept = folder.path.with_name(f"first.{number}")
        assert message == (f"an earlier run called first is kept as {kept}: it had other settings" if number else "")
    assert [
        (folder.path.with_name(name) / "config.yaml").read_text()[-2] for name in ("first.1", "first.2", "first")
    ] == [
        "a",
        "b",
        "c",
    ]


def test_a_fresh_run_keeps_the_earlier_one_too(folder: RunFolder) -> None:
    folder.claim("a", "")
    assert folder.claim("a", "", fresh=True) == f"an earlier run called first is kept as {folder.path}.1"


def test_a_checkpoint_of_the_folder_itself_goes_on_there_whatever_has_changed(
    folder: RunFolder, tmp_path: Path
) -> None:
    folder.claim("a", "")
    folder.write_status("a", finished=True)
    assert folder.claim("b", "", checkpoint=folder.last_checkpoint) == ""
    assert folder.fingerprint == "b" and not folder.finished
    assert folder.claim("c", "", checkpoint=tmp_path / "elsewhere.ckpt").endswith("it had other settings")


def test_a_folder_that_cannot_be_made_is_a_readable_error(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    for create in (folder.make, lambda: folder.claim("a", "")):
        with pytest.raises(UserError, match=r"can't write to the folder of the run, .*first: .*Give another one with"):
            create()


def test_a_missing_checkpoint_is_named(folder: RunFolder) -> None:
    with pytest.raises(UserError, match=r"there is no checkpoint .*last.ckpt: run 'ms2 fit'"):
        folder.checkpoint()
    folder.checkpoints.mkdir(parents=True)
    folder.last_checkpoint.touch()
    assert folder.checkpoint() == folder.last_checkpoint
