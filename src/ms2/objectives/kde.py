"""Reverse KL between kernel density estimates, the paper's objective (section 3.3)."""

import math
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from ms2.objectives.base import Objective


class KDE(Objective):
    """The paper's score: log q~(F) - log p~(F), both densities by kernel density estimation (eq. 2).

    Its mean is the reverse Kullback-Leibler divergence KL(q_f || p_f), which seeks modes.

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number
            for all blocks, or one per block. The paper has 1.
        blocks: Feature blocks to compare; None for those named in ``bandwidth``, or all.
        relative: Whether bandwidths are in units of the mean variance of the real samples' features, whatever their
            scale, as those of a network trained elsewhere; the paper's are not.
        leave_one_out: Whether to leave a sample's own kernel out of q~, and one real sample out of p~ to
            match. The paper keeps it (False), which makes rare samples look frequent.
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
        """Log-density under the generated samples less that under the real ones."""
        size = to_population.shape[1]
        if self.leave_one_out:
            to_population = to_population.scatter(1, own[:, None], -math.inf)
            size -= 1
        # Both densities from the same number of samples: else their biases differ, and the difference decides
        # where the model goes.
        to_real = to_real[:, :size]
        q = to_population.logsumexp(1) - math.log(size)
        p = to_real.logsumexp(1) - math.log(to_real.shape[1])
        return q - p
