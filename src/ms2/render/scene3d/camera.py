"""Pinhole cameras, one per scene, such as KITTI's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

KITTI_CAMERA_HEIGHT = 1.65
"""Height of KITTI's cameras above the road in metres (Geiger et al. 2013, figure 3)."""


@dataclass(frozen=True)
class Camera:
    """b pinhole cameras with axes x right, y down, z forward.

    Columns and rows are measured from the image's left and upper edges: the first pixel's centre is at (0.5, 0.5).

    Attributes:
        focal: Focal lengths along x and y in pixels.
        centre: Principal point: column and row in pixels.
        pose: Rotation and, in the last column, translation in metres from the world's to the camera's axes.
    """

    focal: Float[Tensor, "b 2"]
    centre: Float[Tensor, "b 2"]
    pose: Float[Tensor, "b 3 4"]

    def __len__(self) -> int:
        return len(self.focal)

    def to(self, device: torch.device) -> "Camera":
        """Move to a device."""
        return Camera(self.focal.to(device), self.centre.to(device), self.pose.to(device))

    @classmethod
    def from_kitti(
        cls,
        p2: Float[Tensor, "b 3 4"],
        original_size: tuple[int, int],
        size: tuple[int, int],
        height: Float[Tensor, " b"] | float = KITTI_CAMERA_HEIGHT,
        pitch: Float[Tensor, " b"] | float = 0.0,
        yaw: Float[Tensor, " b"] | float = 0.0,
    ) -> "Camera":
        """Build cameras from KITTI's projection matrices, for images resized to another size.

        KITTI's reference camera, in whose axes its labels are, is at height ``height`` above the world's origin and
        looks along +y; see `from_pinhole`.

        Args:
            p2: ``P2`` of the calibration file: from the reference camera's axes in metres to pixels, with pixel centres
                at integers.
            original_size: Height and width in pixels of the images that ``p2`` belongs to.
            size: Height and width in pixels of the images to render.
            height: Height above the ground in metres.
            pitch: Upward angle in radians.
            yaw: Angle to the left in radians.
        """
        scale = p2.new_tensor([size[1] / original_size[1], size[0] / original_size[0]])
        focal = torch.stack([p2[:, 0, 0], p2[:, 1, 1]], 1)
        centre = p2[:, :2, 2]
        # P2 is K [I | s]: the colour camera is some centimetres beside the reference camera
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
        height: Float[Tensor, " b"] | float = KITTI_CAMERA_HEIGHT,
        pitch: Float[Tensor, " b"] | float = 0.0,
        yaw: Float[Tensor, " b"] | float = 0.0,
    ) -> "Camera":
        """Build cameras above the world's origin that look along +y, with x to the right and z up.

        Args:
            focal: Focal lengths along x and y in pixels.
            centre: Principal point: column and row in pixels from the image's edges.
            height: Height above the ground in metres.
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


def inverse_pose(pose: Float[Tensor, "b 3 4"]) -> Float[Tensor, "b 3 4"]:
    """Invert poses: rotation and, in the last column, translation."""
    rotation = pose[:, :, :3].double().mT
    shift = -(rotation * pose[:, None, :, 3].double()).sum(2, keepdim=True)
    return torch.cat([rotation, shift], 2).to(pose.dtype)
