"""Procedural trees, bushes and hedges: irregular ellipsoids of foliage with loose leaves around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from ms2.render.scene3d.meshes import Mesh, TextureImage, concatenate_meshes
from ms2.worlds.driving3d.assets.mesh_builder import Material, MeshBuilder, Point
from ms2.worlds.driving3d.assets.textures import bark, leaves

Vertices = Float[np.ndarray, "v 3"]
LEAF_TEXTURE_SIZE = 1.5
"""Extent of the leaf texture in metres."""
DETAILED_NUMBER, DETAILED_SIZE = 2.6, 0.55
"""Factors on number and size of the loose leaves of a tree in the detailed set."""
FAR_DETAIL_FRACTION = 0.3
"""Fraction of a plant's triangles that its mesh of lower detail has."""


@dataclass(frozen=True)
class CrownEllipsoid:
    """An ellipsoid of a tree crown.

    Attributes:
        centre: Position of the centre in metres.
        radii: Radii along x, y and z in metres.
        fine: Index of its mesh in `_spheres`: 0 for the coarse one, 1 for the fine one.
    """

    centre: Point
    radii: Point
    fine: int = 1


@lru_cache(maxsize=1)
def _spheres() -> tuple[tuple[Vertices, Int[np.ndarray, "t 3"]], ...]:
    """Build an icosahedron, and one with its triangles subdivided once."""
    golden = (1 + math.sqrt(5)) / 2
    places: list[Point] = [
        (-1, golden, 0),
        (1, golden, 0),
        (-1, -golden, 0),
        (1, -golden, 0),
        (0, -1, golden),
        (0, 1, golden),
    ]
    places += [(0, -1, -golden), (0, 1, -golden), (golden, 0, -1), (golden, 0, 1), (-golden, 0, -1), (-golden, 0, 1)]
    sides = "0 11 5 0 5 1 0 1 7 0 7 10 0 10 11 1 5 9 5 11 4 11 10 2 10 7 6 7 1 8 3 9 4 3 4 2 3 2 6 3 6 8 3 8 9 4 9 5"
    sides += " 2 4 11 6 2 10 8 6 7 9 8 1"
    triangles = np.array([int(n) for n in sides.split()]).reshape(-1, 3)
    vertices = np.array(places) / math.hypot(1, golden)
    corners = vertices[triangles]
    a, b, c = corners.swapaxes(0, 1)
    ab, bc, ca = ((p + q) / np.linalg.norm(p + q, axis=1, keepdims=True) for p, q in ((a, b), (b, c), (c, a)))
    split = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]).reshape(
        -1, 3
    )
    fine, numbers = np.unique(split.round(6), axis=0, return_inverse=True)
    return (vertices, triangles), (fine, numbers.reshape(-1, 3))


def _foliage(
    rng: np.random.Generator,
    blobs: Sequence[CrownEllipsoid],
    most: int,
    size: float,
    texture: TextureImage,
    dent: float = 0.2,
    far: bool = False,
    detailed: bool = False,
) -> Mesh:
    """Build ellipsoids with leaves around them.

    Light on a crown comes from its whole shape, so normals point away from its middle as much as from each facet;
    what is low or inside is darker, as less of the sky is seen from there.

    Args:
        rng: Source of random numbers for dents and leaves.
        blobs: The ellipsoids.
        most: Number of triangles, those of loose leaves included.
        size: Maximum radius of a loose leaf in metres.
        texture: Texture of the leaves.
        dent: Standard deviation of the radius as a fraction of it.
        far: Whether to build lower detail for the distance: coarser ellipsoids and fewer leaves.
        detailed: Whether to build more and smaller leaves.
    """
    if detailed:
        most, size = int(DETAILED_NUMBER * most), DETAILED_SIZE * size
    if far:
        blobs, most, dent = [replace(blob, fine=0) for blob in blobs], int(most * FAR_DETAIL_FRACTION), dent / 2
    parts, outward = [], []
    for blob in blobs:
        vertices, triangles = _spheres()[blob.fine]
        radii, centre = np.array(blob.radii), np.array(blob.centre)
        dented = vertices * (1 + dent * rng.standard_normal((len(vertices), 1)).clip(-1.6, 1.6))
        dented = dented + 0.08 * rng.standard_normal(dented.shape)
        corners = (centre + dented * radii)[triangles]
        seen = ~_inside(corners.mean(1), [other for other in blobs if other is not blob])
        parts.append(corners[seen])
        outward.append((vertices[triangles] / radii)[seen])
    loose = most - sum(map(len, parts))
    areas = np.array([math.prod(blob.radii) ** (2 / 3) for blob in blobs])
    for n in rng.choice(len(blobs), loose, p=areas / areas.sum()):
        radii, centre = np.array(blobs[n].radii), np.array(blobs[n].centre)
        way = rng.standard_normal(3)
        way /= np.linalg.norm(way)
        at = centre + way * radii * rng.uniform(0.90, 1.13)
        spread = rng.standard_normal((3, 3))
        spread -= spread.mean(0)
        spread /= np.linalg.norm(spread, axis=1, keepdims=True)
        parts.append((at + spread * size * rng.uniform(0.5, 1.0, (3, 1)))[None])
        outward.append(np.tile(way / radii, (1, 3, 1)))
    corners, round_ = np.concatenate(parts), np.concatenate(outward)
    low, high = corners.min((0, 1)), corners.max((0, 1))
    middle = (low + high) / 2 - [0, 0, 0.25 * (high - low)[2]]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, None]
    round_ = round_ / np.linalg.norm(round_, axis=2, keepdims=True)
    flat = flat / np.linalg.norm(flat, axis=2, keepdims=True)
    flat = flat * np.where((flat * round_).sum(2, keepdims=True) < 0, -1, 1)
    whole = corners - middle
    whole = whole / np.linalg.norm(whole / ((high - low) / 2), axis=2, keepdims=True)
    reach = np.linalg.norm((corners - middle) / ((high - low) / 2), axis=2)
    normals = 0.55 * flat + 0.5 * round_ + 0.35 * whole / np.linalg.norm(whole, axis=2, keepdims=True)
    height = (corners[..., 2] - low[2]) / (high - low)[2]
    light = (0.58 + 0.26 * height + 0.30 * reach.clip(0, 1)) * rng.uniform(0.82, 1.14, (len(corners), 1))
    warm = rng.normal(0, 0.04, (len(corners), 1, 1)) * np.array([1, 0.3, -0.6])
    colour = light[..., None] * (1 + warm) * np.ones(3)
    # the texture is laid on from the side that the facet faces most
    axis = np.abs(flat[:, 0]).argmax(1)
    across, along = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
    rows = np.arange(len(corners))[:, None]
    uv = np.stack([corners[rows, np.arange(3), across[:, None]], corners[rows, np.arange(3), along[:, None]]], 2)
    uv = uv / LEAF_TEXTURE_SIZE + rng.random((len(corners), 1, 2))
    normals = normals.reshape(-1, 3)
    return Mesh(
        corners.reshape(-1, 3).astype(np.float32),
        (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        np.arange(3 * len(corners)).reshape(-1, 3),
        uv.reshape(-1, 2).astype(np.float32),
        colour.reshape(-1, 3).clip(0, 1.15).astype(np.float32),
        paint=1.0,
        texture=0,
        textures=(texture,),
    )


def _inside(places: Vertices, blobs: Sequence[CrownEllipsoid]) -> Bool[np.ndarray, " v"]:
    """Return which points are so deep inside of ellipsoids that they are invisible."""
    found = np.zeros(len(places), bool)
    for blob in blobs:
        found |= (((places - np.array(blob.centre)) / np.array(blob.radii)) ** 2).sum(1) < 0.6
    return found


def _trunk(
    rng: np.random.Generator, top: float, radius: float, texture: TextureImage, boughs: Sequence[Point] = ()
) -> Mesh:
    """Build a slightly bent trunk, and boughs from two thirds of its height to their ends."""
    into = MeshBuilder(crease=80)
    material = Material(texture=texture)
    bend = rng.normal(0, 0.05, 2) * top / 3
    fork = (float(bend[0]), float(bend[1]), top * 0.62)
    into.tube(
        [(0, 0, 0), (0, 0, top * 0.12), fork, (0, 0, top)],
        [radius * 1.35, radius, radius * 0.78, radius * 0.5],
        material,
        6,
        (False, False),
    )
    for end in boughs:
        into.tube([(fork[0], fork[1], fork[2]), end], [radius * 0.5, radius * 0.22], material, 3, (False, False))
    return into.mesh(centre_base=False)


def _deciduous(
    far: bool,
    seed: int,
    height: float,
    spread: float,
    clear: float,
    number: int = 4,
    slim: float = 1.0,
    detailed: bool = False,
) -> Mesh:
    """Build a tree with a crown of ellipsoids around a trunk.

    Args:
        far: Whether to build lower detail for the distance.
        seed: Seed of the shape.
        height: Height of the tree in metres.
        spread: Radius of the crown in metres.
        clear: Height of the crown's lower edge in metres.
        number: Number of ellipsoids.
        slim: Factor on the width of the ellipsoids.
        detailed: Whether to build more and smaller leaves.
    """
    rng = np.random.default_rng(seed)
    tall = (height - clear) / 2
    blobs, boughs = [], []
    turn = rng.uniform(0, 2 * math.pi)
    for n in range(number - 1):
        angle = turn + 2 * math.pi * n / (number - 1) + rng.normal(0, 0.2)
        out = spread * rng.uniform(0.38, 0.52)
        z = clear + tall * rng.uniform(0.72, 1.12)
        at = (out * math.cos(angle), out * math.sin(angle), z)
        blobs.append(CrownEllipsoid(at, (spread * 0.60 * slim, spread * 0.60 * slim, tall * rng.uniform(0.52, 0.66))))
        boughs.append((at[0], at[1], z))
    blobs.append(
        CrownEllipsoid((0, 0, height - tall * 0.72), (spread * 0.62 * slim, spread * 0.62 * slim, tall * 0.68))
    )
    crown = _foliage(rng, blobs, 432, 0.19 * spread + 0.16, leaves(seed % 3), far=far, detailed=detailed)
    trunk = _trunk(rng, clear + tall * 0.9, 0.024 * height**0.9, bark(1), boughs[:3])
    return concatenate_meshes(trunk, crown)


def _conifer(seed: int, height: float, spread: float) -> Mesh:
    """Build a conifer with tiers of drooping branches."""
    rng = np.random.default_rng(seed)
    parts, blobs = [_trunk(rng, height * 0.9, 0.02 * height, bark(1))], []
    tiers = 6
    for n in range(tiers):
        fraction = n / (tiers - 0.3)
        radius = spread * (1 - fraction) ** 0.85
        z = height * (0.12 + 0.80 * fraction)
        blobs.append(CrownEllipsoid((0, 0, z), (radius * 0.8, radius * 0.8, height * 0.13), 0))
        angle = 2 * math.pi * (np.arange(18) + rng.uniform(-0.3, 0.3, 18)) / 18 + n
        reach = radius * np.where(np.arange(18) % 2, 0.62, 1.0) * rng.uniform(0.85, 1.15, 18)
        droop = z - height * 0.055 * np.where(np.arange(18) % 2, 0.3, 1.0)
        rim = np.stack([reach * np.cos(angle), reach * np.sin(angle), droop], 1)
        peak = np.tile([0.0, 0.0, z + height * 0.16], (18, 1))
        parts.append(_skirt(rng, peak, rim, 0.55 + 0.40 * fraction))
    return concatenate_meshes(*parts)


def _skirt(rng: np.random.Generator, peak: Vertices, rim: Vertices, light: float) -> Mesh:
    """Build a ragged cone of needles, darker near the trunk and at the bottom."""
    corners = np.stack([peak, rim, np.roll(rim, -1, 0)], 1)
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    around = corners * [1, 1, 0] + [0, 0, 0.35 * float(np.linalg.norm(rim[:, :2], axis=1).max())]
    around = around / np.linalg.norm(around, axis=2, keepdims=True)
    normals = (0.8 * flat[:, None] + 0.5 * around).reshape(-1, 3)
    shade = light * np.array([0.72, 1.08, 1.08]) * rng.uniform(0.82, 1.15, (len(corners), 1))
    long = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1) / LEAF_TEXTURE_SIZE
    start = rng.random((len(corners), 1))
    u = np.array([0.5, 0.0, 1.0]) * 0.5 + start
    v = np.array([1.0, 0.0, 0.0]) * long[:, None] + start
    return Mesh(
        corners.reshape(-1, 3).astype(np.float32),
        (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        np.arange(3 * len(corners)).reshape(-1, 3),
        np.stack([u, v], 2).reshape(-1, 2).astype(np.float32),
        np.repeat(shade.reshape(-1, 1), 3, 1).astype(np.float32),
        paint=1.0,
        texture=0,
        textures=(leaves(7, needles=True),),
    )


def _birch(far: bool, seed: int, height: float, detailed: bool = False) -> Mesh:
    """Build a birch."""
    rng = np.random.default_rng(seed)
    trunk = _trunk(rng, height * 0.88, 0.013 * height, bark(2, birch=True))
    blobs = [
        CrownEllipsoid((0.1, 0.0, height * 0.80), (0.75, 0.75, height * 0.19)),
        CrownEllipsoid((-0.35, 0.25, height * 0.62), (1.0, 0.95, height * 0.16)),
    ]
    blobs += [
        CrownEllipsoid((0.45, -0.30, height * 0.52), (1.0, 0.95, height * 0.15)),
        CrownEllipsoid((-0.2, -0.4, height * 0.38), (0.7, 0.65, height * 0.10), 0),
    ]
    return concatenate_meshes(trunk, _foliage(rng, blobs, 440, 0.40, leaves(1), 0.16, far, detailed))


def _poplar(far: bool, seed: int, height: float, detailed: bool = False) -> Mesh:
    """Build a poplar."""
    rng = np.random.default_rng(seed)
    trunk = _trunk(rng, height * 0.6, 0.016 * height, bark(1))
    blobs = [
        CrownEllipsoid((0.1, 0, height * 0.34), (1.0, 1.0, height * 0.24)),
        CrownEllipsoid((-0.1, 0.1, height * 0.58), (1.05, 1.0, height * 0.24)),
    ]
    blobs += [CrownEllipsoid((0.05, -0.05, height * 0.80), (0.72, 0.75, height * 0.2))]
    return concatenate_meshes(trunk, _foliage(rng, blobs, 430, 0.40, leaves(2), 0.17, far, detailed))


def make_trees(far: bool = False, detailed: bool = False) -> list[Mesh]:
    """Build the tree meshes.

    Args:
        far: Whether to build lower detail for the distance.
        detailed: Whether to build more and smaller leaves.
    """
    trees = [
        _deciduous(far, 10, 8.0, 3.1, 2.2, 4, detailed=detailed),
        _deciduous(far, 21, 10.5, 3.3, 2.6, 5, detailed=detailed),
        _deciduous(far, 32, 6.2, 2.2, 2.0, 4, detailed=detailed),
        _deciduous(far, 43, 9.0, 4.0, 2.4, 5, detailed=detailed),
        _deciduous(far, 54, 4.6, 1.4, 1.9, 3, detailed=detailed),
        _deciduous(far, 65, 7.4, 2.0, 1.6, 4, 1.1, detailed=detailed),
        _birch(far, 76, 8.5, detailed),
        _poplar(far, 87, 11.0, detailed),
        _conifer(98, 9.5, 2.5),
        _conifer(99, 6.0, 1.7),
    ]
    return [_standing(tree) for tree in trees]


def make_bushes() -> list[Mesh]:
    """Build the bush meshes."""
    rng = np.random.default_rng(5)
    small = [CrownEllipsoid((0, 0, 0.5), (0.65, 0.6, 0.55), 1)]
    wide = [
        CrownEllipsoid((-0.55, 0, 0.55), (0.7, 0.65, 0.6), 0),
        CrownEllipsoid((0.5, 0.1, 0.65), (0.75, 0.7, 0.75), 0),
    ]
    tall = [CrownEllipsoid((0, 0, 0.9), (0.8, 0.8, 1.0), 1)]
    found = [
        _foliage(rng, small, 125, 0.17, leaves(0)),
        _foliage(rng, [*wide, CrownEllipsoid((0, 0.35, 0.5), (0.6, 0.5, 0.55), 0)], 145, 0.20, leaves(1)),
    ]
    found.append(_foliage(rng, tall, 145, 0.2, leaves(2), 0.16))
    return [*map(_grown, found), _hedge(rng)]


def _hedge(rng: np.random.Generator) -> Mesh:
    """Build a trimmed hedge along y."""
    into = MeshBuilder(crease=20)
    material = Material(paint=1.0, texture=leaves(0))
    rings = []
    for y in np.linspace(-1.5, 1.5, 7):
        k = 0.93 if abs(y) > 1.4 else 1.0
        profile = [(-0.38, 0.0), (-0.42, 0.6), (-0.36, 1.22), (0.36, 1.22), (0.42, 0.6), (0.38, 0.0)]
        rings.append([(x * k + rng.normal(0, 0.025), y, z * (1 + rng.normal(0, 0.025))) for x, z in profile])
    for low, high in pairwise(rings):
        for i in range(5):
            corners = np.array([low[i], high[i], high[i + 1], low[i + 1]])
            flat = abs(corners[:, 2].min() - 1.22) < 0.2
            uv = corners[:, [1, 0 if flat else 2]] / LEAF_TEXTURE_SIZE
            shade = (0.55 + 0.42 * corners[:, 2] / 1.22) * rng.uniform(0.9, 1.08)
            into.face(corners, material, uv, shade)
    for ring in (rings[0], rings[-1]):
        places = np.array(ring)
        into.face(places, material, places[:, [0, 2]] / LEAF_TEXTURE_SIZE, 0.55 + 0.42 * places[:, 2] / 1.22)
    return into.mesh(centre_base=False)


def _standing(mesh: Mesh) -> Mesh:
    """Move a mesh onto the ground, with the trunk at the origin."""
    vertices = mesh.vertices - [0, 0, max(0.0, float(mesh.vertices[:, 2].min()))]
    vertices[:, 2] = vertices[:, 2].clip(0)
    return replace(mesh, vertices=vertices.astype(np.float32))


def _grown(mesh: Mesh) -> Mesh:
    """Centre a mesh at the origin, with its lowest part below the ground."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    vertices = mesh.vertices - [0, 0, low[2] + 0.24 * (high - low)[2]]
    vertices[:, 2] = vertices[:, 2].clip(0)
    above = (vertices.reshape(-1, 3, 3)[..., 2] > 0).any(1)  # each triangle has vertices of its own
    corners = above.repeat(3)
    vertices = vertices[corners]
    vertices -= (vertices.min(0) + vertices.max(0)) / 2 * [1, 1, 0]
    assert isinstance(mesh.colour, np.ndarray) and mesh.uv is not None
    return replace(
        mesh,
        vertices=vertices.astype(np.float32),
        normals=mesh.normals[corners],
        triangles=np.arange(len(vertices)).reshape(-1, 3),
        uv=mesh.uv[corners],
        colour=mesh.colour[corners],
    )
