"""Squares and discs on a dark canvas: a world for ms2 in one module.

A class becomes a plug-in by deriving from the base class of its kind, and is selected by its name. Its docstring and
the typed arguments of its ``__init__`` become the help of the command line.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

import ms2

SHADES = (0.5, 0.9, 0.1)
"""Intensity of squares, discs and background."""


class Shapes(ms2.Grammar):
    """Any number of squares and discs; n of them take 2 + 2 n steps.

    Terminals are objects unless ``renderable`` says otherwise, so there are two classes: square (0) and disc (1).
    """

    def __init__(self) -> None:
        super().__init__(
            """
            Scene  -> Shapes
            Shapes -> Shape Shapes | ε
            Shape  -> square | disc
            """
        )


class Scatter(ms2.ParameterPrior):
    """Shapes anywhere on the canvas."""

    mutable = {"*": (ms2.Attribute("x", 0, 1), ms2.Attribute("y", 0, 1))}  # noqa: RUF012

    def sample(self, scenes: ms2.SceneBatch, generator: Generator) -> ms2.SceneBatch:
        """Sample a position for each shape; all random numbers come from the generator."""
        x, y = (ms2.sample_uniform(scenes, 0, 1, generator) for _ in range(2))
        return scenes.with_attributes(x=x, y=y)


class ShapeCanvas(ms2.Renderer):
    """Draws shapes of one size, the later over the earlier.

    A shape touches the left edge at x = 0 and the right edge at x = 1, the upper edge at y = 0 and the lower at y = 1.

    Args:
        canvas: Side of the square canvas in pixels.
        side: Side of a square, and diameter of a disc, in pixels.
    """

    channels = 1
    attributes = (ms2.Attribute("x", 0, 1), ms2.Attribute("y", 0, 1))

    def __init__(self, canvas: int = 48, side: int = 9) -> None:
        if not 2 <= side <= canvas:
            raise ms2.UserError(f"a shape of {side} pixels does not fit onto a canvas of {canvas}: give 2 to {canvas}")
        self.canvas, self.side = canvas, side
        self.size = (canvas, canvas)

    def render(self, scenes: ms2.SceneBatch) -> Float[Tensor, "b 1 h w"]:
        """Render images without labels."""
        return self._paint(scenes, self._front(self._masks(scenes)))

    def render_labelled(self, scenes: ms2.SceneBatch) -> ms2.Rendering:
        """Render images with boxes, instances and visibility."""
        masks = self._masks(scenes)
        front = self._front(masks)
        corners = ms2.rectangle_corners(*self._centres(scenes), 0.0, self.side, self.side)
        visible = masks & (front[:, None] == torch.arange(masks.shape[1], device=masks.device)[:, None, None])
        return ms2.Rendering(
            image=self._paint(scenes, front),
            classes=scenes.classes,
            parents=scenes.parents,
            boxes=ms2.mask_boxes(masks.flatten(0, 1)).unflatten(0, scenes.classes.shape),
            corners=corners * scenes.mask[..., None, None],
            visible_boxes=ms2.mask_boxes(visible.flatten(0, 1)).unflatten(0, scenes.classes.shape),
            instances=front,
            visibility=visible.sum((2, 3)) / masks.sum((2, 3)).clamp(min=1),
        )

    def _masks(self, scenes: ms2.SceneBatch) -> Bool[Tensor, "b n h w"]:
        """Compute the pixels of each shape, occluded ones included; none for unused entries."""
        radius, pixel = self.side / 2, torch.arange(self.canvas, device=scenes.classes.device) + 0.5
        x, y = self._centres(scenes)
        dx = (pixel - x[..., None])[:, :, None, :]
        dy = (pixel - y[..., None])[:, :, :, None]
        square = torch.maximum(dx.abs(), dy.abs()) < radius
        disc = dx.square() + dy.square() < radius**2
        inside = torch.where((scenes.classes == 1)[..., None, None], disc, square)
        return inside & scenes.mask[..., None, None]

    def _centres(self, scenes: ms2.SceneBatch) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Compute the centre of each shape in pixels."""
        x, y = (self.side / 2 + scenes.attributes[name] * (self.canvas - self.side) for name in ("x", "y"))
        return x, y

    def _front(self, masks: Bool[Tensor, "b n h w"]) -> Int[Tensor, "b h w"]:
        """Compute the index of the shape visible at each pixel; -1 for the background."""
        index = torch.arange(masks.shape[1], device=masks.device)
        return torch.where(masks, index[:, None, None], -1).amax(1)

    def _paint(self, scenes: ms2.SceneBatch, front: Int[Tensor, "b h w"]) -> Float[Tensor, "b 1 h w"]:
        shades = torch.tensor(SHADES, device=front.device)
        shown = scenes.classes.gather(1, front.clamp(min=0).flatten(1)).view_as(front)
        return shades[torch.where(front >= 0, shown, len(SHADES) - 1)][:, None]
