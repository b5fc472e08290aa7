"""Where in the image objects are, and how high they look: a block by class, from boxes."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ms2.core.bounds import Bounds, PositiveFloat
from ms2.core.errors import UserError
from ms2.core.settings import Configured
from ms2.features.base import Blocks, check_names

Bins = Annotated[int, Bounds(ge=2, le=64)]
"""Number of bins along a side, between whose centres boxes are divided."""


class BoxLayout(Configured, nn.Module):
    """Spreads the boxes of each class over a grid of where they are across the image and how high they are.

    The distance of an object shows in the height of its box, and the lane in where it is: so the block says where on
    the street objects are, whatever they look like. Each box has unit mass, divided bilinearly among the four nearest
    of the grid's points, which are evenly spaced across the width, and in the logarithm of the height. Boxes beyond its
    border count there. Not in the paper.

    Args:
        classes: Names of the classes that have a block, ``layout_<class>``.
        columns: Points across the width of the image, from edge to edge.
        rows: Points between the heights.
        heights: Heights in pixels of the first and the last row.

    Raises:
        UserError: If no class is named, or heights are not ascending.

    Example:
        >>> layout = BoxLayout(["car"], columns=2, rows=2, heights=(10, 40))
        >>> boxes = torch.tensor([[[20.0, 0.0, 30.0, 10.0], [95.0, 0.0, 105.0, 20.0]]])
        >>> layout(boxes, torch.zeros(1, 2, dtype=torch.long), ["car"], width=100)["layout_car"]
        tensor([[0.7500, 0.7500, 0.0000, 0.5000]])
    """

    def __init__(
        self,
        classes: Sequence[str],
        columns: Bins = 6,
        rows: Bins = 4,
        heights: tuple[PositiveFloat, PositiveFloat] = (40.0, 240.0),
    ) -> None:
        super().__init__()
        if not classes:
            raise UserError("features.layout.classes is empty: name one class at least, or leave out features.layout")
        if heights[0] >= heights[1]:
            raise UserError(f"features.layout.heights must be two heights in ascending order, not {tuple(heights)}")
        self.classes, self.columns, self.rows, self.heights = list(classes), columns, rows, heights

    def check(self, counted: Sequence[str]) -> None:
        """Raise an error if a class is not among those that are found."""
        check_names(dict.fromkeys(self.classes, 0), counted, "layout.classes")

    def forward(
        self, boxes: Float[Tensor, "b n 4"], classes: Int[Tensor, "b n"], names: Sequence[str], width: int
    ) -> Blocks:
        """Compute the blocks, each flattened by columns.

        Args:
            boxes: Boxes x0, y0, x1, y1 in pixels.
            classes: Index of each box's class among the names; others for boxes that do not count.
            names: Names of classes.
            width: Width of the images in pixels.
        """
        across = (boxes[..., 0] + boxes[..., 2]) / 2 / width
        low, high = (math.log(height) for height in self.heights)
        up = ((boxes[..., 3] - boxes[..., 1]).clamp(min=1e-3).log() - low) / (high - low)
        grid = torch.einsum("bnx,bny->bnxy", _tents(across, self.columns), _tents(up, self.rows)).flatten(2)
        place = {name: (classes == names.index(name)).to(grid.dtype) for name in self.classes}
        return {f"layout_{name}": torch.einsum("bn,bnk->bk", is_one, grid) for name, is_one in place.items()}


def _tents(fraction: Float[Tensor, "b n"], number: int) -> Float[Tensor, "b n k"]:
    """Divide unit mass between the two nearest of evenly spaced points from 0 to 1."""
    points = torch.arange(number, device=fraction.device)
    return F.relu(1 - (fraction.clamp(0, 1).unsqueeze(2) * (number - 1) - points).abs())
