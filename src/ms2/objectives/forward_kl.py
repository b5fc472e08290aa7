"""Forward KL, a mode-covering objective."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.objectives.base import Objective


class ForwardKL(Objective):
    """A mode-covering score, from KL(p || q~): low wherever the target has more than the model covers.

    With K the kernel, F_1..F_m the generated and y_1..y_m the real samples,

        score_j = mean_k K(F_k, F_j) / q~(F_k) - mean_i K(y_i, F_j) / q~(y_i),    q~(f) = mean_n K(f, F_n).

    The second term alone is the score-function gradient of KL(p || q~). Its optimum is no q = p but a deconvolution,
    since the kernel smooths the model and not the target. The first term is the same under the generated samples, so
    that the expected score is K[(q - p) / q~]. Its mean under q is 0, so it is constant only where it is 0: where
    features identify the structure, q = p is the only stationary point of full support, and descent near it leads to
    it. No noise has to be drawn.

    Each real sample hands out one unit of credit over the generated ones, by a softmax of the kernels' exponents,
    however far away they are: to a mode that the model never draws, the nearest samples are drawn by its full mass,
    where the reverse KL (`KDE`) asks nothing of what is not drawn. In the same way each generated sample hands out a
    debit, so scores have mean 0 in each block and lie between -(m - 1) and m - 1.

    A sample's own kernel is left out of the first term (k = j) and of its densities (n = k): where it is isolated it
    would pay for itself. To match, one generated sample is left out of each density of the second term, averaged over
    which. With that the expected score of every sample is exactly 0 at q = p, for each batch size. Batches of two have
    no score but 0.

    The cost is variance: the few samples in a mode that is hardly covered share the credit of its whole mass, of the
    order m, where `KDE` takes a logarithm. Normalise advantages or cut gradients, and take large batches. With n
    samples of each set under a kernel, and q near p, both scores deviate by about (2 / n)^(1/2).

    Features must tell how far a sample is from what is missing: a one-hot of a count finds all other counts equally
    far, and no credit leads from 2 towards 7; the count itself, or Gaussian bumps of it, do.
    """

    pathwise = False

    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """Debit from the other generated samples less credit from the real ones, see the class."""
        # Every process hands out the credit of all samples, of which it scores only some: a sample's share depends on
        # all those it is shared with.
        population, real, variance = context
        size = len(population)
        among = -torch.cdist(population, population).square() / (2 * variance)
        debit = among.fill_diagonal_(-math.inf).softmax(1).sum(0)
        credit = _shares_leaving_one_out(-torch.cdist(real, population).square() / (2 * variance)).mean(0) * size
        return (debit - credit)[own]


def _shares_leaving_one_out(exponents: Float[Tensor, "l m"]) -> Float[Tensor, "l m"]:
    """Softmax of each row over all but one of its places, averaged over which one is left out; m is at least 2.

    With r the softmax of the whole row, place j has r_j / (1 - r_n) where n != j is left out. Taking the largest place
    out of the sum would cancel its digits, so that row is normalised anew; the others have r_n at most 1/2.
    """
    largest = exponents.argmax(1, keepdim=True)
    without_largest = exponents.scatter(1, largest, -math.inf).softmax(1)
    r = exponents.softmax(1)
    others = (1 / (1 - r)).scatter(1, largest, 0.0)
    return (r * (others.sum(1, keepdim=True) - others) + without_largest) / exponents.shape[1]
