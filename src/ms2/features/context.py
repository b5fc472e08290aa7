"""Layers that add long-range context to a feature map: coarser maps, and running sums along both axes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ms2.features.resnet import ResidualBlock

SUM_SCALE = 8
"""Divisor of running sums, so that sums over some dozens of positions have the magnitude of their terms."""


class FeaturePyramid(nn.Module):
    """Adds upsampled coarser feature maps, each of half the resolution, to a feature map.

    Args:
        channels: Channels of the map; each coarser map has 1.5 times those of the map before.
        num_levels: Number of coarser maps.
    """

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__()
        wider = channels * 3 // 2
        self.coarser = nn.Sequential(
            ResidualBlock(channels, wider, 2),
            FeaturePyramid(wider, num_levels - 1) if num_levels > 1 else nn.Identity(),
            nn.Conv2d(wider, channels, 1),
        )

    def forward(self, maps: Float[Tensor, "b k i j"]) -> Float[Tensor, "b k i j"]:
        """Add the upsampled coarser maps."""
        return maps + F.interpolate(self.coarser(maps), maps.shape[2:], mode="bilinear")


class AxialContext(nn.Module):
    """Adds context of whole rows and columns to a feature map, by running sums along both axes.

    The number of roads before a position, for example, is such a sum, however far apart they are; convolutions of a few
    pixels can't compute it.

    Args:
        channels: Channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows, self.columns = BidirectionalCumsum(channels), BidirectionalCumsum(channels)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Float[Tensor, "b k i j"]) -> Float[Tensor, "b k i j"]:
        """Add the features of each cell's row and column."""
        rows = self.rows(torch.cat([maps.mean(3), maps.amax(3)], 1))
        columns = self.columns(torch.cat([maps.mean(2), maps.amax(2)], 1))
        return maps + F.relu(self.mix(maps) + rows[..., None] + columns[:, :, None])


class BidirectionalCumsum(nn.Module):
    """Features along a line, from the sums of features before and after each position.

    Args:
        channels: Channels of the output; the input has twice as many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.see = nn.Conv1d(2 * channels + 1, channels, 3, padding=1)
        self.tell = nn.Sequential(nn.Conv1d(3 * channels, channels, 1), nn.ReLU(), nn.Conv1d(channels, channels, 1))

    def forward(self, line: Float[Tensor, "b k2 l"]) -> Float[Tensor, "b k l"]:
        """Compute the features of each position from the sums before and after it."""
        # the position is an input too: an object that spans the image has its centre in the middle
        position = torch.linspace(-1, 1, line.shape[2], device=line.device).expand(len(line), 1, -1)
        features = F.relu(self.see(torch.cat([line, position], 1)))
        before = (features.cumsum(2) - features) / SUM_SCALE
        after = (features.flip(2).cumsum(2).flip(2) - features) / SUM_SCALE
        return self.tell(torch.cat([features, before, after], 1))
