"""The gradient of the structure learner's loss is REINFORCE's, sample by sample."""

import pytest
import torch
from helpers import EXPECTED, abacus, learner, rng
from torch import Tensor

from ms2.gradients.advantages import Advantage, LeaveOneOut, MovingAverage, Normalised
from ms2.grammar.derivations import Derivations
from ms2.learning.structure_learner import Samples
from ms2.objectives.base import Objective
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import MMDWitness

pytestmark = EXPECTED


def gradient(loss: Tensor, model: torch.nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def by_hand(advantage: Advantage, score: Tensor) -> Tensor:
    """Advantages of a first batch."""
    if isinstance(advantage, LeaveOneOut):
        return torch.stack([s - torch.cat([score[:j], score[j + 1 :]]).mean() for j, s in enumerate(score)])
    centred = score - score.sum() / len(score)
    return centred / (centred**2).mean().sqrt() if isinstance(advantage, Normalised) else centred


@pytest.mark.parametrize("advantage", [LeaveOneOut, Normalised, MovingAverage])
@pytest.mark.parametrize("objective", [KDE, MMDWitness])
def test_the_loss_has_the_gradient_of_reinforce(objective: type[Objective], advantage: type[Advantage]) -> None:
    """mean_j advantage_j * grad log q(T_j), with one backward pass for each scene."""
    n, weight = 10, 0.3
    model = learner(abacus(), objective(0.5), advantage(), reject_weight=weight)
    how = model.structure_learner
    rules = model.world.structure_prior.sample(model.world.grammar, n, rng())
    features = model.features(model.world.images(rules, rng()))
    features = {name: block.detach() for name, block in features.items()}
    real = {name: block.roll(1, 0) + 0.3 for name, block in features.items()}
    rejections = torch.arange(n) % 4
    score = torch.cat(
        [
            how.objective({k: f[j : j + 1] for k, f in features.items()}, features, torch.tensor([j]), real)[0]
            for j in range(n)
        ]
    )
    score = score + torch.tensor([weight if r > 1 else 0.0 for r in rejections])
    assert score.std() > 0.05
    grads = [gradient(model.structure.log_prob(rules[j : j + 1])[0], model.structure) for j in range(n)]
    expected = (by_hand(how.advantages[0], score)[:, None] * torch.stack(grads)).mean(0)

    loss, _ = how.surrogate(model.structure, Samples(Derivations(rules, rejections), features), real)
    torch.testing.assert_close(gradient(loss, model.structure), expected, atol=1e-6, rtol=1e-4)
    assert how.last_score is not None
    torch.testing.assert_close(how.last_score, score)
