"""Interface of objectives: a score of each generated sample, low where the target's density exceeds the model's."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import PositiveFloat
from ms2.core.errors import UserError, suggest
from ms2.core.registry import Plugin

Blocks = Mapping[str, Float[Tensor, "_ _"]]
"""Features of images in named blocks."""
MIN_SPREAD = 0.05
"""Deviation of a kernel's exponents below which all samples look equally near: the kernel is then linear in them."""
MAX_SHARE = 0.9
"""Mean share of a single sample in a density beyond which that is a density of one sample."""


class Degeneracy(NamedTuple):
    """Why a kernel tells nothing of the difference between two distributions.

    Attributes:
        problem: What the kernel is, and what follows.
        advice: What to do about it.
    """

    problem: str
    advice: str


def too_wide(effect: str) -> Degeneracy:
    """Describe a kernel that takes all samples for nearly equal."""
    return Degeneracy(f"is too wide: {effect}", "Perhaps lower model.structure_learner.objective.bandwidth.")


def too_narrow(effect: str) -> Degeneracy:
    """Describe a kernel that takes no two samples for similar."""
    return Degeneracy(f"is too narrow: {effect}", "Perhaps raise model.structure_learner.objective.bandwidth.")


class Objective(Plugin, ABC, kind="objectives"):
    """Scores each generated sample against other generated samples and target samples, summed over feature blocks.

    The score is a cost, to be descended: the derivative of a divergence between the two distributions with respect to
    the model's density at the sample. Its mean's gradient, with all other samples constant, is therefore that of the
    divergence: by the score function (structure), or through the sample's features (parameters), of which it must then
    be a function with a derivative (``pathwise``).

    Args:
        blocks: Feature blocks to compare; all by default.

    Attributes:
        pathwise: Whether scores have a gradient through the samples' features.
    """

    pathwise = True

    def __init__(self, blocks: Sequence[str] | None = None) -> None:
        self.blocks = blocks
        if self.blocks is not None and not self.blocks:
            raise UserError("no feature block is named; leave blocks out to compare all of them")

    def __call__(
        self, features: Blocks, generated: Blocks, own_index: Int[Tensor, " b"], real: Blocks
    ) -> tuple[Float[Tensor, " b"], dict[str, Float[Tensor, ""]]]:
        """Compute the score of each sample, the sum of `block_scores`, and each block's sharpness (see there)."""
        scores, sharpness = self.block_scores(features, generated, own_index, real)
        return torch.stack(list(scores.values())).sum(0), sharpness

    def block_scores(
        self, features: Blocks, generated: Blocks, own_index: Int[Tensor, " b"], real: Blocks
    ) -> tuple[dict[str, Float[Tensor, " b"]], dict[str, Float[Tensor, ""]]]:
        """Compute the score of each sample from each block, and the sharpness of each block's kernel, if it has one.

        Args:
            features: Features of the b samples to score.
            generated: Features of all generated samples, also of other processes, the b scored ones among them.
            own_index: Index of each scored sample among the generated ones.
            real: Features of as many target samples as there are generated ones.

        Raises:
            UserError: If a block is named that the features do not have.
        """
        if min(len(block) for block in (*generated.values(), *real.values())) < 2:
            raise UserError("a score compares samples, so it needs at least two: raise data.batch_size")
        scores, sharpness = {}, {}
        for name in self.blocks or list(features):
            if name not in features:
                raise UserError(f"the features have no block {name!r}. {suggest(name, features)}")
            # A score is a function of the sample's own features: the others are constants, also under autograd.
            others = generated[name].detach()
            scores[name], sharp = self.compare(name, features[name], others, own_index, real[name])
            if sharp is not None:
                sharpness[name] = sharp
        return scores, sharpness

    def degenerate_kernels(self, generated: Blocks, real: Blocks) -> dict[str, Degeneracy]:
        """Find the blocks whose kernel is degenerate for this objective, and say why; none without a kernel.

        Args:
            generated: Features of generated samples.
            real: Features of target samples.
        """
        return {}

    @abstractmethod
    def compare(
        self,
        block: str,
        features: Float[Tensor, "b d"],
        generated: Float[Tensor, "m d"],
        own_index: Int[Tensor, " b"],
        real: Float[Tensor, "l d"],
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, ""] | None]:
        """Compute the scores from one block, and its kernel's sharpness; None without a kernel.

        Args:
            block: Name of the block.
            features: Features of the samples to score.
            generated: Features of all generated samples, without a gradient.
            own_index: Index of each scored sample among the generated ones.
            real: Features of the target samples.
        """


class KernelObjective(Objective):
    """Scores by a Gaussian kernel between samples.

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number
            for all blocks, or one per block. The paper has 1.
        blocks: Feature blocks to compare; by default those named in ``bandwidth``, or all.
        relative_bandwidth: Whether bandwidths are multiples of the mean feature variance of the target samples,
            for features of any scale, such as those of a pretrained network; the paper's are not.
    """

    def __init__(
        self,
        bandwidth: PositiveFloat | dict[str, PositiveFloat] = 1.0,
        blocks: Sequence[str] | None = None,
        relative_bandwidth: bool = False,
    ) -> None:
        super().__init__(list(bandwidth) if blocks is None and isinstance(bandwidth, dict) else blocks)
        self.bandwidth, self.relative_bandwidth = bandwidth, relative_bandwidth

    def compare(
        self,
        block: str,
        features: Float[Tensor, "b d"],
        generated: Float[Tensor, "m d"],
        own_index: Int[Tensor, " b"],
        real: Float[Tensor, "l d"],
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, ""]]:
        """Compute the scores from one block, and its kernel's sharpness.

        Sharpness is the mean of the kernel's negated exponents, the squared distance to the generated samples over 2 H.
        With H = d I and features of unit variance it is 1.
        """
        variance = self._variance(block, real)
        generated_exponents = -torch.cdist(features, generated).square() / (2 * variance)
        real_exponents = -torch.cdist(features, real).square() / (2 * variance)
        score = self.block_score(generated_exponents, real_exponents, own_index, (generated, real, variance))
        return score, -generated_exponents.mean()

    def degenerate_kernels(self, generated: Blocks, real: Blocks) -> dict[str, Degeneracy]:
        """Find the blocks whose kernel is degenerate: the same for all pairs of samples, too wide or too narrow."""
        found = {}
        for name in self.blocks or list(generated):
            samples = torch.cat([generated[name], real[name]])
            distance = torch.cdist(generated[name], samples, compute_mode="donot_use_mm_for_euclid_dist")
            exponents = -distance.square() / (2 * self._variance(name, real[name]))
            degeneracy = self._degeneracy(exponents)
            if degeneracy is not None:
                found[name] = degeneracy
        return found

    def _degeneracy(self, exponents: Float[Tensor, "m n"]) -> Degeneracy | None:
        """Say why a kernel is degenerate, if it is, given its exponents between m generated and n = m + l samples."""
        size = len(exponents)
        if not bool(exponents.any()):
            effect = "is the same for all pairs of samples: all images have the same features"
            return Degeneracy(effect, "Leave the block out of blocks, or train the extractor longer.")
        own = torch.eye(size, exponents.shape[1], dtype=torch.bool, device=exponents.device)
        others = exponents[~own].view(size, -1)
        if float(others.std(1).mean()) < MIN_SPREAD:
            return too_wide("all samples look equally far from each other, so only the features' means are matched")
        return self._narrowness(exponents[:, :size])

    def _narrowness(self, exponents: Float[Tensor, "m m"]) -> Degeneracy | None:
        """Say why the kernel is too narrow, if it is, given its exponents between generated samples.

        Densities that leave a sample out are compared here: they are degenerate where they are those of the nearest
        sample alone, however near that is. Where features coincide, as those that count, no kernel is too narrow.
        """
        others = exponents.clone().fill_diagonal_(-math.inf)
        if float(others.softmax(1).amax(1).mean()) > MAX_SHARE:
            return too_narrow("each sample is compared with the nearest one alone")
        return None

    @abstractmethod
    def block_score(
        self,
        generated_exponents: Float[Tensor, "b m"],
        real_exponents: Float[Tensor, "b l"],
        own_index: Int[Tensor, " b"],
        samples: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float | Float[Tensor, ""]],
    ) -> Float[Tensor, " b"]:
        """Compute the scores from one block.

        Args:
            generated_exponents: The kernel's exponents between each scored sample and all generated samples.
            real_exponents: The kernel's exponents between each scored sample and the target samples.
            own_index: Index of each scored sample among the generated ones.
            samples: Features of the generated and of the target samples, and the kernel's variance.
        """

    def _variance(self, block: str, real: Float[Tensor, "l d"]) -> float | Float[Tensor, ""]:
        """Compute the kernel's variance, given the features of the target samples."""
        if isinstance(self.bandwidth, dict) and block not in self.bandwidth:
            raise UserError(f"no bandwidth for the block {block!r}. {suggest(block, self.bandwidth)}")
        bandwidth = self.bandwidth[block] if isinstance(self.bandwidth, dict) else self.bandwidth
        variance = bandwidth * real.shape[1]
        return variance * real.var(0).mean().clamp(min=1e-12) if self.relative_bandwidth else variance
