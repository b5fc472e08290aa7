"""Batched compositing of small greyscale sprites by per-pixel maximum."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Sprites:
    """s sprites resampled to pixel windows of their canvases.

    Attributes:
        values: Intensities in the window.
        left: Column of the window's first pixel; windows may extend beyond the canvas.
        top: Row of the window's first pixel.
        canvas: Canvas on which each sprite lies.
    """

    values: Float[Tensor, "s w w"]
    left: Int[Tensor, " s"]
    top: Int[Tensor, " s"]
    canvas: Int[Tensor, " s"]

    def indices(self, height: int, width: int) -> tuple[Int[Tensor, "s w w"], Bool[Tensor, "s w w"]]:
        """Compute each window pixel's index in the flattened canvases, and whether it lies on its canvas."""
        offsets = torch.arange(self.values.shape[-1], device=self.left.device)
        x = self.left[:, None, None] + offsets
        y = self.top[:, None, None] + offsets[:, None]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        flat = (self.canvas[:, None, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
        return flat, inside


def window_size(side: int, rotation: bool) -> int:
    """Return the side of a window that fits a sprite of ``side`` pixels at any subpixel position (and any angle)."""
    # bilinear interpolation extends a sprite by half a pixel at each edge
    return math.ceil((side + 1) * math.sqrt(2)) if rotation else side + 1


def place_sprites(
    images: Float[Tensor, "s p p"],
    x: Float[Tensor, " s"],
    y: Float[Tensor, " s"],
    angle: Float[Tensor, " s"] | None,
    canvas: Int[Tensor, " s"],
) -> Sprites:
    """Resample images to windows, with their centres at (x, y) pixels and rotated counter-clockwise by ``angle``.

    Differentiable in position, angle and intensities (bilinear interpolation).

    Args:
        images: Square sprites.
        x: Column of the centre, from the canvas's left edge.
        y: Row of the centre, from the upper edge.
        angle: Angle in radians; None for no rotation.
        canvas: Canvas on which each sprite lies.
    """
    side = images.shape[-1]
    size = window_size(side, angle is not None)
    left, top = (x.detach() - size / 2).round(), (y.detach() - size / 2).round()
    offsets = torch.arange(size, device=x.device) + 0.5
    # centres of the window's pixels relative to the sprite's centre
    dx = (left - x)[:, None] + offsets
    dy = (top - y)[:, None] + offsets
    if angle is None:
        u, v = dx[:, None, :].expand(-1, size, -1), dy[:, :, None].expand(-1, -1, size)
    else:
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        u = cos * dx[:, None, :] - sin * dy[:, :, None]
        v = sin * dx[:, None, :] + cos * dy[:, :, None]
    grid = torch.stack([u, v], -1) * (2 / side)
    values = F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]
    return Sprites(values, left.long(), top.long(), canvas)


def blend_maximum(sprites: Sprites, batch: int, height: int, width: int) -> Float[Tensor, "b h w"]:
    """Composite sprites on black canvases by per-pixel maximum, which does not depend on their order."""
    flat, inside = sprites.indices(height, width)
    values = sprites.values * inside
    canvas = values.new_zeros(batch * height * width)
    return canvas.scatter_reduce(0, flat.flatten(), values.flatten(), "amax").view(batch, height, width)


def visible_sprites(
    sprites: Sprites, image: Float[Tensor, "b h w"], threshold: float, index: Int[Tensor, " s"]
) -> Int[Tensor, "b h w"]:
    """Return the ``index`` of the sprite with the maximum at each pixel; -1 where it is below ``threshold``.

    Args:
        sprites: The sprites.
        image: Canvases composited by `blend_maximum`.
        threshold: Minimum intensity of a sprite's mask.
        index: Value to return for each sprite; the largest wins where sprites are equal.
    """
    flat, inside = sprites.indices(*image.shape[1:])
    seen = inside & (sprites.values >= threshold) & (sprites.values >= image.flatten()[flat])
    owner = torch.where(seen, index[:, None, None], -1)
    found = torch.full((image.numel(),), -1, device=image.device)
    return found.scatter_reduce(0, flat.flatten(), owner.flatten(), "amax").view(image.shape)


def rectangle_corners(
    x: Float[Tensor, "*s"],
    y: Float[Tensor, "*s"],
    angle: Float[Tensor, "*s"] | float,
    length: Float[Tensor, "*s"] | float,
    width: Float[Tensor, "*s"] | float,
) -> Float[Tensor, "*s 4 2"]:
    """Compute the corners of rotated rectangles, clockwise on the image from the front left one; y points down.

    The front of a rectangle is where its length points: to the right at angle 0, upwards at a quarter turn.

    Example:
        >>> corners = rectangle_corners(torch.tensor([10.0]), torch.tensor([5.0]), angle=0.0, length=4.0, width=2.0)
        >>> corners[0].tolist()
        [[12.0, 4.0], [12.0, 6.0], [8.0, 6.0], [8.0, 4.0]]
    """
    angle, length, width = (torch.as_tensor(v, device=x.device) for v in (angle, length, width))
    # constants of the four corners would be copied to the device
    along = torch.stack([length, length, -length, -length], -1) * 0.5
    across = torch.stack([-width, width, width, -width], -1) * 0.5
    angle = angle[..., None]
    corner_x = x[..., None] + along * angle.cos() + across * angle.sin()
    corner_y = y[..., None] - along * angle.sin() + across * angle.cos()
    return torch.stack([corner_x, corner_y], -1)


def mask_boxes(mask: Bool[Tensor, "s h w"]) -> Float[Tensor, "s 4"]:
    """Compute tight boxes x0, y0, x1, y1 of masks, edge to edge; zeros for empty masks.

    Example:
        >>> mask = torch.zeros(1, 6, 8, dtype=torch.bool)
        >>> mask[0, 2:4, 1:6] = True
        >>> mask_boxes(mask).tolist()
        [[1.0, 2.0, 6.0, 4.0]]
    """
    height, width = mask.shape[1:]

    def span(line: Bool[Tensor, "s l"], size: int) -> tuple[Tensor, Tensor]:
        place = torch.arange(size, device=mask.device)
        return torch.where(line, place, size).amin(1), torch.where(line, place + 1, 0).amax(1)

    x0, x1 = span(mask.any(1), width)
    y0, y1 = span(mask.any(2), height)
    return torch.stack([x0, y0, x1, y1], 1).float() * mask.any(2).any(1)[:, None]
