"""Renderer of MultiMNIST: handwritten digits on a black canvas."""

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.bounds import Dimension
from ms2.core.errors import UserError
from ms2.core.paths import OptionalPath, expand_path
from ms2.render.base import Renderer, Rendering
from ms2.render.compositing import sprites
from ms2.scene.batch import SceneBatch
from ms2.worlds.multimnist.declaration import ANGLE, IMAGE_ATTRIBUTE, POSITION_ATTRIBUTES
from ms2.worlds.multimnist.digits import LICENCES, Digits, Source, load_digits

INK_THRESHOLD = 1 / 8
"""Minimum intensity of a digit's mask."""


class DigitCanvas(Renderer):
    """Composites digits at subpixel positions by per-pixel maximum.

    A digit at x = 0 touches the left edge, at x = 1 the right one; at y = 0 the upper edge, at y = 1 the lower one.
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
        canvas_size: Dimension = 256,
        digit_size: Dimension = 28,
        source: Source = "sklearn",
        mnist_root: OptionalPath = None,
        rotation: bool = False,
    ) -> None:
        if not 0 < digit_size <= canvas_size:
            raise UserError(f"a digit of {digit_size} pixels does not fit onto a canvas of {canvas_size} pixels")
        self.canvas_size, self.digit_size, self.rotation = canvas_size, digit_size, rotation
        self.digits = load_digits(source, digit_size, None if mnist_root is None else str(expand_path(mnist_root)))
        self.licence = LICENCES[source]
        self._copies: dict[torch.device, Digits] = {}
        self.size = (canvas_size, canvas_size)
        self.attributes = (*POSITION_ATTRIBUTES, *((ANGLE,) if rotation else ()), IMAGE_ATTRIBUTE)

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 1 h w"]:
        """Render images."""
        return sprites.blend_maximum(self._sprites(scenes), len(scenes), *self.size)[:, None]

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Render images with boxes, masks and visibility; masks are where intensities reach `INK_THRESHOLD`."""
        placed = self._sprites(scenes)
        image = sprites.blend_maximum(placed, len(scenes), *self.size)
        scene, index = scenes.mask.nonzero(as_tuple=True)
        instances = sprites.visible_sprites(placed, image, INK_THRESHOLD, index)
        flat, inside = placed.indices(*self.size)
        mask = inside & (placed.values >= INK_THRESHOLD)
        seen = mask & (instances.flatten()[flat] == index[:, None, None])
        corner = torch.stack([placed.left, placed.top], 1).repeat(1, 2)

        def per_object(values: Tensor) -> Tensor:
            out = values.new_zeros(*scenes.classes.shape, *values.shape[1:])
            out[scene, index] = values
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
        """Compute the digits' centres as fractions of the canvas."""
        return torch.stack([self._pixel(scenes.attributes[name]) / self.canvas_size for name in ("x", "y")], 2)

    def _sprites(self, scenes: SceneBatch) -> sprites.Sprites:
        digits = self._digits_on(scenes.classes.device)
        scene, index = scenes.mask.nonzero(as_tuple=True)
        of = {name: values[scene, index] for name, values in scenes.attributes.items()}
        classes = scenes.classes[scene, index]
        number = digits.number[classes]
        image = digits.first[classes] + (of["example"] * number).long().clamp(max=number - 1)
        angle = of["angle"] if self.rotation else None
        return sprites.place_sprites(digits.images[image], self._pixel(of["x"]), self._pixel(of["y"]), angle, scene)

    def _pixel(self, position: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        return self.digit_size / 2 + (self.canvas_size - self.digit_size) * position

    def _corners(self, scenes: SceneBatch) -> Float[Tensor, "b n 4 2"]:
        of = scenes.attributes
        x, y = self._pixel(of["x"]), self._pixel(of["y"])
        return sprites.rectangle_corners(x, y, of["angle"] if self.rotation else 0.0, self.digit_size, self.digit_size)

    def _digits_on(self, device: torch.device) -> Digits:
        if device not in self._copies:
            self._copies[device] = Digits(*(tensor.to(device) for tensor in self.digits))
        return self._copies[device]
