"""Models of one's own: GLB and OBJ files in subfolders named by class, made to stand as large as the class does."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ms2.core.errors import UserError, suggest
from ms2.render.scene3d.mesh_files import CHECKS, load_mesh
from ms2.render.scene3d.meshes import Mesh

PAINT = ("paint", "Paint", "body", "Body", "carpaint", "CarPaint", "car_paint", "bodypaint", "tint", "Tint")
"""Names of materials that take on the colour of the instance."""
WIDTH, LENGTH, HEIGHT = range(3)
REAL: dict[str, tuple[int, float, float, float]] = {
    "car": (LENGTH, 3.0, 4.3, 5.8),
    "truck": (LENGTH, 5.0, 8.0, 20.0),
    "pedestrian": (HEIGHT, 0.9, 1.75, 2.1),
    "cyclist": (HEIGHT, 1.2, 1.75, 2.1),
    "tree": (HEIGHT, 3.0, 7.0, 20.0),
    "bush": (HEIGHT, 0.5, 1.2, 3.0),
    "house": (HEIGHT, 4.0, 7.0, 15.0),
    "building": (HEIGHT, 8.0, 16.0, 60.0),
    "sign": (HEIGHT, 1.5, 2.6, 5.0),
    "light": (HEIGHT, 2.5, 3.4, 8.0),
    "pole": (HEIGHT, 3.0, 7.0, 14.0),
}
"""Axis by which a class is measured; metres that are taken as true from and to, and between them the usual ones."""
ON_POSTS = ("tree", "bush", "sign", "light", "pole")
"""Classes whose place is where their trunk or post is, whatever reaches out to one side above."""
SUFFIXES = tuple(CHECKS)


def read_models(assets: str, classes: Sequence[str], on_error: str = "raise") -> dict[str, list[Mesh]]:
    """The models of the classes that the folder has any of.

    A model that is about as large as its class really is stays as it is; others are scaled to the usual size.

    Args:
        assets: The folder.
        classes: Names that its subfolders may have.
        on_error: What to do about a file that can't be read: "raise", or "skip" it with one warning for all.

    Raises:
        UserError: If the folder is missing, or a subfolder has another name or no models, or a file can't be read.
    """
    if on_error not in ("raise", "skip"):
        raise UserError(f"on_error is {on_error!r}. {suggest(on_error, ('raise', 'skip'))}")
    root = Path(assets)
    found: dict[str, list[Mesh]] = {}
    broken = []
    for folder in _subfolders(root, classes):
        models = []
        for file in _files(folder):
            try:
                models.append(fitted(load_mesh(file.absolute(), PAINT), folder.name))
            except UserError as error:
                if on_error == "raise":
                    raise UserError(
                        f"{error} The assets folder {root.absolute()} has this file for {folder.name!r}: mend it, or "
                        'remove it. With on_error "skip", such files are left out.'
                    ) from error
                broken.append(str(error))
        if models:
            found[folder.name] = models
    if broken:
        left = [folder.name for folder in _subfolders(root, classes) if folder.name not in found]
        built_in = f" Models made by code stand in for: {', '.join(left)}." if left else ""
        warnings.warn(
            f"{len(broken)} of the files in {root.absolute()} are left out: {'; '.join(broken)}.{built_in}",
            stacklevel=2,
        )
    return found


def fitted(mesh: Mesh, name: str) -> Mesh:
    """A model as large as its class, on the ground, the middle of its foot at the origin.

    Raises:
        UserError: If it is flat along the axis by which the class is measured, so that it can't be scaled.
    """
    axis, least, usual, most = REAL[name]
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    size = float(high[axis] - low[axis])
    if not np.isfinite(size) or size <= 1e-6:
        raise UserError(f"a model of {name!r} is {size} long along {'xyz'[axis]}: it cannot be scaled to {usual} m.")
    factor = 1.0 if least <= size <= most else usual / size
    foot = mesh.vertices
    if name in ON_POSTS:
        foot = foot[foot[:, 2] <= low[2] + 0.05 * (high[2] - low[2])]
    middle = (foot.min(0) + foot.max(0)) / 2
    places = (mesh.vertices - [middle[0], middle[1], low[2]]) * factor
    return replace(mesh, vertices=places.astype(np.float32))


def _subfolders(root: Path, classes: Sequence[str]) -> list[Path]:
    """The subfolders, each named by a class and with models in it."""
    names = ", ".join(classes)
    if not root.is_dir():
        raise UserError(
            f"there is no folder {root.absolute()} to take models from. Give assets a folder with one or more "
            f"subfolders of: {names}; or leave it out, and all models are made by code."
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(
            f"the assets folder {root.absolute()} has no subfolders. Put models into one or more of: {names}; or leave "
            "assets out, and all models are made by code."
        )
    for folder in folders:
        if folder.name not in classes:
            raise UserError(
                f"the assets folder {folder.absolute()} is of no use. {suggest(folder.name, classes)} Rename it, or "
                "move it elsewhere."
            )
        if not _files(folder):
            raise UserError(
                f"the assets folder {folder.absolute()} holds no models ({', '.join(SUFFIXES)}). Put some there, or "
                "remove it, and its models are made by code."
            )
    return folders


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
