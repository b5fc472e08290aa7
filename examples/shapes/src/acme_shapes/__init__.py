"""Squares and discs on a dark canvas: a world for ms2 in one module.

A class is a plug-in because it derives from the base class of its kind; its name is what one types. The docstring and
the typed arguments of ``__init__`` become the help.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.errors import UserError
from ms2.grammar.grammar import Grammar
from ms2.priors.parameters import ParameterPrior, sample_uniform
from ms2.render.base import Renderer, Rendering
from ms2.render.compositing.sprites import mask_boxes, rectangle_corners
from ms2.scene.attributes import EVERY, Attribute
from ms2.scene.batch import SceneBatch

SHADES = (0.5, 0.9, 0.1)
"""Intensity of squares, discs and background."""


class Shapes(Grammar):
    """Any number of squares and discs; n of them take 2 + 2 n steps.

    Terminals are objects unless ``renderable`` says otherwise, so there are two classes: 0 is square, 1 is disc.
    """

    def __init__(self) -> None:
        super().__init__(
            """
            Scene  -> Shapes
            Shapes -> Shape Shapes | ε
            Shape  -> square | disc
            """
        )


class Scatter(ParameterPrior):
    """Shapes anywhere on the canvas."""

    mutable = {EVERY: (Attribute("x", 0, 1), Attribute("y", 0, 1))}  # noqa: RUF012

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """A place for each shape; all randomness comes from the generator."""
        return scenes.with_attributes(
            x=sample_uniform(scenes, 0, 1, generator), y=sample_uniform(scenes, 0, 1, generator)
        )


class ShapeCanvas(Renderer):
    """Draws shapes of one size, the later over the earlier.

    A shape at x = 0 touches the left edge, at x = 1 the right one; likewise y from top to bottom.

    Args:
        canvas: Side of the square canvas in pixels.
        side: Side of a square, and diameter of a disc, in pixels.
    """

    channels = 1
    attributes = (Attribute("x", 0, 1), Attribute("y", 0, 1))

    def __init__(self, canvas: int = 48, side: int = 9) -> None:
        if not 2 <= side <= canvas:
            raise UserError(f"a shape of {side} pixels does not fit onto a canvas of {canvas}: give 2 to {canvas}")
        self.canvas, self.side = canvas, side
        self.size = (canvas, canvas)

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 1 h w"]:
        """Images alone."""
        return self._paint(scenes, self._front(self._masks(scenes)))

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Images with boxes, instances and visibility."""
        masks = self._masks(scenes)
        front = self._front(masks)
        visible = masks & (front[:, None] == torch.arange(masks.shape[1], device=masks.device)[:, None, None])
        return Rendering(
            image=self._paint(scenes, front),
            classes=scenes.classes,
            parents=scenes.parents,
            boxes=mask_boxes(masks.flatten(0, 1)).unflatten(0, scenes.classes.shape),
            corners=rectangle_corners(*self._centres(scenes), 0.0, self.side, self.side) * scenes.mask[..., None, None],
            visible_boxes=mask_boxes(visible.flatten(0, 1)).unflatten(0, scenes.classes.shape),
            instances=front,
            visibility=visible.sum((2, 3)) / masks.sum((2, 3)).clamp(min=1),
        )

    def _masks(self, scenes: SceneBatch) -> Bool[Tensor, "b n h w"]:
        """Pixels that each shape covers, or would cover if nothing lay over it; none in unused places."""
        radius, pixel = self.side / 2, torch.arange(self.canvas, device=scenes.classes.device) + 0.5
        x, y = self._centres(scenes)
        dx = (pixel - x[..., None])[:, :, None, :]
        dy = (pixel - y[..., None])[:, :, :, None]
        square = torch.maximum(dx.abs(), dy.abs()) < radius
        disc = dx.square() + dy.square() < radius**2
        inside = torch.where((scenes.classes == 1)[..., None, None], disc, square)
        return inside & scenes.mask[..., None, None]

    def _centres(self, scenes: SceneBatch) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Place of each shape in pixels."""
        x, y = (self.side / 2 + scenes.attributes[name] * (self.canvas - self.side) for name in ("x", "y"))
        return x, y

    def _front(self, masks: Bool[Tensor, "b n h w"]) -> Int[Tensor, "b h w"]:
        """Index of the shape that lies on top at each pixel, -1 for the background."""
        place = torch.arange(masks.shape[1], device=masks.device)
        return torch.where(masks, place[:, None, None], -1).amax(1)

    def _paint(self, scenes: SceneBatch, front: Int[Tensor, "b h w"]) -> Float[Tensor, "b 1 h w"]:
        shades = torch.tensor(SHADES, device=front.device)
        shown = scenes.classes.gather(1, front.clamp(min=0).flatten(1)).view_as(front)
        return shades[torch.where(front >= 0, shown, len(SHADES) - 1)][:, None]
