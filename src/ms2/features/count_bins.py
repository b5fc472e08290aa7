"""Count blocks: numbers of objects, each spread over bins."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.features.base import Blocks


class CountBins(nn.Module):
    """Spreads numbers of objects by a Gaussian over bins 0 ... max_count: near numbers are near, far ones equally far.

    Args:
        max_counts: Largest number that is represented, by the name of its block.
        std: Standard deviation of the Gaussian, in objects.
    """

    largest: Tensor
    bins: Tensor

    def __init__(self, max_counts: Mapping[str, int], std: float) -> None:
        super().__init__()
        self.max_counts, self.std = dict(max_counts), std
        largest = torch.tensor([float(number) for number in max_counts.values()])
        self.register_buffer("largest", largest[:, None], persistent=False)
        bins = torch.arange(float(max(max_counts.values(), default=0) + 1))
        self.register_buffer("bins", bins, persistent=False)

    def forward(self, numbers: Float[Tensor, "b k"]) -> Blocks:
        """Compute the block of each number; those above the largest are taken for it."""
        number = torch.minimum(numbers.unsqueeze(2), self.largest)
        bumps = torch.exp(-0.5 * ((number - self.bins) / self.std) ** 2)
        blocks = zip(self.max_counts.items(), bumps.unbind(1), strict=True)
        return {name: block[:, : max_count + 1] for (name, max_count), block in blocks}

    def overflow_fraction(self, numbers: Float[Tensor, "m k"]) -> dict[str, float]:
        """Estimate, by block, the fraction of numbers that are at least half an object above the largest."""
        beyond = (numbers > self.largest.squeeze(1) + 0.5).float().mean(0)
        return dict(zip(self.max_counts, beyond.tolist(), strict=True))
