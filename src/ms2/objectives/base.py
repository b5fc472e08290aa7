"""The interface of objectives: a score of each generated sample, low where the target's density is the higher one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.core.registry import Plugin

Blocks = Mapping[str, Float[Tensor, "_ _"]]
"""Features of images in named blocks."""


class Objective(Plugin, ABC, kind="objectives"):
    """Scores each generated sample against other generated samples and real ones, summed over feature blocks.

    The score is a cost, to be descended: the derivative of a divergence between the two distributions with respect to
    the model's density at the sample. Its mean's gradient, with all other samples constant, is therefore that of the
    divergence: by the score function (structure), or through the sample's features (parameters), of which it must then
    be a smooth function (``pathwise``).

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number
            for all blocks, or one per block. The paper has 1.
        blocks: Feature blocks to compare; by default those named in ``bandwidth``, or all.
        relative: Whether bandwidths are multiples of the mean feature variance of the real samples, for features of
            any scale, such as those of a network trained elsewhere; the paper's are not.

    Attributes:
        pathwise: Whether scores have a gradient through the samples' features.
    """

    pathwise = True

    def __init__(
        self,
        bandwidth: float | dict[str, float] = 1.0,
        blocks: Sequence[str] | None = None,
        relative: bool = False,
    ) -> None:
        self.bandwidth, self.relative = bandwidth, relative
        self.blocks = list(bandwidth) if blocks is None and isinstance(bandwidth, dict) else blocks
        widths = bandwidth.values() if isinstance(bandwidth, dict) else [bandwidth]
        if any(w <= 0 for w in widths):
            raise UserError(f"bandwidths must be positive, not {bandwidth}")
        if self.blocks is not None and not self.blocks:
            raise UserError("no feature block is named; leave blocks out to compare all of them")

    def __call__(
        self, features: Blocks, population: Blocks, own: Int[Tensor, " b"], real: Blocks
    ) -> tuple[Float[Tensor, " b"], dict[str, Float[Tensor, ""]]]:
        """Compute the score of each sample, the sum of `by_block`, and the sharpness of each block's kernel."""
        scores, sharpness = self.by_block(features, population, own, real)
        return torch.stack(list(scores.values())).sum(0), sharpness

    def by_block(
        self, features: Blocks, population: Blocks, own: Int[Tensor, " b"], real: Blocks
    ) -> tuple[dict[str, Float[Tensor, " b"]], dict[str, Float[Tensor, ""]]]:
        """Compute the score of each sample from each block, and the sharpness of the block's kernel.

        Sharpness is the mean exponent of the kernel, the squared distance to the population over 2 H: near 0 the
        density ratio is almost linear and matches only means; far above 1 each sample is compared with itself alone.

        Args:
            features: Features of the b samples to score.
            population: Features of all generated samples, also of other processes, the b scored ones among them.
            own: Index of each scored sample in the population.
            real: Features of as many real samples as there are in the population.

        Raises:
            UserError: If a block is named that the features do not have.
        """
        if min(len(block) for block in (*population.values(), *real.values())) < 2:
            raise UserError("a score compares samples, so it needs at least two: raise data.batch_size")
        scores, sharpness = {}, {}
        for name in self.blocks or list(features):
            if name not in features:
                raise UserError(f"the features have no block {name!r}. {suggest(name, features)}")
            variance = self._variance(name, features[name].shape[1])
            if self.relative:
                variance *= float(real[name].var(0).mean().clamp(min=1e-12))
            # A score is a function of the sample's own features: the others are constants, also under autograd.
            others = population[name].detach()
            to_population = -torch.cdist(features[name], others).square() / (2 * variance)
            to_real = -torch.cdist(features[name], real[name]).square() / (2 * variance)
            scores[name] = self.block_score(to_population, to_real, own, (others, real[name], variance))
            sharpness[name] = -to_population.mean()
        return scores, sharpness

    @abstractmethod
    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """Compute the scores from one block.

        Args:
            to_population: The kernel's exponents between each scored sample and the population.
            to_real: The kernel's exponents between each scored sample and the real samples.
            own: Index of each scored sample in the population.
            context: Features of the population and of the real samples, and the kernel's variance.
        """

    def _variance(self, block: str, dimension: int) -> float:
        if not isinstance(self.bandwidth, dict):
            return self.bandwidth * dimension
        if block not in self.bandwidth:
            raise UserError(f"no bandwidth for the block {block!r}. {suggest(block, self.bandwidth)}")
        return self.bandwidth[block] * dimension
