"""Credit assignment: each block weighs the steps of its symbols alone, with a baseline of their own."""

import math
from pathlib import Path

import pytest
import torch
from helpers import EXPECTED, abacus, learner, rng, trainer
from torch import Tensor

from ms2.core.errors import UserError
from ms2.evaluation.evaluation import Evaluation
from ms2.gradients.advantages import MovingAverage, Normalised
from ms2.learning.data import TargetImages
from ms2.objectives.kde import KDE
from ms2.targets.synthetic import Synthetic
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits

pytestmark = EXPECTED


CREDIT = {"count": ["Digits"], "classes": ["Digit"]}


def credited_gradient(credit: dict[str, list[str]] | None, blocks: list[str] | None) -> dict[str, Tensor]:
    """Gradient of one step on the same samples."""
    world = abacus()
    model = learner(world, KDE(0.2, blocks=blocks), credit_assignment=credit)
    samples = model.structure_learner.sample(model.scene_model, model.features, 40, rng())
    real = model.features.requires_grad_(False)(
        world.images(RandomDigits(3, 3).sample(world.grammar, 40, rng(1)), rng(1))
    )
    model.structure_learner.surrogate(model.structure, samples, real)[0].backward()
    return {name: p.grad.clone() for name, p in model.structure.named_parameters() if p.grad is not None}


def test_credit_for_everything_is_no_credit() -> None:
    every = {block: list(MultiMNIST().nonterminals) for block in CREDIT}
    plain = credited_gradient(None, ["count", "classes"])
    for name, gradient in credited_gradient(every, ["count", "classes"]).items():
        torch.testing.assert_close(gradient, plain[name], msg=name)


def test_each_block_weighs_the_steps_of_its_symbols_alone() -> None:
    """The head's rows belong to rules, and each step moves those of its own symbol."""
    grammar = MultiMNIST()
    split = credited_gradient(CREDIT, ["count", "classes"])["head.bias"]
    for block, (symbol,) in CREDIT.items():
        alone = credited_gradient(None, [block])["head.bias"]
        rows = list(grammar.rules_of(symbol))
        torch.testing.assert_close(split[rows], alone[rows])
        assert split[rows].any()


@pytest.mark.parametrize(
    ("credit", "said"),
    [({"count": ["Digit5"]}, "expands no such symbol. Did you mean 'Digit'"), ({"cuont": ["Digits"]}, "'count'")],
)
def test_credit_that_makes_no_sense(credit: dict[str, list[str]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        credited_gradient(credit, None)


def test_each_group_of_symbols_has_a_baseline_of_its_own() -> None:
    world = abacus()
    model = learner(world, KDE(0.2), MovingAverage(), credit_assignment=CREDIT)
    samples = model.structure_learner.sample(model.scene_model, model.features, 40, rng())
    model.features.requires_grad_(False)
    real = model.features(world.images(RandomDigits(3, 3).sample(world.grammar, 40, rng(1)), rng(1)))
    model.structure_learner.surrogate(model.structure, samples, real)
    baselines = {float(value) for name, value in model.state_dict().items() if name.endswith("baseline")}
    assert len(baselines) == len(model.structure_learner.advantages) == 3 and not any(map(math.isnan, baselines))


def test_credit_finds_the_target(tmp_path: Path) -> None:
    """Exact features, and two groups of symbols."""
    world = abacus()
    model = learner(world, KDE(0.2), Normalised(), credit_assignment=CREDIT, lr=3e-2)
    data = TargetImages(Synthetic(world, RandomDigits(1, 3), num_images=500), batch_size=64)
    trainer(tmp_path, 150).fit(model, datamodule=data)
    found = Evaluation(num_scenes=4000).measure(model.scene_model, data.target).results.summary
    assert found["count_tv"] < 0.08 < found["count_tv_prior"]
