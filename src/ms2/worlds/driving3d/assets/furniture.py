"""Procedural signs, traffic lights, street lamps and poles. Signs face -y, towards drivers heading along +y.

Their posts stand at the origin, not the middle of all: arms reach out over the street.
"""

import math
from collections.abc import Callable

import numpy as np

from ms2.render.scene3d.meshes import Mesh, TextureImage
from ms2.worlds.driving3d.assets.mesh_builder import Colour, Material, MeshBuilder
from ms2.worlds.driving3d.assets.textures import to_uint8

STEEL_MATERIAL = Material((0.55, 0.56, 0.57), gloss=0.15)
SIGN_BACK_MATERIAL = Material((0.50, 0.51, 0.52), gloss=0.1)
DARK_MATERIAL = Material((0.13, 0.14, 0.14))
RED, BLUE, YELLOW, WHITE = (0.78, 0.08, 0.10), (0.08, 0.28, 0.62), (0.95, 0.75, 0.08), (0.95, 0.95, 0.94)
SIGN_TEXTURE_SIZE = 64

Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _sign_texture(*layers: tuple[Mask, Colour]) -> TextureImage:
    """Draw a sign from layers of masks over x and z from -1 to 1."""
    z, x = np.mgrid[1 : -1 : SIGN_TEXTURE_SIZE * 1j, -1 : 1 : SIGN_TEXTURE_SIZE * 1j]
    canvas = np.full((SIGN_TEXTURE_SIZE, SIGN_TEXTURE_SIZE, 3), 0.9)
    for mask, colour in layers:
        canvas[mask(x, z)] = colour
    return to_uint8(canvas)


def _everywhere(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.full(x.shape, True)


def _disc(radius: float) -> Mask:
    return lambda x, z: np.hypot(x, z) < radius


def _bar(width: float, height: float, x0: float = 0.0, z0: float = 0.0) -> Mask:
    return lambda x, z: (abs(x - x0) < width) & (abs(z - z0) < height)


def _triangle(size: float, way: float = 1.0) -> Mask:
    return lambda x, z: (z * way > -0.5 * size) & (math.sqrt(3) * abs(x) + z * way < size)


def _post(into: MeshBuilder, height: float, radius: float = 0.035) -> None:
    into.tube([(0, 0, 0), (0, 0, height)], [radius, radius], STEEL_MATERIAL, 6)


def _plate(into: MeshBuilder, corners: list[tuple[float, float]], z: float, half: float, texture: TextureImage) -> None:
    """Add a plate in front of the post; corners are in units of half its width."""
    front = [(x * half, -0.06, z + y * half) for x, y in corners]
    into.face(front, Material(texture=texture), [((x + 1) / 2, (y + 1) / 2) for x, y in corners])
    into.face([(x, -0.045, y) for x, _, y in front[::-1]], SIGN_BACK_MATERIAL)


def _round(number: int = 12) -> list[tuple[float, float]]:
    angles = [2 * math.pi * (n + 0.5) / number for n in range(number)]
    return [(math.cos(a), math.sin(a)) for a in angles]


SQUARE_CORNERS = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]


def make_signs() -> list[Mesh]:
    """Build the sign meshes."""
    found = []
    digits = [
        _bar(0.06, 0.33, -0.10),
        _bar(0.2, 0.06, -0.24, 0.28),
        _bar(0.2, 0.06, -0.24, 0.0),
        _bar(0.2, 0.06, -0.24, -0.28),
    ]
    zero: Mask = lambda x, z: (np.hypot((x - 0.24) / 0.6, z) < 0.36) & (np.hypot((x - 0.24) / 0.5, z) > 0.24)  # noqa: E731
    limit = _sign_texture((_everywhere, RED), (_disc(0.74), WHITE), *((d, (0.08,) * 3) for d in [*digits, zero]))
    yield_ = _sign_texture((_everywhere, RED), (_triangle(0.62, -1), WHITE))
    entry = _sign_texture((_everywhere, RED), (_bar(0.72, 0.17), WHITE))
    warning = _sign_texture(
        (_everywhere, RED),
        (_triangle(0.62), WHITE),
        (_bar(0.06, 0.18, 0, 0.1), (0.08,) * 3),
        (_bar(0.06, 0.05, 0, -0.19), (0.08,) * 3),
    )
    priority = _sign_texture((_everywhere, WHITE), (lambda x, z: abs(x) + abs(z) < 0.68, YELLOW))
    parking = _sign_texture(
        (_everywhere, BLUE),
        (_bar(0.09, 0.55, -0.2), WHITE),
        (_bar(0.28, 0.08, 0.0, 0.5), WHITE),
        (_bar(0.28, 0.08, 0.0, 0.0), WHITE),
        (_bar(0.08, 0.3, 0.28, 0.25), WHITE),
    )
    stop = _sign_texture(
        (_everywhere, RED),
        *((_bar(0.08, 0.22, x), WHITE) for x in (-0.6, -0.22, 0.2, 0.58)),
        (_bar(0.2, 0.05, -0.22, 0.2), WHITE),
        (_bar(0.15, 0.05, 0.2, 0.2), WHITE),
    )
    octagon = [(math.cos(math.pi * (n + 0.5) / 4) * 1.05, math.sin(math.pi * (n + 0.5) / 4) * 1.05) for n in range(8)]
    three = [(0.0, 1.0), (-math.sqrt(3) / 2, -0.5), (math.sqrt(3) / 2, -0.5)]
    flat = [(0.0, -1.0), (math.sqrt(3) / 2, 0.5), (-math.sqrt(3) / 2, 0.5)]
    diamond = [(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]
    for corners, texture, half in (
        (_round(), limit, 0.31),
        (flat, yield_, 0.52),
        (_round(), entry, 0.31),
        (three, warning, 0.52),
        (diamond, priority, 0.42),
        (SQUARE_CORNERS, parking, 0.30),
        (octagon, stop, 0.36),
    ):
        into = MeshBuilder()
        z = 2.35
        _post(into, z + half * 0.8)
        _plate(into, corners, z, half, texture)
        if texture is parking or texture is limit:
            small = _sign_texture(
                (_everywhere, WHITE), (_bar(0.7, 0.15, 0, 0.35), (0.2,) * 3), (_bar(0.5, 0.15, 0, -0.3), (0.2,) * 3)
            )
            _plate(into, [(x, y * 0.45 - 1.55) for x, y in SQUARE_CORNERS], z, half, small)
        found.append(into.mesh(centre_base=False))
    return [*found, _direction(), _street_name()]


def _direction() -> Mesh:
    """Build a large yellow direction sign on two posts."""
    into = MeshBuilder()
    lines = [(_bar(0.5, 0.07, 0.1, z), (0.1, 0.1, 0.1)) for z in (0.55, 0.0, -0.5)]
    arrows = [(_bar(0.07, 0.12, -0.72, z), (0.1, 0.1, 0.1)) for z in (0.55, 0.0, -0.5)]
    texture = _sign_texture((_everywhere, (0.1, 0.1, 0.1)), (_bar(0.96, 0.94), YELLOW), *lines, *arrows)
    for x in (-0.6, 0.6):
        into.tube([(x, 0, 0), (x, 0, 3.0)], [0.05, 0.05], STEEL_MATERIAL, 5)
    front = [(-0.95, -0.08, 1.75), (0.95, -0.08, 1.75), (0.95, -0.08, 3.05), (-0.95, -0.08, 3.05)]
    into.face(front, Material(texture=texture))
    into.face([(x, -0.065, z) for x, _, z in front[::-1]], SIGN_BACK_MATERIAL)
    return into.mesh(centre_base=False)


def _street_name() -> Mesh:
    """Build a street name sign."""
    into = MeshBuilder()
    letters = [(_bar(0.07, 0.35, x), WHITE) for x in np.arange(-0.75, 0.8, 0.25)]
    texture = _sign_texture((_everywhere, BLUE), *letters)
    _post(into, 2.75)
    for y in (-0.045, 0.045):
        into.face([(-0.42, y, 2.45), (0.42, y, 2.45), (0.42, y, 2.68), (-0.42, y, 2.68)], Material(texture=texture))
    return into.mesh(centre_base=False)


def _heads(into: MeshBuilder, x: float, y: float, z: float, lit: int) -> None:
    """Add a traffic light's housing with its lowest part at z."""
    into.box((x - 0.15, y - 0.1, z), (x + 0.15, y + 0.12, z + 0.95), DARK_MATERIAL, bottom=True)
    into.face(
        [
            (x - 0.27, y + 0.02, z - 0.1),
            (x + 0.27, y + 0.02, z - 0.1),
            (x + 0.27, y + 0.02, z + 1.05),
            (x - 0.27, y + 0.02, z + 1.05),
        ],
        DARK_MATERIAL,
    )
    for n, colour in enumerate(((0.1, 0.95, 0.45), (1.0, 0.72, 0.1), (1.0, 0.12, 0.08))):
        bright = 1.0 if n == lit else 0.25
        centre = z + 0.18 + 0.3 * n
        corners = [(x + 0.11 * a, y - 0.112, centre + 0.11 * b) for a, b in _round(8)]
        into.face(corners, Material((colour[0] * bright, colour[1] * bright, colour[2] * bright)))


def make_lights() -> list[Mesh]:
    """Build the traffic light meshes."""
    found = []
    for lit in (2, 0):
        into = MeshBuilder()
        into.tube([(0, 0, 0), (0, 0, 3.3)], [0.06, 0.055], STEEL_MATERIAL, 6)
        _heads(into, 0, -0.12, 2.3, lit)
        found.append(into.mesh(centre_base=False))
    into = MeshBuilder()
    into.tube([(0, 0, 0), (0, 0, 5.2), (-0.5, 0, 5.75), (-4.2, 0, 5.9)], [0.11, 0.09, 0.08, 0.06], STEEL_MATERIAL, 6)
    _heads(into, -4.0, -0.1, 5.1, 0)
    _heads(into, 0, -0.16, 2.3, 0)
    found.append(into.mesh(centre_base=False))
    return found


def make_poles() -> list[Mesh]:
    """Build the street lamp and pole meshes."""
    lamp = Material((0.85, 0.86, 0.84), gloss=0.2)
    found = []
    for arms in ((-1,), (-1, 1)):
        into = MeshBuilder()
        into.tube([(0, 0, 0), (0, 0, 1.0), (0, 0, 7.6)], [0.09, 0.075, 0.05], STEEL_MATERIAL, 6)
        for side in arms:
            into.tube(
                [(0, 0, 7.4), (side * 0.5, 0, 7.9), (side * 1.5, 0, 8.05)], [0.05, 0.045, 0.035], STEEL_MATERIAL, 5
            )
            a, b = sorted((side * 1.4, side * 2.1))
            into.box((a, -0.13, 7.98), (b, 0.13, 8.12), STEEL_MATERIAL)
            into.face([(a, -0.12, 7.975), (b, -0.12, 7.975), (b, 0.12, 7.975), (a, 0.12, 7.975)], lamp)
        found.append(into.mesh(centre_base=False))
    into = MeshBuilder(crease=70)
    green = Material((0.14, 0.20, 0.17))
    into.tube([(0, 0, 0), (0, 0, 0.6), (0, 0, 3.5)], [0.09, 0.05, 0.04], green, 6)
    into.tube(
        [(0, 0, 3.45), (0, 0, 3.6), (0, 0, 3.85), (0, 0, 4.02)],
        [0.08, 0.22, 0.22, 0.08],
        Material((0.95, 0.95, 0.92), gloss=0.3),
        8,
    )
    found.append(into.mesh(centre_base=False))
    into = MeshBuilder(crease=70)
    wood = Material((0.36, 0.29, 0.22))
    into.tube([(0, 0, 0), (0, 0, 8.5)], [0.15, 0.10], wood, 7)
    for z, half in ((7.9, 1.0), (7.2, 0.75)):
        into.box((-half, -0.16, z), (half, -0.05, z + 0.12), wood, bottom=True)
        for x in (-half + 0.1, -half / 2, half / 2, half - 0.1):
            into.tube([(x, -0.1, z + 0.12), (x, -0.1, z + 0.28)], [0.04, 0.03], Material((0.7, 0.75, 0.75)), 4)
    found.append(into.mesh(centre_base=False))
    return found
