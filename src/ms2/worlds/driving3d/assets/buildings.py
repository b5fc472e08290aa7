"""Procedural houses and town houses, with details on all sides."""

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from ms2.render.scene3d.meshes import Mesh, TextureImage
from ms2.worlds.driving3d.assets.mesh_builder import Colour, Material, MeshBuilder, Point
from ms2.worlds.driving3d.assets.textures import WallTexture, shop_front, storeys, tiles

RED_TILES, BROWN_TILES, DARK_TILES = (0.52, 0.29, 0.22), (0.41, 0.28, 0.23), (0.32, 0.32, 0.34)
WOOD_MATERIAL = Material((0.35, 0.25, 0.18))
TRIM_MATERIAL = Material((0.86, 0.85, 0.82))
ZINC_MATERIAL = Material((0.45, 0.46, 0.48), gloss=0.1)
CHIMNEY_MATERIAL = Material((0.48, 0.31, 0.26))
TILE_TEXTURE_SIZE = 3.0
"""Extent of the roof tile texture in metres."""
GREEN, OCHRE, BROWN = (0.24, 0.33, 0.27), (0.55, 0.42, 0.28), (0.33, 0.23, 0.17)


@lru_cache(maxsize=8)
def _tiles(colour: Colour) -> TextureImage:
    return tiles(int(colour[0] * 100), colour)


def _front(
    width: float,
    height: float,
    seed: int,
    columns: int,
    floors: int,
    door: int | None = None,
    shutters: Colour | None = None,
    garage: bool = False,
    brick: bool = False,
    big: bool = False,
) -> TextureImage:
    """Draw the texture of one side of a house."""
    wall = WallTexture(width, height, (256, 128 if height < 4.5 else 256), seed)
    if brick:
        wall.bricks((0.92, 0.68, 0.58))
    wall.plinth()
    step = width / columns
    for row in range(floors):
        z = 0.95 + row * 2.75
        for n in range(columns):
            x = (n + 0.5) * step
            if row == 0 and n == door:
                wall.door(x, ((0.42, 0.24, 0.15), (0.25, 0.33, 0.38), (0.86, 0.85, 0.82))[seed % 3])
                wall.rect(x - 1.0, x + 1.0, 2.45, 2.6, (0.5, 0.42, 0.36))
            elif row == 0 and garage and n == columns - 1:
                wall.rect(x - 1.25, x + 1.25, 0.05, 2.2, (0.82, 0.82, 0.8))
                for slat in np.arange(0.3, 2.1, 0.3):
                    wall.rect(x - 1.25, x + 1.25, slat, slat + 0.05, (0.82,) * 3, shade=True)
            else:
                wide = 1.9 if big and row == 0 else 1.15
                wall.window(
                    x, z, wide, 1.35, shutters=shutters if wide < 1.5 else None, panes=3 if big and row == 0 else 2
                )
    wall.gutter()
    return wall.texture()


def _roof(into: MeshBuilder, corners: Sequence[Point], colour: Colour) -> None:
    """Add a tiled roof plane; its first two corners are the eaves."""
    places = np.array(corners, float)
    along = places[1] - places[0]
    along /= np.linalg.norm(along)
    normal = np.cross(along, places[2] - places[0])
    up = np.cross(normal, along)
    up /= np.linalg.norm(up)
    offset = places - places[0]
    uv = np.stack([offset @ along, offset @ up], 1) / TILE_TEXTURE_SIZE
    into.face(corners, Material(texture=_tiles(colour)), uv)


def _walls(
    into: MeshBuilder,
    low: tuple[float, float],
    high: tuple[float, float],
    height: float,
    sides: Sequence[TextureImage | None],
    foot: float = 0.0,
) -> None:
    """Add four walls, front (-y), right, back, left, each with its texture; None for no wall."""
    (a, b), (c, d) = low, high
    runs = [((a, b), (c, b)), ((c, b), (c, d)), ((c, d), (a, d)), ((a, d), (a, b))]
    for ((x, y), (u, v)), texture in zip(runs, sides, strict=True):
        if texture is not None:
            into.face(
                [(x, y, foot), (u, v, foot), (u, v, height), (x, y, height)],
                Material(paint=1.0, texture=texture),
            )


def _ridged_roof(
    into: MeshBuilder,
    low: tuple[float, float],
    high: tuple[float, float],
    eaves: float,
    ridge: float,
    colour: Colour,
    along_y: bool = False,
    hip: float = 0.0,
    over: float = 0.45,
    gables: tuple[bool, bool] = (True, True),
) -> None:
    """Add a roof over a rectangle with the ridge along x or y; its ends slope over ``hip`` metres (0 for a gable)."""
    (a, b), (c, d) = low, high

    def turn(x: float, y: float, z: float) -> Point:
        return (y, x, z) if along_y else (x, y, z)

    if along_y:
        a, b, c, d = b, a, d, c
    middle, half = (b + d) / 2, (d - b) / 2
    drop = over * (ridge - eaves) / half
    left, right = a - over, c + over
    top = (left + hip + (over if hip else 0), right - hip - (over if hip else 0))
    for y, way in ((b - over, 1), (d + over, -1)):
        edge = [turn(left, y, eaves - drop), turn(right, y, eaves - drop)]
        _roof(into, [*edge, turn(top[1], middle, ridge), turn(top[0], middle, ridge)], colour)
        into.face(
            [*edge, turn(right, y + 0.02 * way, eaves - drop - 0.16), turn(left, y + 0.02 * way, eaves - drop - 0.16)],
            TRIM_MATERIAL,
        )
        # the underside of the eaves
        wall = b if way > 0 else d
        into.face([*edge, turn(right, wall, eaves - drop + 0.02), turn(left, wall, eaves - drop + 0.02)], WOOD_MATERIAL)
    for x, end, face, wanted in ((left, top[0], a, gables[0]), (right, top[1], c, gables[1])):
        if not wanted:
            continue
        if hip:
            edge = [turn(x, b - over, eaves - drop), turn(x, d + over, eaves - drop)]
            _roof(into, [*edge, turn(end, middle, ridge)], colour)
            into.face(
                [*edge, turn(x, d + over, eaves - drop - 0.16), turn(x, b - over, eaves - drop - 0.16)], TRIM_MATERIAL
            )
        else:
            gable = [turn(face, b, eaves), turn(face, d, eaves), turn(face, middle, ridge - 0.05)]
            into.face(gable, Material((0.95, 0.95, 0.94), paint=1.0))
            for y in (b - over, d + over):
                foot, peak = turn(x, y, eaves - drop), turn(x, middle, ridge)
                into.face(
                    [foot, peak, (peak[0], peak[1], ridge - 0.2), (foot[0], foot[1], eaves - drop - 0.2)], WOOD_MATERIAL
                )


def _gable_window(into: MeshBuilder, x: float, z: float, y: float, way: float, axis: int) -> None:
    """Add a window in a gable along x (``axis`` 0) or y (1), on its positive (``way`` 1) or negative (-1) side."""
    for half, top, out, material in (
        (0.55, 1.2, 0.015, TRIM_MATERIAL),
        (0.46, 1.1, 0.025, Material((0.2, 0.23, 0.27), gloss=0.3)),
    ):
        corners = []
        for a, b in ((-half, 0.6 - top / 2), (half, 0.6 - top / 2), (half, 0.6 + top / 2), (-half, 0.6 + top / 2)):
            p = (x + a, y + out * way, z + b)
            corners.append(p if axis == 0 else (p[1], p[0], p[2]))
        into.face(corners, material)


def _chimney(into: MeshBuilder, x: float, y: float, low: float, top: float) -> None:
    into.box((x - 0.3, y - 0.3, low), (x + 0.3, y + 0.3, top), CHIMNEY_MATERIAL, tops=Material((0.2, 0.2, 0.2)))


def _dormer(
    into: MeshBuilder, x: float, y: float, z: float, way: float, deep: float, colour: Colour, wide: float = 0.8
) -> None:
    """Add a dormer with a window that faces +y (``way`` 1) or -y (-1)."""
    front, back, top = y, y - way * deep, z + 1.25
    wall = Material((0.93, 0.93, 0.92), paint=1.0)
    into.face(
        [
            (x - wide, front, z),
            (x + wide, front, z),
            (x + wide, front, top),
            (x, front, top + 0.55),
            (x - wide, front, top),
        ],
        wall,
    )
    for side in (-1, 1):
        into.face(
            [
                (x + side * wide, front, z),
                (x + side * wide, back, z + 0.9),
                (x + side * wide, back, top),
                (x + side * wide, front, top),
            ],
            wall,
        )
        _roof(
            into,
            [
                (x + side * (wide + 0.15), front + way * 0.15, top - 0.1),
                (x + side * (wide + 0.15), back, top - 0.1),
                (x, back, top + 0.6),
                (x, front + way * 0.15, top + 0.6),
            ],
            colour,
        )
    _gable_window(into, x, z + 0.0, front, way, 0)


def make_houses() -> list[Mesh]:
    """Build the house meshes."""
    return [_cottage(), _villa(), _angled(), _street_gable(), _tall(), _bungalow(), _double()]


def _cottage() -> Mesh:
    into = MeshBuilder()
    low, high = (-5.0, -4.0), (5.0, 4.0)
    front, side = _front(10, 5.4, 1, 4, 2, 1, GREEN), _front(8, 5.4, 2, 3, 2, None, GREEN)
    _walls(into, low, high, 5.4, [front, side, front, side])
    _ridged_roof(into, low, high, 5.4, 9.0, RED_TILES)
    for x, way in ((-5.0, -1), (5.0, 1)):
        _gable_window(into, 0, 6.0, x, way, 1)
    _chimney(into, 2.6, 1.0, 7.6, 9.6)
    into.box((-2.1, -4.9, 2.5), (-0.4, -4.0, 2.62), WOOD_MATERIAL, bottom=True)
    return into.mesh()


def _villa() -> Mesh:
    into = MeshBuilder()
    low, high = (-5.5, -5.0), (5.5, 5.0)
    front, side = _front(11, 6.0, 3, 4, 2, 2, big=True), _front(10, 6.0, 4, 3, 2)
    _walls(into, low, high, 6.0, [front, side, front, side])
    _ridged_roof(into, low, high, 6.0, 9.3, DARK_TILES, hip=4.2, over=0.55)
    _chimney(into, -1.4, 0.6, 8.4, 10.0)
    into.box((-2.5, -6.2, 2.95), (0.5, -5.0, 3.1), TRIM_MATERIAL, bottom=True)
    into.box((-2.5, -6.2, 3.1), (0.5, -6.1, 4.0), TRIM_MATERIAL)
    return into.mesh()


def _angled() -> Mesh:
    into = MeshBuilder()
    front, side = _front(12, 5.2, 5, 5, 2, 3, BROWN), _front(7, 5.2, 6, 2, 2, None, BROWN)
    wing, short = _front(5.5, 5.2, 7, 2, 2, None, BROWN), _front(4, 5.2, 8, 1, 2, None, BROWN)
    _walls(into, (-6, -1.5), (6, 5.5), 5.2, [front, side, front, side])
    _walls(into, (-6, -5.5), (-0.5, -1.5), 5.2, [wing, short, None, short])
    _ridged_roof(into, (-6, -1.5), (6, 5.5), 5.2, 8.4, BROWN_TILES)
    _ridged_roof(into, (-6, -5.5), (-0.5, 2.0), 5.2, 7.9, BROWN_TILES, along_y=True, gables=(True, False))
    _gable_window(into, -3.25, 5.5, -5.5, -1, 0)
    _chimney(into, 3.0, 2.8, 7.4, 9.3)
    return into.mesh()


def _street_gable() -> Mesh:
    into = MeshBuilder()
    low, high = (-4.0, -5.5), (4.0, 5.5)
    front, side = _front(8, 5.6, 9, 3, 2, 1), _front(11, 5.6, 10, 4, 2)
    _walls(into, low, high, 5.6, [front, side, front, side])
    _ridged_roof(into, low, high, 5.6, 9.6, RED_TILES, along_y=True)
    for y, way in ((-5.5, -1), (5.5, 1)):
        for x in (-0.9, 0.9):
            _gable_window(into, x, 6.1, y, way, 0)
    _chimney(into, 1.2, 1.5, 8.0, 10.2)
    return into.mesh()


def _tall() -> Mesh:
    into = MeshBuilder()
    low, high = (-5.0, -5.0), (5.0, 5.0)
    front, side = _front(10, 8.4, 11, 4, 3, 2, OCHRE), _front(10, 8.4, 12, 3, 3)
    _walls(into, low, high, 8.4, [front, side, front, side])
    _ridged_roof(into, low, high, 8.4, 12.6, BROWN_TILES)
    for x in (-2.4, 2.4):
        _dormer(into, x, -4.6, 8.9, -1, 2.4, BROWN_TILES)
        _dormer(into, x, 4.6, 8.9, 1, 2.4, BROWN_TILES)
    _chimney(into, 0, 1.0, 11.4, 13.4)
    return into.mesh()


def _bungalow() -> Mesh:
    into = MeshBuilder()
    low, high = (-7.0, -4.5), (7.0, 4.5)
    front, side = _front(14, 3.0, 14, 5, 1, 2, garage=True, brick=True, big=True), _front(9, 3.0, 15, 3, 1, brick=True)
    _walls(into, low, high, 3.0, [front, side, front, side])
    _ridged_roof(into, low, high, 3.0, 5.9, DARK_TILES, hip=3.2, over=0.6)
    _chimney(into, -2.5, 0.8, 4.9, 6.6)
    return into.mesh()


def _double() -> Mesh:
    """Build a semi-detached brick house."""
    into = MeshBuilder()
    low, high = (-7.0, -4.5), (7.0, 4.5)
    front, side = _front(14, 5.5, 17, 6, 2, 2, brick=True), _front(9, 5.5, 18, 3, 2, brick=True)
    _walls(into, low, high, 5.5, [front, side, front, side])
    _ridged_roof(into, low, high, 5.5, 8.8, RED_TILES)
    _chimney(into, 0, 0.6, 8.0, 9.9)
    for x in (-3.6, 3.6):
        _dormer(into, x, -4.0, 6.0, -1, 2.2, RED_TILES, 1.0)
        _dormer(into, x, 4.0, 6.0, 1, 2.2, RED_TILES, 1.0)
    return into.mesh()


# --- city blocks ---


def make_town_houses(detailed: bool = False) -> list[Mesh]:
    """Build the meshes of class ``building``: town houses.

    Args:
        detailed: Whether to build more of them, with finer textures.
    """
    make = partial(_block, detailed=detailed)
    found = [
        make(14, 12, 3, "plaster", 21, RED_TILES, "gable"),
        make(16, 14, 4, "ornate", 22, DARK_TILES, "mansard"),
        make(12, 13, 3, "brick", 23, BROWN_TILES, "gable", shops=False),
        make(18, 14, 5, "modern", 24, DARK_TILES, "flat", balconies=True),
        make(20, 16, 5, "office", 25, DARK_TILES, "flat"),
        make(11, 12, 3, "shutters", 26, RED_TILES, "gable"),
        make(15, 13, 4, "plaster", 27, BROWN_TILES, "mansard", balconies=True),
    ]
    if detailed:
        found += [
            make(17, 13, 4, "stone", 31, DARK_TILES, "mansard"),
            make(14, 13, 4, "stone", 32, BROWN_TILES, "gable", shops=False),
            make(19, 14, 5, "stone", 33, DARK_TILES, "mansard", shops=False),
            make(13, 12, 3, "plaster", 34, BROWN_TILES, "gable", shops=False),
            make(16, 12, 4, "ornate", 35, RED_TILES, "gable", shops=False),
            make(18, 13, 3, "shutters", 36, BROWN_TILES, "gable", shops=False),
            make(22, 15, 4, "modern", 37, DARK_TILES, "flat", shops=False, balconies=True),
        ]
    return found


def _block(
    width: float,
    depth: float,
    floors: int,
    style: str,
    seed: int,
    colour: Colour,
    top: str,
    shops: bool = True,
    balconies: bool = False,
    detailed: bool = False,
) -> Mesh:
    """Build a town house with ``floors`` above the ground floor."""
    into = MeshBuilder()
    x, y, storey = width / 2, depth / 2, 3.1
    ground = 3.8 if shops else 0.0
    eaves = ground + storey * floors + (0 if shops else storey)
    rows = floors + (0 if shops else 1)
    upper, lower = storeys(seed, style, detailed=detailed), shop_front(seed, detailed=detailed)
    runs = [((-x, -y), (x, -y)), ((x, -y), (x, y)), ((x, y), (-x, y)), ((-x, y), (-x, -y))]
    for (a, b), (c, d) in runs:
        long = abs(c - a) + abs(d - b)
        bays = max(1, round(long / 3.0)) / 4
        if shops:
            into.face(
                [(a, b, 0), (c, d, 0), (c, d, ground), (a, b, ground)],
                Material(texture=lower),
                [(0, 0), (bays, 0), (bays, 1), (0, 1)],
            )
        into.face(
            [(a, b, ground), (c, d, ground), (c, d, eaves), (a, b, eaves)],
            Material(paint=1.0, texture=upper),
            [(0, 0), (bays, 0), (bays, rows / 2), (0, rows / 2)],
        )
    if shops:
        _cornice(into, x + 0.12, y + 0.12, ground - 0.1, ground + 0.15, TRIM_MATERIAL)
    _cornice(into, x + 0.3, y + 0.3, eaves - 0.3, eaves, TRIM_MATERIAL if top != "flat" else ZINC_MATERIAL)
    if top == "gable":
        _ridged_roof(into, (-x, -y), (x, y), eaves, eaves + 0.36 * depth, colour, over=0.3)
        for n in range(max(2, round(width / 5))):
            a = -x + width * (n + 0.5) / max(2, round(width / 5))
            _dormer(into, a, -y + 0.9, eaves + 0.65, -1, 2.4, colour)
            _dormer(into, a, y - 0.9, eaves + 0.65, 1, 2.4, colour)
    elif top == "mansard":
        _mansard(into, x, y, eaves, colour)
    else:
        into.face(
            [(-x, -y, eaves - 0.3), (x, -y, eaves - 0.3), (x, y, eaves - 0.3), (-x, y, eaves - 0.3)],
            Material((0.45, 0.44, 0.43)),
        )
        into.box((-2.2, -1.5, eaves - 0.3), (2.0, 1.8, eaves + 1.8), Material((0.7, 0.7, 0.69)))
    for a in (-0.3, 0.35):
        if top != "flat":
            _chimney(into, a * width, 0.4, eaves + 1.5, eaves + 0.36 * depth + 0.9)
    if balconies:
        rail = Material((0.55, 0.56, 0.58))
        for row in range(1, floors):
            z = ground + row * storey + 0.25
            for a in (-0.25, 0.25):
                for side in (-1, 1):
                    b, c = sorted((side * y, side * (y + 1.3)))
                    into.box(
                        (a * width - 1.4, b, z - 0.15),
                        (a * width + 1.4, c, z + 0.95),
                        rail,
                        tops=Material((0.3, 0.3, 0.31)),
                        bottom=True,
                    )
    return into.mesh()


def _cornice(into: MeshBuilder, x: float, y: float, low: float, high: float, material: Material) -> None:
    """Add a cornice around the house."""
    rings = [[(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)] for z in (low, high)]
    into.loft(rings, material, ends=(True, True))


def _mansard(into: MeshBuilder, x: float, y: float, eaves: float, colour: Colour) -> None:
    """Add a mansard roof with dormers."""
    deep, top = 1.3, eaves + 3.0
    low = [
        (-x - 0.2, -y - 0.2, eaves),
        (x + 0.2, -y - 0.2, eaves),
        (x + 0.2, y + 0.2, eaves),
        (-x - 0.2, y + 0.2, eaves),
    ]
    high = [
        (-x + deep, -y + deep, top),
        (x - deep, -y + deep, top),
        (x - deep, y - deep, top),
        (-x + deep, y - deep, top),
    ]
    for i in range(4):
        j = (i + 1) % 4
        _roof(into, [low[i], low[j], high[j], high[i]], colour)
    peak = [(-x * 0.5, 0, top + 1.0), (x * 0.5, 0, top + 1.0)]
    dark = Material((0.36, 0.36, 0.38))
    into.face([high[0], high[1], peak[1], peak[0]], dark)
    into.face([high[2], high[3], peak[0], peak[1]], dark)
    into.face([high[1], high[2], peak[1]], dark)
    into.face([high[3], high[0], peak[0]], dark)
    number = max(2, round(2 * x / 4))
    for n in range(number):
        a = -x + 2 * x * (n + 0.5) / number
        _dormer(into, a, -y + 0.15, eaves + 0.5, -1, 1.3, colour)
        _dormer(into, a, y - 0.15, eaves + 0.5, 1, 1.3, colour)
