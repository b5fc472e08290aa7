"""Task rewards: REINFORCE on the accuracy of a network, measured on labelled images of the target."""

from pathlib import Path

import pytest
import torch
from helpers import EXPECTED, rng, trainer
from torch import Tensor

from ms2.core.errors import UserError
from ms2.features.dense import DenseCounts
from ms2.gradients.advantages import LeaveOneOut, Normalised
from ms2.gradients.score_function import ScoreFunction
from ms2.grammar.grammar import Grammar
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.parameter_learner import ParameterLearner
from ms2.learning.reward import TaskReward
from ms2.learning.structure_learner import StructureLearner
from ms2.learning.turns import Turns
from ms2.models.networks.recurrent import LSTM
from ms2.models.parameters import ParameterModel
from ms2.models.structure import StructureModel
from ms2.objectives.kde import KDE
from ms2.priors.structure import ListLengthPrior
from ms2.targets.folder import Folder
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import NormalPlacement, UniformDigits
from ms2.worlds.multimnist.renderer import DigitCanvas

pytestmark = EXPECTED


def run_of(target: type[Synthetic], folder: Path, steps: int) -> tuple[MetaSim2, list[Tensor]]:
    """Learn parameters with a reward every second step; the model, and the rewards."""
    world = World(Grammar("Scene -> 0 | 1"), ListLengthPrior(), NormalPlacement(), DigitCanvas(24, 12, rotation=True))
    reward = TaskReward(
        DenseCounts(1, world.classes, widths=(4, 4, 4)), steps_between_rewards=2, steps_per_reward=1, num_validation=7
    )
    model = MetaSim2(
        world, StructureModel(world.grammar, 4, network=LSTM(8)), DenseCounts(1, world.classes, widths=(4, 4, 4)),
        StructureLearner(KDE(), Normalised()), ParameterModel(world, hidden=8),
        ParameterLearner(KDE(), ScoreFunction()), Turns(parameter_fraction=1), reward,
    )  # fmt: skip
    found: list[Tensor] = []
    accuracy = reward.accuracy
    reward.accuracy = lambda *args: found.append(accuracy(*args)) or found[-1]  # type: ignore[method-assign]
    data = TargetImages(target(world, ListLengthPrior(), num_images=10), batch_size=8)
    trainer(folder, steps).fit(model, datamodule=data)
    return model, found


def test_every_second_parameter_step_has_a_reward(tmp_path: Path) -> None:
    model, found = run_of(Synthetic, tmp_path, steps=5)
    assert len(found) == 3 and all(0 <= float(value) <= 1 for value in found)
    assert model.reward is not None and model.reward.validation is not None
    images, classes, counts = model.reward.validation
    target = Synthetic(model.world, ListLengthPrior(), num_images=10)
    torch.testing.assert_close(images, target.preview(7).float() / 255)
    assert classes.tolist() == [0, 1] and counts.equal(target.truth.counts(2)[:7])


class Unlabelled(Synthetic):
    """Images without labels."""

    def labelled_set(self, *args: object, **more: object) -> None:
        return None


def test_a_target_without_labels_is_refused_before_learning(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unlabelled have no labels that it could use"):
        run_of(Unlabelled, tmp_path, steps=1)


def digits() -> World:
    grammar = Grammar("Scene -> 0 | 1")
    return World(grammar, ListLengthPrior(), NormalPlacement(), DigitCanvas(24, 12, rotation=True))


def test_a_reward_makes_its_scenes_likelier() -> None:
    """By REINFORCE: the gradient of the loss is minus (reward - baseline) times that of the mean log-density."""
    world = digits()
    reward = TaskReward(DenseCounts(1, world.classes, widths=(4, 4, 4)), weight=0.5)
    log_prob = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    assert reward.surrogate(torch.tensor(0.4), log_prob) == 0  # the first reward is its own baseline
    reward.surrogate(torch.tensor(0.9), log_prob).backward()
    expected = -0.5 * (0.9 - (0.9 * 0.4 + 0.1 * 0.9)) / 3
    torch.testing.assert_close(log_prob.grad, torch.full((3,), expected))


def test_a_task_network_learns_from_generated_images() -> None:
    """Its accuracy is that of the numbers of each class that it reads, and rises with training."""
    torch.manual_seed(0)
    world = digits()
    reward = TaskReward(DenseCounts(1, world.classes, widths=(8, 16, 16), max_count=1), steps_per_reward=100, lr=5e-3)
    data = Synthetic(world, ListLengthPrior(), num_images=100)
    reward.prepare(data, world)
    first, later = (float(reward.accuracy(world, world.sample_prior(n, rng(n)))) for n in (100, 1600))
    assert 0 <= first < later <= 1 and later > 0.6  # chance is a third


def test_a_reward_needs_labels(tmp_path: Path) -> None:
    world = digits()
    (tmp_path / "a.txt").touch()
    reward = TaskReward(DenseCounts(1, world.classes, widths=(4, 4, 4)))
    folder = Folder.__new__(Folder)
    with pytest.raises(UserError, match="Folder have no labels that it could use"):
        reward.prepare(folder, world)


def test_a_reward_is_compared_with_earlier_ones() -> None:
    """One at a time is always the mean of all that there are."""
    with pytest.raises(UserError, match=r"reward.baseline can't be LeaveOneOut"):
        TaskReward(DenseCounts(1, ["0"], widths=(4, 4, 4)), baseline=LeaveOneOut())


def test_scenes_that_a_task_network_can_not_count_are_said() -> None:
    world = World(MultiMNIST(), UniformDigits(4), NormalPlacement(), DigitCanvas(40, 12, rotation=True))
    reward = TaskReward(DenseCounts(1, world.classes, widths=(4, 4, 4), max_count=1))
    reward.prepare(Synthetic(world, UniformDigits(1), num_images=2), world)
    with pytest.raises(UserError, match=r"more than model.reward.network can count: raise its max_count"):
        reward.accuracy(world, world.sample_prior(32, rng()))
