"""Poses of the cameras of sequences, and rotations as quaternions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def square_poses(poses: Sequence[Sequence[Sequence[float]]]) -> Float[np.ndarray, "n 4 4"]:
    """Add the last row to 3 x 4 poses."""
    found = np.tile(np.eye(4), (len(poses), 1, 1))
    found[:, :3] = np.asarray(poses, float)
    return found


def relative_poses(poses: Sequence[Sequence[Sequence[float]]]) -> Float[np.ndarray, "n 3 4"]:
    """Convert poses to the axes of the first one, as KITTI's odometry has them.

    Args:
        poses: 3 x 4 matrices from each camera's axes to the world's.
    """
    square = square_poses(poses)
    relative: Float[np.ndarray, "n 3 4"] = (np.linalg.inv(square[0]) @ square)[:, :3]
    return relative


def quaternions(rotations: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 4"]:
    """Convert rotations to quaternions w, x, y, z with w >= 0."""
    from scipy.spatial.transform import Rotation  # takes a while to import

    x, y, z, w = np.moveaxis(Rotation.from_matrix(rotations).as_quat(canonical=True), -1, 0)
    return np.stack([w, x, y, z], -1)
