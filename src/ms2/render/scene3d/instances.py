"""Instances of meshes in a batch of 3D scenes."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class InstanceBatch:
    """At most n instances of meshes in each of b scenes.

    Attributes:
        mesh: Index of the mesh in the library; -1 for an unused entry.
        transform: Affine matrix from the mesh's axes to the world's, both in metres.
        colour: Colour of the instance in [0, 1] as displayed; it tints the mesh where its ``paint`` says so.
        labelled: Instances whose areas and boxes are computed; all by default. Leave out the ground and other meshes
            that fill the image without being objects: their labels cost time.
    """

    mesh: Int[Tensor, "b n"]
    transform: Float[Tensor, "b n 4 4"]
    colour: Float[Tensor, "b n 3"]
    labelled: Bool[Tensor, "b n"] | None = None

    def __len__(self) -> int:
        return len(self.mesh)

    @classmethod
    def place_upright(
        cls,
        mesh: Int[Tensor, "b n"],
        position: Float[Tensor, "b n 3"],
        yaw: Float[Tensor, "b n"],
        scale: Float[Tensor, "b n 3"],
        colour: Float[Tensor, "b n 3"],
        labelled: Bool[Tensor, "b n"] | None = None,
    ) -> "InstanceBatch":
        """Build instances that are scaled along their own axes, rotated around z, and translated.

        Args:
            mesh: Index of the mesh; -1 for an unused entry.
            position: Position of the mesh's origin in metres.
            yaw: Counter-clockwise angle around z in radians.
            scale: Factors along x, y and z.
            colour: Colour of the instance.
            labelled: Instances whose areas and boxes are computed; all by default.
        """
        # float32's own sine is rounded differently at different positions of a tensor; pixels would depend on the batch
        cos, sin = yaw.double().cos().to(yaw.dtype), yaw.double().sin().to(yaw.dtype)
        x, y, z = scale.unbind(-1)
        zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
        rows = [cos * x, -sin * y, zero, position[..., 0], sin * x, cos * y, zero, position[..., 1]]
        rows += [zero, zero, z, position[..., 2], zero, zero, zero, one]
        return cls(mesh, torch.stack(rows, -1).unflatten(-1, (4, 4)), colour, labelled)
