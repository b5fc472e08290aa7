"""Loading of GLB and OBJ files as a `Mesh` in this package's axes."""

import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ms2.core.errors import UserError, suggest
from ms2.render.scene3d.glb import GLBFile
from ms2.render.scene3d.mesh_parts import MeshFileError
from ms2.render.scene3d.meshes import Mesh, concatenate_meshes
from ms2.render.scene3d.obj import OBJFile
from ms2.render.scene3d.shapes import flat_shaded

MESH_SUFFIXES = (".glb", ".obj")
Y_UP_TO_Z_UP = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""From glTF's axes (x left, y up, z forward), which most OBJ files share, to x right, y forward, z up."""


def load_mesh(path: Path | str, paint_materials: Collection[str] = ()) -> Mesh:
    """Load a GLB or OBJ file as one mesh, with the transforms of its nodes applied.

    Of a material, the base colour and its texture are used, without transparency; of a GLB file's, the roughness
    determines the gloss. Vertex colours multiply the material's. Skinned meshes are in their rest pose. Triangles
    without normals are shaded flat. Points, lines and parts without extent are left out, with a warning.

    Args:
        path: The file.
        paint_materials: Names of materials that the instance's colour tints.

    Raises:
        UserError: If the file is missing, unreadable or without triangles, or if anything that it declares about
            geometry or base colour is missing, broken or not supported.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise UserError(f"{path} is neither GLB nor OBJ. {suggest(suffix, MESH_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    left_out: list[str] = []
    try:
        parts = list(_read_parts(data, path, paint_materials, left_out))
    except MeshFileError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a broken file can lack any key, or have a value of any type
        raise UserError(
            f"{path} cannot be read as {suffix[1:].upper()} ({error!r}). Export it again, or leave it out."
        ) from error
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        warnings.warn(f"{path}: left out {', '.join(left_out[:3])}{more}", stacklevel=2)
    if not parts:
        raise UserError(f"{path} has no triangles to show")
    return concatenate_meshes(*parts)


def _read_parts(data: bytes, path: Path, paint_materials: Collection[str], left_out: list[str]) -> Iterator[Mesh]:
    """Iterate over a file's parts that have triangles; add to ``left_out`` what is not used."""
    if path.suffix.lower() == ".obj":
        obj = OBJFile(data, path.parent, paint_materials, left_out)
        yield from (mesh.transformed(Y_UP_TO_Z_UP) for mesh in obj.parts())
        return
    glb = GLBFile(data, path.parent, paint_materials)
    for name, mesh, matrix in glb.parts():
        placed = _placed(mesh, Y_UP_TO_Z_UP @ matrix) if len(mesh.triangles) else None
        if placed is not None:
            yield placed
        elif len(mesh.triangles):
            left_out.append(f"{name!r}, whose scale is 0")
    left_out += glb.left_out


def _placed(mesh: Mesh, matrix: Float[np.ndarray, "4 4"]) -> Mesh | None:
    """Apply a transform; return None if that leaves no surface."""
    rank = np.linalg.matrix_rank(matrix[:3, :3])
    if rank == 3:
        return mesh.transformed(matrix)
    if rank < 2:
        return None
    vertices = mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3]  # a projection, which has no inverse for normals
    return flat_shaded(replace(mesh, vertices=vertices))
