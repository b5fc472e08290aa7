"""A run that was interrupted goes on as if it had not been; a run's folder belongs to one set of settings."""

import csv
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, abacus, command, fit, images, last, learner, metrics_of, ms2, results_of, start
from PIL import Image
from torch import Tensor

from ms2.cli import plugins
from ms2.cli.fit import CLI
from ms2.cli.run import run_identity
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
    assert process.exitcode == (-number if number == signal.SIGKILL else 128 + number)


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
def test_a_stage_that_was_interrupted_goes_on_bitwise_the_same(
    runs: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path, name="run", **(SETTINGS | {"checkpoint_every": 1}))
    interrupt(words, Pretraining, 3, getattr(signal, name))
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").glob("*.pt")] == ["ExtractorTraining"]
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").glob("*.ckpt")] == ["Pretraining"]
    assert not (tmp_path / "run" / "lock").exists()
    ms2(words)
    assert "Pretraining: resuming after step " in capsys.readouterr().out
    assert not list((tmp_path / "cache").glob("*.ckpt"))
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
    assert files(mine) == before


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


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is refused says."""
    with pytest.raises(SystemExit, match="2"):
        ms2(words)
    return capsys.readouterr().err


def test_a_run_that_is_under_way_is_left_alone(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "lock").write_text(json.dumps({"pid": os.getppid(), "host": socket.gethostname()}))
    before = files(mine)
    words = command(mine.parent, name="whole", model__structure_learner__lr=1e-3, **SETTINGS)
    assert f"the run in {mine} is under way: process {os.getppid()} on " in refused(words, capsys)
    assert files(mine) == before and not mine.with_name("whole.1").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model__structure_learner__objective__init_args__blocks": "[colour]"}, "no block 'colour'"),
        ({"model__structure_learner__credit_assignment": "{colour: [Digits]}"}, "names the block 'colour'"),
        ({"trainer__accumulate_grad_batches": 2}, "accumulate_grad_batches must be 1"),
        ({"trainer__gradient_clip_val": 1}, "max_grad_norm instead"),
        ({"trainer__max_steps": 0}, "nothing would be learned"),
        ({"trainer__max_steps": 3, "trainer__min_steps": 4}, "trainer.min_steps is 4, but trainer.max_steps 3"),
        ({"trainer__precision": 64}, "trainer.precision is 64-true, but images are 32 bits wide"),
        ({"trainer__devices": 3, "trainer__strategy": "ddp"}, "batch_size is 16, which 3 processes can't share"),
        ({"model__structure__init_args__t_max": 7}, "raise model.structure.t_max"),
        ({"model__structure__init_args__max_length": "{Digits: 0}"}, "model.structure.max_length"),
        ({"name": ".."}, "is not the name of a folder"),
        ({"ckpt_path": __file__}, "can't be read as"),
        ({"evaluation__statistics": "[{class_path: ObjectCount, init_args: {classes: car}}]"}, "the class 'car'"),
        ({"ckpt_path": "none.ckpt"}, "there is no checkpoint none.ckpt"),
    ],
    ids=str,
)
def test_a_start_that_fails_leaves_nothing(
    tmp_path: Path, changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be known is refused before the first stage."""
    assert said in refused(command(tmp_path / "runs", **({"name": "new"} | SETTINGS | changed)), capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("key", ["name", "trainer"])
def test_a_key_without_a_value_is_named(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: multimnist_quick\n{key}:\n")
    assert f"{key} has no value" in refused(["fit", "--config", str(tmp_path / "mine.yaml")], capsys)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dry_run", ["test", "--dry_run", "true"]),
        ("stage", ["predict", "--stage=all"]),
        ("fresh", ["validate", "--fresh=true"]),
    ],
)
def test_options_of_training_are_those_of_fit(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{name} belongs to 'ms2 fit'" in refused([*words, "--config", "multimnist_quick"], capsys)


def test_trying_a_run_leaves_nothing(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also on top of one that was interrupted, which then goes on."""
    status = mine / "run.json"
    status.write_text(status.read_text().replace('"finished": true', '"finished": false'))
    before = files(mine.parent)
    ms2(command(mine.parent, name="whole", trainer__fast_dev_run="true", **SETTINGS))
    assert "all parts of the run work; nothing is kept of it" in capsys.readouterr().out
    assert files(mine.parent) == before


def test_a_dry_run_says_what_would_run(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(mine.parent)
    ms2(command(mine.parent, name="whole", dry_run="true", **SETTINGS))
    out, sheet = capsys.readouterr().out, mine.with_name("whole_dry_run.png")
    assert out.startswith("ready; ") and "learning: nothing, this run is finished" in out and str(sheet) in out
    changed: dict[str, Any] = {"extractor__lr": 1e-3, "model__structure_learner__lr": 1e-3}
    ms2(command(mine.parent, name="whole", dry_run="true", **(SETTINGS | changed)))
    out = capsys.readouterr().out
    assert "whole is kept under another name: it had other settings" in out
    assert "extractor: 2 steps" in out and "pretraining: done before, taken from" in out and "learning: 12 steps" in out
    with Image.open(sheet) as image:
        assert image.width == 1400
    sheet.unlink()
    assert files(mine.parent) == before


def test_a_run_that_was_stopped_early_is_not_finished(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "cache", tmp_path / "cache")
    ms2(command(tmp_path, name="run", trainer__max_time="00:00:00:00", **SETTINGS))
    assert not json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
    assert last(tmp_path / "run")["global_step"] < STEPS
    ms2(command(tmp_path, name="run", **SETTINGS))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
    same(tmp_path / "run", runs / "whole")


def test_other_results_go_beside_those_of_the_run(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(mine)
    words = ["test", *command(mine.parent, name="whole", data__target__init_args__num_images=30, **SETTINGS)[1:]]
    ms2(words)
    (beside,) = mine.glob("test_*")
    assert f"its results stay: see {beside}" in capsys.readouterr().out
    after = {name: content for name, content in files(mine).items() if not name.startswith(("test_", "csv"))}
    assert after == {name: content for name, content in before.items() if not name.startswith("csv")}
    assert results_of(beside).measured_with.fingerprint != results_of(mine).measured_with.fingerprint
    (mine / "metrics.json").write_text("{")
    ms2(["test", *command(mine.parent, name="whole", **SETTINGS)[1:]])
    assert metrics_of(mine) != {} and len(list(mine.glob("test_*"))) == 1


@pytest.mark.parametrize("given", ["true", "false"])
def test_a_seed_that_is_drawn_is_recorded(tmp_path: Path, given: str) -> None:
    plugins.load()
    words = command(tmp_path, seed_everything=given, **SETTINGS)[1:]
    seeds = set()
    for _ in range(2):
        cli = CLI(words, run=False)
        seed = cli.config.seed_everything
        assert type(seed) is int and {cli.model.seed, cli.datamodule.seed, cli.config.extractor.seed} == {seed}
        seeds.add(seed)
    assert len(seeds) == 2


TRAINER = {"max_steps": 12, "precision": None}


@pytest.mark.parametrize(
    "changed",
    [
        {"max_steps": 13},
        {"max_epochs": 2},
        {"precision": "bf16-mixed"},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.1},
        {"deterministic": True},
        {"limit_train_batches": 3},
        {"overfit_batches": 2},
        {"sync_batchnorm": True},
    ],
    ids=str,
)
def test_what_the_trainer_learns_is_part_of_a_runs_identity(changed: dict[str, Any]) -> None:
    model, data = learner(abacus()), images(abacus())
    one = run_identity(TRAINER, model, data, [])
    assert run_identity(TRAINER | changed, model, data, []).difference(one) == "it had other settings"


def test_where_it_runs_and_what_is_shown_is_not() -> None:
    model = learner(abacus())
    one = run_identity(TRAINER, model, images(abacus()), [])
    elsewhere = {
        "accelerator": "gpu", "devices": 2, "num_nodes": 3, "strategy": "ddp", "logger": True, "profiler": "simple",
        "enable_progress_bar": False, "log_every_n_steps": 1, "val_check_interval": 5, "default_root_dir": "there",
        "max_time": "00:01:00:00", "num_sanity_val_steps": 2, "limit_val_batches": 0, "max_epochs": None,
    }  # fmt: skip
    assert run_identity(TRAINER | elsewhere, model, images(abacus(), num_workers=2), []) == one
    assert run_identity(TRAINER, model, images(abacus(), batch_size=8), []) != one
    assert one.code and one._replace(code="of then").difference(one) == "its code has been changed since"


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
