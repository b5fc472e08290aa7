"""A run that was interrupted goes on as if it had not been; a run's folder belongs to one set of settings."""

import csv
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, command, fit, last, metrics_of, ms2, start
from torch import Tensor

from ms2.learning.metasim2 import MetaSim2
from ms2.learning.pretraining import Pretraining

pytestmark = EXPECTED
STEPS = 12
SETTINGS: dict[str, Any] = {"checkpoint_every": 5, "trainer__max_steps": STEPS, "trainer__val_check_interval": 6}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run ``whole``, which nothing has interrupted."""
    folder = tmp_path_factory.mktemp("runs")
    fit(folder, "whole", **SETTINGS)
    return folder


def same(ours: Path, theirs: Path) -> None:
    """Bitwise the same weights and optimiser, and the same results."""
    a, b = last(ours), last(theirs)
    assert a["global_step"] == b["global_step"] == STEPS
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, weights in a["state_dict"].items():
        assert torch.equal(weights, b["state_dict"][name]), name
    for i, moments in a["optimizer_states"][0]["state"].items():
        assert all(torch.equal(m, b["optimizer_states"][0]["state"][i][name]) for name, m in moments.items())
    assert metrics_of(ours) == metrics_of(theirs) != {}


# --- interruptions ---


def interrupted(words: list[str], task: type, step: int, number: int) -> None:
    """Give the command, and send this process a signal in the middle of a step."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train: Callable[..., Tensor] = task.training_step  # type: ignore[attr-defined]

    def training_step(self: Any, *args: Any) -> Tensor:
        if self.global_step == step:
            os.kill(os.getpid(), number)
        return train(self, *args)

    task.training_step = training_step  # type: ignore[attr-defined]
    ms2(words)


def interrupt(words: list[str], task: type, step: int, number: int) -> None:
    process = start(interrupted, words, task, step, number)
    process.join(120)
    assert process.exitcode not in (0, None)


@pytest.mark.parametrize("step", [3, 5, STEPS - 1])
def test_a_killed_run_goes_on_bitwise_the_same(runs: Path, step: int, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(runs, name=f"killed{step}", **SETTINGS)
    interrupt(words, MetaSim2, step, signal.SIGKILL)
    run, checkpoint = runs / f"killed{step}", f"checkpoints{os.sep}last.ckpt"
    assert not (run / "metrics.json").exists()
    assert (run / checkpoint).exists() == (step >= 5)
    if step >= 5:
        assert last(run)["global_step"] == step // 5 * 5
    ms2(words)
    assert (f"resuming from {run / checkpoint}" in capsys.readouterr().out) == (step >= 5)
    same(run, runs / "whole")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_that_was_asked_to_stop_goes_on_bitwise_the_same(runs: Path, name: str) -> None:
    """Ctrl-C, and what a cluster sends before it kills."""
    words = command(runs, name=name, **SETTINGS)
    interrupt(words, MetaSim2, 7, getattr(signal, name))
    assert last(runs / name)["global_step"] < STEPS and not (runs / name / "metrics.json").exists()
    ms2(words)
    same(runs / name, runs / "whole")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stage_that_was_interrupted_is_not_taken_for_done(runs: Path, tmp_path: Path, name: str) -> None:
    words = command(tmp_path, name="run", **SETTINGS)
    interrupt(words, Pretraining, 2, getattr(signal, name))
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()] == ["ExtractorTraining"]
    ms2(words)
    same(tmp_path / "run", runs / "whole")


def written_in_place(words: list[str], temporary: str) -> list[str]:
    """Checkpoints that were opened for writing under their own names, as a copy across file systems does."""
    found = []

    def listen(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and str(args[0]).endswith(".ckpt") and args[2] & (os.O_WRONLY | os.O_RDWR):
            found.append(args[0])

    tempfile.tempdir = temporary
    sys.addaudithook(listen)
    ms2(words)
    return found


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_checkpoint_appears_in_one_piece(runs: Path, tmp_path: Path) -> None:
    """Even where temporary files lie on another file system; else a kill may leave half of the only checkpoint."""
    if Path("/dev/shm").stat().st_dev == runs.stat().st_dev:
        pytest.skip("needs a second file system")
    process = start(written_in_place, command(runs, name="pieces", **SETTINGS), "/dev/shm", out=tmp_path / "found.pt")
    process.join(120)
    assert torch.load(tmp_path / "found.pt") == []


# --- whose folder it is ---


@pytest.fixture
def mine(runs: Path, tmp_path: Path) -> Path:
    """A finished run that a test may spoil, with the stages of all."""
    shutil.copytree(runs / "cache", tmp_path / "cache")
    shutil.copytree(runs / "whole", tmp_path / "whole")
    return tmp_path / "whole"


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_a_finished_run_is_left_alone(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(mine)
    ms2(command(mine.parent, name="whole", **SETTINGS))
    assert f"this run is finished, see {mine}; train it again with --fresh true" in capsys.readouterr().out
    after = files(mine)
    assert after.pop("config.yaml") and before.pop("config.yaml")  # it names this test's folder
    assert after == before


def test_other_settings_keep_the_earlier_run_aside(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, aside = files(mine), mine.with_name("whole.1")
    ms2(command(mine.parent, name="whole", model__structure_learner__lr=1e-3, **SETTINGS))
    assert f"an earlier run called whole is kept as {aside}: it had other settings" in capsys.readouterr().out
    assert files(aside) == before
    assert last(mine)["global_step"] == STEPS
    assert any(
        not torch.equal(ours, last(aside)["state_dict"][name]) for name, ours in last(mine)["state_dict"].items()
    )
    ms2(command(mine.parent, name="whole", model__structure_learner__lr=2e-3, stage="pretraining", **SETTINGS))
    assert mine.with_name("whole.2").exists() and files(aside) == before


def test_training_afresh_keeps_the_earlier_run_aside(mine: Path) -> None:
    before = files(mine)
    ms2(command(mine.parent, name="whole", fresh="true", **SETTINGS))
    assert files(mine.with_name("whole.1")) == before
    same(mine, mine.with_name("whole.1"))


def test_what_changes_nothing_that_is_learned_goes_on_in_the_same_folder(mine: Path) -> None:
    changed = {"checkpoint_every": 7, "trainer__log_every_n_steps": 3, "trainer__enable_progress_bar": "false"}
    ms2(command(mine.parent, name="whole", **(SETTINGS | changed)))
    assert not mine.with_name("whole.1").exists()


# --- checkpoints by name ---


@pytest.mark.parametrize("name", ["other", "whole"])
def test_the_typed_learning_rate_wins_over_the_checkpoints(mine: Path, name: str) -> None:
    """Under another name, and under the same one, which then goes on in its folder."""
    learner = {"model__structure_learner__lr": 3e-4, "model__structure_learner__lr_decay": "false"}
    changed: dict[str, Any] = {"trainer__max_steps": STEPS + 4, **learner}
    checkpoint = mine / "checkpoints" / "last.ckpt"
    ms2(command(mine.parent, name=name, ckpt_path=checkpoint, **(SETTINGS | changed)))
    run = mine.with_name(name)
    assert last(run)["global_step"] == STEPS + 4
    assert last(run)["optimizer_states"][0]["param_groups"][0]["lr"] == 3e-4
    with max(run.glob("csv/*/metrics.csv")).open() as table:
        rates = [float(row["train/lr"]) for row in csv.DictReader(table) if row.get("train/lr")]
    assert rates == pytest.approx([3e-4] * 4)


SWAPPED = """\
Scene -> bg Digits
Digits -> ε | Digit Digits
Digit -> 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9"""
"""Rules 1 and 2 the other way round, so that all weights fit."""


def test_a_checkpoint_of_another_grammar_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = runs / "whole" / "checkpoints" / "last.ckpt"
    grammar = {
        "world__grammar": "Grammar",
        "world__grammar__init_args__rules": SWAPPED,
        "world__grammar__init_args__renderable": "['0','1','2','3','4','5','6','7','8','9']",
    }
    with pytest.raises(SystemExit, match="2"):
        ms2(command(runs, name="swapped", ckpt_path=checkpoint, **grammar, **SETTINGS))
    said = capsys.readouterr().err
    theirs, ours = said.split("This world's rules:")
    assert "trained with another grammar. Its rules:" in theirs
    assert theirs.index("Digits -> Digit Digits") < theirs.index("Digits -> ε")
    assert ours.index("Digits -> ε") < ours.index("Digits -> Digit Digits")
