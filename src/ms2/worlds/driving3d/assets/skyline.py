"""Procedural skylines: woods, houses and blocks in the distance, which close the horizon behind the fields. Metres."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from ms2.render.scene3d.meshes import Mesh
from ms2.worlds.driving3d.assets.mesh_builder import Colour, Material, MeshBuilder
from ms2.worlds.driving3d.assets.textures import leaves

DISTANCE, SIDE = 138.0, 78.0
"""Distance of the skyline ahead of the camera, and of its parts beside the street from the camera's axis."""
FIRST, HALF_WIDTH = 30.0, 190.0
"""Distance at which the parts beside the street begin, and half the width of the part ahead."""
TREE_WIDTH, POINTS = 3.6, 4
"""Width of a treetop, and number of points of its outline."""
WALLS: tuple[Colour, ...] = ((0.78, 0.75, 0.70), (0.70, 0.64, 0.55), (0.62, 0.52, 0.45), (0.72, 0.72, 0.71))
ROOFS: tuple[Colour, ...] = ((0.40, 0.24, 0.19), (0.32, 0.25, 0.22), (0.30, 0.30, 0.32))
FOLIAGE: tuple[Colour, ...] = ((0.46, 0.52, 0.34), (0.40, 0.47, 0.31), (0.52, 0.54, 0.36))
"""Colours of the woods, from the nearest layer to the farthest."""


GLASS = Material((0.22, 0.24, 0.27))


@dataclass(frozen=True)
class Skyline:
    """A kind of skyline.

    Attributes:
        heights: Mean height of the trees in each layer, from the nearest to the farthest.
        houses: Number of houses ahead.
        storeys: Number of storeys of these, at most.
    """

    heights: Sequence[float]
    houses: int
    storeys: int


SKYLINES = (
    Skyline((5.0, 8.0, 11.0), 0, 0),
    Skyline((4.0, 6.0, 9.0), 16, 2),
    Skyline((3.0, 5.0, 6.0), 26, 5),
    Skyline((7.0, 11.0, 15.0), 4, 2),
)


def make_skylines() -> list[Mesh]:
    """Build the skylines; none casts a shadow."""
    return [_skyline(kind, seed) for seed, kind in enumerate(SKYLINES)]


def _skyline(kind: Skyline, seed: int) -> Mesh:
    rng, into = np.random.default_rng(200 + seed), MeshBuilder()
    for layer, (height, colour) in enumerate(zip(kind.heights, FOLIAGE, strict=True)):
        material = Material(colour, texture=leaves(layer))
        away = 7.0 * layer
        _wood(into, rng, (-HALF_WIDTH, DISTANCE + away), (HALF_WIDTH, DISTANCE + away), height, material)
        for side in (-1, 1):
            x = side * (SIDE + away)
            _wood(into, rng, (x, FIRST), (x, DISTANCE + away), height, material)
    for _ in range(kind.houses):
        _house(into, rng, kind.storeys)
    return replace(into.mesh(centre_base=False), casts_shadow=False)


def _wood(
    into: MeshBuilder,
    rng: np.random.Generator,
    start: tuple[float, float],
    end: tuple[float, float],
    height: float,
    material: Material,
) -> None:
    """Add a wall of treetops between two points on the ground, darker below."""
    first, last = np.array(start), np.array(end)
    trees = int(np.linalg.norm(last - first) / TREE_WIDTH)
    number = POINTS * trees
    points = first + np.linspace(0, 1, number + 1)[:, None] * (last - first)
    groups = np.arange(0, trees + 5, 5)  # trees near each other are about as high
    around = np.interp(np.arange(trees + 1), groups, rng.gamma(14.0, 1 / 14, len(groups)))
    each = height * around * rng.uniform(0.8, 1.1, trees + 1)
    phase = (rng.uniform(0.4, 1.6, number + 1) / POINTS).cumsum() % 1
    bump = 0.78 + 0.22 * np.sin(np.pi * phase)  # round treetops of different widths
    top = each.repeat(POINTS)[: number + 1] * bump * rng.uniform(0.94, 1.06, number + 1)
    group = into.start_smoothing_group()
    lights = rng.uniform(0.75, 1.15, number)
    for (a, b), (low, high), light in zip(pairwise(points), pairwise(top), lights, strict=True):
        corners = [(*a, -0.1), (*b, -0.1), (*b, high), (*a, low)]
        u = np.linalg.norm(a - first) / 6.0
        v = u + TREE_WIDTH / POINTS / 6
        uv = [(u, 0), (v, 0), (v, high / 6), (u, low / 6)]
        into.face(corners, material, uv, shade=light * np.array([0.6, 0.6, 1.0, 1.0]), smoothing_group=group)


def _house(into: MeshBuilder, rng: np.random.Generator, storeys: int) -> None:
    """Add a house with a roof, and rows of dark windows, at a random place ahead that leaves out the street's end."""
    side = rng.choice([-1.0, 1.0])
    x, y = side * rng.uniform(9, 120), DISTANCE - rng.uniform(1.5, 6.0)
    width, floors = rng.uniform(8, 16), int(rng.integers(1, storeys + 1))
    wall, roof = WALLS[rng.integers(len(WALLS))], ROOFS[rng.integers(len(ROOFS))]
    eaves, ridge = 3.0 * floors, 3.0 * floors + rng.uniform(1.5, 4.0)
    a, b = x - width / 2, x + width / 2
    into.face([(a, y, -0.1), (b, y, -0.1), (b, y, eaves), (a, y, eaves)], Material(wall))
    inset = rng.uniform(0, 0.3) * width
    into.face([(a, y, eaves), (b, y, eaves), (b - inset, y + 4, ridge), (a + inset, y + 4, ridge)], Material(roof))
    for floor in range(floors):
        for place in _windows(width):
            z, left = 3.0 * floor + 0.9, a + place
            corners = [
                (left, y - 0.1, z),
                (left + 1.3, y - 0.1, z),
                (left + 1.3, y - 0.1, z + 1.5),
                (left, y - 0.1, z + 1.5),
            ]
            into.face(corners, Material((0.22, 0.24, 0.27)))


def _windows(width: float) -> Float[np.ndarray, " w"]:
    """Return the left edges of a row of windows of 1.3 m."""
    number = int(width / 2.8)
    return (np.arange(number) + 0.5) * (width / number) - 0.65
