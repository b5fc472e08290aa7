"""What a renderer takes and gives: scenes in, images and labels out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.registry import Plugin
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch


@dataclass(frozen=True)
class Rendering:
    """Images of b scenes with the labels of their at most n objects.

    Attributes:
        image: Pixels in [0, 1].
        classes: Class number of each object; -1 where there is none.
        parents: Place of the object that each belongs to, the road of a car say, or -1.
        boxes: Amodal boxes x0, y0, x1, y1 in pixels, from edge to edge: what the object covers, or would cover if
            nothing stood before it. Zeros where there is no object.
        corners: Oriented boxes: the four corners x, y of each object in pixels, clockwise on the image from its front
            left one, within the image or not. Zeros where there is no object.
        visible_boxes: The same of the visible pixels alone; zeros for an object that is wholly hidden.
        instances: For each pixel, the index of the object seen there, or -1 for the background.
        visibility: Visible share of each object's pixels, 0 where there is no object.
    """

    image: Float[Tensor, "b c h w"]
    classes: Int[Tensor, "b n"]
    parents: Int[Tensor, "b n"]
    boxes: Float[Tensor, "b n 4"]
    corners: Float[Tensor, "b n 4 2"]
    visible_boxes: Float[Tensor, "b n 4"]
    instances: Int[Tensor, "b h w"]
    visibility: Float[Tensor, "b n"]


class Renderer(Plugin, ABC, kind="renderers"):
    """Draws scenes. All randomness lies in the scenes' attributes: the same scenes give the same pixels.

    Attributes:
        channels: Channels of an image, c.
        size: Height and width of an image in pixels.
        attributes: What the renderer reads of every object, with bounds.
        environment: What it reads of the scene as a whole, with bounds.
        differentiable: Names of the attributes in which images are differentiable.
        licence: Whose pictures and models it draws with, and what one may do with them.
    """

    channels: int
    size: tuple[int, int]
    attributes: tuple[Attribute, ...]
    environment: tuple[Attribute, ...] = ()
    differentiable: frozenset[str] = frozenset()
    licence: str = "Everything in the images is drawn by ms2's own code: Apache-2.0, as ms2 is."

    @abstractmethod
    def render(self, scenes: SceneBatch) -> Float[Tensor, "b c h w"]:
        """Images alone, as fast as can be: what learning needs."""

    def centres(self, scenes: SceneBatch) -> Float[Tensor, "b n 2"] | None:
        """Where objects are on the image, as shares of its width and height; differentiable. None if that is unknown.

        For learning of places without a derivative of pixels, see `ms2.gradients.StraightThrough`.
        """
        return None

    @abstractmethod
    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """The same images, with labels."""


def foreign(folder: str) -> str:
    """The licence of images that show what a person put into a folder."""
    return f"Drawn with the files in `{folder}`, under whatever licences these have, and by ms2's own code, Apache-2.0."
