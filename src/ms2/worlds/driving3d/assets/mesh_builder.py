"""Mesh builder with polygons, lofts, tubes and boxes, and smoothing groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ms2.render.scene3d.meshes import Mesh, TextureImage
from ms2.worlds.driving3d.assets.textures import Numbers

Colour = tuple[float, float, float]
Point = tuple[float, float, float]


def translate(at: Numbers, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Float[np.ndarray, "... 3"]:
    """Translate a point, or points."""
    return np.asarray(at, float) + np.array([x, y, z])


@dataclass(frozen=True, eq=False)
class Material:
    """Material of faces; values as in `ms2.render.scene3d.meshes.Mesh`.

    Attributes:
        colour: Display colour in [0, 1], multiplied with the texture.
        paint: Weight of the instance's colour.
        gloss: Reflectivity.
        texture: Texture image, or None.
    """

    colour: Colour = (1.0, 1.0, 1.0)
    paint: float = 0.0
    gloss: float = 0.0
    texture: TextureImage | None = None


class MeshBuilder:
    """Builds a mesh face by face, in metres.

    Args:
        crease: Largest angle in degrees between faces of a smoothing group that is shaded smoothly.
    """

    def __init__(self, crease: float = 40.0) -> None:
        self.crease = math.cos(math.radians(crease))
        self._num_groups = 0
        self._corners: list[Float[np.ndarray, "3 3"]] = []
        self._uv: list[Float[np.ndarray, "3 2"]] = []
        self._shade: list[Float[np.ndarray, "3 1"]] = []
        self._materials: list[Material] = []
        self._groups: list[int] = []

    def __len__(self) -> int:
        return len(self._corners)

    def face(
        self,
        corners: Numbers,
        material: Material,
        uv: Numbers | None = None,
        shade: Numbers | None = None,
        smoothing_group: int | None = None,
    ) -> None:
        """Add a flat convex polygon.

        Args:
            corners: The k corners in order.
            material: Material of the face.
            uv: Texture coordinates of the corners; for four corners those of the whole texture by default.
            shade: Factors on the colour at the corners.
            smoothing_group: Index of its smoothing group; a new one by default.
        """
        places = np.asarray(corners, float)
        number = len(places)
        if uv is None:
            uv = [(0, 0), (1, 0), (1, 1), (0, 1)] if number == 4 else np.zeros((number, 2))
        on = np.asarray(uv, float)
        shades = np.ones((number, 1)) if shade is None else np.asarray(shade, float).reshape(number, 1)
        smoothing_group = self.start_smoothing_group() if smoothing_group is None else smoothing_group
        for i in range(1, number - 1):
            fan = [0, i, i + 1]
            if _twice_area(places[i] - places[0], places[i + 1] - places[0]) < 1e-9:
                continue  # a loft that ends in a point has such triangles
            self._corners.append(places[fan])
            self._uv.append(on[fan])
            self._shade.append(shades[fan])
            self._materials.append(material)
            self._groups.append(smoothing_group)

    def start_smoothing_group(self) -> int:
        """Start a smoothing group and return its index."""
        self._num_groups += 1
        return self._num_groups

    def loft(
        self,
        rings: Sequence[Numbers],
        materials: Material | Sequence[Material],
        closed: bool = True,
        ends: tuple[bool, bool] = (False, False),
        shade: Numbers | None = None,
    ) -> None:
        """Add a lofted surface between rings with equal numbers of points.

        Args:
            rings: The rings.
            materials: Material, of all or from each ring to the next.
            closed: Whether the last point of a ring is connected to the first.
            ends: Whether the first and the last ring are filled.
            shade: Factor on the colour at each ring, or at each point of each.
        """
        points = [np.asarray(ring, float) for ring in rings]
        each = [materials] * (len(points) - 1) if isinstance(materials, Material) else list(materials)
        number = len(points[0])
        given = np.ones(len(points)) if shade is None else np.asarray(shade, float)
        lights = np.broadcast_to(given.reshape(len(points), -1), (len(points), number))
        smoothing_group = self.start_smoothing_group()
        for low, high, material, s, t in zip(points, points[1:], each, lights, lights[1:], strict=False):
            for i in range(number if closed else number - 1):
                j = (i + 1) % number
                self.face(
                    [low[i], low[j], high[j], high[i]],
                    material,
                    shade=[s[i], s[j], t[j], t[i]],
                    smoothing_group=smoothing_group,
                )
        if ends[0]:
            self.face(points[0][::-1], each[0], shade=lights[0][::-1])
        if ends[1]:
            self.face(points[-1], each[-1], shade=lights[-1])

    def tube(
        self,
        points: Sequence[Point],
        radii: Sequence[float],
        materials: Material | Sequence[Material],
        sides: int = 6,
        ends: tuple[bool, bool] = (False, True),
        flat: float = 1.0,
    ) -> None:
        """Add a tube through points.

        Args:
            points: Centre of each ring.
            radii: Radius of each ring.
            materials: Material, of all or from each ring to the next.
            sides: Number of corners of a ring.
            ends: Whether the first and the last ring are filled.
            flat: Factor on the radius along the second axis, which is near y for an upright tube.
        """
        middle = np.asarray(points, float)
        ahead = np.gradient(middle, axis=0)
        rings = []
        angle = 2 * math.pi * (np.arange(sides) + 0.5) / sides
        for at, way, radius in zip(middle, ahead, radii, strict=True):
            way = way / np.linalg.norm(way)
            first = np.array([1.0, 0, 0]) if abs(way[0]) < 0.9 else np.array([0, 1.0, 0])
            second = np.cross(way, first)
            second /= np.linalg.norm(second)
            first = np.cross(second, way)
            rings.append(at + radius * (np.cos(angle)[:, None] * first + flat * np.sin(angle)[:, None] * second))
        self.loft(rings, materials, ends=ends)

    def box(
        self, low: Point, high: Point, material: Material, bottom: bool = False, tops: Material | None = None
    ) -> None:
        """Add a box between two corners, optionally with its bottom."""
        (a, b, c), (d, e, f) = low, high
        foot = [(a, b), (d, b), (d, e), (a, e)]
        for (x, y), (u, v) in zip(foot, [*foot[1:], foot[0]], strict=True):
            self.face([(x, y, c), (u, v, c), (u, v, f), (x, y, f)], material)
        self.face([(x, y, f) for x, y in foot], tops or material)
        if bottom:
            self.face([(x, y, c) for x, y in foot[::-1]], material)

    def mirror(self, start: int = 0) -> None:
        """Add mirrored copies of the faces from ``start`` on, with left and right exchanged."""
        flip, shift = np.array([-1.0, 1, 1]), self._num_groups
        for i in range(start, len(self._corners)):
            self._corners.append((self._corners[i] * flip)[::-1])
            self._uv.append(self._uv[i][::-1])
            self._shade.append(self._shade[i][::-1])
            self._materials.append(self._materials[i])
            self._groups.append(self._groups[i] + shift)
        self._num_groups += shift

    def scale(self, factor: float, start: int = 0) -> None:
        """Scale the faces from ``start`` on about the origin."""
        for i in range(start, len(self._corners)):
            self._corners[i] = self._corners[i] * factor

    def mesh(self, centre_base: bool = True) -> Mesh:
        """Build the mesh; with ``centre_base``, the centre of its base is moved to the origin."""
        corners = np.concatenate(self._corners)
        if centre_base:
            low, high = corners.min(0), corners.max(0)
            corners = corners - np.array([*(low + high)[:2] / 2, low[2]])
        normals = _normals(corners, np.repeat(self._groups, 3), self.crease)
        textures: dict[int, int] = {}
        kept: list[TextureImage] = []
        for material in self._materials:
            if material.texture is not None and id(material.texture) not in textures:
                textures[id(material.texture)] = len(kept)
                kept.append(material.texture)
        texture_index = np.array([-1 if k.texture is None else textures[id(k.texture)] for k in self._materials])
        surfaces = np.repeat([[*k.colour, k.paint, k.gloss] for k in self._materials], 3, axis=0)
        surfaces[:, :3] *= np.concatenate(self._shade)
        # merge vertices with equal values
        uv = np.concatenate(self._uv) * (texture_index >= 0).repeat(3)[:, None]
        table = np.column_stack([corners.round(5), normals.round(4), uv.round(5), surfaces]).astype(np.float32)
        table, numbers = np.unique(table + 0.0, axis=0, return_inverse=True)
        directions = table[:, 3:6] / np.linalg.norm(table[:, 3:6], axis=1, keepdims=True)
        return Mesh(
            table[:, :3].copy(),
            directions,
            numbers.reshape(-1, 3),
            table[:, 6:8].copy() if kept else None,
            table[:, 8:11].copy(),
            table[:, 11].copy(),
            table[:, 12].copy(),
            texture_index if kept else -1,
            tuple(kept),
        )


def _twice_area(side: Float[np.ndarray, " 3"], other: Float[np.ndarray, " 3"]) -> float:
    """Return twice the area of a triangle by two of its sides; `np.cross` of one pair takes ten times as long."""
    (a, b, c), (d, e, f) = side.tolist(), other.tolist()
    return math.hypot(b * f - c * e, c * d - a * f, a * e - b * d)


def _normals(
    corners: Float[np.ndarray, "c 3"], smoothing_group: Int[np.ndarray, " c"], crease: float
) -> Float[np.ndarray, "c 3"]:
    """Average, at each corner, the normals of its group's faces that meet there at less than the crease angle.

    Faces are weighted by their angle at the corner, so that the result does not depend on the triangulation.
    """
    faces = corners.reshape(-1, 3, 3)
    a, b, c = faces.swapaxes(0, 1)
    flat = np.cross(b - a, c - a).repeat(3, 0)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    ahead, back = np.roll(faces, -1, 1) - faces, np.roll(faces, 1, 1) - faces
    cosine = (ahead * back).sum(2) / (np.linalg.norm(ahead, axis=2) * np.linalg.norm(back, axis=2))
    parts = flat * np.arccos(cosine.clip(-1, 1)).reshape(-1, 1)
    places = np.column_stack([corners.round(4), smoothing_group])
    order = np.lexsort(places.T)
    places, parts, flat = places[order], parts[order], flat[order]
    total = parts.copy()
    for step in range(1, len(places)):
        same: Bool[np.ndarray, " _"] = (places[step:] == places[:-step]).all(1)
        if not same.any():
            break
        first = np.nonzero(same)[0]
        second = first + step
        smooth = (flat[first] * flat[second]).sum(1) > crease
        first, second = first[smooth], second[smooth]
        total[first] += parts[second]
        total[second] += parts[first]
    found = np.empty_like(total)
    found[order] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return found
