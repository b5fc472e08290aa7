"""Maximum mean discrepancy, by sample and of a whole batch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.objectives.base import Degeneracy, KernelObjective, too_narrow


class MMDObjective(KernelObjective):
    """Base class of objectives that compare mean kernels."""

    def _narrowness(self, exponents: Float[Tensor, "m m"]) -> Degeneracy | None:
        """Say why the kernel is too narrow, if it is: sums of kernels to other samples are below that to the own.

        A density is a ratio's, so that it matters which samples are nearest. Means of kernels are compared as they are:
        where nearly all are zero, so is the discrepancy, wherever samples lie.
        """
        if float(exponents.exp().sum(1).mean()) < 2:
            return too_narrow("most samples have not one other within it, so discrepancies are nearly zero")
        return None


class MMDWitness(MMDObjective):
    """Scores samples by the witness function of the maximum mean discrepancy, which is bounded by -1 and 1.

    It is half the derivative of MMD^2 with respect to the sample's weight: mean kernel to the other generated samples
    minus mean kernel to the target samples.

    Example:
        >>> generated = {"count": torch.tensor([[1.0], [1.0], [3.0]])}
        >>> real = {"count": torch.tensor([[1.0], [3.0], [3.0]])}
        >>> MMDWitness(bandwidth=0.1)(generated, generated, torch.arange(3), real)[0]
        tensor([ 0.1667,  0.1667, -0.6667])
    """

    def block_score(
        self,
        generated_exponents: Float[Tensor, "b m"],
        real_exponents: Float[Tensor, "b l"],
        own_index: Int[Tensor, " b"],
        samples: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float | Float[Tensor, ""]],
    ) -> Float[Tensor, " b"]:
        """Compute the witness function."""
        others = generated_exponents.exp().scatter(1, own_index[:, None], 0.0).sum(1) / (
            generated_exponents.shape[1] - 1
        )
        return others - real_exponents.exp().mean(1)


class BatchMMD(MMDObjective):
    """Gives every sample the squared MMD of the two batches as its score: the paper's comparison (Fig. 7).

    The estimate is unbiased (Gretton et al. 2012, lemma 6). It has no gradient through a sample's features; the
    gradient of the squared MMD is twice that of `MMDWitness`.

    Example:
        >>> generated = {"count": torch.tensor([[1.0], [1.0], [3.0]])}
        >>> real = {"count": torch.tensor([[1.0], [3.0], [3.0]])}
        >>> BatchMMD(bandwidth=0.1)(generated, generated, torch.arange(3), real)[0]
        tensor([-0.2222, -0.2222, -0.2222])
    """

    pathwise = False

    def block_score(
        self,
        generated_exponents: Float[Tensor, "b m"],
        real_exponents: Float[Tensor, "b l"],
        own_index: Int[Tensor, " b"],
        samples: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float | Float[Tensor, ""]],
    ) -> Float[Tensor, " b"]:
        """Compute the squared MMD, and return it for every sample."""
        generated, real, variance = samples

        def kernel(x: Tensor, y: Tensor) -> Tensor:
            return torch.exp(-torch.cdist(x, y).square() / (2 * variance))

        def within(x: Tensor) -> Tensor:  # mean over pairs of different samples; each sample has kernel 1 to itself
            return (kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1))

        mmd = within(generated) + within(real) - 2 * kernel(generated, real).mean()
        return mmd.expand(len(own_index))
