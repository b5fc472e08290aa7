"""Structure learning: REINFORCE on the scores of an objective (section 3.3 of the paper)."""

import copy
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ms2.core.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat
from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.seeding import generator as seeded
from ms2.features.base import Blocks, FeatureExtractor
from ms2.gradients.advantages import Advantage
from ms2.grammar.derivations import Derivations
from ms2.learning.count_likelihood import CountLikelihood
from ms2.learning.credit_assignment import CreditAssignment
from ms2.learning.learner import Learner, Log, Real, local_number
from ms2.models.scene_model import SceneModel
from ms2.models.structure import StructureModel
from ms2.objectives.base import Objective
from ms2.scene.batch import SceneBatch


class Samples(NamedTuple):
    """Generated scenes of one process.

    Attributes:
        derivations: Their derivations.
        features: Features of their images; empty where there is no objective that compares them.
        numbers: Numbers of objects that are learned by their likelihood, if any are.
    """

    derivations: Derivations
    features: Blocks
    numbers: Int[Tensor, "b k"] | None = None


class StructureLearner(Learner):
    """Trains the structure model q(T) by REINFORCE on the scores of an objective.

    Each step draws as many scenes as there are target images in its batch, renders and embeds them, scores each
    against both sets of features, and descends mean_j advantage_j * grad log q(T_j) (eq. 2).

    Args:
        objective: Scores samples: low where the target's density is higher than the model's; None where all is learned
            by ``likelihood``, which needs no images.
        advantage: Computes advantages from scores.
        credit_assignment: Non-terminals by feature block, for blocks that depend on these alone:
            ``{"count_car": ["Cars"]}``. A block's score then weighs only the steps that expand them, which spares the
            other steps its noise; blocks that are not named weigh all steps, and steps of symbols that no block names
            are weighed by all blocks. The paper weighs all steps by the whole score. This neglects that, say, more
            trees may hide a car: the gradient differs, but is zero too where all blocks agree with the target's.
        lr: Learning rate (Adam).
        lr_decay: Whether the learning rate falls linearly to zero, which reduces the policy's noise.
        max_grad_norm: Norm to which gradients are clipped; null for no clipping.
        reject_weight: Penalty lambda, added to the score of a scene if more of its draws than ``reject_threshold`` were
            rejected because they exceeded ``t_max`` steps.
        reject_threshold: Number of rejected draws of a scene without penalty, epsilon.
        likelihood: Learns numbers of objects by the likelihood of what is read in the target; its scores are those of
            blocks of their names, in place of the objective's. Not in the paper.

    Example:
        >>> learner = StructureLearner(KDE(bandwidth=0.1), Normalised(), lr=5e-3)
        >>> loss, log = learner.loss(SceneModel(world, structure), features, real, generator(0, "example"))
        >>> loss.backward()
    """

    def __init__(
        self,
        objective: Objective | None,
        advantage: Advantage,
        credit_assignment: dict[str, list[str]] | None = None,
        lr: PositiveFloat = 2e-3,
        lr_decay: bool = True,
        max_grad_norm: PositiveFloat | None = None,
        reject_weight: NonNegativeFloat = 1e-2,
        reject_threshold: NonNegativeInt = 1,
        likelihood: CountLikelihood | None = None,
    ) -> None:
        super().__init__(lr, lr_decay, max_grad_norm)
        if objective is None and likelihood is None:
            raise UserError("structure_learner has neither an objective nor a likelihood to learn by: give one of them")
        self.objective, self.likelihood = objective, likelihood
        self.credit = CreditAssignment(credit_assignment or {})
        self.advantages = nn.ModuleList([advantage, *(copy.deepcopy(advantage) for _ in self.credit.block_sets[1:])])
        self.reject_weight, self.reject_threshold = reject_weight, reject_threshold
        self.last_score: Tensor | None = None
        """Scores of all processes in the last step."""
        self.last_derivations: Derivations | None = None
        """Samples of this process in the last step."""

    def check(self, model: SceneModel) -> None:
        """Check that the grammar has the symbols of the credit assignment."""
        self.credit.groups(model.world.grammar)

    def check_features(self, model: SceneModel, features: FeatureExtractor, scenes: SceneBatch) -> None:
        """Check that the features have the blocks of the objective and of the credit assignment."""
        nothing = torch.zeros(len(scenes))
        counted = {} if self.likelihood is None else dict.fromkeys(self.likelihood.check(features), nothing)
        scores: dict[str, Tensor] = {}
        if self.objective is not None:
            found = features.embed_scenes(
                model.world.renderer, scenes, seeded(0, "check", device=scenes.classes.device)
            )
            scores, _ = self.objective.block_scores(found, found, torch.arange(len(scenes)), found)
        scores |= counted
        self.credit.scores(scores | {"rejection": nothing}, None)

    def weights(self, model: SceneModel) -> list[nn.Parameter]:
        """Return the weights of the structure model."""
        return list(_structure(model).parameters())

    def loss(
        self,
        model: SceneModel,
        features: FeatureExtractor,
        real: Real,
        generator: Generator,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> tuple[Float[Tensor, ""], Log]:
        """Compute the REINFORCE surrogate loss of new samples, see `Learner.loss`."""
        samples = self.sample(model, features, local_number(real, processes), generator)
        return self.surrogate(_structure(model), samples, real, processes)

    @torch.no_grad()
    def sample(self, model: SceneModel, features: FeatureExtractor, n: int, generator: Generator) -> Samples:
        """Sample n scenes, render and embed them."""
        derivations = model.derivations(n, generator)
        numbers = None if self.likelihood is None else self.likelihood.numbers(model, derivations.rules)
        if self.objective is None:
            return Samples(derivations, {}, numbers)
        scenes = model.scenes(derivations.rules, generator)
        return Samples(derivations, features.embed_scenes(model.world.renderer, scenes, generator), numbers)

    def surrogate(
        self,
        structure: StructureModel,
        samples: Samples,
        real: Real,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> tuple[Float[Tensor, ""], Log]:
        """Compute the surrogate loss of samples, whose gradient is REINFORCE's, and what to log.

        Scores and advantages are those of the samples of all processes together, so that the mean of the
        processes' gradients is the gradient of one process with all samples.

        Rejected scenes were drawn again, so samples follow q(T) / P(end in time), and the gradient of their mean score
        s is E[s (grad log q - grad log P)] = E[(s - E s) grad log q], because grad log P is the mean of grad log q
        over them. Centred advantages estimate that (`LeaveOneOut`, `Normalised`). Another baseline b, such as the
        paper's moving average, leaves (E s - b) grad log P: all accepted scenes alike are made likelier, or less.
        """
        derivations = samples.derivations
        rules, rejections = derivations.rules, derivations.rejections
        own = processes.local_indices(len(derivations), rules.device)
        scores, log = self._scores(samples, real, own, processes)
        scores["rejection"] = self.reject_weight * (rejections > self.reject_threshold).float()
        everyone = processes.gather_equal(torch.stack(list(scores.values()), 1))  # one call, as processes wait in each
        total = everyone.sum(1)
        if self.last_score is None:
            self._warn_of_rejections(total)
        self.last_score, self.last_derivations = total, derivations
        groups, block_sets = self.credit.groups(structure.grammar, rules.device)
        by_block = dict(zip(scores, everyone.unbind(1), strict=True))
        advantages = [self._advantage(by_block, block_set) for block_set in block_sets]
        log_prob = structure.log_prob_and_entropy(rules, groups if self.credit else None, len(block_sets))
        loss = (torch.stack(advantages, 1)[own] * log_prob.group_log_prob).sum(1).mean()
        score = total[own]
        log |= {
            "train/score": score.mean(),
            "train/score_deviation": score.std(correction=0),
            "train/entropy": log_prob.entropy.mean(),
            "train/rejection_rate": rejections.float().mean(),
        }
        return loss, log

    def _scores(
        self, samples: Samples, real: Real, own: Int[Tensor, " b"], processes: Processes
    ) -> tuple[dict[str, Tensor], Log]:
        """Compute the score of each sample by block, and what to log."""
        scores, log = dict[str, Tensor](), Log()
        if self.objective is not None:
            population = {name: processes.gather_equal(block) for name, block in samples.features.items()}
            scores, sharpness = self.objective.block_scores(samples.features, population, own, real)
            log |= {f"kernel/{name}_sharpness": value for name, value in sharpness.items()}
            if self.last_score is None:
                self._warn_of_kernels(population, real)
        if self.likelihood is not None and samples.numbers is not None:
            counted, said = self.likelihood.scores(processes.gather_equal(samples.numbers), own)
            scores |= counted
            log |= said
        return scores, log

    def _advantage(self, scores: Mapping[str, Float[Tensor, " m"]], blocks: frozenset[str] | None) -> Tensor:
        """Compute the advantages of all samples from the scores of a set of blocks."""
        module = self.advantages[self.credit.block_sets.index(blocks)]
        assert isinstance(module, Advantage)
        advantage: Tensor = module(self.credit.scores(scores, blocks))
        return advantage

    def _warn_of_kernels(self, generated: Blocks, real: Real) -> None:
        """Warn of kernels that tell nothing of the difference."""
        assert self.objective is not None
        for name, (problem, advice) in self.objective.degenerate_kernels(generated, real).items():
            warnings.warn(f"the kernel of block {name!r} {problem}. {advice}", stacklevel=2)

    def _warn_of_rejections(self, score: Float[Tensor, " m"]) -> None:
        """Warn if the penalty of rejections exceeds all differences of scores."""
        if float(score.std(correction=0)) < self.reject_weight:
            warnings.warn(
                f"the score's deviation is {float(score.std(correction=0)):.2g}, less than reject_weight = "
                f"{self.reject_weight}: rejections alone would decide what is learned",
                stacklevel=2,
            )


def _structure(model: SceneModel) -> StructureModel:
    assert model.structure is not None
    return model.structure
