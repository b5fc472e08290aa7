"""Reads meshes from GLB and OBJ files, with materials, as one `Mesh` that stands as the rasteriser's world does."""

import json
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float
from PIL import Image

from ms2.core.errors import UserError, suggest
from ms2.render.scene3d.meshes import Mesh, TextureImage, concatenate_meshes
from ms2.render.scene3d.shapes import flat_shaded

UPRIGHT = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""From glTF's axes (x left, y up, z ahead), which OBJ files mostly have too, to x right, y ahead, z up."""


def load_mesh(path: Path | str, paint: Collection[str] = ()) -> Mesh:
    """All meshes of a GLB or OBJ file in one, moved to where the file's nodes have them.

    Of a material, base colour and its texture are used; of a GLB file's, roughness decides about gloss. What is skinned
    stands in the pose that it was modelled in. Without normals, facets are flat. Textures are used without their alpha
    channel: nothing is transparent.

    Args:
        path: The file.
        paint: Materials that take on the colour of the instance.

    Raises:
        UserError: If there is no such file, it can't be read, it names a texture or a material library that isn't
            there, or has no triangles.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in CHECKS:
        raise UserError(f"{path} is neither GLB nor OBJ. {suggest(kind, CHECKS)}")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    smooth = CHECKS[kind](path)
    try:
        import trimesh
    except ImportError as error:
        raise UserError("reading mesh files needs trimesh, which is not installed. Try: pip install trimesh") from error
    try:
        scene = trimesh.load_scene(path, resolver=_resolver(path))
        parts = []
        for node in scene.graph.nodes_geometry:
            matrix, name = scene.graph[node]
            geometry = scene.geometry[name]
            if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
                parts.append(_mesh(geometry, paint).transformed(UPRIGHT @ matrix))
    except Exception as error:  # trimesh raises whatever a broken file leads to
        kind = kind[1:].upper()
        raise UserError(f"{path} cannot be read as {kind} ({error!r}). Export it again, or leave it out.") from error
    if not parts:
        raise UserError(f"{path} has no triangles")
    mesh = concatenate_meshes(*parts)
    return mesh if smooth else flat_shaded(mesh)


def _mesh(geometry: Any, paint: Collection[str]) -> Mesh:
    """One of trimesh's meshes."""
    number = len(geometry.vertices)
    material = getattr(geometry.visual, "material", None)
    painted = getattr(material, "name", None) in paint
    rough = getattr(material, "roughnessFactor", None)  # OBJ's shininess means something else in each program
    if material is not None and hasattr(material, "to_pbr"):
        material = material.to_pbr()
    uv = getattr(geometry.visual, "uv", None)
    picture = _picture(material) if uv is not None else None
    colour = np.ones((number, 3)) if painted else _colour(geometry, material, number)
    return Mesh(
        np.asarray(geometry.vertices, np.float32),
        np.asarray(geometry.vertex_normals, np.float32),
        np.asarray(geometry.faces),
        None if picture is None else np.asarray(uv, np.float32),
        colour.astype(np.float32),
        paint=float(painted),
        gloss=0.0 if rough is None else float(np.clip(1 - rough, 0, 1)) ** 2,
        texture=-1 if picture is None else 0,
        textures=() if picture is None else (picture,),
    )


def _picture(material: Any) -> TextureImage | None:
    image = getattr(material, "baseColorTexture", None)
    return None if image is None else np.asarray(image.convert("RGB"))


def _colour(geometry: Any, material: Any, number: int) -> Float[np.ndarray, "v 3"]:
    """Colour of each vertex as a screen shows it; glTF's factors are linear, trimesh's in bytes."""
    factor = getattr(material, "baseColorFactor", None)
    colour = np.ones((number, 3))
    if factor is not None:
        factor = np.asarray(factor, float)[:3]
        colour = colour * np.sqrt(factor / 255 if factor.max() > 1 else factor)
    if geometry.visual.kind == "vertex":
        colour = colour * np.sqrt(np.asarray(geometry.visual.vertex_colors)[:, :3] / 255)
    return colour


def _resolver(path: Path) -> Any:
    """Finds what a file names as the checks do; trimesh itself takes options for a part of the name."""
    from trimesh.resolvers import FilePathResolver

    class Resolver(FilePathResolver):
        def get(self, name: str) -> Any:
            return super().get(_plain(name))

    return Resolver(str(path))


def _check_glb(path: Path) -> bool:
    """See that the pictures beside the file are there: trimesh would go on without them. Whether it has normals."""
    data = path.read_bytes()
    if data[:4] != b"glTF" or len(data) < 20:
        raise UserError(f"{path} is no GLB file: it does not begin with 'glTF'")
    try:
        length = struct.unpack("<I", data[12:16])[0]
        description = json.loads(data[20 : 20 + length])
    except ValueError as error:
        raise UserError(f"{path} cannot be read as GLB: its description is broken ({error})") from error
    for image in description.get("images", []):
        uri = image.get("uri", "data:")
        if not uri.startswith("data:"):
            _check_picture(path, path.parent / unquote(uri))
    parts = [part for mesh in description.get("meshes", []) for part in mesh.get("primitives", [])]
    return all("NORMAL" in part.get("attributes", {}) for part in parts)


def _check_obj(path: Path) -> bool:
    """See that its material libraries, and the pictures that these name, are there. Whether it has normals."""
    for library in _named(path, "mtllib"):
        if not library.is_file():
            raise UserError(f"{path} needs the materials {library}, which are not there")
        for picture in _named(library, "map_kd"):
            _check_picture(path, picture)
    return any(line.startswith("vn ") for line in _lines(path))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _named(path: Path, word: str) -> Iterator[Path]:
    """Files that lines of a text file name after a word, and options, from its folder on."""
    for line in _lines(path):
        first, _, rest = line.strip().partition(" ")
        if first.lower() == word and rest.strip():
            yield path.parent / _plain(rest)


def _plain(name: str) -> str:
    """A file's name without options before it, which have no spaces then, nor the backslashes of some systems."""
    name = name.strip().replace("\\", "/")
    return name.split()[-1] if name.startswith("-") else name


def _check_picture(path: Path, picture: Path) -> None:
    if not picture.is_file():
        raise UserError(f"{path} needs the texture {picture}, which is not there")
    try:
        with Image.open(picture) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} needs the texture {picture}, which does not load as a picture ({error})") from error


CHECKS: dict[str, Callable[[Path], bool]] = {".glb": _check_glb, ".obj": _check_obj}
"""What is checked before a file of each kind is read; they tell whether it has normals."""
