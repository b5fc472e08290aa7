"""The interface of objectives: a score of each generated sample, low where the target has more of its kind."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.core.registry import Plugin

Blocks = Mapping[str, Float[Tensor, "_ _"]]


class Objective(Plugin, ABC, kind="objectives"):
    """A cost of each generated sample, given other generated and real ones, summed over feature blocks.

    It is the derivative of a divergence with respect to how much there is of such samples, so that its mean's gradient
    with the other samples held is that of the divergence: by the score function (structure), or through the features
    themselves (parameters), where ``pathwise`` says that it depends on these smoothly.

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number
            for all blocks, or one per block. The paper has 1.
        blocks: Feature blocks to compare; None for those named in ``bandwidth``, or all.
        relative: Whether bandwidths are in units of the mean variance of the real samples' features, whatever their
            scale, as those of a network trained elsewhere; the paper's are not.
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
        """Score of each sample, the sum of `by_block`, and the sharpness of each block's kernel."""
        scores, sharpness = self.by_block(features, population, own, real)
        return torch.stack(list(scores.values())).sum(0), sharpness

    def by_block(
        self, features: Blocks, population: Blocks, own: Int[Tensor, " b"], real: Blocks
    ) -> tuple[dict[str, Float[Tensor, " b"]], dict[str, Float[Tensor, ""]]]:
        """Score of each sample from each block, and the sharpness of the block's kernel.

        Sharpness is the mean squared distance to the population over 2 H, the kernel's exponent: near 0 the
        density ratio is all but linear and matches only means; far above 1 each sample sees only itself.

        Args:
            features: The samples to score.
            population: All generated samples, those of other processes included; b of them are ``features``.
            own: Place of each sample of ``features`` in the population.
            real: As many real samples as there are in the population.

        Raises:
            UserError: If a block is asked for that the extractor does not give.
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
            # scores are functions of a sample's own features: all others are held, also where there are gradients
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
        """Score from one block: the kernel's exponents to the population and to the real samples."""

    def _variance(self, block: str, dimension: int) -> float:
        if not isinstance(self.bandwidth, dict):
            return self.bandwidth * dimension
        if block not in self.bandwidth:
            raise UserError(f"no bandwidth for the block {block!r}. {suggest(block, self.bandwidth)}")
        return self.bandwidth[block] * dimension
