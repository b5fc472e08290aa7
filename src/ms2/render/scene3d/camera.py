"""Pinhole cameras, one for each scene, such as KITTI's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

KITTI_HEIGHT = 1.65
"""Height of KITTI's cameras above the road in metres (Geiger et al. 2013, figure 3)."""


@dataclass(frozen=True)
class Camera:
    """b cameras. A point of the world goes to the camera's axes (x right, y down, z ahead) and on to the image.

    Columns and rows are measured from the image's left and upper edges: the first pixel's centre is at (0.5, 0.5).

    Attributes:
        focal: Focal lengths along x and y in pixels.
        centre: Column and row that the optical axis goes through.
        pose: From the world, in metres, to the camera: a rotation, and in the last column a shift.
    """

    focal: Float[Tensor, "b 2"]
    centre: Float[Tensor, "b 2"]
    pose: Float[Tensor, "b 3 4"]

    def __len__(self) -> int:
        return len(self.focal)

    @classmethod
    def from_kitti(
        cls,
        p2: Float[Tensor, "b 3 4"],
        given: tuple[int, int],
        size: tuple[int, int],
        height: Float[Tensor, " b"] | float = KITTI_HEIGHT,
        pitch: Float[Tensor, " b"] | float = 0.0,
        yaw: Float[Tensor, " b"] | float = 0.0,
    ) -> "Camera":
        """Cameras of KITTI's calibration files, for images that were resized to another size.

        The reference camera, in whose axes KITTI's labels are, stands at height ``height`` over the world's origin and
        looks along y; see `from_pinhole`.

        Args:
            p2: ``P2`` of the calibration file: from the reference camera's axes to pixels, whose centres have whole
                numbers.
            given: Height and width of the images that it was measured for.
            size: Height and width of the images to draw.
            height: Metres above the ground.
            pitch: Upward angle in radians.
            yaw: Angle to the left in radians.
        """
        scale = p2.new_tensor([size[1] / given[1], size[0] / given[0]])
        focal = torch.stack([p2[:, 0, 0], p2[:, 1, 1]], 1)
        centre = p2[:, :2, 2]
        # P2 is K [I | s]: the coloured camera stands some centimetres beside the reference camera
        shift_z = p2[:, 2, 3]
        shift = torch.cat([(p2[:, :2, 3] - centre * shift_z[:, None]) / focal, shift_z[:, None]], 1)
        level = cls.from_pinhole(focal * scale, (centre + 0.5) * scale, height, pitch, yaw)
        pose = torch.cat([level.pose[:, :, :3], level.pose[:, :, 3:] + shift[:, :, None]], 2)
        return cls(level.focal, level.centre, pose)

    @classmethod
    def from_pinhole(
        cls,
        focal: Float[Tensor, "b 2"],
        centre: Float[Tensor, "b 2"],
        height: Float[Tensor, " b"] | float = KITTI_HEIGHT,
        pitch: Float[Tensor, " b"] | float = 0.0,
        yaw: Float[Tensor, " b"] | float = 0.0,
    ) -> "Camera":
        """Cameras over the world's origin that look along its y axis, with x to the right and z up.

        Args:
            focal: Focal lengths along x and y in pixels.
            centre: Column and row that the optical axis goes through, from the image's edges.
            height: Metres above the ground.
            pitch: Upward angle in radians.
            yaw: Angle to the left in radians.
        """
        number = len(focal)
        height, pitch, yaw = (
            torch.as_tensor(value, dtype=torch.float64, device=focal.device).expand(number)
            for value in (height, pitch, yaw)
        )
        zero = torch.zeros_like(height)
        right = torch.stack([yaw.cos(), yaw.sin(), zero], 1)
        ahead = torch.stack([-yaw.sin() * pitch.cos(), yaw.cos() * pitch.cos(), pitch.sin()], 1)
        down = torch.stack([-yaw.sin() * pitch.sin(), yaw.cos() * pitch.sin(), -pitch.cos()], 1)
        rotation = torch.stack([right, down, ahead], 1)
        shift = -rotation[:, :, 2:] * height[:, None, None]
        return cls(focal, centre, torch.cat([rotation, shift], 2).float())
