"""Reading and writing of KITTI's calibration files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError


class KittiError(UserError):
    """A KITTI file is missing or invalid."""


def read_lines(path: Path, kind: str) -> list[tuple[int, str]]:
    """Read the lines of one of KITTI's text files that are not blank, with their numbers from 1, no byte-order mark.

    Args:
        path: The file.
        kind: What it is, for the message.

    Raises:
        KittiError: If it cannot be read.
    """
    if not path.is_file():  # also keeps from waiting for a named pipe
        raise KittiError(f"{path}: there is no such {kind}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise KittiError(f"{path}: this {kind} is no text in UTF-8, in which KITTI's are") from None
    except OSError as error:
        raise KittiError(f"{path}: can't be read ({error})") from error
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_projection(path: Path, camera: str = "P2") -> Float[Tensor, "3 4"]:
    """Read a camera's projection matrix, from its axes in metres to pixels, from a KITTI calibration file.

    Raises:
        KittiError: If the file is missing or does not contain the matrix.
    """
    rows: dict[str, tuple[int, str]] = {}
    for number, line in read_lines(path, "calibration file"):
        name, colon, rest = line.partition(":")
        if colon and name.strip() in rows:
            raise KittiError(f"{path}, line {number}: {name.strip()} is there already, in line {rows[name.strip()][0]}")
        if colon:
            rows[name.strip()] = number, rest
    if camera not in rows:
        raise KittiError(f"{path}: has no line '{camera}: ...', only {', '.join(rows) or 'none'}")
    number, text = rows[camera]
    place = f"{path}, line {number}, {camera}"
    try:
        values = [float(value) for value in text.split()]
    except ValueError as error:
        raise KittiError(f"{place}: {error}") from None
    if len(values) != 12:
        raise KittiError(f"{place}: {len(values)} numbers, where a 3 x 4 matrix has 12")
    matrix = torch.tensor(values).view(3, 4)
    # so written that NaN is refused too
    level = torch.allclose(matrix[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], torch.tensor([0.0, 0, 0, 0, 1]), atol=1e-5)
    if not (matrix.isfinite().all() and level and matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise KittiError(
            f"{place}: no projection of a rectified camera, f 0 u t; 0 g v t; 0 0 1 t, with focal lengths above 0"
        )
    return matrix


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
