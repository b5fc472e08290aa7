"""Packing of a mesh library into flat arrays with mip-mapped textures, as the kernels read them."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ms2.render.scene3d.meshes import MeshLibrary, TextureImage

MAX_TEXTURE_SIZE = 1024
"""Maximum texels along a side: no object fills more pixels, and a library has many textures."""
MIP_LEVELS = MAX_TEXTURE_SIZE.bit_length()
"""Mip levels of a row of the texture table."""


@dataclass(frozen=True, eq=False)
class PackedMeshes:
    """m meshes packed into flat arrays on one device: V vertices, T triangles, k textures of P texels.

    Attributes:
        position: Positions of the vertices.
        normal: Normals of the vertices, and their gloss.
        colour: Colours of the vertices in linear light, and their paint.
        uv: Texture coordinates of the vertices.
        triangle: Indices of three vertices, and of the texture or -1.
        mesh: First vertex, number of vertices, first triangle, number of triangles, whether it casts a shadow.
        texture: Binary logarithms of width and height, and the first texel of each mip level.
        texel: Red, green and blue, a byte each, rows from bottom to top.
    """

    position: Float[Tensor, "V 3"]
    normal: Float[Tensor, "V 4"]
    colour: Float[Tensor, "V 4"]
    uv: Float[Tensor, "V 2"]
    triangle: Int[Tensor, "T 4"]
    mesh: Int[Tensor, "m 5"]
    texture: Int[Tensor, "k l"]
    texel: Int[Tensor, " P"]


def pack_meshes(library: MeshLibrary, device: torch.device) -> PackedMeshes:
    """Pack a library's meshes; textures with equal content, which mesh files often repeat, are stored once."""
    meshes = list(library.meshes.values())
    surfaces = [mesh.surface() for mesh in meshes]
    index: dict[bytes, int] = {}  # of each texture by the hash of its content
    distinct: list[TextureImage] = []
    triangles = []
    table = np.zeros((len(meshes), 5), np.int32)
    v = t = 0
    for row, mesh, surface in zip(table, meshes, surfaces, strict=True):
        hashes = [_content_hash(image) for image in mesh.textures]
        for key, image in zip(hashes, mesh.textures, strict=True):
            if index.setdefault(key, len(distinct)) == len(distinct):
                distinct.append(image)
        indices = np.array([*(index[key] for key in hashes), -1])
        triangles.append(np.column_stack([mesh.triangles + v, indices[surface.texture]]))
        row[:] = v, len(mesh.vertices), t, len(mesh.triangles), mesh.casts_shadow
        v, t = v + len(mesh.vertices), t + len(mesh.triangles)
    texture, texel = _pack_textures(distinct)

    def tensor(parts: list[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(parts))).to(device, dtype)

    return PackedMeshes(
        tensor([mesh.vertices for mesh in meshes]),
        tensor([np.column_stack([m.normals, s.gloss]) for m, s in zip(meshes, surfaces, strict=True)]),
        tensor([np.column_stack([s.colour**2, s.paint]) for s in surfaces]),
        tensor([s.uv for s in surfaces]),
        tensor(triangles, torch.int32),
        torch.from_numpy(table).to(device),
        texture.to(device),
        texel.to(device),
    )


def _content_hash(image: TextureImage) -> bytes:
    return hashlib.blake2b(image.tobytes() + str(image.shape).encode()).digest()


def _pack_textures(images: list[TextureImage]) -> tuple[Int[Tensor, "k l"], Int[Tensor, " P"]]:
    """Pack the mip levels of all images: a table of sizes and offsets, and the texels."""
    table = torch.zeros(max(1, len(images)), 2 + MIP_LEVELS, dtype=torch.int32)
    parts = [torch.zeros(1, dtype=torch.int32)]  # an empty array has no address
    total = 1
    for row, image in zip(table, images, strict=False):
        levels = mip_levels(image)
        height, width = levels[0].shape[1:]
        row[0], row[1] = width.bit_length() - 1, height.bit_length() - 1
        for level in range(MIP_LEVELS):
            # levels beyond the smallest, of one texel, refer to that one
            row[2 + level] = total if level < len(levels) else row[1 + level]
            if level < len(levels):
                red, green, blue = (levels[level].sqrt() * 255).round().int()
                parts.append((red | green << 8 | blue << 16).flatten())
                total += parts[-1].numel()
    return table, torch.cat(parts)


def mip_levels(image: TextureImage) -> list[Float[Tensor, "3 _ _"]]:
    """Build the mip chain of a texture in linear light, rows from bottom to top, with sides that are powers of two.

    Averaging is done in linear light. Everywhere in this package linear light is the square of the display value, which
    approximates sRGB's transfer curve and is cheaper.
    """
    light = torch.from_numpy(np.ascontiguousarray(image[::-1])).permute(2, 0, 1).float().div(255).square()
    sides = [min(MAX_TEXTURE_SIZE, 1 << max(0, round(np.log2(side)))) for side in light.shape[1:]]
    if sides != list(light.shape[1:]):
        light = F.interpolate(light[None], size=sides, mode="bilinear", antialias=True)[0].clamp(0, 1)
    levels = [light]
    while max(levels[-1].shape[1:]) > 1:
        kernel = [2 if side > 1 else 1 for side in levels[-1].shape[1:]]
        levels.append(F.avg_pool2d(levels[-1], kernel))
    return levels
