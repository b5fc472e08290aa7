"""Reverse KL between kernel density estimates, the paper's objective (section 3.3)."""

import math
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from ms2.objectives.base import Objective


class KDE(Objective):
    """Scores samples by log q~(F) - log p~(F), two kernel density estimates of features (eq. 2): the paper's score.

    q~ is estimated from the generated and p~ from the real samples. The mean score is the reverse Kullback-Leibler
    divergence KL(q_f || p_f), which is mode-seeking.

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number
            for all blocks, or one per block. The paper has 1.
        blocks: Feature blocks to compare; by default those named in ``bandwidth``, or all.
        relative: Whether bandwidths are multiples of the mean feature variance of the real samples, for features of
            any scale, such as those of a network trained elsewhere; the paper's are not.
        leave_one_out: Whether to leave a sample's own kernel out of q~, and one real sample out of p~ to
            match. The paper keeps it (False), which overestimates the density of rare samples.

    Example:
        >>> generated = {"count": torch.tensor([[1.0], [1.0], [3.0]])}  # two images with one object, one with three
        >>> real = {"count": torch.tensor([[1.0], [3.0], [3.0]])}
        >>> scores, sharpness = KDE(bandwidth=0.1)(generated, generated, torch.arange(3), real)
        >>> scores < 0  # only images with three objects are rarer than in the target
        tensor([False, False,  True])
    """

    def __init__(
        self,
        bandwidth: float | dict[str, float] = 1.0,
        blocks: Sequence[str] | None = None,
        relative: bool = False,
        leave_one_out: bool = True,
    ) -> None:
        super().__init__(bandwidth, blocks, relative)
        self.leave_one_out = leave_one_out

    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """Compute the difference of the log-densities under the generated and the real samples."""
        size = to_population.shape[1]
        if self.leave_one_out:
            to_population = to_population.scatter(1, own[:, None], -math.inf)
            size -= 1
        # Both densities from equal numbers of samples: otherwise their biases differ, and the difference decides
        # what is learned.
        to_real = to_real[:, :size]
        q = to_population.logsumexp(1) - math.log(size)
        p = to_real.logsumexp(1) - math.log(to_real.shape[1])
        return q - p
