"""Parts of a mesh that have one material each, as files of scenes hold them."""

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from ms2.render.scene3d.meshes import Mesh, TextureImage


@dataclass(frozen=True, eq=False)
class MeshPart:
    """Triangles of a mesh that share texture and roughness.

    Attributes:
        name: Name within the mesh.
        vertices: Positions x, y, z in metres.
        normals: Normals of unit length.
        triangles: Indices of three vertices each.
        uv: Texture coordinates, (0, 0) at the texture's lower left corner; None without a texture.
        colour: Display colour of each vertex in [0, 1], before the instance's colour is applied.
        paint: Weight of the instance's colour at each vertex.
        roughness: Roughness in [0, 1], as of metallic-roughness materials.
        texture: The texture image.
    """

    name: str
    vertices: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "t 3"]
    uv: Float[np.ndarray, "v 2"] | None
    colour: Float[np.ndarray, "v 3"]
    paint: Float[np.ndarray, " v"]
    roughness: float
    texture: TextureImage | None

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all vertices have one colour."""
        return bool((self.colour == self.colour[0]).all() and (self.paint == self.paint[0]).all())

    @cached_property
    def is_painted(self) -> bool:
        """Whether the instance's colour changes any vertex."""
        return bool((self.paint > 0).any())

    def linear_colour(self, tint: tuple[float, float, float]) -> Float[np.ndarray, "_ 3"]:
        """Compute colours in linear light, as the engine does; one if all vertices have the same, else one for each.

        Args:
            tint: Colour of the instance as displayed.
        """
        number = 1 if self.is_uniform else len(self.colour)
        colour, paint = self.colour[:number], self.paint[:number, None]
        # the engine's linear light is the square of the display value; files of scenes mean sRGB's
        return srgb_to_linear(colour * np.sqrt(1 + paint * (np.square(tint) - 1)))

    def png(self) -> bytes:
        """Encode the texture as PNG."""
        assert self.texture is not None
        out = io.BytesIO()
        Image.fromarray(self.texture).save(out, "PNG", optimize=False)
        return out.getvalue()


def split_mesh(mesh: Mesh) -> list[MeshPart]:
    """Split a mesh into parts of one material each; every part has vertices of its own."""
    surface = mesh.surface()
    gloss = surface.gloss[mesh.triangles].mean(1).round(2)
    painted = (surface.paint[mesh.triangles] > 0).any(1)
    first: dict[bytes, int] = {}  # index of each distinct texture by its content, which joined meshes repeat
    distinct = [first.setdefault(image.tobytes(), i) for i, image in enumerate(mesh.textures)]
    textures = np.array([*distinct, -1])[surface.texture]
    keys = np.stack([textures, gloss * 100, painted], 1).round().astype(int)
    parts = []
    for number, key in enumerate(np.unique(keys, axis=0)):
        texture, percent, _ = key.tolist()
        triangles = mesh.triangles[(keys == key).all(1)]
        used, index = np.unique(triangles, return_inverse=True)
        parts.append(
            MeshPart(
                f"part_{number}",
                mesh.vertices[used].astype(np.float32),
                mesh.normals[used].astype(np.float32),
                index.reshape(-1, 3).astype(np.int32),
                surface.uv[used].astype(np.float32) if texture >= 0 else None,
                surface.colour[used].astype(float),
                surface.paint[used].astype(float),
                1 - float(np.sqrt(percent / 100)),  # the inverse of what GLB files are read with
                mesh.textures[texture] if texture >= 0 else None,
            )
        )
    return parts


def srgb_to_linear(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Convert display values in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
