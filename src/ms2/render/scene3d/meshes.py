"""Meshes, and a library of them: packed once into flat arrays that stay on the device that renders."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ms2.core.errors import UserError, suggest

LARGEST_TEXTURE = 1024
"""Texels along a side at most: no object fills more pixels than that, and a library has many textures."""
LEVELS = LARGEST_TEXTURE.bit_length()
"""Mip levels that a row of the texture table has room for."""

Picture = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True, eq=False)
class Mesh:
    """v vertices, t triangles and what they look like. Metres; z is up and y ahead where the caller has no reason.

    Colours are those of a picture: 0 to 1, as a screen shows them. Triangles are seen from both sides.

    Attributes:
        vertices: Places x, y, z.
        normals: Directions of unit length.
        triangles: Numbers of three vertices each.
        uv: Place on the texture of each vertex; (0, 0) is the picture's lower left corner, and it repeats. None for a
            mesh without texture.
        colour: Colour of each vertex, or one for all; multiplied with the texture.
        paint: How far each vertex, or all, takes on the colour of the instance: 0 not at all, 1 wholly.
        gloss: How much of the sky and the sun each vertex, or all, reflects: 0 is chalk, 1 is polished.
        texture: Number of the picture of each triangle, or of all; -1 for none.
        pictures: The pictures, 8 bits.
        casts: Whether it casts a shadow. Ground should not: it has nothing below it, and would fill the shadow map.
    """

    vertices: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "t 3"]
    uv: Float[np.ndarray, "v 2"] | None = None
    colour: Float[np.ndarray, "v 3"] | tuple[float, float, float] = (1.0, 1.0, 1.0)
    paint: Float[np.ndarray, " v"] | float = 0.0
    gloss: Float[np.ndarray, " v"] | float = 0.0
    texture: Int[np.ndarray, " t"] | int = -1
    pictures: tuple[Picture, ...] = ()
    casts: bool = True

    def moved(self, matrix: Float[np.ndarray, "4 4"]) -> "Mesh":
        """The same mesh, moved and stretched by an affine matrix."""
        linear, shift = matrix[:3, :3], matrix[:3, 3]
        normals = self.normals @ np.linalg.inv(linear)
        normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return replace(self, vertices=self.vertices @ linear.T + shift, normals=normals)


def joined(*meshes: Mesh) -> Mesh:
    """One mesh of several; it casts a shadow if the first does."""
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    pictures = np.cumsum([0, *(len(mesh.pictures) for mesh in meshes)])
    filled = [_filled(mesh) for mesh in meshes]
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, first, strict=False)]),
        np.concatenate([surface.uv for surface in filled]),
        np.concatenate([surface.colour for surface in filled]),
        np.concatenate([surface.paint for surface in filled]),
        np.concatenate([surface.gloss for surface in filled]),
        np.concatenate([np.where(s.texture >= 0, s.texture + n, -1) for s, n in zip(filled, pictures, strict=False)]),
        tuple(picture for mesh in meshes for picture in mesh.pictures),
        meshes[0].casts,
    )


@dataclass
class _Surface:
    uv: Float[np.ndarray, "v 2"]
    colour: Float[np.ndarray, "v 3"]
    paint: Float[np.ndarray, " v"]
    gloss: Float[np.ndarray, " v"]
    texture: Int[np.ndarray, " t"]


def _filled(mesh: Mesh) -> _Surface:
    """The looks of a mesh with a value for each vertex and triangle."""
    v, t = len(mesh.vertices), len(mesh.triangles)

    def each(values: object, *shape: int) -> np.ndarray:
        return np.broadcast_to(np.asarray(values, np.float32), shape)

    uv = np.zeros((v, 2)) if mesh.uv is None else mesh.uv
    texture = np.broadcast_to(np.asarray(mesh.texture), (t,))
    return _Surface(each(uv, v, 2), each(mesh.colour, v, 3), each(mesh.paint, v), each(mesh.gloss, v), texture)


@dataclass(frozen=True, eq=False)
class Arrays:
    """m meshes packed, on one device: V vertices, T triangles, k textures of P texels.

    Attributes:
        position: Places of the vertices.
        normal: Their normals, and their gloss.
        colour: Their colours in linear light, and their paint.
        uv: Their places on the texture.
        triangle: Three vertices, and the texture or -1.
        mesh: First vertex, number of vertices, first triangle, number of triangles of each mesh, whether it casts.
        texture: Binary logarithms of width and height, and the first texel of each mip level.
        texel: Red, green and blue, a byte each, the lowest row first.
    """

    position: Float[Tensor, "V 3"]
    normal: Float[Tensor, "V 4"]
    colour: Float[Tensor, "V 4"]
    uv: Float[Tensor, "V 2"]
    triangle: Int[Tensor, "T 4"]
    mesh: Int[Tensor, "m 5"]
    texture: Int[Tensor, "k l"]
    texel: Int[Tensor, " P"]


@dataclass(frozen=True, eq=False)
class MeshLibrary:
    """Meshes by name, in the order in which instances number them.

    Args:
        meshes: The meshes. Pictures that several of them share are kept once.
        device: Where to keep them.
    """

    meshes: Mapping[str, Mesh]
    device: torch.device | str = "cpu"
    arrays: Arrays = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.meshes:
            raise UserError("the mesh library is empty: give it at least one mesh")
        for name, mesh in self.meshes.items():
            _check(name, mesh)
        object.__setattr__(self, "arrays", _pack(list(self.meshes.values()), torch.device(self.device)))

    def __len__(self) -> int:
        return len(self.meshes)

    def number(self, name: str) -> int:
        """The number of the mesh with that name.

        Raises:
            UserError: If there is none.
        """
        names = list(self.meshes)
        if name not in names:
            raise UserError(f"the library has no mesh {name!r}. {suggest(name, names)}")
        return names.index(name)


def _check(name: str, mesh: Mesh) -> None:
    v, t = len(mesh.vertices), len(mesh.triangles)
    if not v or not t:
        raise UserError(f"mesh {name!r} has {v} vertices and {t} triangles: it needs some of both")
    low, high = int(mesh.triangles.min()), int(mesh.triangles.max())
    if low < 0 or high >= v:
        raise UserError(f"mesh {name!r} has triangles with vertices {low} to {high}, but its vertices are 0 to {v - 1}")
    if not np.isfinite(mesh.vertices).all():
        raise UserError(f"mesh {name!r} has vertices that are not finite")
    texture = int(np.max(mesh.texture))
    if texture >= len(mesh.pictures):
        raise UserError(f"mesh {name!r} uses picture {texture}, but has {len(mesh.pictures)}")
    if texture >= 0 and mesh.uv is None:
        raise UserError(f"mesh {name!r} has a texture, but no uv that says where on it each vertex lies")


def _pack(meshes: list[Mesh], device: torch.device) -> Arrays:
    filled = [_filled(mesh) for mesh in meshes]
    pictures: dict[bytes, int] = {}  # number of each picture by what is on it; files often bring the same one
    distinct: list[Picture] = []
    triangles = []
    table = np.zeros((len(meshes), 5), np.int32)
    v = t = 0
    for row, mesh, surface in zip(table, meshes, filled, strict=True):
        for picture in mesh.pictures:
            if pictures.setdefault(_fingerprint(picture), len(distinct)) == len(distinct):
                distinct.append(picture)
        numbers = np.array([*(pictures[_fingerprint(picture)] for picture in mesh.pictures), -1])
        triangles.append(np.column_stack([mesh.triangles + v, numbers[surface.texture]]))
        row[:] = v, len(mesh.vertices), t, len(mesh.triangles), mesh.casts
        v, t = v + len(mesh.vertices), t + len(mesh.triangles)
    texture, texel = _pack_textures(distinct)

    def tensor(parts: list[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(parts))).to(device, dtype)

    return Arrays(
        tensor([mesh.vertices for mesh in meshes]),
        tensor([np.column_stack([m.normals, s.gloss]) for m, s in zip(meshes, filled, strict=True)]),
        tensor([np.column_stack([s.colour**2, s.paint]) for s in filled]),
        tensor([s.uv for s in filled]),
        tensor(triangles, torch.int32),
        torch.from_numpy(table).to(device),
        texture.to(device),
        texel.to(device),
    )


def _fingerprint(picture: Picture) -> bytes:
    return hashlib.blake2b(picture.tobytes() + str(picture.shape).encode()).digest()


def _pack_textures(pictures: list[Picture]) -> tuple[Int[Tensor, "k l"], Int[Tensor, " P"]]:
    """Table and texels of all mip levels of all pictures."""
    table = torch.zeros(max(1, len(pictures)), 2 + LEVELS, dtype=torch.int32)
    parts = [torch.zeros(1, dtype=torch.int32)]  # so that there is something to point at
    total = 1
    for row, picture in zip(table, pictures, strict=False):
        levels = mip_levels(picture)
        height, width = levels[0].shape[1:]
        row[0], row[1] = width.bit_length() - 1, height.bit_length() - 1
        for number in range(LEVELS):
            # what lies beyond the smallest level, of one texel, is that level again
            row[2 + number] = total if number < len(levels) else row[1 + number]
            if number < len(levels):
                red, green, blue = (levels[number].sqrt() * 255).round().int()
                parts.append((red | green << 8 | blue << 16).flatten())
                total += parts[-1].numel()
    return table, torch.cat(parts)


def mip_levels(picture: Picture) -> list[Float[Tensor, "3 _ _"]]:
    """A picture in linear light, the lowest row first, at sides that are powers of two, and halved down to one texel.

    Light is averaged, not bytes: the mean of black and white paint is lighter from afar than byte 128. A square stands
    in for sRGB's curve, as everywhere in this package: nobody sees the difference, and it costs nothing.
    """
    light = torch.from_numpy(np.ascontiguousarray(picture[::-1])).permute(2, 0, 1).float().div(255).square()
    sides = [min(LARGEST_TEXTURE, 1 << max(0, round(np.log2(side)))) for side in light.shape[1:]]
    if sides != list(light.shape[1:]):
        light = F.interpolate(light[None], size=sides, mode="bilinear", antialias=True)[0].clamp(0, 1)
    levels = [light]
    while max(levels[-1].shape[1:]) > 1:
        kernel = [2 if side > 1 else 1 for side in levels[-1].shape[1:]]
        levels.append(F.avg_pool2d(levels[-1], kernel))
    return levels
