"""Read places of objects off maps of their density."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_WINDOW = 2
"""Cells along a side of the window in which one object lies: bilinear weights split it among two times two."""


def read_places(
    density: Float[Tensor, "b c i j"], numbers: Int[Tensor, "b c"], windows: Sequence[tuple[int, int]]
) -> tuple[Bool[Tensor, "b c k"], Float[Tensor, "b c k 2"]]:
    """Read the places of given numbers of objects, the densest first.

    The window of a class's size with the most mass holds the next object, at the centre of its mass. One object's mass
    is taken out of it, and so on.

    Args:
        density: Expected number of objects of each class in each cell.
        numbers: Number of objects of each class to find.
        windows: By class, rows and columns of cells that one object extends over.

    Returns:
        Which of the k places of each class are used, and the places x, y as fractions of the map's width and height.
    """
    each = numbers.amax(0).tolist() if numbers.numel() else [0] * density.shape[1]
    most = max(each, default=0)
    places = [
        F.pad(_places_of_class(maps, number, window), (0, 0, 0, most - number))
        for maps, number, window in zip(density.unbind(1), each, windows, strict=True)
    ]
    return torch.arange(most, device=numbers.device) < numbers[..., None], torch.stack(places, 1)


def _places_of_class(density: Float[Tensor, "b i j"], most: int, window: tuple[int, int]) -> Float[Tensor, "b k 2"]:
    rows, columns = (max(MIN_WINDOW, side) for side in window)
    padding = (columns - 1, columns - 1, rows - 1, rows - 1)
    left = F.pad(density, padding)  # so that a window may extend beyond the image
    height, width = density.shape[1:]
    down = torch.arange(rows, device=density.device)[:, None] * left.shape[2]
    cells = (down + torch.arange(columns, device=density.device)).flatten()
    left = left.flatten(1)
    shape = (height + 2 * (rows - 1), width + 2 * (columns - 1))
    found = [density.new_zeros(len(density), 0, 2)]
    for _ in range(most):
        sums = F.avg_pool2d(left.unflatten(1, shape)[:, None], (rows, 1), 1)
        sums = F.avg_pool2d(sums, (1, columns), 1)[:, 0]  # along one axis after the other, as large windows take long
        best = sums.flatten(1).argmax(1)
        top, start = best.div(sums.shape[2], rounding_mode="floor"), best % sums.shape[2]
        index = (top * shape[1] + start)[:, None] + cells
        mass = left.gather(1, index)
        total = mass.sum(1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
        row, column = index.div(shape[1], rounding_mode="floor"), index % shape[1]
        y = (mass * (row - rows + 1.5)).sum(1) / total[:, 0] / height
        x = (mass * (column - columns + 1.5)).sum(1) / total[:, 0] / width
        found.append(torch.stack([x, y], 1)[:, None])
        left = left.scatter(1, index, mass * (1 - 1 / total.clamp(min=1)))
    return torch.cat(found, 1)
