"""Forward KL divergence, a mode-covering objective."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.objectives.base import KernelObjective


class ForwardKL(KernelObjective):
    """Scores samples by the gradient of the forward KL divergence KL(p || q~), which is mode-covering.

    With K the kernel, F_1..F_m the generated and y_1..y_m the target samples,

        score_j = mean_k K(F_k, F_j) / q~(F_k) - mean_i K(y_i, F_j) / q~(y_i),    q~(f) = mean_n K(f, F_n).

    The second term alone is the score-function gradient of KL(p || q~). Its optimum is no q = p but a deconvolution,
    since the kernel smooths the model and not the target. The first term is the same under the generated samples, so
    that the expected score is K[(q - p) / q~]. Its mean under q is 0, so it is constant only where it is 0: where
    features identify the structure, q = p is the only stationary point of full support, and descent near it leads to
    it.

    Each target sample distributes one unit of (negative) score over the generated samples, by a softmax of the kernel's
    exponents, however far away they are: the samples nearest to a mode that the model never draws are attracted by its
    full mass, whereas the reverse KL (`KDE`) ignores such modes. Each generated sample distributes one positive unit in
    the same way, so scores have mean 0 in each block and lie between -(m - 1) and m - 1.

    A sample's own kernel is left out of the first term (k = j) and of its densities (n = k), where an isolated sample
    would raise its own score. To match, one generated sample is left out of each density of the second term, averaged
    over which. With that the expected score of every sample is exactly 0 at q = p, for each batch size. In batches of
    two all scores are 0.

    The price is variance: the few samples in a mode that is hardly covered share the unit scores of its whole mass, of
    the order m, where `KDE` takes a logarithm. Normalise advantages or clip gradients, and use large batches. With n
    samples of each set under a kernel, and q near p, the scores of both have a deviation of about (2 / n)^(1/2).

    Features must tell how far a sample is from what is missing: in a one-hot encoding of a count all other counts are
    equally far, so that nothing leads from 2 towards 7; the count itself, or Gaussian bumps of it, do.

    Example:
        >>> generated = {"count": torch.tensor([[1.0], [1.0], [2.0]])}
        >>> real = {"count": torch.tensor([[1.0], [7.0], [7.0]])}  # a mode that the model does not draw
        >>> scores, sharpness = ForwardKL(bandwidth=1.0)(generated, generated, torch.arange(3), real)
        >>> scores.argmin()  # the sample that is nearest to it has the lowest score
        tensor(2)
    """

    pathwise = False

    def block_score(
        self,
        generated_exponents: Float[Tensor, "b m"],
        real_exponents: Float[Tensor, "b l"],
        own_index: Int[Tensor, " b"],
        samples: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float | Float[Tensor, ""]],
    ) -> Float[Tensor, " b"]:
        """Compute the scores from one block: the first term of the class's formula minus the second."""
        # Every process distributes the units of all samples, though it scores only some: a sample's part depends on
        # all others.
        generated, real, variance = samples
        size = len(generated)
        among = -torch.cdist(generated, generated).square() / (2 * variance)
        added = among.fill_diagonal_(-math.inf).softmax(1).sum(0)
        subtracted = _shares_leaving_one_out(-torch.cdist(real, generated).square() / (2 * variance)).mean(0) * size
        return (added - subtracted)[own_index]


def _shares_leaving_one_out(exponents: Float[Tensor, "l m"]) -> Float[Tensor, "l m"]:
    """Compute the softmax of each row over all but one of its entries, averaged over which is left out; m >= 2.

    With r the softmax of the whole row, entry j has r_j / (1 - r_n) where n != j is left out. Subtracting the largest
    entry from the sum would cancel digits, so that case is normalised anew; the other r_n are at most 1/2.
    """
    largest = exponents.argmax(1, keepdim=True)
    without_largest = exponents.scatter(1, largest, -math.inf).softmax(1)
    r = exponents.softmax(1)
    others = (1 / (1 - r)).scatter(1, largest, 0.0)
    return (r * (others.sum(1, keepdim=True) - others) + without_largest) / exponents.shape[1]
