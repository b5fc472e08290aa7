"""Primitive meshes: planes, boxes, cylinders, cones and ellipsoids."""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ms2.render.scene3d.meshes import Mesh, concatenate_meshes

UNIT_SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def polygon(corners: ArrayLike, uv: ArrayLike | None = None, **material: Any) -> Mesh:
    """Build a flat convex polygon, counter-clockwise about its normal.

    Args:
        corners: Positions of its corners.
        uv: Texture coordinates of the corners; for four corners those of the whole texture by default.
        material: Further arguments of `Mesh`.
    """
    positions = np.asarray(corners, np.float32)
    number = len(positions)
    normal = np.cross(positions[1] - positions[0], positions[2] - positions[0])
    normal = normal / np.linalg.norm(normal)
    fan = np.array([[0, i, i + 1] for i in range(1, number - 1)])
    if uv is None:
        uv = UNIT_SQUARE if number == len(UNIT_SQUARE) else np.zeros((number, 2))
    return Mesh(positions, np.tile(normal, (number, 1)).astype(np.float32), fan, np.asarray(uv, np.float32), **material)


def plane(width: float, length: float, repeat: tuple[float, float] = (1.0, 1.0), **material: Any) -> Mesh:
    """Build a ground rectangle centred at the origin; its texture repeats ``repeat`` times along x and y."""
    x, y = width / 2, length / 2
    uv = [(u * repeat[0], v * repeat[1]) for u, v in UNIT_SQUARE]
    return polygon([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)], uv, **material)


def box(width: float, length: float, height: float, **material: Any) -> Mesh:
    """Build a box on the ground, its base centred at the origin; each side shows the whole texture."""
    x, y, z = width / 2, length / 2, height
    low = [(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)]
    high = [(a, b, z) for a, b, _ in low]
    sides = [polygon([low[i], low[(i + 1) % 4], high[(i + 1) % 4], high[i]], **material) for i in range(4)]
    return concatenate_meshes(*sides, polygon(high, **material), polygon(low[::-1], **material))


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 12, **material: Any) -> Mesh:
    """Build a cylinder on the ground; a frustum if ``top`` is another radius, a cone if it is 0."""
    top = radius if top is None else top
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    around = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 1)
    up = np.array([0, 0, height])
    normals = around * height + np.array([0, 0, radius - top])
    normals = np.tile(normals / np.linalg.norm(normals, axis=1, keepdims=True), (2, 1)).astype(np.float32)
    positions = np.concatenate([around * radius, around * top + up]).astype(np.float32)
    i = np.arange(segments)
    j, above = i + 1, segments + 1
    triangles = np.concatenate([np.stack([i, j, above + j], 1), np.stack([i, above + j, above + i], 1)])
    u = np.linspace(0, 1, segments + 1)
    uv = np.concatenate([np.stack([u, 0 * u], 1), np.stack([u, 0 * u + 1], 1)]).astype(np.float32)
    parts = [Mesh(positions, normals, triangles, uv, **material), polygon(around[:-1][::-1] * radius, **material)]
    if top > 0:
        parts.append(polygon(around[:-1] * top + up, **material))
    return concatenate_meshes(*parts)


def ellipsoid(semi_axes: tuple[float, float, float], rings: int = 8, segments: int = 12, **material: Any) -> Mesh:
    """Build an ellipsoid with these semi-axes around the origin."""
    polar, angle = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, segments + 1), indexing="ij")
    sphere = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), -np.cos(polar)], 2)
    unit: Float[np.ndarray, "v 3"] = sphere.reshape(-1, 3)
    axes = np.asarray(semi_axes)
    normals = unit / axes
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(rings), np.arange(segments), indexing="ij"))
    a = i * (segments + 1) + j
    b = a + segments + 1
    # at the poles one triangle of each pair has no area
    triangles = np.concatenate([np.stack([a, a + 1, b + 1], 1)[i > 0], np.stack([a, b + 1, b], 1)[i < rings - 1]])
    uv = np.stack([angle / (2 * np.pi), polar / np.pi], 2).reshape(-1, 2).astype(np.float32)
    return Mesh((unit * axes).astype(np.float32), normals.astype(np.float32), triangles, uv, **material)


def flat_shaded(mesh: Mesh) -> Mesh:
    """Duplicate vertices so that triangles are shaded flat, with visible edges."""
    corners = mesh.triangles.ravel()
    positions = mesh.vertices[corners]
    a, b, c = positions.reshape(-1, 3, 3).swapaxes(0, 1)
    normals = np.cross(b - a, c - a)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    def each(values: Any) -> Any:
        return values[corners] if isinstance(values, np.ndarray) else values

    return replace(
        mesh,
        vertices=positions,
        normals=normals.repeat(3, 0).astype(np.float32),
        triangles=np.arange(len(corners)).reshape(-1, 3),
        uv=each(mesh.uv),
        colour=each(mesh.colour),
        paint=each(mesh.paint),
        gloss=each(mesh.gloss),
    )
