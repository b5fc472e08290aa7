"""Loading of GLB and OBJ files as a `Mesh` in this package's axes."""

import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float
from PIL import Image

from ms2.core.errors import UserError, suggest
from ms2.render.scene3d.meshes import Mesh, TextureImage, concatenate_meshes
from ms2.render.scene3d.shapes import flat_shaded

MESH_SUFFIXES = (".glb", ".obj")
REFERENCE_KINDS = {".mtl": "materials", ".bin": "buffer", ".glbin": "buffer", ".glbuf": "buffer"}
"""What a mesh file refers to by the suffix of the other file; all others are textures."""
Y_UP_TO_Z_UP = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""From glTF's axes (x left, y up, z forward), which most OBJ files share, to x right, y forward, z up."""


def load_mesh(path: Path | str, paint_materials: Collection[str] = ()) -> Mesh:
    """Load a GLB or OBJ file as one mesh, with the transforms of its nodes applied.

    trimesh reads the file. Of a material, the base colour and its texture are used, without transparency; of a GLB
    file's, the roughness determines the gloss. Skinned meshes are in their rest pose. Meshes without normals are shaded
    flat.

    Args:
        path: The file.
        paint_materials: Names of materials that the instance's colour tints.

    Raises:
        UserError: If the file is missing, unreadable or without triangles, or if a texture, material library or buffer
            that it refers to is missing or unreadable.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise UserError(f"{path} is neither GLB nor OBJ. {suggest(suffix, MESH_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        import trimesh
    except ImportError as error:
        raise UserError("loading mesh files needs trimesh, which is not installed. Try: pip install trimesh") from error
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    if suffix == ".glb" and not data.startswith(b"glTF"):
        raise UserError(f"{path} is no GLB file: it does not begin with 'glTF'")
    resolver = _resolver(path)
    try:
        scene = trimesh.load_scene(io.BytesIO(data), suffix[1:], resolver=resolver)
        parts = []
        for node in scene.graph.nodes_geometry:
            matrix, name = scene.graph[node]
            geometry = scene.geometry[name]
            if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
                parts.append(_mesh(geometry, paint_materials).transformed(Y_UP_TO_Z_UP @ matrix))
        has_normals = _has_normals(data, suffix)
    except Exception as error:  # trimesh raises errors of any kind for broken files
        if resolver.problems:
            raise UserError(f"{path} needs {resolver.problems[0]}") from error
        raise UserError(
            f"{path} cannot be read as {suffix[1:].upper()} ({error!r}). Export it again, or leave it out."
        ) from error
    if resolver.problems:  # which trimesh ignores
        raise UserError(f"{path} needs {resolver.problems[0]}")
    if not parts:
        raise UserError(f"{path} has no triangles")
    mesh = concatenate_meshes(*parts)
    return mesh if has_normals else flat_shaded(mesh)


def _mesh(geometry: Any, paint_materials: Collection[str]) -> Mesh:
    """Convert one of trimesh's meshes."""
    number = len(geometry.vertices)
    material = getattr(geometry.visual, "material", None)
    is_painted = getattr(material, "name", None) in paint_materials
    rough = getattr(material, "roughnessFactor", None)  # OBJ's shininess has no common meaning
    if material is not None and hasattr(material, "to_pbr"):
        material = material.to_pbr()
    uv = getattr(geometry.visual, "uv", None)
    texture = _texture(material) if uv is not None else None
    colour = np.ones((number, 3)) if is_painted else _colour(geometry, material, number)
    return Mesh(
        np.asarray(geometry.vertices, np.float32),
        np.asarray(geometry.vertex_normals, np.float32),
        np.asarray(geometry.faces),
        None if texture is None else np.asarray(uv, np.float32),
        colour.astype(np.float32),
        paint=float(is_painted),
        gloss=0.0 if rough is None else float(np.clip(1 - rough, 0, 1)) ** 2,
        texture=-1 if texture is None else 0,
        textures=() if texture is None else (texture,),
    )


def _texture(material: Any) -> TextureImage | None:
    """Return the base colour texture of a material, without its alpha channel."""
    image = getattr(material, "baseColorTexture", None)
    return None if image is None else np.asarray(image.convert("RGB"))


def _colour(geometry: Any, material: Any, number: int) -> Float[np.ndarray, "v 3"]:
    """Compute the display colour of each vertex; glTF's factors are linear, trimesh's are bytes or floats."""
    factor = getattr(material, "baseColorFactor", None)
    colour = np.ones((number, 3))
    if factor is not None:
        factor = np.asarray(factor, float)[:3]
        colour = colour * np.sqrt(factor / 255 if factor.max() > 1 else factor)
    if geometry.visual.kind == "vertex":
        colour = colour * np.sqrt(np.asarray(geometry.visual.vertex_colors)[:, :3] / 255)
    return colour


def _resolver(path: Path) -> Any:
    """Build trimesh's resolver of the files that a mesh file refers to; it lists missing and unreadable ones.

    trimesh itself ignores missing or unreadable materials and textures, and takes texture options for a part of the
    file's name.
    """
    from trimesh.resolvers import FilePathResolver

    class RecordingResolver(FilePathResolver):
        def __init__(self) -> None:
            super().__init__(str(path))
            self.problems: list[str] = []

        def get(self, name: str) -> Any:
            name = name.strip().replace("\\", "/")
            name = name.split()[-1] if name.startswith("-") else name  # options stand before the name
            file = path.parent / name
            file = file if file.is_file() else path.parent / unquote(name)
            kind = REFERENCE_KINDS.get(file.suffix.lower(), "texture")
            if not file.is_file():
                self.problems.append(f"the {kind} {file}, which {'are' if kind == 'materials' else 'is'} not there")
                raise FileNotFoundError(file)
            data = file.read_bytes()
            if kind == "texture":
                try:
                    with Image.open(io.BytesIO(data)) as image:
                        image.load()
                except (OSError, SyntaxError, ValueError) as error:
                    self.problems.append(f"the texture {file}, which cannot be read as an image ({error})")
            return data

    return RecordingResolver()


def _has_normals(data: bytes, suffix: str) -> bool:
    """Return whether a file has vertex normals; trimesh computes smooth ones where it has none, without a notice."""
    if suffix == ".obj":
        return any(line.startswith(b"vn ") for line in data.splitlines())
    # a GLB file begins with a header of 12 bytes, then the length and type of the chunk with the JSON description
    description = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    parts = [part for mesh in description.get("meshes", []) for part in mesh.get("primitives", [])]
    return all("NORMAL" in part.get("attributes", {}) for part in parts)
