"""Instances of meshes in a batch of scenes."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class InstanceBatch:
    """At most n meshes placed in each of b scenes.

    Attributes:
        mesh: Number of the mesh in the library; -1 where a place is unused.
        transform: From the mesh's metres to the world's: an affine matrix, without a projection.
        colour: Colour of the paint, 0 to 1 as a screen shows it.
        labelled: For which instances areas and boxes are wanted. Ground and other things that nobody counts are
            better left out: what fills the image costs time. All if not given.
    """

    mesh: Int[Tensor, "b n"]
    transform: Float[Tensor, "b n 4 4"]
    colour: Float[Tensor, "b n 3"]
    labelled: Bool[Tensor, "b n"] | None = None

    def __len__(self) -> int:
        return len(self.mesh)

    @classmethod
    def upright(
        cls,
        mesh: Int[Tensor, "b n"],
        place: Float[Tensor, "b n 3"],
        yaw: Float[Tensor, "b n"],
        scale: Float[Tensor, "b n 3"],
        colour: Float[Tensor, "b n 3"],
        labelled: Bool[Tensor, "b n"] | None = None,
    ) -> "InstanceBatch":
        """Meshes that are stretched along their own axes, turned counter-clockwise around z, and moved.

        Args:
            mesh: Number of the mesh; -1 where a place is unused.
            place: Where the mesh's origin goes.
            yaw: Angle in radians.
            scale: Factors along x, y and z.
            colour: Colour of the paint.
            labelled: For which instances areas and boxes are wanted; all if not given.
        """
        # float32's own sine is rounded differently at different places of a tensor; pixels would depend on the batch
        cos, sin = yaw.double().cos().to(yaw.dtype), yaw.double().sin().to(yaw.dtype)
        x, y, z = scale.unbind(-1)
        zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
        rows = [cos * x, -sin * y, zero, place[..., 0], sin * x, cos * y, zero, place[..., 1]]
        rows += [zero, zero, z, place[..., 2], zero, zero, zero, one]
        return cls(mesh, torch.stack(rows, -1).unflatten(-1, (4, 4)), colour, labelled)
