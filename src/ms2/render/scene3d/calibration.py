"""Reading and writing of KITTI's calibration files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError


class KittiError(UserError):
    """A KITTI file is missing or invalid."""


def read_projection(path: Path, camera: str = "P2") -> Float[Tensor, "3 4"]:
    """Read a camera's projection matrix, from its axes in metres to pixels, from a KITTI calibration file.

    Raises:
        KittiError: If the file is missing or does not contain the matrix.
    """
    try:
        rows = dict(line.split(":", 1) for line in path.read_text(encoding="ascii").splitlines() if ":" in line)
    except FileNotFoundError:
        raise KittiError(f"{path}: there is no such calibration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KittiError(f"{path}: can't be read ({error})") from error
    if camera not in rows:
        raise KittiError(f"{path}: has no line '{camera}: ...', only {', '.join(rows) or 'none'}")
    try:
        values = [float(value) for value in rows[camera].split()]
    except ValueError as error:
        raise KittiError(f"{path}, {camera}: {error}") from None
    if len(values) != 12:
        raise KittiError(f"{path}, {camera}: {len(values)} numbers, where a 3 x 4 matrix has 12")
    return torch.tensor(values).view(3, 4)


def calibration_text(projection: Sequence[Sequence[float]]) -> str:
    """Format a KITTI calibration file with one camera; the LiDAR and the IMU share its pose."""
    p = " ".join(f"{value:.12e}" for row in projection for value in row)
    identity = "1 0 0 0 1 0 0 0 1"
    identity_pose = "1 0 0 0 0 1 0 0 0 0 1 0"
    lines = [f"P{i}: {p}" for i in range(4)]
    return (
        "\n".join(
            [*lines, f"R0_rect: {identity}", f"Tr_velo_to_cam: {identity_pose}", f"Tr_imu_to_velo: {identity_pose}"]
        )
        + "\n"
    )
