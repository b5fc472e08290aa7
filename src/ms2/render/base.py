"""Interface of renderers: scenes to images and labels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.registry import Plugin
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch

MIN_VISIBILITY = 0.1
"""Visible fraction of an object from which an annotator of images would label it."""


@dataclass(frozen=True)
class Rendering:
    """Images and labels of b rendered scenes of at most n objects; labels are zero for unused entries.

    Attributes:
        image: Pixels in [0, 1].
        classes: Class index of each object; -1 for unused entries.
        parents: Index of each object's parent, such as the road of a car, or -1.
        boxes: Amodal boxes x0, y0, x1, y1 in pixels, edge to edge: what the object covers, occluded or not, within the
            image.
        corners: Oriented boxes: the four corners x, y of each object in pixels, clockwise on the image from its front
            left one; not clipped to the image.
        visible_boxes: Boxes of the visible pixels alone; zeros for a fully occluded object.
        instances: Index of the object visible at each pixel; -1 for the background.
        visibility: Visible fraction of each object's pixels.

    Example:
        >>> labels = world.renderer.render_labelled(world.sample_prior(4, generator(0, "example")))
        >>> boxes = [labels.boxes[i][labels.classes[i] >= 0] for i in range(4)]  # those of the objects of each image
    """

    image: Float[Tensor, "b c h w"]
    classes: Int[Tensor, "b n"]
    parents: Int[Tensor, "b n"]
    boxes: Float[Tensor, "b n 4"]
    corners: Float[Tensor, "b n 4 2"]
    visible_boxes: Float[Tensor, "b n 4"]
    instances: Int[Tensor, "b h w"]
    visibility: Float[Tensor, "b n"]


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return height and width of an image in pixels, times a factor."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def visible_enough(labels: Rendering, min_visibility: float, min_height: float) -> Bool[Tensor, "b n"]:
    """Return which objects of images can be seen well enough.

    Args:
        labels: The images' labels.
        min_visibility: Minimum visible fraction of an object.
        min_height: Minimum height of its amodal box in pixels.
    """
    seen = (labels.classes >= 0) & (labels.visibility >= min_visibility)
    return seen & (labels.boxes[..., 3] - labels.boxes[..., 1] >= min_height) if min_height > 0 else seen


class Renderer(Plugin, ABC, kind="renderers"):
    """Base class of renderers; images are a deterministic function of the scenes.

    Attributes:
        channels: Channels of an image, c.
        size: Height and width of an image in pixels.
        attributes: Attributes of objects that the renderer uses, with their bounds.
        environment: Attributes of the scene as a whole that it uses, with their bounds.
        differentiable: Names of the attributes with respect to which images are differentiable.
        licence: Licence of the images: that of the sprites and meshes in them.
        surfaces: Names of what is in the images besides objects.
        min_height: Height of an object's amodal box in pixels from which an annotator of images would label it; 0 where
            objects of any size can be recognised.

    Example:
        >>> scenes = world.sample_prior(4, generator(0, "example"))
        >>> labels = world.renderer.render_labelled(scenes)
        >>> torch.equal(labels.image, world.renderer.render(scenes))
        True
    """

    channels: int
    size: tuple[int, int]
    attributes: tuple[Attribute, ...]
    environment: tuple[Attribute, ...] = ()
    differentiable: frozenset[str] = frozenset()
    licence: str = "Everything in the images is drawn by ms2's own code: Apache-2.0, as ms2 is."
    surfaces: tuple[str, ...] = ("background",)
    min_height: float = 0

    @abstractmethod
    def render(self, scenes: SceneBatch) -> Float[Tensor, "b c h w"]:
        """Render images without labels."""

    def bounds(self, scenes: SceneBatch) -> tuple[Attribute, ...]:
        """Return the attributes of objects with the bounds that those of these scenes have to keep."""
        return self.attributes

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise a `UserError` if the renderer is meant for other classes than a world's; most read indices alone.

        Args:
            classes: Names of the world's classes.
        """

    def resized(self, factor: float) -> "Renderer":
        """Return a renderer of the same scenes at a multiple of this one's size, for what needs labels alone.

        Raises:
            UserError: If the renderer has no other size.
        """
        raise UserError(
            f"{type(self).__name__} renders at one size, so features.label_scale has to be 1, not {factor:g}"
        )

    def centres(self, scenes: SceneBatch) -> Float[Tensor, "b n 2"] | None:
        """Compute object centres x, y as fractions of the image's width and height; None if unsupported.

        Differentiable in the scenes' attributes: `ms2.gradients.StraightThrough` needs no derivative of pixels.
        """
        return None

    @abstractmethod
    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Render the images of `render` with labels."""

    def seen(self, labels: Rendering) -> Bool[Tensor, "b n"]:
        """Return which objects an annotator would label: those visible (`MIN_VISIBILITY`) and high enough."""
        return visible_enough(labels, MIN_VISIBILITY, self.min_height)


def asset_licence(folder: str) -> str:
    """Return the licence of images with user-supplied sprites or meshes."""
    return f"Drawn with the files in `{folder}`, under whatever licences these have, and by ms2's own code, Apache-2.0."
