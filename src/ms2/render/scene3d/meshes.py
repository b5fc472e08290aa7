"""Meshes with materials, and libraries of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, UInt8

from ms2.core.errors import UserError, suggest

TextureImage = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True)
class MeshSurface:
    """Material of a mesh: one value per vertex, one texture per triangle; attributes as in `Mesh`."""

    uv: Float[np.ndarray, "v 2"]
    colour: Float[np.ndarray, "v 3"]
    paint: Float[np.ndarray, " v"]
    gloss: Float[np.ndarray, " v"]
    texture: Int[np.ndarray, " t"]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh of v vertices and t triangles with its material. Lengths are in metres, z is up, y is forward.

    Colours are display values in [0, 1]. Triangles are visible from both sides.

    Attributes:
        vertices: Positions x, y, z.
        normals: Vertex normals of unit length.
        triangles: Indices of three vertices each.
        uv: Texture coordinates of each vertex; (0, 0) is the texture's lower left corner, and it repeats. None for a
            mesh without textures.
        colour: Colour of each vertex, or one for all; multiplied with the texture.
        paint: Weight in [0, 1] with which the instance's colour tints each vertex, or all.
        gloss: Reflectivity in [0, 1] of each vertex, or of all: 0 is matt, 1 is polished.
        texture: Index in ``textures`` for each triangle, or for all; -1 for none.
        textures: The texture images.
        casts_shadow: Whether the mesh casts a shadow. Ground should not: nothing is below it, and it would fill the
            shadow map.
    """

    vertices: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "t 3"]
    uv: Float[np.ndarray, "v 2"] | None = None
    colour: Float[np.ndarray, "v 3"] | tuple[float, float, float] = (1.0, 1.0, 1.0)
    paint: Float[np.ndarray, " v"] | float = 0.0
    gloss: Float[np.ndarray, " v"] | float = 0.0
    texture: Int[np.ndarray, " t"] | int = -1
    textures: tuple[TextureImage, ...] = ()
    casts_shadow: bool = True

    def transformed(self, matrix: Float[np.ndarray, "4 4"]) -> "Mesh":
        """Apply an affine matrix to the vertices, and its inverse transpose to the normals."""
        linear, shift = matrix[:3, :3], matrix[:3, 3]
        normals = self.normals @ np.linalg.inv(linear)
        normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return replace(self, vertices=self.vertices @ linear.T + shift, normals=normals)

    def surface(self) -> MeshSurface:
        """Expand the material to one value per vertex, and one texture per triangle."""
        v, t = len(self.vertices), len(self.triangles)

        def each(values: object, *shape: int) -> np.ndarray:
            return np.broadcast_to(np.asarray(values, np.float32), shape)

        uv = np.zeros((v, 2)) if self.uv is None else self.uv
        texture = np.broadcast_to(np.asarray(self.texture), (t,))
        return MeshSurface(each(uv, v, 2), each(self.colour, v, 3), each(self.paint, v), each(self.gloss, v), texture)


def concatenate_meshes(*meshes: Mesh) -> Mesh:
    """Concatenate meshes to one; it casts a shadow if the first does."""
    first_vertex = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    first_texture = np.cumsum([0, *(len(mesh.textures) for mesh in meshes)])
    surfaces = [mesh.surface() for mesh in meshes]
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, first_vertex, strict=False)]),
        np.concatenate([surface.uv for surface in surfaces]),
        np.concatenate([surface.colour for surface in surfaces]),
        np.concatenate([surface.paint for surface in surfaces]),
        np.concatenate([surface.gloss for surface in surfaces]),
        np.concatenate(
            [np.where(s.texture >= 0, s.texture + n, -1) for s, n in zip(surfaces, first_texture, strict=False)]
        ),
        tuple(image for mesh in meshes for image in mesh.textures),
        meshes[0].casts_shadow,
    )


@dataclass(frozen=True, eq=False)
class MeshLibrary:
    """Named meshes; instances refer to them by their index.

    Args:
        meshes: The meshes by name.
    """

    meshes: Mapping[str, Mesh]

    def __post_init__(self) -> None:
        if not self.meshes:
            raise UserError("the mesh library is empty: give it at least one mesh")
        for name, mesh in self.meshes.items():
            _check(name, mesh)

    def __len__(self) -> int:
        return len(self.meshes)

    def index_of(self, name: str) -> int:
        """Return the index of a mesh by its name.

        Raises:
            UserError: If there is no mesh of that name.
        """
        names = list(self.meshes)
        if name not in names:
            raise UserError(f"the library has no mesh {name!r}. {suggest(name, names)}")
        return names.index(name)


def _check(name: str, mesh: Mesh) -> None:
    v, t = len(mesh.vertices), len(mesh.triangles)
    if not v or not t:
        raise UserError(f"mesh {name!r} has {v} vertices and {t} triangles: it needs at least one of each")
    low, high = int(mesh.triangles.min()), int(mesh.triangles.max())
    if low < 0 or high >= v:
        raise UserError(f"mesh {name!r} has triangles with vertices {low} to {high}, but its vertices are 0 to {v - 1}")
    if not np.isfinite(mesh.vertices).all():
        raise UserError(f"mesh {name!r} has vertices that are not finite")
    texture = int(np.max(mesh.texture))
    if texture >= len(mesh.textures):
        raise UserError(f"mesh {name!r} uses texture {texture}, but has {len(mesh.textures)}")
    if texture >= 0 and mesh.uv is None:
        raise UserError(f"mesh {name!r} has a texture, but no texture coordinates uv")
