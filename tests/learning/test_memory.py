"""Learning takes as much memory after hundreds of steps as at first."""

import gc
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, abacus, images, learner, rng, trainer
from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from ms2.evaluation.callbacks import Validation
from ms2.evaluation.evaluation import Evaluation
from ms2.features.dense import DenseCounts
from ms2.gradients.advantages import MovingAverage
from ms2.learning.metasim2 import MetaSim2
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

STATM = Path("/proc/self/statm")
BATCH = 48
MOST = 40e3
"""Bytes that a step may add: the allocator's caches fill slowly, a batch of images has almost three times as many."""
pytestmark = [*EXPECTED, pytest.mark.skipif(not STATM.exists(), reason="reads /proc")]


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def tensors() -> int:
    """Number of live tensors."""
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def stepper(model: MetaSim2) -> Callable[[int], None]:
    """Steps of learning, without a trainer."""
    optimizer = model.configure_optimizers()
    real = model.embed(images(model.world, BATCH))

    def step(number: int) -> None:
        loss, _ = model.structure_learner.loss(model.scene_model, model.features, real, rng(number))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def growth(step: Callable[[int], None], warm_up: int, steps: int) -> tuple[float, int]:
    """Bytes and tensors that each step adds after a warm-up."""
    for number in range(warm_up):
        step(number)
    bytes_before, before = resident(), tensors()
    for number in range(warm_up, warm_up + steps):
        step(number)
    return (resident() - bytes_before) / steps, tensors() - before


def test_hundreds_of_steps_take_no_more_memory() -> None:
    world = World(MultiMNIST(), UniformDigits(3), UniformPlacement(), DigitCanvas(canvas_size=24, digit_size=8))
    torch.manual_seed(0)
    features = DenseCounts(1, world.classes, (4, 4, 4))
    model = learner(world, advantage=MovingAverage(), features=features, lr=1e-5)  # so low that scenes stay as small
    more, live = growth(stepper(model), 100, 100)
    assert live == 0
    assert more < MOST


def test_a_leak_would_be_found() -> None:
    kept = []
    step = stepper(learner(abacus()))

    def leaking(number: int) -> None:
        step(number)
        kept.append(torch.ones(10, 2**20))  # 40 MiB: from 32 on, the system is asked, and freed memory not looked at

    more, live = growth(leaking, 5, 5)
    assert live == 5
    assert more > MOST


class Count(Callback):
    """Counts live tensors after each validation."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def on_validation_end(self, *_: Any) -> None:
        self.found.append(tensors())


def test_a_run_with_logs_and_validations_keeps_no_tensors(tmp_path: Path) -> None:
    model, count = learner(abacus()), Count()
    callbacks = [Validation(Evaluation(num_scenes=20)), count]
    validate = {"limit_val_batches": 1, "val_check_interval": 10, "check_val_every_n_epoch": None}
    run = trainer(
        tmp_path,
        60,
        callbacks=callbacks,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
        **validate,
    )
    run.fit(model, datamodule=images(model.world, batch_size=8))
    assert len(count.found) == 6 and len(set(count.found[1:])) == 1
