"""Batched layers of turned rectangles: cut into fragments, peeled by depth, blended with their transparency.

A fragment is one pixel of one sprite. All sprites of all canvases become one flat list of fragments, as on a graphics
card; what a sprite does not touch costs nothing, and no pixel depends on what else is in the batch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

OPAQUE = 0.999
"""Opacity from which on nothing below is looked at; bilinear weights add up to 1 only nearly."""
CLEAR = 0.002
"""Opacity, half a level of 8 bits, up to which a fragment is not drawn."""
SLACK = 0.05
"""Pixels by which rectangles are cut too large, because a span's ends divide by a sine that may be tiny."""


@dataclass(frozen=True)
class Fragments:
    """k pixels of s sprites on canvases of equal size, sprite by sprite, row by row, from left to right.

    Attributes:
        sprite: Sprite of each of the r rows that sprites are cut into.
        line: Row of the canvas on which each of those rows lies.
        stop: Number of fragments up to each row's last.
        row: Row that each fragment belongs to.
        across: Column of each fragment's pixel, at the pixel's centre: a half more than its number.
        pixel: Place of each fragment's pixel in the flat stack of canvases.
    """

    sprite: Int[Tensor, " r"]
    line: Int[Tensor, " r"]
    stop: Int[Tensor, " r"]
    row: Int[Tensor, " k"]
    across: Float[Tensor, " k"]
    pixel: Int[Tensor, " k"]

    def per_fragment(self, of_sprite: Tensor) -> Tensor:
        """What holds for sprites (s), told to each of their fragments (k)."""
        return of_sprite.index_select(0, self.sprite).index_select(0, self.row)

    def affine(self, x: Float[Tensor, " s"], y: Float[Tensor, " s"], start: Float[Tensor, " s"]) -> Float[Tensor, " k"]:
        """``start + x * column + y * row`` at the centres of pixels; differentiable in all three."""
        at_zero = start.index_select(0, self.sprite) + y.index_select(0, self.sprite) * (self.line + 0.5)
        step = x.index_select(0, self.sprite).index_select(0, self.row)
        return at_zero.index_select(0, self.row) + step * self.across

    def up_to(self, sprite: int) -> int:
        """Number of fragments of the first so many sprites."""
        rows = int(torch.searchsorted(self.sprite, sprite))
        return int(torch.searchsorted(self.row, rows))


def joined(lower: Fragments, upper: Fragments, sprites: int) -> Fragments:
    """The fragments of two lists of sprites, of which the lower one has so many."""
    return Fragments(
        torch.cat([lower.sprite, upper.sprite + sprites]),
        torch.cat([lower.line, upper.line]),
        torch.cat([lower.stop, upper.stop + len(lower.row)]),
        torch.cat([lower.row, upper.row + len(lower.line)]),
        torch.cat([lower.across, upper.across]),
        torch.cat([lower.pixel, upper.pixel]),
    )


def turn(angle: Float[Tensor, " s"]) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Cosine and sine, rounded alike wherever in a tensor an angle stands (float32's own depend on the place)."""
    wide = angle.double()
    return wide.cos().to(angle.dtype), wide.sin().to(angle.dtype)


@torch.no_grad()
def rasterise(
    x: Float[Tensor, " s"],
    y: Float[Tensor, " s"],
    cos: Float[Tensor, " s"],
    sin: Float[Tensor, " s"],
    ahead: Float[Tensor, " s"],
    aside: Float[Tensor, " s"],
    canvas: Int[Tensor, " s"],
    height: int,
    width: int,
) -> Fragments:
    """The pixels of canvases whose centres lie within turned rectangles, or hardly outside.

    Args:
        x: Column of each rectangle's centre, from the canvas's left edge.
        y: Row of the centre, from the upper edge.
        cos: Cosine of the angle by which the rectangle is turned counter-clockwise on the image.
        sin: Its sine.
        ahead: Half the rectangle's side along its heading, in pixels.
        aside: Half the other side.
        canvas: Canvas on which each rectangle lies.
        height: Rows of a canvas.
        width: Columns of a canvas.
    """
    ahead, aside = ahead + SLACK, aside + SLACK
    reach = ahead * sin.abs() + aside * cos.abs()
    first, number = _within(y - reach, y + reach, height)
    sprite = torch.repeat_interleave(number)
    line = torch.arange(len(sprite), device=x.device) + (first - number.cumsum(0) + number).index_select(0, sprite)
    rows = torch.stack([x, y, _nonzero(cos), _nonzero(sin), ahead, aside]).index_select(1, sprite)
    x, y, cos, sin, ahead, aside = rows.unbind()
    dy = line + 0.5 - y
    # where a row runs into and out of the two strips of which the rectangle is the common part
    lengthwise = _strip(dy * sin, ahead, cos)
    crosswise = _strip(-dy * cos, aside, sin)
    left = torch.maximum(lengthwise[0], crosswise[0])
    right = torch.minimum(lengthwise[1], crosswise[1])
    first, number = _within(x + left, x + right, width)
    row = torch.repeat_interleave(number)
    stop = number.cumsum(0)
    column = (first - stop + number).index_select(0, row) + torch.arange(len(row), device=row.device)
    start = (canvas.index_select(0, sprite) * height + line) * width
    return Fragments(sprite, line, stop, row, column + 0.5, start.index_select(0, row) + column)


def _within(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First pixel with its centre from ``low`` on, and the number of them up to ``high``, within 0 ... size - 1."""
    first = (low - 0.5).ceil().clamp(0, size)
    last = (high - 0.5).floor().clamp(-1, size - 1)
    return first.long(), (last - first + 1).clamp(min=0).long()


def _nonzero(value: Tensor) -> Tensor:
    """The value, moved off zero by less than matters, so that it can be divided by."""
    return torch.where(value.abs() < 1e-4, 1e-4, value)


def _strip(middle: Tensor, half: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    one, other = (middle - half) / slope, (middle + half) / slope
    return torch.minimum(one, other), torch.maximum(one, other)


@torch.no_grad()
def uppermost(
    pixel: Int[Tensor, " k"], counts: Bool[Tensor, " k"], pixels: int
) -> tuple[Int[Tensor, " p"], Bool[Tensor, " k"]]:
    """The last of the fragments that count at each pixel, -1 where there is none; and which fragments those are."""
    index = torch.arange(len(pixel), device=pixel.device)
    top = pixel.new_full((pixels,), -1).scatter_reduce_(0, pixel, torch.where(counts, index, -1), "amax")
    return top, top.index_select(0, pixel) == index


@torch.no_grad()
def peel(pixel: Int[Tensor, " k"], opacity: Float[Tensor, " k"], pixels: int) -> list[Int[Tensor, " _"]]:
    """Fragments in layers, the uppermost first: a layer has at most one of each pixel.

    What is clear, or lies under something opaque, is in none. As many layers come back as lie over one another
    somewhere.
    """
    found = []
    rest, drawn = torch.arange(len(pixel), device=pixel.device), opacity > CLEAR
    while len(rest):
        top, here = uppermost(pixel, drawn, pixels)
        found.append(rest.masked_select(here))
        over = top.index_select(0, pixel).clamp_(min=0)  # it is -1 only where nothing is drawn
        below = (drawn & ~here & (opacity.index_select(0, over) < OPAQUE)).nonzero()[:, 0]
        rest, pixel, opacity, drawn = (values.index_select(0, below) for values in (rest, pixel, opacity, drawn))
    return found


def blend(
    planes: list[Float[Tensor, " p"]],
    layers: list[Int[Tensor, " _"]],
    pixel: Int[Tensor, " k"],
    opacity: Float[Tensor, " k"],
    colour: list[Float[Tensor, " k"]],
) -> None:
    """Lay peeled fragments over the planes of images, in place; colours are multiplied by their opacity already.

    Differentiable in the planes, the opacity and the colour.
    """
    for chosen in reversed(layers):
        place, clear = pixel.index_select(0, chosen), 1 - opacity.index_select(0, chosen)
        for plane, values in zip(planes, colour, strict=True):
            below = plane.index_select(0, place) * clear
            plane.scatter_(0, place, below + values.index_select(0, chosen))


def boxes(
    fragments: Fragments, chosen: Bool[Tensor, " k"], sprites: int
) -> tuple[Float[Tensor, "s 4"], Int[Tensor, " s"]]:
    """The tight box x0, y0, x1, y1 around each sprite's chosen fragments, and their number; zeros if it has none."""
    chosen = torch.cat([chosen.new_zeros(1), chosen])
    before, place = chosen.cumsum(0), chosen.nonzero()[:, 0] - 1
    # a row's fragments stand from left to right: its first and last are enough
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
