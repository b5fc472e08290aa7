"""User meshes: GLB and OBJ files in subfolders named by class, scaled to the class's true size."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ms2.core.errors import UserError, suggest
from ms2.core.paths import expand_path
from ms2.render.scene3d.mesh_files import MESH_SUFFIXES, load_mesh
from ms2.render.scene3d.meshes import Mesh
from ms2.worlds.driving3d.assets.facing import read_turns, turned
from ms2.worlds.driving3d.declaration import OBJECT_CLASSES

PAINT_MATERIALS = ("paint", "Paint", "body", "Body", "carpaint", "CarPaint", "car_paint", "bodypaint", "tint", "Tint")
"""Names of materials that the instance's colour tints."""
UNREAD_SUFFIXES = (".3ds", ".blend", ".dae", ".fbx", ".gltf", ".ply", ".stl", ".usd", ".usda", ".usdc", ".usdz")
"""Suffixes of mesh files that are not read."""
SIZE_AXES = {"width": 0, "length": 1, "height": 2}
"""Index of the axis of a mesh along which each of its dimensions is measured."""


def read_models(assets: str, classes: Sequence[str], on_error: str = "raise") -> dict[str, list[Mesh]]:
    """Load the user meshes of each class for which the folder has a subfolder.

    A mesh within the range of true sizes of its class is not scaled; others are scaled to the typical size. Those that
    the folder's file of turns names are turned before.

    Args:
        assets: The folder.
        classes: Names that its subfolders may have.
        on_error: How to handle unreadable files: "raise", or "skip" with one warning for all.

    Raises:
        UserError: If the folder is missing, a subfolder has another name or no meshes, or a file cannot be read.
    """
    if on_error not in ("raise", "skip"):
        raise UserError(f"on_error is {on_error!r}. {suggest(on_error, ('raise', 'skip'))}")
    root = expand_path(assets)
    found: dict[str, list[Mesh]] = {}
    broken = []
    turns = read_turns(root)
    for folder in subfolders(root, classes):
        models = []
        for file in mesh_files(folder):
            try:
                mesh = load_mesh(file.absolute(), PAINT_MATERIALS)
                degrees = turns.get(file.relative_to(root).as_posix())
                models.append(fit_to_class(mesh if degrees is None else turned(mesh, degrees), folder.name))
            except UserError as error:
                if on_error == "raise":
                    raise UserError(
                        f"{error} The assets folder {root.absolute()} has this file for {folder.name!r}: repair it, or "
                        'remove it. With on_error "skip", such files are left out.'
                    ) from error
                broken.append(str(error))
        if models:
            found[folder.name] = models
    unread = [file.name for folder in subfolders(root, classes) for file in unread_files(folder)]
    if unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        warnings.warn(
            f"{len(unread)} mesh files in {root.absolute()} are of kinds that are not read: "
            f"{', '.join(unread[:3])}{more}. Export them as {' or '.join(MESH_SUFFIXES)}.",
            stacklevel=2,
        )
    if broken:
        left = [folder.name for folder in subfolders(root, classes) if folder.name not in found]
        built_in = f" Procedural meshes are used for: {', '.join(left)}." if left else ""
        warnings.warn(
            f"{len(broken)} of the files in {root.absolute()} are left out: {'; '.join(broken)}.{built_in}",
            stacklevel=2,
        )
    return found


def fit_to_class(mesh: Mesh, name: str) -> Mesh:
    """Scale a mesh to its class's true size and move the centre of its base to the origin.

    Raises:
        UserError: If it has no extent along the axis by which the class is measured.
    """
    cls = OBJECT_CLASSES[name]
    true, axis = cls.true_size, SIZE_AXES[cls.true_size.axis]
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    size = float(high[axis] - low[axis])
    if not np.isfinite(size) or size <= 1e-6:
        raise UserError(
            f"a model of {name!r} is {size} long along {'xyz'[axis]}: it cannot be scaled to {true.typical} m."
        )
    factor = 1.0 if true.minimum <= size <= true.maximum else true.typical / size
    base = mesh.vertices
    if cls.post_mounted:
        base = base[base[:, 2] <= low[2] + 0.05 * (high[2] - low[2])]
    middle = (base.min(0) + base.max(0)) / 2
    vertices = (mesh.vertices - [middle[0], middle[1], low[2]]) * factor
    return replace(mesh, vertices=vertices.astype(np.float32))


def subfolders(root: Path, classes: Sequence[str]) -> list[Path]:
    """Return the subfolders; check that each is named by a class and has meshes."""
    names = ", ".join(classes)
    if not root.is_dir():
        raise UserError(
            f"there is no assets folder {root.absolute()}. Set assets to a folder with one or more "
            f"subfolders of: {names}; or leave it out for procedural meshes."
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(
            f"the assets folder {root.absolute()} has no subfolders. Put meshes into one or more of: {names}; or leave "
            "assets out for procedural meshes."
        )
    for folder in folders:
        if folder.name not in classes:
            raise UserError(
                f"the assets folder {folder.absolute()} is not named by a class. {suggest(folder.name, classes)} "
                "Rename or remove it."
            )
        if not mesh_files(folder):
            raise UserError(
                f"the assets folder {folder.absolute()} holds no meshes ({', '.join(MESH_SUFFIXES)}). Add some, or "
                "remove it for procedural meshes."
            )
    return folders


def unread_files(folder: Path) -> list[Path]:
    """Return mesh files of other kinds, which are not beside a file of the same name that is read."""
    read = {file.stem for file in mesh_files(folder)}
    others = (p for p in folder.iterdir() if p.suffix.lower() in UNREAD_SUFFIXES and not p.name.startswith("."))
    return sorted(file for file in others if file.stem not in read)


def mesh_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold meshes."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in MESH_SUFFIXES and not p.name.startswith("."))
