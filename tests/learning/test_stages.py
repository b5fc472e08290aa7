"""Stages that were done before are loaded from a cache, whose files are written atomically."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, Abacus, stage_trainer, structure
from pytorch_lightning import Trainer

from ms2.learning.pretraining import Pretraining
from ms2.learning.stages import run_stage
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

    def full(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
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
