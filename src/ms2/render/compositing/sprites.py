"""Batched 2D compositing: small pictures placed, turned and blended onto many canvases at once."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Sprites:
    """s small pictures, each with the window of pixels that it covers on its canvas.

    Attributes:
        values: Intensities in the window.
        left: Column of the window's first pixel; windows may reach over the canvas's edge.
        top: Row of the window's first pixel.
        canvas: Canvas on which each sprite lies.
    """

    values: Float[Tensor, "s w w"]
    left: Int[Tensor, " s"]
    top: Int[Tensor, " s"]
    canvas: Int[Tensor, " s"]

    def indices(self, height: int, width: int) -> tuple[Int[Tensor, "s w w"], Bool[Tensor, "s w w"]]:
        """Place of each window's pixel in the flat stack of canvases, and whether it lies on its canvas."""
        offsets = torch.arange(self.values.shape[-1], device=self.left.device)
        x = self.left[:, None, None] + offsets
        y = self.top[:, None, None] + offsets[:, None]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        flat = (self.canvas[:, None, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
        return flat, inside


def window_size(side: int, turning: bool) -> int:
    """Side of a window that holds a picture of ``side`` pixels at any subpixel place (and any angle)."""
    # bilinear interpolation spreads a picture by half a pixel at each edge
    return math.ceil((side + 1) * math.sqrt(2)) if turning else side + 1


def place(
    pictures: Float[Tensor, "s p p"],
    x: Float[Tensor, " s"],
    y: Float[Tensor, " s"],
    angle: Float[Tensor, " s"] | None,
    canvas: Int[Tensor, " s"],
) -> Sprites:
    """Pictures with their centres at (x, y) pixels, turned counter-clockwise by ``angle`` radians.

    Differentiable in place, angle and intensities (bilinear interpolation).
    """
    side = pictures.shape[-1]
    size = window_size(side, angle is not None)
    left, top = (x.detach() - size / 2).round(), (y.detach() - size / 2).round()
    offsets = torch.arange(size, device=x.device) + 0.5
    # centres of the window's pixels relative to the picture's centre, in units of half its side
    dx = (left - x)[:, None] + offsets
    dy = (top - y)[:, None] + offsets
    if angle is None:
        u, v = dx[:, None, :].expand(-1, size, -1), dy[:, :, None].expand(-1, -1, size)
    else:
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        u = cos * dx[:, None, :] - sin * dy[:, :, None]
        v = sin * dx[:, None, :] + cos * dy[:, :, None]
    grid = torch.stack([u, v], -1) * (2 / side)
    values = F.grid_sample(pictures[:, None], grid, align_corners=False)[:, 0]
    return Sprites(values, left.long(), top.long(), canvas)


def blend_lighter(sprites: Sprites, batch: int, height: int, width: int) -> Float[Tensor, "b h w"]:
    """Black canvases on which the lightest sprite shows at each pixel, whatever the order."""
    flat, inside = sprites.indices(height, width)
    values = sprites.values * inside
    canvas = values.new_zeros(batch * height * width)
    return canvas.scatter_reduce(0, flat.flatten(), values.flatten(), "amax").view(batch, height, width)


def lightest(
    sprites: Sprites, image: Float[Tensor, "b h w"], ink: float, index: Int[Tensor, " s"]
) -> Int[Tensor, "b h w"]:
    """The ``index`` of the sprite seen at each pixel of a lighter-blended image, -1 where there is under ``ink``."""
    flat, inside = sprites.indices(*image.shape[1:])
    seen = inside & (sprites.values >= ink) & (sprites.values >= image.flatten()[flat])
    owner = torch.where(seen, index[:, None, None], -1)
    found = torch.full((image.numel(),), -1, device=image.device)
    return found.scatter_reduce(0, flat.flatten(), owner.flatten(), "amax").view(image.shape)


def corners_of(
    x: Float[Tensor, "*s"],
    y: Float[Tensor, "*s"],
    angle: Float[Tensor, "*s"] | float,
    length: Float[Tensor, "*s"] | float,
    width: Float[Tensor, "*s"] | float,
) -> Float[Tensor, "*s 4 2"]:
    """Corners of turned rectangles, clockwise on the image from the front left one; y points down.

    The front of a rectangle is where its length points: to the right at angle 0, upwards at a quarter turn.
    """
    ahead = torch.tensor([0.5, 0.5, -0.5, -0.5], device=x.device)
    right = torch.tensor([-0.5, 0.5, 0.5, -0.5], device=x.device)
    angle, length, width = (torch.as_tensor(v, device=x.device)[..., None] for v in (angle, length, width))
    along, across = ahead * length, right * width
    corner_x = x[..., None] + along * angle.cos() + across * angle.sin()
    corner_y = y[..., None] - along * angle.sin() + across * angle.cos()
    return torch.stack([corner_x, corner_y], -1)


def boxes_of(mask: Bool[Tensor, "s h w"]) -> Float[Tensor, "s 4"]:
    """The tight box x0, y0, x1, y1 around each mask, from edge to edge; zeros around an empty one."""
    height, width = mask.shape[1:]

    def span(line: Bool[Tensor, "s l"], size: int) -> tuple[Tensor, Tensor]:
        place = torch.arange(size, device=mask.device)
        return torch.where(line, place, size).amin(1), torch.where(line, place + 1, 0).amax(1)

    x0, x1 = span(mask.any(1), width)
    y0, y1 = span(mask.any(2), height)
    return torch.stack([x0, y0, x1, y1], 1).float() * mask.any(2).any(1)[:, None]
