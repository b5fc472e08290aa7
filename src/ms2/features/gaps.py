"""How far objects in a row stand from the next: the distribution function of their gaps.

Sums over objects, each by itself, don't say this well: two cars close together and two far apart may have the same mean
place. In spatial statistics it is known as G, the distribution of distances to the nearest neighbour (Diggle, 1979);
here of those ahead, along an axis, of the same row. What counts is the share of gaps and not their number, which is
the structure's.
"""

import torch
from jaxtyping import Float
from torch import Tensor

SHARPNESS = 8
"""How much narrower than a strip its edges are."""


def steps(share: Float[Tensor, "*n"], bins: int) -> Float[Tensor, "*n f"]:
    """Soft steps along an axis from 0 to 1: how far each of f places on it is above this one."""
    edges = (torch.arange(bins, device=share.device) + 0.5) / bins
    return ((edges - share[..., None]) * (2 * bins)).sigmoid()


def strips(share: Float[Tensor, "*n"], number: int) -> Float[Tensor, "*n k"]:
    """How far a place on an axis lies in each of k strips across it; adds up to 1."""
    edges = torch.arange(1, number, device=share.device) / number
    below = ((edges - share[..., None]) * (SHARPNESS * number)).sigmoid()
    ones = torch.ones_like(share[..., None])
    return torch.cat([below, ones], -1) - torch.cat([ones - 1, below], -1)


def gaps_on_rows(mass: Float[Tensor, "b r j"], bins: int) -> Float[Tensor, "b f"]:
    """Share of gaps within r rows that are smaller than each of f distances.

    What lies in the next cell is taken for the object itself, which may be seen in two.

    Args:
        mass: How many objects each of a row's j cells holds.
        bins: The number of distances.
    """
    cell = torch.arange(mass.shape[2], device=mass.device)
    away = cell - cell[:, None]
    smaller = steps(away / mass.shape[2], bins) * (away > 1)[..., None]
    next_ = torch.einsum("brl,jlf->brjf", mass, smaller).clamp(max=1)
    any_ = (mass @ (away > 1).to(mass.dtype).T).clamp(max=1)
    return torch.einsum("brj,brjf->bf", mass, next_) / (mass * any_).sum((1, 2))[:, None].clamp(min=1)


def gaps_of_objects(place: Float[Tensor, "b n"], rows: Float[Tensor, "b n r"], bins: int) -> Float[Tensor, "b f"]:
    """The same of n objects, at places on an axis from 0 to 1, each of which is more or less on some of r rows."""
    away = place[:, None] - place[:, :, None]
    ahead = (away > 0).to(place.dtype)
    next_ = torch.einsum("bjr,bijf->birf", rows, steps(away, bins) * ahead[..., None]).clamp(max=1)
    any_ = (ahead @ rows).clamp(max=1)
    return torch.einsum("bir,birf->bf", rows, next_) / (rows * any_).sum((1, 2))[:, None].clamp(min=1)
