"""Which way user meshes face: a rule for vehicles, and the file that says it of any mesh."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ms2.core.errors import UserError
from ms2.render.scene3d.meshes import Mesh

TURNS_FILE = "turns.json"
"""File in an assets folder: of meshes, by their path in it, the degrees to turn them by."""
HEADED_CLASSES = ("car", "truck")
"""Classes whose front the rule finds."""
LONG_CLASSES = (*HEADED_CLASSES, "cyclist")
"""Classes that are longer than they are wide."""
MIN_ASPECT = 1.15
"""Ratio of the sides from which on the longer one is the length."""
UPPER_PART = 0.6
"""Fraction of the height above which a vehicle has its cabin or load, and no bonnet."""
MIN_OFFSET = 0.035
"""Least distance of the upper part's centre from the middle, as a fraction of the length. Of 23 vehicles of two
packs it decides 18, all of them rightly, and no pick-up, whose load is low."""


class Facing(NamedTuple):
    """What a mesh's shape says of its front.

    Attributes:
        turn: Counter-clockwise angle as seen from above, in degrees, that turns the front to +y.
        lies_across: Whether its length is along x.
    """

    turn: Literal[0, 90, 180, 270] | None
    lies_across: bool


def find_front(mesh: Mesh, name: str) -> Facing:
    """Find the front of a vehicle.

    The longer side is the length. Of the surface above three fifths of the height, which is that of the cabin or the
    load, the centre is behind the middle: bonnets and windscreens are in front of it.

    Args:
        mesh: The mesh, of any size.
        name: Its class.

    Returns:
        The turn to the front; None where the shape does not tell it, and for classes other than `HEADED_CLASSES`.
    """
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    size = high - low
    if name not in LONG_CLASSES or max(size[:2]) < MIN_ASPECT * min(size[:2]):
        return Facing(None, False)
    across = bool(size[0] > size[1])
    axis = 0 if across else 1
    corners = mesh.vertices[mesh.triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    centre = corners.mean(1)
    area = area * (centre[:, 2] > low[2] + UPPER_PART * size[2])
    offset = float((area * (centre[:, axis] - (low + high)[axis] / 2)).sum() / max(area.sum(), 1e-12) / size[axis])
    if name not in HEADED_CLASSES or abs(offset) < MIN_OFFSET:
        return Facing(None, across)
    if across:
        return Facing(90 if offset < 0 else 270, across)
    return Facing(0 if offset < 0 else 180, across)


def turned(mesh: Mesh, degrees: float) -> Mesh:
    """Turn a mesh about z, counter-clockwise as seen from above."""
    angle = np.deg2rad(degrees)
    cos, sin = (round(float(value), 12) for value in (np.cos(angle), np.sin(angle)))
    return mesh.transformed(np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


def read_turns(root: Path) -> dict[str, float]:
    """Read the turns of meshes in an assets folder; none if it has no such file.

    Raises:
        UserError: If the file is broken, or names a mesh that is not there.
    """
    path = root / TURNS_FILE
    if not path.exists():
        return {}
    form = 'it has to be an object with a number of degrees for each file, such as {"car/van.glb": 180}'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): {form}") from error
    numbers = isinstance(found, dict) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in found.values()
    )
    if not numbers:
        raise UserError(f"{path}: {form}")
    for name in found:
        if not (root / name).is_file():
            raise UserError(f"{path} names {name!r}, which is not there: remove that line, or rename it")
    return found


def write_turns(root: Path, turns: Mapping[str, float]) -> None:
    """Write the turns of meshes, which take the place of those that the folder has."""
    content = json.dumps(dict(sorted(turns.items())), indent=2) + "\n"
    (root / TURNS_FILE).write_text(content, encoding="utf-8")
