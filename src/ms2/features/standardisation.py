"""Norms over the images of training: of features, whatever their scale, and of maps that are nearly empty."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ROUNDING = 1e-5
"""Deviation, as a fraction of the mean, up to which a dimension counts as constant: what single precision may lose."""


class RunningMoments(nn.Module):
    """Mean and variance of each dimension over the batches of training, without a trace of initial values.

    Args:
        dimension: Number of dimensions.
        momentum: Least weight of a batch: the first ones are averaged, as long as that gives each of them more.
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

    @torch.no_grad()
    def update(self, mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> None:
        """Take in mean and unbiased variance of a batch; without waiting for the device."""
        self.num_batches += 1
        weight = (1 / self.num_batches).clamp(min=self.momentum)
        self.mean.lerp_(mean, weight)
        self.variance.lerp_(variance, weight)


class Standardisation(RunningMoments):
    """Subtracts the mean and divides by the standard deviation, of the batch in training and else the running ones.

    Unlike `torch.nn.BatchNorm1d` it adds nothing to the variance, so that features of any scale get variance 1. A
    constant dimension becomes 0 everywhere.
    """

    def measure(self, x: Float[Tensor, "n d"]) -> None:
        """Take the moments of these features in place of the running ones."""
        variance, mean = torch.var_mean(x.float(), 0)
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Standardise features; in training, update the running moments too."""
        x = x.float()  # squares of small numbers are zero in half precision
        if not self.training:
            return _standardise(x, self.mean, self.variance)
        variance, mean = torch.var_mean(x, 0, correction=0)
        self.update(mean, variance * (len(x) / (len(x) - 1)))
        return _standardise(x, mean, variance)


class BatchNorm(RunningMoments):
    """Batch norm of maps, as `torch.nn.BatchNorm2d`, whose running moments are those of many batches.

    A few images that are nearly empty have moments unlike those of others. An error of these moves the level of all
    the empty places, which a mean over the image shows more than the objects on it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise maps; in training, by their own moments, which update the running ones."""
        if not self.training:
            return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias)
        mean, variance = torch.zeros_like(self.mean), torch.ones_like(self.variance)
        y = F.batch_norm(x, mean, variance, self.weight, self.bias, training=True, momentum=1)  # overwrites both
        self.update(mean, variance)
        return y


def _standardise(x: Float[Tensor, "b d"], mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> Tensor:
    varies = variance > (ROUNDING * mean).square()
    return (x - mean) * torch.where(varies, variance, 1.0).rsqrt() * varies
