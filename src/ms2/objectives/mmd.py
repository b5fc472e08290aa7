"""Maximum mean discrepancy, by sample and of a whole batch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.objectives.base import Objective


class MMDWitness(Objective):
    """The witness function of the maximum mean discrepancy, a bounded score for each sample.

    Half the derivative of MMD^2 with respect to the sample's weight: mean kernel to the other generated samples
    less mean kernel to the real ones.
    """

    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """Mean kernel to the others less mean kernel to the real samples."""
        others = to_population.exp().scatter(1, own[:, None], 0.0).sum(1) / (to_population.shape[1] - 1)
        return others - to_real.exp().mean(1)


class BatchMMD(Objective):
    """The paper's comparison (Fig. 7): one squared MMD of the two batches as every sample's score.

    The unbiased estimate of Gretton et al. (2012, lemma 6). It has no gradient through a sample's features; that of the
    squared MMD is twice the `MMDWitness`'s.
    """

    pathwise = False

    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """The same number for every sample."""
        generated, real, variance = context

        def kernel(x: Tensor, y: Tensor) -> Tensor:
            return torch.exp(-torch.cdist(x, y).square() / (2 * variance))

        def within(x: Tensor) -> Tensor:  # the mean over pairs of different samples; each has kernel 1 to itself
            return (kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1))

        mmd = within(generated) + within(real) - 2 * kernel(generated, real).mean()
        return mmd.expand(len(own))
