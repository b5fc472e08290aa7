"""Energy distance, by sample."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.objectives.base import Objective


class EnergyDistance(Objective):
    """Scores samples by half the derivative of the energy distance with respect to the sample's weight.

    With X, X' generated and Y, Y' target samples, the squared distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Székely and
    Rizzo 2013, "Energy statistics") has half the derivative

        score_j = mean_i |F_j - y_i| - mean_{k != j} |F_j - F_k|

    with Euclidean norms: its witness function, that of the MMD with the kernel -|x - y| (Sejdinovic et al. 2013). The
    sample itself is left out, so that the expected score of every sample is exactly 0 where both distributions are
    equal. The distance is 0 there alone, it has no bandwidth, and samples far from all others are scored too. Scores
    have the unit of the features: a block whose features are larger weighs more in the sum.

    Example:
        >>> generated = {"count": torch.tensor([[1.0], [1.0], [3.0]])}
        >>> real = {"count": torch.tensor([[1.0], [3.0], [3.0]])}
        >>> EnergyDistance()(generated, generated, torch.arange(3), real)[0]
        tensor([ 0.3333,  0.3333, -1.3333])
    """

    def compare(
        self,
        block: str,
        features: Float[Tensor, "b d"],
        generated: Float[Tensor, "m d"],
        own_index: Int[Tensor, " b"],
        real: Float[Tensor, "l d"],
    ) -> tuple[Float[Tensor, " b"], None]:
        """Compute the witness function of one block."""
        others = _distances(features, generated).scatter(1, own_index[:, None], 0.0).sum(1) / (len(generated) - 1)
        return _distances(features, real).mean(1) - others, None


def _distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    # By way of a matrix product, equal features would have a distance above 0 by rounding, and a gradient of norm 1.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
