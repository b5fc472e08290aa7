"""Features of mean 0 and variance 1 over the images of training, whatever their scale."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

ROUNDING = 1e-5
"""Deviation, as a fraction of the mean, up to which a dimension counts as constant: about what single precision loses."""


class Standardisation(nn.Module):
    """Subtracts the mean and divides by the standard deviation, of the batch in training and else the running ones.

    Unlike `torch.nn.BatchNorm1d` it adds nothing to the variance, so that features of any scale get variance 1. A
    constant dimension becomes 0 everywhere.

    Args:
        dimension: Number of features.
        momentum: Least weight of a batch in the running mean and variance: of the first batches the plain mean is
            taken, so that nothing of the initial values is left.
    """

    mean: Tensor
    variance: Tensor
    num_batches: Tensor

    def __init__(self, dimension: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("variance", torch.ones(dimension))
        self.register_buffer("num_batches", torch.tensor(0))

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Standardise features; in training, update the running mean and variance too."""
        x = x.float()  # squares of small numbers are none in half precision
        if not self.training:
            return _standardise(x, self.mean, self.variance)
        variance, mean = torch.var_mean(x, 0, correction=0)
        with torch.no_grad():
            self.num_batches += 1
            weight = (1 / self.num_batches).clamp(min=self.momentum)
            self.mean.lerp_(mean, weight)
            self.variance.lerp_(variance * (len(x) / (len(x) - 1)), weight)
        return _standardise(x, mean, variance)


def _standardise(x: Float[Tensor, "b d"], mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> Tensor:
    varies = variance > (ROUNDING * mean).square()
    return (x - mean) * torch.where(varies, variance, 1.0).rsqrt() * varies
