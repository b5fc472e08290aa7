"""The counter of operators and of waits for the device, and that no training step waits but for images and samples."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import EXPECTED, Abacus, learner, structure
from torch import nn

from ms2.features.dense import DenseCounts
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.pretraining import Pretraining
from ms2.objectives.base import Objective
from ms2.objectives.energy import EnergyDistance
from ms2.objectives.sliced_wasserstein import SlicedWasserstein
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import ops
from operators import LOOP, NETWORK, counting

pytestmark = EXPECTED


def digits() -> World:
    return World(MultiMNIST(), UniformDigits(3), UniformPlacement(), DigitCanvas(canvas_size=24, digit_size=8))


def extractor() -> DenseCounts:
    return DenseCounts(1, list("0123456789"), widths=(4, 4, 4))


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda x: bool((x > 0).any()), "_local_scalar_dense"),
        (lambda x: float(x.sum()), "_local_scalar_dense"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.unique(), "_unique2"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.cpu(), "cpu"),
        (lambda x: x[[0, 1]], "lift_fresh"),  # the list is copied to the device
        (lambda x: torch.tensor([1.0]), "lift_fresh"),
        (lambda x: x.long().repeat_interleave(x.long()), "repeat_interleave"),
    ],
)
def test_waits_are_found_and_their_place_is_named(read: object, what: str) -> None:
    with counting(Abacus()) as count:
        read(torch.ones(3))
    ((part, found),) = count.waits
    assert part == LOOP
    assert found.startswith(f"{what} at tests/test_operators.py:") and found.endswith("(<lambda>)")


def test_what_stays_on_the_device_waits_for_nothing() -> None:
    with counting(Abacus()) as count:
        x = torch.arange(6.0).view(2, 3)
        x[:, 0] = 1
        torch.where(x > 1, x, 0.0).gather(1, x.long() % 3).repeat_interleave(2).cumsum(0)
    assert count.waits == []


def test_backward_operators_belong_to_what_they_differentiate() -> None:
    network, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(3, 2)
    with counting(Abacus()) as count:
        loss = (network(x) * 3).exp().sum()
        loss.backward()
    parts: Counter[str] = Counter()
    for (part, _), number in count.operators.items():
        parts[part] += number
    # mul, exp, sum; ones_like, expand and the derivatives of exp and mul; perhaps views of what is saved
    assert 7 <= parts[LOOP] <= 9
    assert parts[NETWORK] == sum(parts.values()) - parts[LOOP] > 4


def waits_of(row: ops.Row, *allowed: str) -> list[str]:
    return [wait for wait in row.waits if not wait.startswith(allowed)]


def test_extractor_steps_do_not_wait_and_take_at_most_100_operators() -> None:
    row = ops.count_stage(ExtractorTraining(digits(), extractor(), max_steps=40, batch_size=32))
    assert waits_of(row, "renderer:") == []
    assert 0 < row.figures["operators"] <= 100
    assert row.block > 0


def test_pretraining_steps_do_not_wait() -> None:
    row = ops.count_stage(Pretraining(digits(), structure(), max_steps=40, batch_size=32))
    assert waits_of(row) == []


def test_structure_steps_wait_for_the_number_of_rejected_samples_alone() -> None:
    row = ops.count_learning(learner(digits(), features=extractor()))["structure"]
    assert {wait.split(" at ")[1].split(":")[0] for wait in waits_of(row, "renderer:")} <= {"ms2/models/structure.py"}
    assert waits_of(row, "renderer:", "draw:") == []


@pytest.mark.parametrize("objective", [EnergyDistance(), SlicedWasserstein()], ids=["energy", "sliced Wasserstein"])
def test_objectives_do_not_wait_nor_take_more_operators_for_more_samples(objective: Objective) -> None:
    numbers = set()
    for size in (4, 9):
        x = {"f": torch.rand(size, 3, requires_grad=True)}
        real, own = {"f": torch.rand(size, 3)}, torch.arange(size)
        objective(x, x, own, real)  # directions are drawn once
        with counting(Abacus()) as count:
            objective(x, x, own, real)[0].mean().backward()
        assert count.waits == []
        numbers.add(sum(count.operators.values()))
    assert len(numbers) == 1 and max(numbers) <= 130


def test_figures_that_grow_are_named() -> None:
    row = ops.Row(Counter({("loss", "here"): 111}), ["loss: nonzero at there"], block=2.0)
    lines = list(ops.grown({"a extractor": row}, {"a extractor": {"operators": 100, "block": 2.0, "waits": 0}}))
    assert lines == [
        "a extractor: operators per step 111, recorded 100",
        "a extractor: waits per step 1, recorded 0",
        "    loss: nonzero at there",
    ]
    assert not list(ops.grown({"a extractor": row}, {"a extractor": {"operators": 101, "block": 1.9, "waits": 1}}))
    assert list(ops.grown({"b structure": row}, {})) == ["b structure is not recorded: record it with --record"]
