"""Distribution functions of the gaps between neighbouring objects on a line, as features.

Sums over objects, each by itself, don't express gaps well: two cars close together and two far apart may have the same
mean position. In spatial statistics this function is known as G, the distribution of distances to the nearest neighbour
(Diggle, 1979); here of neighbours ahead, along an axis, on the same line. It is normalised by the number of gaps, which
depends on the structure alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor

SHARPNESS = 8
"""Width of a bin of `soft_bins` over the width of its edges."""
SAME_OBJECT_CELLS = 1
"""Distance in cells within which two cells are taken to show one object."""


def soft_thresholds(positions: Float[Tensor, "*n"], bins: int) -> Float[Tensor, "*n f"]:
    """Evaluate f soft step functions of positions in [0, 1]: near 1 where the threshold is above the position."""
    edges = (torch.arange(bins, device=positions.device) + 0.5) / bins
    return ((edges - positions[..., None]) * (2 * bins)).sigmoid()


def soft_bins(positions: Float[Tensor, "*n"], num_bins: int) -> Float[Tensor, "*n k"]:
    """Assign positions in [0, 1] to k bins, with soft weights that sum to 1."""
    edges = torch.arange(1, num_bins, device=positions.device) / num_bins
    below = ((edges - positions[..., None]) * (SHARPNESS * num_bins)).sigmoid()
    ones = torch.ones_like(positions[..., None])
    return torch.cat([below, ones], -1) - torch.cat([ones - 1, below], -1)


def gap_cdf_from_maps(density: Float[Tensor, "b m j"], bins: int) -> Float[Tensor, "b f"]:
    """Compute the fraction of gaps within m lines that are smaller than each of f distances.

    Args:
        density: Expected number of objects in each of a line's j cells. Neighbouring cells may show one object, and
            make no gap.
        bins: Number of distances.
    """
    cell = torch.arange(density.shape[2], device=density.device)
    distance = cell - cell[:, None]
    ahead = distance > SAME_OBJECT_CELLS
    smaller = soft_thresholds(distance / density.shape[2], bins) * ahead[..., None]
    next_within = torch.einsum("bml,jlf->bmjf", density, smaller).clamp(max=1)
    has_next = (density @ ahead.to(density.dtype).T).clamp(max=1)
    gaps = (density * has_next).sum((1, 2))[:, None]
    return torch.einsum("bmj,bmjf->bf", density, next_within) / gaps.clamp(min=1)


def gap_cdf_from_objects(
    positions: Float[Tensor, "b n"], lines: Float[Tensor, "b n m"], bins: int
) -> Float[Tensor, "b f"]:
    """Compute the fraction of gaps between objects on m lines that are smaller than each of f distances.

    Args:
        positions: Positions of n objects along the axis, in [0, 1].
        lines: Weight of each object on each line.
        bins: Number of distances.
    """
    distance = positions[:, None] - positions[:, :, None]
    ahead = (distance > 0).to(positions.dtype)
    next_within = torch.einsum("bjm,bijf->bimf", lines, soft_thresholds(distance, bins) * ahead[..., None]).clamp(max=1)
    has_next = (ahead @ lines).clamp(max=1)
    return torch.einsum("bim,bimf->bf", lines, next_within) / (lines * has_next).sum((1, 2))[:, None].clamp(min=1)
