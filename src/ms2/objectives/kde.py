"""Reverse KL between kernel density estimates, the paper's objective (section 3.3)."""

import math
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import PositiveFloat
from ms2.objectives.base import MAX_SHARE, Degeneracy, KernelObjective, too_narrow


class KDE(KernelObjective):
    """Scores samples by log q~(F) - log p~(F), two kernel density estimates of features (eq. 2): the paper's score.

    q~ is estimated from the generated and p~ from the target samples. The mean score is the reverse Kullback-Leibler
    divergence KL(q_f || p_f), which is mode-seeking.

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number
            for all blocks, or one per block. The paper has 1.
        blocks: Feature blocks to compare; by default those named in ``bandwidth``, or all.
        relative_bandwidth: Whether bandwidths are multiples of the mean feature variance of the target samples,
            for features of any scale, such as those of a pretrained network; the paper's are not.
        leave_one_out: Whether to leave a sample's own kernel out of q~, and one target sample out of p~ to
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
        bandwidth: PositiveFloat | dict[str, PositiveFloat] = 1.0,
        blocks: Sequence[str] | None = None,
        relative_bandwidth: bool = False,
        leave_one_out: bool = True,
    ) -> None:
        super().__init__(bandwidth, blocks, relative_bandwidth)
        self.leave_one_out = leave_one_out

    def block_score(
        self,
        generated_exponents: Float[Tensor, "b m"],
        real_exponents: Float[Tensor, "b l"],
        own_index: Int[Tensor, " b"],
        samples: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float | Float[Tensor, ""]],
    ) -> Float[Tensor, " b"]:
        """Compute the difference of the log-densities under the generated and the target samples."""
        size = generated_exponents.shape[1]
        if self.leave_one_out:
            generated_exponents = generated_exponents.scatter(1, own_index[:, None], -math.inf)
            size -= 1
        # Both densities from equal numbers of samples: otherwise their biases differ, and the difference decides
        # what is learned.
        real_exponents = real_exponents[:, :size]
        q = generated_exponents.logsumexp(1) - math.log(size)
        p = real_exponents.logsumexp(1) - math.log(real_exponents.shape[1])
        return q - p

    def _narrowness(self, exponents: Float[Tensor, "m m"]) -> Degeneracy | None:
        """Say why the kernel is too narrow, if it is; where samples keep their own kernel, if that is nearly all."""
        if self.leave_one_out:
            return super()._narrowness(exponents)
        if float(exponents.softmax(1).diagonal().mean()) > MAX_SHARE:
            return too_narrow("each sample's density is nearly that of its own kernel alone")
        return None
