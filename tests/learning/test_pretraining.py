"""Pretraining on a prior: what it refuses, leaves out, comes close to, and when it stops."""

import math
from pathlib import Path

import pytest
import torch
from helpers import EXPECTED, Abacus, abacus, rng, stage_trainer, structure, trainer

from ms2.grammar.rules import GrammarError
from ms2.learning.pretraining import Pretraining
from ms2.scene.batch import scenes_from_derivations
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement

pytestmark = EXPECTED


def test_pretraining_refuses_a_prior_that_the_model_cant_express(tmp_path: Path) -> None:
    world = World(MultiMNIST(), UniformDigits(10), UniformPlacement(), Abacus())
    with pytest.raises(GrammarError, match=r"of 22 steps.* at most t_max = 12: raise model\.structure\.t_max"):
        trainer(tmp_path, 1).fit(Pretraining(world, structure(t_max=12)))


def test_pretraining_comes_close_to_the_entropy_of_the_prior(tmp_path: Path) -> None:
    """None or one of ten digits: ln 2 + ln 10 / 2."""
    stage = Pretraining(abacus(1), structure(), max_steps=120, batch_size=128, lr=3e-2, val_check_interval=60)
    run = stage_trainer(tmp_path, stage)
    run.fit(stage)
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    entropy = found["pretraining/prior_entropy"]
    assert entropy == pytest.approx(math.log(2) + math.log(10) / 2, abs=0.1)  # of 2000 derivations
    assert -0.01 < found["pretraining/val_nll"] - entropy < 0.03


def test_pretraining_on_another_prior_than_the_worlds(tmp_path: Path) -> None:
    model = structure()
    stage = Pretraining(abacus(3), model, max_steps=60, batch_size=64, lr=3e-2, structure_prior=UniformDigits(0))
    stage_trainer(tmp_path, stage).fit(stage)
    empty = scenes_from_derivations(MultiMNIST(), model.sample(200, rng()).rules)
    assert int(empty.mask.sum()) < 5, "the other prior has no digits at all"


def test_pretraining_leaves_out_what_is_longer_than_the_model_may_make(tmp_path: Path) -> None:
    """Of 0 to 10 digits, given that there are no more than 5."""
    world = World(MultiMNIST(), UniformDigits(10), UniformPlacement(), Abacus())
    model = structure(22, max_length={"Digits": 5})
    stage = Pretraining(world, model, max_steps=120, batch_size=128, lr=3e-2)
    stage_trainer(tmp_path, stage).fit(stage)
    numbers = scenes_from_derivations(MultiMNIST(), model.sample(4000, rng()).rules).mask.sum(1).bincount() / 4000
    assert len(numbers) == 6
    torch.testing.assert_close(numbers, torch.full((6,), 1 / 6), atol=0.06, rtol=0)
    with pytest.raises(GrammarError, match=r"longer lists than model\.structure\.max_length allows"):
        trainer(tmp_path, 1).fit(Pretraining(world, structure(22, max_length={"Digits": 2})))


def test_pretraining_stops_at_a_plateau(tmp_path: Path) -> None:
    stage = Pretraining(abacus(1), structure(), 100, 8, lr=1e-9, val_check_interval=5, patience=3, num_validation=20)
    run = stage_trainer(tmp_path, stage)
    run.fit(stage)
    assert run.global_step == 20  # the first validation, and three that were no better
