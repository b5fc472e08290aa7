"""KITTI's calibration files: the cameras that its images were taken with."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError


class KittiError(UserError):
    """A file of KITTI's that is missing or not what it should be."""


def read_projection(path: Path, camera: str = "P2") -> Float[Tensor, "3 4"]:
    """The projection matrix of a camera from a file in ``calib``, from its coordinates in metres to pixels.

    Raises:
        KittiError: If there is no such file, or the matrix is not in it.
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
    """A file for ``calib`` of images whose cameras are all the same one; lasers and gyroscopes sit in it too."""
    p = " ".join(f"{value:.12e}" for row in projection for value in row)
    level = "1 0 0 0 1 0 0 0 1"
    moved = "1 0 0 0 0 1 0 0 0 0 1 0"
    lines = [f"P{i}: {p}" for i in range(4)]
    return "\n".join([*lines, f"R0_rect: {level}", f"Tr_velo_to_cam: {moved}", f"Tr_imu_to_velo: {moved}"]) + "\n"
