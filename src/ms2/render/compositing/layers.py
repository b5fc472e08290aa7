"""Batched compositing of rotated rectangles: rasterisation to fragments, depth peeling, alpha blending.

A fragment is one pixel of one sprite. All sprites of all canvases form one flat list of fragments, as on a graphics
card; pixels outside of a sprite cost nothing, and no pixel depends on other canvases of the batch.
"""

from dataclasses import dataclass

import torch
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
    """

    sprite: Int[Tensor, " r"]
    line: Int[Tensor, " r"]
    stop: Int[Tensor, " r"]
    row: Int[Tensor, " k"]
    across: Float[Tensor, " k"]
    pixel: Int[Tensor, " k"]

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

    def num_fragments_up_to(self, sprite: int) -> int:
        """Count the fragments of the first ``sprite`` sprites."""
        rows = int(torch.searchsorted(self.sprite, sprite))
        return int(torch.searchsorted(self.row, rows))


def concatenate_fragments(lower: Fragments, upper: Fragments, sprites: int) -> Fragments:
    """Concatenate fragments of two lists of sprites; ``lower`` has ``sprites`` sprites and is drawn first."""
    return Fragments(
        torch.cat([lower.sprite, upper.sprite + sprites]),
        torch.cat([lower.line, upper.line]),
        torch.cat([lower.stop, upper.stop + len(lower.row)]),
        torch.cat([lower.row, upper.row + len(lower.line)]),
        torch.cat([lower.across, upper.across]),
        torch.cat([lower.pixel, upper.pixel]),
    )


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
    """
    half_length, half_width = half_length + EDGE_TOLERANCE, half_width + EDGE_TOLERANCE
    reach = half_length * sin.abs() + half_width * cos.abs()
    first, number = _within(y - reach, y + reach, height)
    sprite = torch.repeat_interleave(number)
    line = torch.arange(len(sprite), device=x.device) + (first - number.cumsum(0) + number).index_select(0, sprite)
    rows = torch.stack([x, y, _nonzero(cos), _nonzero(sin), half_length, half_width]).index_select(1, sprite)
    x, y, cos, sin, half_length, half_width = rows.unbind()
    dy = line + 0.5 - y
    # columns at which a row enters and leaves the two strips whose intersection is the rectangle
    lengthwise = _strip(dy * sin, half_length, cos)
    crosswise = _strip(-dy * cos, half_width, sin)
    left = torch.maximum(lengthwise[0], crosswise[0])
    right = torch.minimum(lengthwise[1], crosswise[1])
    first, number = _within(x + left, x + right, width)
    row = torch.repeat_interleave(number)
    stop = number.cumsum(0)
    column = (first - stop + number).index_select(0, row) + torch.arange(len(row), device=row.device)
    start = (canvas.index_select(0, sprite) * height + line) * width
    return Fragments(sprite, line, stop, row, column + 0.5, start.index_select(0, row) + column)


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
    remaining fragments at a pixel.
    """
    found = []
    rest, drawn = torch.arange(len(pixel), device=pixel.device), opacity > TRANSPARENT_ALPHA
    while len(rest):
        top, here = topmost(pixel, drawn, pixels)
        found.append(rest.masked_select(here))
        over = top.index_select(0, pixel).clamp_(min=0)  # it is -1 only where all fragments are transparent
        below = (drawn & ~here & (opacity.index_select(0, over) < OPAQUE_ALPHA)).nonzero()[:, 0]
        rest, pixel, opacity, drawn = (values.index_select(0, below) for values in (rest, pixel, opacity, drawn))
    return found


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
    chosen = torch.cat([chosen.new_zeros(1), chosen])
    before, place = chosen.cumsum(0), chosen.nonzero()[:, 0] - 1
    # a row's fragments are sorted by column: its first and last suffice
    stops = before.index_select(0, fragments.stop)
    starts = torch.cat([stops.new_zeros(1), stops])[: len(stops)]
    used = (stops > starts).nonzero()[:, 0]
    sprite, line = fragments.sprite.index_select(0, used), fragments.line.index_select(0, used)
    left, right = (place.index_select(0, end.index_select(0, used)) for end in (starts, stops - 1))
    x0, y0 = (_reduced(v, sprite, sprites, "amin") for v in (fragments.across[left].long(), line))
    x1, y1 = (_reduced(v + 1, sprite, sprites, "amax") for v in (fragments.across[right].long(), line))
    area = _reduced(stops - starts, fragments.sprite, sprites, "sum")
    return torch.stack([x0, y0, x1, y1], 1).float(), area


def _reduced(values: Int[Tensor, " r"], owner: Int[Tensor, " r"], number: int, how: str) -> Int[Tensor, " s"]:
    return values.new_zeros(number).scatter_reduce_(0, owner, values, how, include_self=how == "sum")
