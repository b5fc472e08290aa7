"""Interface of engines: batches of 3D scenes to images, instance ids, depth and boxes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.registry import Plugin
from ms2.render.scene3d.scene import Scene3D


@dataclass(frozen=True)
class InstanceLabels:
    """Boxes and areas of n instances in b images; zeros for unused entries and for unlabelled instances.

    Attributes:
        extents: Amodal boxes x0, y0, x1, y1 in pixels around the whole instance, occluded or not, not clipped to the
            image. Of an instance that reaches behind the camera, the part beyond the near plane counts.
        areas: Area in pixels within the image that the instance would cover without occluders, in steps of one sample.
        visible_boxes: Boxes around the pixels that belong to the instance in ``instances``, edge to edge.
        visible_areas: Area in pixels at which the instance is visible, in steps of one sample; at most ``areas``.
    """

    extents: Float[Tensor, "b n 4"]
    areas: Float[Tensor, "b n"]
    visible_boxes: Float[Tensor, "b n 4"]
    visible_areas: Float[Tensor, "b n"]

    @property
    def visibility(self) -> Float[Tensor, "b n"]:
        """Compute the unoccluded fraction of each instance's area within the image."""
        return self.visible_areas / self.areas.clamp(min=1e-6)

    def boxes(self, size: tuple[int, int]) -> Float[Tensor, "b n 4"]:
        """Clip the amodal boxes to an image of ``size`` (height, width) pixels; zeros for instances outside of it."""
        height, width = size
        limit = self.extents.new_tensor([width, height, width, height])
        boxes = self.extents.clamp(min=0).minimum(limit)
        inside = (boxes[..., 2:] > boxes[..., :2]).all(-1, keepdim=True)
        return boxes * inside

    def truncation(self, size: tuple[int, int]) -> Float[Tensor, "b n"]:
        """Compute the fraction of each amodal box's area outside of an image of ``size`` (height, width) pixels."""

        def area(boxes: Float[Tensor, "b n 4"]) -> Float[Tensor, "b n"]:
            return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])

        return torch.where(area(self.extents) > 0, 1 - area(self.boxes(size)) / area(self.extents), 0)


@dataclass(frozen=True)
class RasterOutput:
    """Images of b scenes with instance ids, depth and labels.

    Attributes:
        image: Red, green and blue in [0, 1].
        instances: Index in its scene of the instance that each pixel belongs to; -1 for the sky.
        depth: Distance along the optical axis in metres; infinite for the sky.
        labels: Areas and boxes; None if they were not requested.
        normals: Normals in the camera's axes, of unit length; zeros for the sky. None if they were not requested.
    """

    image: Float[Tensor, "b 3 h w"]
    instances: Int[Tensor, "b h w"]
    depth: Float[Tensor, "b h w"]
    labels: InstanceLabels | None
    normals: Float[Tensor, "b 3 h w"] | None = None


class Engine(Plugin, ABC, kind="engines"):
    """Base class of engines that render 3D scenes.

    Rendering is deterministic, and an image does not depend on the other scenes of its batch.

    Example of another engine::

        class MyEngine(Engine):
            def render_batch(self, scene, size, labels):
                ...
                return RasterOutput(image, ids, depth, InstanceLabels(...) if labels else None)
    """

    @property
    def label_engine(self) -> "Engine":
        """The engine that computes ids, depth and labels: this one, or another one where images alone take long."""
        return self

    def render(self, scene: Scene3D, size: tuple[int, int], labels: bool = True) -> RasterOutput:
        """Render scenes on the device of their instances.

        Args:
            scene: The scenes.
            size: Height and width of an image in pixels.
            labels: Whether to compute areas and boxes.

        Raises:
            UserError: If a size is not positive, a mesh index is out of range, numbers of scenes differ, or a matrix is
                not finite.
        """
        device = scene.instances.mesh.device
        scene = replace(scene, camera=scene.camera.to(device), lighting=scene.lighting.to(device))
        check_size(size)
        scene.check()
        return self.render_batch(scene, size, labels)

    @abstractmethod
    def render_batch(self, scene: Scene3D, size: tuple[int, int], labels: bool) -> RasterOutput:
        """Render scenes whose tensors are valid and on one device; arguments as in `render`."""

    def render_normals(self, scene: Scene3D, size: tuple[int, int]) -> Float[Tensor, "b 3 h w"]:
        """Compute the normals of what is visible in the camera's axes, of unit length; zeros for the sky.

        Arguments as in `render`.

        Raises:
            UserError: If the engine computes none.
        """
        raise UserError(f"{type(self).__name__} computes no normals: leave them out, or use WarpEngine")


def check_size(size: tuple[int, int]) -> None:
    """Check an image's size.

    Args:
        size: Height and width in pixels.

    Raises:
        UserError: If one of them is not positive.
    """
    if min(size) < 1:
        raise UserError(f"cannot render an image of {size[0]} x {size[1]} pixels: both must be positive")
