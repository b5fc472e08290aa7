"""What GLB and OBJ files have in common: parts with a material, and the files that they refer to."""

import io
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from ms2.core.errors import UserError
from ms2.core.images import deep_to_grey
from ms2.render.scene3d.meshes import Mesh, TextureImage, concatenate_meshes
from ms2.render.scene3d.shapes import flat_shaded

MAX_TILES = 8
"""Copies of a texture side by side up to which clamping and mirroring are applied."""
UV_TOLERANCE = 1e-3
"""How far texture coordinates may leave the texture and still count as inside."""
Wrapping = Literal["repeat", "clamp", "mirror"]


class MeshFileError(UserError):
    """Something that a mesh file declares is missing, broken or not supported; the message follows the file's name."""


@dataclass(frozen=True, eq=False)
class PartMaterial:
    """Material of one part of a mesh file.

    Attributes:
        name: Its name; None where the part has no material.
        colour: Linear base colour, in [0, 1].
        gloss: Reflectivity, in [0, 1].
        texture: The base colour's texture.
        wrapping: How the texture continues along u and v.
    """

    name: str | None = None
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gloss: float = 0.0
    texture: TextureImage | None = None
    wrapping: tuple[Wrapping, Wrapping] = ("repeat", "repeat")


def build_part(
    vertices: Float[np.ndarray, "v 3"],
    triangles: Int[np.ndarray, "t 3"],
    normals: Float[np.ndarray, "v 3"] | None,
    uv: Float[np.ndarray, "v 2"] | None,
    colours: Float[np.ndarray, "v 3"] | None,
    material: PartMaterial,
    paint_materials: Collection[str],
) -> Mesh:
    """Build the mesh of a part; triangles without normals are shaded flat.

    Args:
        vertices: Positions.
        triangles: Indices of three vertices each.
        normals: Normals, of any length; None, or zeros, where there are none.
        uv: Texture coordinates with (0, 0) at the texture's upper left corner.
        colours: Linear colours of the vertices, which multiply the material's.
        material: The material.
        paint_materials: Names of materials that the instance's colour tints; it takes the place of their own.

    Raises:
        MeshFileError: If values are not finite or out of range, or the texture has no coordinates.
    """
    name = "a part without a material" if material.name is None else f"the material {material.name!r}"
    for what, values in (("positions", vertices), ("texture coordinates", uv)):
        if values is not None and not np.isfinite(values).all():
            raise MeshFileError(f"has {what} of {name} that are not finite numbers.")
    for what, colour in (("a base colour", np.asarray(material.colour)), ("vertex colours", colours)):
        if colour is not None and not (np.all(colour >= 0) and np.all(colour <= 1 + UV_TOLERANCE)):
            raise MeshFileError(
                f"has {what} of {name} outside 0 to 1: {np.nanmin(colour):g} to {np.nanmax(colour):g}. Colours are "
                "fractions; export it with colours from 0 to 1."
            )
    texture = material.texture
    if texture is not None and uv is None:
        raise MeshFileError(f"has no texture coordinates for the texture of {name}. Unwrap it, or remove the texture.")
    if texture is not None and uv is not None:
        texture, uv = _extend_texture(texture, uv, material.wrapping, name)
        uv = uv * np.array([1, -1]) + np.array([0, 1])  # from the upper left corner to the lower left
    is_painted = material.name in paint_materials
    shade = np.ones((len(vertices), 3))
    if not is_painted:
        shade = shade * np.sqrt(material.colour) * (1 if colours is None else np.sqrt(colours))
    lengths = np.zeros(len(vertices)) if normals is None else np.linalg.norm(normals, axis=1)
    lengths = np.where(np.isfinite(lengths), lengths, 0)
    mesh = Mesh(
        np.asarray(vertices, np.float32),
        np.zeros((len(vertices), 3), np.float32)
        if normals is None
        else np.asarray(normals / np.maximum(lengths, 1e-12)[:, None], np.float32),
        triangles,
        None if texture is None else np.asarray(uv, np.float32),
        np.minimum(shade, 1).astype(np.float32),
        paint=float(is_painted),
        gloss=material.gloss,
        texture=-1 if texture is None else 0,
        textures=() if texture is None else (texture,),
    )
    return _flat_where(mesh, (lengths[triangles] == 0).any(1))


def _flat_where(mesh: Mesh, flat: Bool[np.ndarray, " t"]) -> Mesh:
    """Shade some triangles flat."""
    if not flat.any():
        return mesh
    flattened = flat_shaded(replace(mesh, triangles=mesh.triangles[flat]))
    if flat.all():
        return flattened
    both = concatenate_meshes(replace(mesh, triangles=mesh.triangles[~flat]), replace(flattened, textures=()))
    texture = -1 if not mesh.textures else 0  # of both
    return replace(both, uv=both.uv if mesh.textures else None, texture=texture)


def _extend_texture(
    texture: TextureImage, uv: Float[np.ndarray, "v 2"], wrapping: tuple[Wrapping, Wrapping], name: str
) -> tuple[TextureImage, Float[np.ndarray, "v 2"]]:
    """Extend a texture that is clamped or mirrored to where its coordinates reach, as ours repeat."""
    uv = uv.astype(float)
    for axis, how in enumerate(wrapping):
        if how == "repeat" or not len(uv):
            continue
        low = min(0, int(np.floor(uv[:, axis].min() + UV_TOLERANCE)))
        high = max(1, int(np.ceil(uv[:, axis].max() - UV_TOLERANCE)))
        if high - low > MAX_TILES:
            raise MeshFileError(
                f"has a texture of {name} that is not repeated ({how}), and coordinates that reach over "
                f"{high - low} times its size; at most {MAX_TILES} are possible. Let it repeat, or unwrap it again."
            )
        side = texture.shape[1 - axis]
        padding = [(0, 0), (0, 0), (0, 0)]
        padding[1 - axis] = (-low * side, (high - 1) * side)
        texture = np.pad(texture, padding, "edge" if how == "clamp" else "symmetric")
        uv[:, axis] = (np.clip(uv[:, axis], low, high) - low) / (high - low)
    return texture, uv


def find_reference(folder: Path, name: str) -> Path:
    """Return the path of a file that a mesh file names; the name may be percent-encoded or have backslashes."""
    name = name.strip().replace("\\", "/")
    return folder / name if (folder / name).is_file() else folder / unquote(name)


def read_reference(folder: Path, name: str, kind: str) -> bytes:
    """Read a file that a mesh file names.

    Args:
        folder: The mesh file's folder.
        name: The name.
        kind: What it is, for the error message: "buffer", "materials" or "texture".

    Raises:
        MeshFileError: If it is missing or unreadable.
    """
    file = find_reference(folder, name)
    verb = "are" if kind == "materials" else "is"
    if not file.is_file():
        raise MeshFileError(f"needs the {kind} {file}, which {verb} not there")
    try:
        return file.read_bytes()
    except OSError as error:
        raise MeshFileError(f"needs the {kind} {file}, which cannot be read ({error.strerror})") from error


def decode_texture(data: bytes, name: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a texture, without its alpha channel.

    Raises:
        MeshFileError: If it is not an image that Pillow can read.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            grey = deep_to_grey(image) if image.mode == "F" or image.mode.startswith("I") else image
            return np.asarray(grey.convert("RGB"))
    except Exception as error:  # given broken bytes, decoders raise anything
        reason = str(error).split(" <_io")[0] or type(error).__name__
        raise MeshFileError(
            f"needs the texture {name}, which cannot be read as an image ({reason}). Save it as PNG or JPEG."
        ) from error
