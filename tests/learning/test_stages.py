"""Stages that were done before are loaded from a cache, whose files are written atomically."""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from helpers import EXPECTED, Abacus, stage_trainer, structure
from pytorch_lightning import Trainer
from torch import Tensor, nn

from ms2.core.files import write_tensors
from ms2.learning.pretraining import Pretraining
from ms2.learning.stage import Stage
from ms2.learning.stages import run_stage, stage_files
from ms2.models.networks.base import State
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.render.base import Renderer
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement

pytestmark = EXPECTED


def small(lr: float = 1e-2, renderer: Renderer | None = None) -> Pretraining:
    world = World(MultiMNIST(), UniformDigits(2), UniformPlacement(), renderer or Abacus())
    return Pretraining(world, structure(), max_steps=2, batch_size=8, lr=lr, num_validation=10)


class Makes:
    """Makes trainers, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def __call__(self, stage: Any) -> Trainer:
        self.made += 1
        return stage_trainer(self.folder, stage)


def test_a_stage_is_trained_once_for_its_settings(tmp_path: Path) -> None:
    make, cache = Makes(tmp_path), tmp_path / "cache"
    first, again, other = small(), small(), small(lr=2e-2)
    with torch.no_grad():
        again.structure.head.bias += 1
    result = run_stage(first, make, cache)
    assert not result.reused and make.made == 1 and result.seconds > 0
    reused = run_stage(again, make, cache)
    assert reused.reused and make.made == 1
    assert (reused.seconds, reused.metrics) == (result.seconds, result.metrics)
    for ours, theirs in zip(first.structure.parameters(), again.structure.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not run_stage(other, make, cache).reused and make.made == 2
    assert len(list(cache.iterdir())) == 2


def test_a_disk_that_fills_up_leaves_no_half_of_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, cache = Makes(tmp_path), tmp_path / "cache"

    def full(content: Any, file: IO[bytes]) -> None:
        file.write(b"half of it")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no space"):
            run_stage(small(), make, cache)
    assert list(cache.iterdir()) == []
    assert not run_stage(small(), make, cache).reused and make.made == 2


def test_a_stage_appears_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is written, nothing has the name under which it will be looked for."""
    cache, save = tmp_path / "cache", torch.save

    def watched(content: Any, path: Path) -> None:
        save(content, path)
        assert not list(cache.glob("*.pt"))

    monkeypatch.setattr(torch, "save", watched)
    run_stage(small(), Makes(tmp_path), cache)
    assert len(list(cache.glob("*.pt"))) == len(list(cache.iterdir())) == 1


# --- interruptions ---


class StoppedError(Exception):
    """What stops a stage in the middle of a step."""


class Dropping(LSTM, selectable=False):
    """A network that draws from torch's global generator in training, as dropout does."""

    def extend(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        found, state = super().extend(inputs, state)
        return nn.functional.dropout(found, 0.3, self.training), state


def long(patience: int = 9) -> Pretraining:
    world = World(MultiMNIST(), UniformDigits(2), UniformPlacement(), Abacus())
    torch.manual_seed(0)
    model = StructureModel(MultiMNIST(), 12, network=Dropping(8))
    return Pretraining(world, model, 11, 8, num_validation=20, val_check_interval=2, patience=patience)


def stop(stage: Stage, step: int) -> None:
    """Make a stage fail in a step."""
    train: Callable[..., Any] = stage.training_step

    def training_step(*args: Any) -> Any:
        if stage.global_step == step:
            raise StoppedError
        return train(*args)

    stage.training_step = training_step  # type: ignore[method-assign]


@pytest.mark.parametrize(("every", "step", "patience"), [(1, 5, 9), (1, 10, 9), (2, 7, 9), (3, 5, 9), (2, 3, 0)])
def test_a_stage_resumes_to_the_same_result(
    tmp_path: Path, every: int, step: int, patience: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights, metrics and early stopping, wherever validations and checkpoints fall, with random numbers in steps."""
    make, whole = Makes(tmp_path), long(patience)
    expected = run_stage(whole, make, tmp_path / "whole")
    interrupted, cache = long(patience), tmp_path / "cache"
    stop(interrupted, step)
    with pytest.raises(StoppedError):
        run_stage(interrupted, make, cache, every)
    (checkpoint,) = cache.iterdir()
    assert checkpoint.suffix == ".ckpt"
    torch.rand(1)  # whatever the process draws before
    resumed = long(patience)
    found = run_stage(resumed, make, cache, every)
    assert f"Pretraining: resuming after step {(step) // every * every}, from {checkpoint}" in capsys.readouterr().out
    assert found.metrics == expected.metrics and not found.reused
    for ours, theirs in zip(resumed.structure.parameters(), whole.structure.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [path.suffix for path in cache.iterdir()] == [".pt"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no file of torch"])
def test_a_broken_cache_is_made_anew(tmp_path: Path, content: bytes) -> None:
    make, cache = Makes(tmp_path), tmp_path / "cache"
    files = stage_files(small(), cache)
    cache.mkdir()
    for path in files:
        path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"Pretraining-\w+\.(pt|ckpt) can't be read .*it is made anew") as said:
        assert not run_stage(small(), make, cache).reused
    assert len([one for one in said if "it is made anew" in str(one.message)]) == 2
    assert run_stage(small(), make, cache).reused and not files.checkpoint.exists()


def test_weights_of_another_shape_in_the_cache_count_as_missing(tmp_path: Path) -> None:
    make, cache, stage = Makes(tmp_path), tmp_path / "cache", small()
    run_stage(stage, make, cache)
    path = stage_files(stage, cache).result
    saved = torch.load(path, weights_only=True)
    saved["weights"]["head.bias"] = saved["weights"]["head.bias"][:-1]
    write_tensors(path, saved)
    again = small()
    with pytest.warns(UserWarning, match=r"\(ValueError\); it is made anew"):
        run_stage(again, make, cache)
    for ours, theirs in zip(stage.structure.parameters(), again.structure.parameters(), strict=True):
        assert torch.equal(ours, theirs)
