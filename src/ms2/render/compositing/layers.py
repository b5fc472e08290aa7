"""Batched compositing of rotated rectangles: rasterisation to fragments, depth peeling, alpha blending.

A fragment is one pixel of one sprite. All sprites of all canvases form one flat list of fragments, as on a graphics
card; pixels outside of a sprite cost nothing, and no pixel depends on other canvases of the batch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

OPAQUE_ALPHA = 0.999
"""Opacity from which on fragments below are skipped; bilinear weights add up to 1 only approximately."""
TRANSPARENT_ALPHA = 0.002
"""Opacity up to which a fragment is skipped: half a level of 8 bits."""
EDGE_TOLERANCE = 0.05
"""Pixels by which rectangles are enlarged: ends of rows are divided by a sine or cosine, imprecisely if it is tiny."""


@dataclass(frozen=True)
class Fragments:
    """k fragments (pixels) of s sprites on canvases of equal size, ordered by sprite, row and column.

    Attributes:
        sprite: Sprite of each of the r rows of fragments.
        line: Row of the canvas on which each of those rows lies.
        stop: Number of fragments up to and including each row's last.
        row: Row of fragments that each fragment belongs to, 0 to r - 1.
        across: Column of each fragment's pixel centre: its index plus 0.5.
        pixel: Index of each fragment's pixel in the flattened canvases.
        bounds: Numbers of sprites, rows and fragments up to each bound between pieces of the list of sprites: from
            zeros for the start of the first piece to s, r and k for the end of the last.
    """

    sprite: Int[Tensor, " r"]
    line: Int[Tensor, " r"]
    stop: Int[Tensor, " r"]
    row: Int[Tensor, " k"]
    across: Float[Tensor, " k"]
    pixel: Int[Tensor, " k"]
    bounds: list[tuple[int, int, int]]

    def expand_to_fragments(self, values: Tensor) -> Tensor:
        """Expand per-sprite values (s, ...) to fragments (k, ...)."""
        return values.index_select(0, self.sprite).index_select(0, self.row)

    def affine_at_pixels(
        self, x: Float[Tensor, " s"], y: Float[Tensor, " s"], start: Float[Tensor, " s"]
    ) -> Float[Tensor, " k"]:
        """Evaluate ``start + x * column + y * row`` at pixel centres; differentiable in all three."""
        at_zero = start.index_select(0, self.sprite) + y.index_select(0, self.sprite) * (self.line + 0.5)
        step = x.index_select(0, self.sprite).index_select(0, self.row)
        return at_zero.index_select(0, self.row) + step * self.across

    def pieces(self, first: int, last: int) -> "Fragments":
        """Select the fragments of pieces ``first`` to ``last - 1``; sprites and rows are counted from theirs on."""
        (sprite, row, start), (_, row_end, end) = self.bounds[first], self.bounds[last]
        rows, own = slice(row, row_end), slice(start, end)
        return Fragments(
            self.sprite[rows] - sprite,
            self.line[rows],
            self.stop[rows] - start,
            self.row[own] - row,
            self.across[own],
            self.pixel[own],
            [(s - sprite, r - row, k - start) for s, r, k in self.bounds[first : last + 1]],
        )

    def span(self, piece: int) -> slice:
        """Return which fragments belong to a piece."""
        return slice(self.bounds[piece][2], self.bounds[piece + 1][2])


def cos_sin(angle: Float[Tensor, " s"]) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Compute cosine and sine such that equal angles give equal results.

    The rounding of float32 kernels depends on the position in the tensor.
    """
    wide = angle.double()
    return wide.cos().to(angle.dtype), wide.sin().to(angle.dtype)


@torch.no_grad()
def rasterise(
    x: Float[Tensor, " s"],
    y: Float[Tensor, " s"],
    cos: Float[Tensor, " s"],
    sin: Float[Tensor, " s"],
    half_length: Float[Tensor, " s"],
    half_width: Float[Tensor, " s"],
    canvas: Int[Tensor, " s"],
    height: int,
    width: int,
    bounds: Int[Tensor, " p"],
) -> Fragments:
    """Rasterise rotated rectangles: find the pixels whose centres lie within, or less than a tenth of a pixel outside.

    Args:
        x: Column of each rectangle's centre, from the canvas's left edge.
        y: Row of the centre, from the upper edge.
        cos: Cosine of the rectangle's counter-clockwise angle on the image.
        sin: Sine of the angle.
        half_length: Half of the rectangle's side along its heading, in pixels.
        half_width: Half of the other side, in pixels.
        canvas: Canvas on which each rectangle lies.
        height: Rows of a canvas.
        width: Columns of a canvas.
        bounds: Numbers of sprites up to each bound between pieces of the list, from 0 to s.

    The device is waited for twice, to read how many rows and fragments there are.
    """
    half_length, half_width = half_length + EDGE_TOLERANCE, half_width + EDGE_TOLERANCE
    reach = half_length * sin.abs() + half_width * cos.abs()
    first, number = _within(y - reach, y + reach, height)
    up_to = number.cumsum(0)
    row_bounds = F.pad(up_to, (1, 0)).index_select(0, bounds)
    sprites, rows = torch.stack([bounds, row_bounds]).tolist()
    sprite = torch.repeat_interleave(number, output_size=rows[-1])
    line = torch.arange(rows[-1], device=x.device) + (first - up_to + number).index_select(0, sprite)
    values = torch.stack([x, y, _nonzero(cos), _nonzero(sin), half_length, half_width]).index_select(1, sprite)
    x, y, cos, sin, half_length, half_width = values.unbind()
    dy = line + 0.5 - y
    # columns at which a row enters and leaves the two strips whose intersection is the rectangle
    lengthwise = _strip(dy * sin, half_length, cos)
    crosswise = _strip(-dy * cos, half_width, sin)
    left = torch.maximum(lengthwise[0], crosswise[0])
    right = torch.minimum(lengthwise[1], crosswise[1])
    first, number = _within(x + left, x + right, width)
    stop = number.cumsum(0)
    ends = F.pad(stop, (1, 0)).index_select(0, row_bounds).tolist()
    row = torch.repeat_interleave(number, output_size=ends[-1])
    column = (first - stop + number).index_select(0, row) + torch.arange(ends[-1], device=row.device)
    start = (canvas.index_select(0, sprite) * height + line) * width
    pixel = start.index_select(0, row) + column
    return Fragments(sprite, line, stop, row, column + 0.5, pixel, list(zip(sprites, rows, ends, strict=True)))


def _within(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the first of the pixels 0 ... size - 1 with centres in [low, high], and their number."""
    first = (low - 0.5).ceil().clamp(0, size)
    last = (high - 0.5).floor().clamp(-1, size - 1)
    return first.long(), (last - first + 1).clamp(min=0).long()


def _nonzero(value: Tensor) -> Tensor:
    """Replace values near zero by a small positive one, to divide by."""
    return torch.where(value.abs() < 1e-4, 1e-4, value)


def _strip(middle: Tensor, half: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    one, other = (middle - half) / slope, (middle + half) / slope
    return torch.minimum(one, other), torch.maximum(one, other)


@torch.no_grad()
def topmost(
    pixel: Int[Tensor, " k"], valid: Bool[Tensor, " k"], pixels: int
) -> tuple[Int[Tensor, " p"], Bool[Tensor, " k"]]:
    """Find the topmost (last) valid fragment of each pixel, -1 for none; also return which fragments are topmost."""
    index = torch.arange(len(pixel), device=pixel.device)
    top = pixel.new_full((pixels,), -1).scatter_reduce_(0, pixel, torch.where(valid, index, -1), "amax")
    return top, top.index_select(0, pixel) == index


@torch.no_grad()
def peel(pixel: Int[Tensor, " k"], opacity: Float[Tensor, " k"], pixels: int) -> list[Int[Tensor, " _"]]:
    """Depth-peel fragments into layers from top to bottom; each layer has at most one fragment per pixel.

    Transparent fragments and those below opaque ones are left out. The number of layers is the maximum number of
    remaining fragments at a pixel. The device is waited for once a layer.
    """
    found = []
    rest, drawn = torch.arange(len(pixel), device=pixel.device), opacity > TRANSPARENT_ALPHA
    while len(rest):
        top, here = topmost(pixel, drawn, pixels)
        over = top.index_select(0, pixel).clamp_(min=0)  # it is -1 only where all fragments are transparent
        below = drawn & ~here & (opacity.index_select(0, over) < OPAQUE_ALPHA)
        number, left = torch.stack([here.count_nonzero(), below.count_nonzero()]).tolist()
        found.append(rest.index_select(0, _places(here, number)))
        if not left:
            break
        below = _places(below, left)
        rest, pixel, opacity, drawn = (values.index_select(0, below) for values in (rest, pixel, opacity, drawn))
    return found


def _places(mask: Bool[Tensor, " k"], number: int) -> Int[Tensor, " n"]:
    """Return where a mask with a known number of entries is set; ``nonzero`` would wait for the device to count."""
    return torch.repeat_interleave(mask.long(), output_size=number)


def blend(
    planes: list[Float[Tensor, " p"]],
    layers: list[Int[Tensor, " _"]],
    pixel: Int[Tensor, " k"],
    opacity: Float[Tensor, " k"],
    colour: list[Float[Tensor, " k"]],
) -> None:
    """Alpha-blend peeled fragments with premultiplied colours onto the planes of images, in place.

    Differentiable in the planes, the opacity and the colour.
    """
    for chosen in reversed(layers):
        place, clear = pixel.index_select(0, chosen), 1 - opacity.index_select(0, chosen)
        for plane, values in zip(planes, colour, strict=True):
            below = plane.index_select(0, place) * clear
            plane.scatter_(0, place, below + values.index_select(0, chosen))


def fragment_boxes(
    fragments: Fragments, chosen: Bool[Tensor, " k"], sprites: int
) -> tuple[Float[Tensor, "s 4"], Int[Tensor, " s"]]:
    """Compute the tight box x0, y0, x1, y1 of each sprite's chosen fragments, and their number; zeros for none."""
    chosen = F.pad(chosen, (1, 0))
    before = chosen.cumsum(0)
    # place of each chosen fragment, counted from 1; all others are written to 0, which is not read
    index = torch.arange(len(chosen), device=chosen.device)
    place = torch.zeros_like(index).scatter_(0, before * chosen, index)
    # a row's fragments are sorted by column: its first and last suffice
    stops = before.index_select(0, fragments.stop)
    starts = F.pad(stops, (1, 0))[: len(stops)]
    used, sprite, line = stops > starts, fragments.sprite, fragments.line
    column = F.pad(fragments.across, (1, 0))
    ends = (place.index_select(0, count) for count in ((starts + 1).clamp_(max=len(chosen) - 1), stops))
    left, right = (column.index_select(0, end).long() for end in ends)
    area = _reduced(stops - starts, sprite, sprites, "sum")
    beyond = torch.iinfo(torch.long).max
    low = [_reduced(torch.where(used, values, beyond), sprite, sprites, "amin") for values in (left, line)]
    high = [_reduced(torch.where(used, values + 1, 0), sprite, sprites, "amax") for values in (right, line)]
    return torch.where(area[:, None] > 0, torch.stack([*low, *high], 1), 0).float(), area


def _reduced(values: Int[Tensor, " r"], owner: Int[Tensor, " r"], number: int, how: str) -> Int[Tensor, " s"]:
    return values.new_zeros(number).scatter_reduce_(0, owner, values, how, include_self=how == "sum")
