"""The renderer of MultiMNIST: handwritten digits on a black canvas."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError
from ms2.render.base import Renderer, Rendering
from ms2.render.compositing import sprites
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch
from ms2.worlds.multimnist.digits import LICENCES, Digits, Source, load_digits

INK = 1 / 8
"""Least intensity at which a pixel belongs to a digit's mask."""


class DigitCanvas(Renderer):
    """Draws digits at subpixel places; where they overlap, the lighter pixel shows.

    A digit at x = 0 touches the left edge, at x = 1 the right one; likewise y from top to bottom.
    Differentiable in x, y and angle.

    Args:
        canvas_size: Side of the square canvas in pixels.
        digit_size: Side of a digit in pixels.
        source: Digit images to use: ``sklearn`` (scikit-learn's embedded digits) or ``mnist`` (the real MNIST).
        mnist_root: Folder that holds ``MNIST/raw``; for the source ``mnist`` only.
        rotation: Whether to rotate digits by their angle; if not, the renderer has no attribute ``angle``.
    """

    channels = 1
    differentiable = frozenset({"x", "y", "angle"})

    def __init__(
        self,
        canvas_size: int = 256,
        digit_size: int = 28,
        source: Source = "sklearn",
        mnist_root: str | None = None,
        rotation: bool = False,
    ) -> None:
        if not 0 < digit_size <= canvas_size:
            raise UserError(f"a digit of {digit_size} pixels does not fit onto a canvas of {canvas_size} pixels")
        self.canvas_size, self.digit_size, self.rotation = canvas_size, digit_size, rotation
        self.digits = load_digits(source, digit_size, mnist_root)
        self.licence = LICENCES[source]
        self._copies: dict[torch.device, Digits] = {}
        self.size = (canvas_size, canvas_size)
        angle = (Attribute("angle", -math.pi, math.pi, periodic=True),) if rotation else ()
        self.attributes = (Attribute("x", 0, 1), Attribute("y", 0, 1), *angle, Attribute("example", 0, 1))

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 1 h w"]:
        """Images alone."""
        return sprites.blend_maximum(self._sprites(scenes), len(scenes), *self.size)[:, None]

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Images with boxes, masks and visibility; a digit's mask is where it has ink."""
        placed = self._sprites(scenes)
        image = sprites.blend_maximum(placed, len(scenes), *self.size)
        scene, place = scenes.mask.nonzero(as_tuple=True)
        instances = sprites.visible_sprites(placed, image, INK, place)
        flat, inside = placed.indices(*self.size)
        mask = inside & (placed.values >= INK)
        seen = mask & (instances.flatten()[flat] == place[:, None, None])
        corner = torch.stack([placed.left, placed.top], 1).repeat(1, 2)

        def per_object(values: Tensor) -> Tensor:
            out = values.new_zeros(*scenes.classes.shape, *values.shape[1:])
            out[scene, place] = values
            return out

        def boxes(mask: Tensor) -> Tensor:
            box = sprites.mask_boxes(mask)
            return per_object((box + corner) * (box[:, 2:] > 0).any(1, keepdim=True))

        area = mask.sum((1, 2))
        return Rendering(
            image=image[:, None],
            classes=scenes.classes,
            parents=scenes.parents,
            boxes=boxes(mask),
            corners=self._corners(scenes) * scenes.mask[..., None, None],
            visible_boxes=boxes(seen),
            instances=instances,
            visibility=per_object(seen.sum((1, 2)) / area.clamp(min=1)),
        )

    def centres(self, scenes: SceneBatch) -> Float[Tensor, "b n 2"]:
        """Where digits are on the canvas."""
        return torch.stack([self._pixel(scenes.attributes[name]) / self.canvas_size for name in ("x", "y")], 2)

    def _sprites(self, scenes: SceneBatch) -> sprites.Sprites:
        digits = self._digits_on(scenes.classes.device)
        scene, place = scenes.mask.nonzero(as_tuple=True)
        of = {name: values[scene, place] for name, values in scenes.attributes.items()}
        classes = scenes.classes[scene, place]
        number = digits.number[classes]
        picture = digits.first[classes] + (of["example"] * number).long().clamp(max=number - 1)
        angle = of["angle"] if self.rotation else None
        return sprites.place_sprites(digits.pictures[picture], self._pixel(of["x"]), self._pixel(of["y"]), angle, scene)

    def _pixel(self, place: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        return self.digit_size / 2 + (self.canvas_size - self.digit_size) * place

    def _corners(self, scenes: SceneBatch) -> Float[Tensor, "b n 4 2"]:
        of = scenes.attributes
        x, y = self._pixel(of["x"]), self._pixel(of["y"])
        return sprites.rectangle_corners(x, y, of["angle"] if self.rotation else 0.0, self.digit_size, self.digit_size)

    def _digits_on(self, device: torch.device) -> Digits:
        if device not in self._copies:
            self._copies[device] = Digits(*(tensor.to(device) for tensor in self.digits))
        return self._copies[device]
