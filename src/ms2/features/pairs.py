"""How far objects in a row stand from each other: pairs within a distance, as counted by Ripley's K function (1976).

Sums over objects, each by itself, don't say this well: two cars close together and two far apart may have the same mean
place. Pairs do, wherever the row begins.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

REACH = 0.5
"""Greatest distance, as a share of the axis."""
SHARPNESS = 8
"""How much narrower than a strip its edges are."""


def strips(share: Float[Tensor, "*n"], number: int) -> Float[Tensor, "*n k"]:
    """How far a place on an axis lies in each of k strips across it; adds up to 1."""
    edges = torch.arange(1, number, device=share.device) / number
    below = ((edges - share[..., None]) * (SHARPNESS * number)).sigmoid()
    ones = torch.ones_like(share[..., None])
    return torch.cat([below, ones], -1) - torch.cat([ones - 1, below], -1)


def pairs_on_lines(mass: Float[Tensor, "*b k j"], bins: int) -> Float[Tensor, "*b f"]:
    """Pairs of objects on the same of k lines and within each of f distances, by the number of objects on the line.

    By line, since the number of pairs grows with the square of that: else a scene whose objects keep to one line would
    seem crowded, and learning would move them apart to make up for it.

    Args:
        mass: How many objects each of a line's j cells holds.
        bins: The number of distances.
    """
    size = mass.shape[-1]
    place = (torch.arange(size, device=mass.device) + 0.5) / size
    both = torch.einsum("...kj,...kl->...kjl", mass, mass).flatten(-2)
    number = mass.sum(-1, keepdim=True)
    pairs = both @ _within((place[:, None] - place).abs().flatten(), bins) / 2
    # a cell that holds an object makes a pair of it with itself
    return ((pairs - number * _within(place.new_zeros(()), bins) / 2) / number.clamp(min=1)).sum(-2)


def pairs_of_objects(
    there: Bool[Tensor, "b n"], place: Float[Tensor, "b n"], lines: Float[Tensor, "b n k"], bins: int
) -> Float[Tensor, "b f"]:
    """The same of n objects, at places on an axis from 0 to 1, and each on some of k lines."""
    on = lines * there[..., None]
    by = on / on.sum(1, keepdim=True).clamp(min=1)
    both = (by @ on.transpose(1, 2)).triu(1)
    within = _within((place[:, :, None] - place[:, None]).abs(), bins)
    return torch.einsum("bij,bijf->bf", both, within)


def _within(distance: Float[Tensor, "*n"], bins: int) -> Float[Tensor, "*n f"]:
    """Soft steps: whether a distance is less than each of f."""
    edges = REACH * (torch.arange(bins, device=distance.device) + 0.5) / bins
    return ((edges - distance[..., None]) * (2 * bins / REACH)).sigmoid()
