"""Procedural ground meshes: strips of road, pavement and verge along the street, and fields to the horizon."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from ms2.render.scene3d.meshes import Mesh, TextureImage
from ms2.worlds.driving3d.assets.textures import Canvas, Numbers, noise, to_uint8

CURVATURES = (0.0, *(1e-5 * 2**k for k in range(13)))
"""Curvatures in 1/m of the strips' meshes, which are 1 m wide; for another curvature or width, one is scaled."""
START, END, SEGMENTS = -10.0, 150.0, 32
"""Extent of strips along y in metres, and number of their segments."""
KERB_HEIGHT = 0.15
"""Height of a kerb in metres."""
FIELD_SIZE = (400.0, 300.0)
"""Extent of a field along x and y in metres; it is centred at y = `FIELD_MIDDLE`, at a height of `FIELD_HEIGHT`."""
FIELD_MIDDLE, FIELD_HEIGHT = 120.0, -0.06


def lateral_offset(y: Numbers | float, curve: float) -> Float[np.ndarray, "..."]:
    """Compute the lateral offset at y of a strip with curvature ``curve``: curve y^2 / 2 for y >= 0, 0 behind."""
    ahead = np.maximum(np.asarray(y, float), 0.0)
    return curve * ahead * ahead / 2


def segment_positions() -> Float[np.ndarray, " n"]:
    """Return the y positions of a strip's segments, shorter near the camera, where they fill more of the image."""
    fraction = np.linspace(0, 1, SEGMENTS - 1)
    return np.concatenate([[START], 150.0 * (0.35 * fraction + 0.65 * fraction**2)])


def ground_strip(
    texture: TextureImage,
    period: float,
    width: float = 1.0,
    curve: float = 0.0,
    across: float = 1.0,
    kerb: bool = False,
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Mesh:
    """Build a ground strip along y from `START` to `END`, without shadow, tinted by the instance's colour.

    Args:
        texture: Texture of the strip.
        period: Length along y in metres after which the texture repeats.
        width: Width along x in metres.
        curve: Curvature: the centre line is at x = curve y^2 / 2 for y >= 0, and straight behind.
        across: Number of times that the texture repeats along x.
        kerb: Whether to build a kerb: `KERB_HEIGHT` high, with faces on both sides.
        colour: Factor on the texture.
    """
    y = segment_positions()
    x = lateral_offset(y, curve)
    top = KERB_HEIGHT if kerb else 0.0
    half = width / 2
    lines = [(-half, top, 0.0, 0, 1), (half, top, across, 0, 1)]
    if kerb:  # vertical faces, with normals of their own
        lines = [
            (-half, 0.0, 0.0, -1, 0),
            (-half, top, 0.3, -1, 0),
            *lines,
            (half, top, 0.3, 1, 0),
            (half, 0.0, 0.0, 1, 0),
        ]
    slope = curve * np.maximum(y, 0)
    vertices, normals, uv = [], [], []
    for offset, z, u, side, up in lines:
        vertices.append(np.stack([x + offset, y, np.full_like(y, z)], 1))
        way = np.stack([np.full_like(y, side), -side * slope, np.full_like(y, up)], 1)
        normals.append(way / np.linalg.norm(way, axis=1, keepdims=True))
        uv.append(np.stack([np.full_like(y, u), y / period], 1))
    number = len(y)
    triangles = []
    for strip in range(0, len(lines), 2):
        i = np.arange(number - 1) + strip * number
        j = i + number
        triangles += [np.stack([i, j, j + 1], 1), np.stack([i, j + 1, i + 1], 1)]
    return Mesh(
        np.concatenate(vertices).astype(np.float32),
        np.concatenate(normals).astype(np.float32),
        np.concatenate(triangles),
        np.concatenate(uv).astype(np.float32),
        colour,
        paint=1.0,
        texture=0,
        textures=(texture,),
        casts_shadow=False,
    )


def field(texture: TextureImage, period: float, seed: int, patches: float = 0.12) -> Mesh:
    """Build a field to the horizon; large patches in its vertex colours mask the texture's repetition."""
    rng = np.random.default_rng(seed)
    columns, rows = 16, 14
    x = np.linspace(-FIELD_SIZE[0] / 2, FIELD_SIZE[0] / 2, columns + 1)
    fraction = np.linspace(0, 1, rows + 1) ** 1.6  # near ones smaller
    y = FIELD_MIDDLE - FIELD_SIZE[1] / 2 + FIELD_SIZE[1] * fraction
    grid = np.stack(np.meshgrid(x, y), 2).reshape(-1, 2)
    light = 1 + patches * rng.standard_normal((len(grid), 1)).clip(-1.5, 1.5)
    warm = 1 + patches * 0.35 * rng.standard_normal((len(grid), 1)) * np.array([1.0, 0.2, -0.6])
    i, j = (n.ravel() for n in np.meshgrid(np.arange(columns), np.arange(rows)))
    a = j * (columns + 1) + i
    b = a + columns + 1
    return Mesh(
        np.column_stack([grid, np.full(len(grid), FIELD_HEIGHT)]).astype(np.float32),
        np.tile(np.array([0, 0, 1], np.float32), (len(grid), 1)),
        np.concatenate([np.stack([a, a + 1, b + 1], 1), np.stack([a, b + 1, b], 1)]),
        (grid / period).astype(np.float32),
        (light * warm).clip(0, 1.3).astype(np.float32),
        paint=1.0,
        texture=0,
        textures=(texture,),
        casts_shadow=False,
    )


# --- textures ---


def asphalt(
    seed: int, columns: int, rows: int, metres: tuple[float, float], tone: float = 0.40, wear: float = 1.0
) -> Canvas:
    """Draw worn asphalt, tileable along the street: wheel tracks, patches, cracks and stains.

    Args:
        seed: Seed of the wear.
        columns: Columns of the texture, across the street.
        rows: Rows of the texture.
        metres: Width and length of the texture in metres.
        tone: Mean grey.
        wear: Factor on the contrast of the wear.
    """
    rng = np.random.default_rng(seed)
    shape = (rows, columns)
    light = 0.022 * rng.standard_normal(shape) + 0.018 * noise(rng, shape, (rows // 3, columns // 3))
    light += 0.016 * noise(rng, shape, (max(2, rows // 64), max(2, columns // 48)))
    light += 0.020 * noise(rng, shape, (2, max(4, int(metres[0] * 2))))  # along the wheels' tracks
    for _ in range(3):
        w, h = int(rng.uniform(0.5, 1.6) / metres[0] * columns), int(rng.uniform(0.8, 3.5) / metres[1] * rows)
        i, j = int(rng.integers(rows)), int(rng.integers(max(1, columns - w)))
        part = np.ix_(np.arange(i, i + h) % rows, np.arange(j, min(j + w, columns)))
        light[part] += rng.choice([-0.05, -0.035, 0.03])
        for k in (i, i + h - 1):
            light[k % rows, j : j + w] -= 0.06
        for k in (j, min(j + w, columns) - 1):
            light[np.arange(i, i + h) % rows, k] -= 0.06
    for n in range(6):
        _crack(rng, light, along=n < 4)
    return (tone + wear * light)[..., None] * np.array([1.0, 0.995, 0.985])


def _crack(rng: np.random.Generator, light: Float[np.ndarray, "h w"], along: bool) -> None:
    """Draw an irregular dark line along or across the street; one along the whole street is tileable."""
    rows, columns = light.shape
    if along:
        number = rows if rng.random() < 0.5 else int(rows * rng.uniform(0.2, 0.6))
        steps = rng.normal(0, 0.55, number).cumsum()
        steps -= np.linspace(0, steps[-1], number)
        i = (rng.integers(rows) + np.arange(number)) % rows
        j = (rng.uniform(0.08, 0.92) * columns + steps).astype(int).clip(0, columns - 1)
    else:
        number = int(columns * rng.uniform(0.3, 0.9))
        i = (rng.integers(rows) + rng.normal(0, 0.5, number).cumsum().astype(int)) % rows
        j = (rng.integers(columns - number + 1) + np.arange(number)).clip(0, columns - 1)
    light[i, j] -= 0.10
    light[i, (j + 1).clip(0, columns - 1)] -= 0.04


def _mark(
    canvas: Canvas,
    rng: np.random.Generator,
    x: float,
    width: float,
    metres: tuple[float, float],
    dashes: Sequence[tuple[float, float]] = ((0.0, 1e9),),
    strength: float = 0.85,
) -> None:
    """Draw a worn white lane marking with its left edge at x, in intervals along the street."""
    rows, columns = canvas.shape[:2]
    place = (np.arange(columns) + 0.5) / columns * metres[0]
    step = metres[0] / columns
    cover = np.clip(0.5 + (width / 2 - abs(place - x)) / step, 0, 1)
    y = (np.arange(rows) + 0.5) / rows * metres[1]
    on = np.zeros(rows)
    for start, end in dashes:
        on = np.maximum(on, (y >= start) & (y < end))
    wear = np.clip(0.9 + 0.16 * noise(rng, (rows, columns), (rows // 4, columns // 4)), 0.25, 1.0)
    wear = wear * np.clip(0.93 + 0.1 * noise(rng, (rows, columns), (4, 2)), 0.5, 1.0)
    fraction = (cover[None] * on[:, None] * wear * strength)[..., None]
    canvas[:] = canvas * (1 - fraction) + np.array([0.93, 0.93, 0.91]) * fraction


ROAD_PERIOD = 18.0
"""Period of a road's texture in metres: two periods of German lane markings, dashes of 3 m and gaps of 6 m."""
LANE_DASHES = ((0.0, 3.0), (9.0, 12.0))


@lru_cache(maxsize=2)
def _strip_textures(detailed: bool) -> dict[str, tuple[TextureImage, float, float]]:
    """Draw each ground strip's texture; also return its period along y in metres, and its repetitions across."""
    # light and even, as asphalt is on photographs, with four times the pixels
    finer, lighter, wear = (2, 0.10, 0.55) if detailed else (1, 0.0, 1.0)
    rng = np.random.default_rng(100)
    found: dict[str, tuple[TextureImage, float, float]] = {}

    def road(
        name: str, seed: int, metres: float, columns: int, lines: Sequence[tuple[float, bool]], tone: float = 0.40
    ) -> None:
        size = (metres, ROAD_PERIOD)
        columns *= finer
        canvas = asphalt(seed, columns, 512 * finer, size, tone + lighter, wear)
        gutter = np.clip(1 - np.minimum(np.arange(columns), np.arange(columns)[::-1]) / columns * metres / 0.35, 0, 1)
        canvas *= (1 - 0.16 * gutter)[None, :, None]
        for x, dashed in lines:
            _mark(canvas, rng, x, 0.14, size, LANE_DASHES if dashed else ((0.0, 1e9),))
        found[name] = to_uint8(canvas), ROAD_PERIOD, 1.0

    road("road_plain", 1, 6.0, 256, ())
    road("road_two", 2, 7.0, 256, ((0.25, False), (3.5, True), (6.75, False)))
    road(
        "road_four",
        3,
        14.0,
        512,
        ((0.25, False), (3.6, True), (6.88, False), (7.12, False), (10.4, True), (13.75, False)),
        0.42,
    )
    road("road_one", 4, 7.0, 256, ((0.25, False), (3.5, True), (6.75, False)), 0.44)
    canvas = asphalt(5, 128 * finer, 512 * finer, (2.5, ROAD_PERIOD), 0.45 + lighter, wear)
    _mark(canvas, rng, 0.12, 0.10, (2.5, ROAD_PERIOD))
    for start in (0.0, 6.0, 12.0):
        _mark(canvas, rng, 1.25, 2.4, (2.5, ROAD_PERIOD), ((start, start + 0.1),), 0.7)
    found["parking"] = to_uint8(canvas), ROAD_PERIOD, 1.0
    found["walk"] = to_uint8(_paving(11, 256 * finer, 6, 24, (0.60, 0.58, 0.56))), 8.0, 1.0
    found["kerb"] = to_uint8(_kerb(12)), 8.0, 1.0
    greens = DRY_GREENS if detailed else ((0.30, 0.37, 0.17), (0.42, 0.45, 0.24))
    found["grass"] = to_uint8(_grass(13, *greens)), 8.0, 1.0
    found["gravel"] = to_uint8(_gravel(14, (0.56, 0.53, 0.48))), 8.0, 1.0
    return found


def _paving(seed: int, side: int, across: int, along: int, colour: Numbers) -> Canvas:
    """Draw slabs in rows, every second row shifted by half a slab."""
    rng = np.random.default_rng(seed)
    y, x = (n / side for n in np.mgrid[:side, :side])
    row = (y * along).astype(int)
    shifted = x * across + 0.5 * (row % 2)
    column = shifted.astype(int) % across
    each = 1 + 0.05 * rng.standard_normal((along, across))[row, column]
    joint = (y * along % 1 < 0.12) | (shifted % 1 < 0.06)
    light = each * np.where(joint, 0.80, 1.0) + 0.025 * rng.standard_normal((side, side))
    light += 0.025 * noise(rng, (side, side), (5, 3))
    return light[..., None] * np.asarray(colour)


def _kerb(seed: int) -> Canvas:
    """Draw light kerbstones of 1 m."""
    rng = np.random.default_rng(seed)
    rows, columns = 256, 16
    y = np.arange(rows) / rows * 8
    each = 1 + 0.06 * rng.standard_normal(8)[y.astype(int)]
    light = each * np.where(y % 1 < 0.05, 0.6, 1.0)
    grain = 0.03 * rng.standard_normal((rows, columns)) + 0.03 * noise(rng, (rows, columns), (16, 2))
    return (light[:, None] + grain)[..., None] * np.array([0.66, 0.65, 0.63])


def _grass(seed: int, low: Numbers, high: Numbers, tufts: float = 0.12) -> Canvas:
    """Draw blades and tufts of grass, without large patches, whose repetition would be visible."""
    rng = np.random.default_rng(seed)
    shape = (256, 256)
    fraction = np.clip(0.5 + 0.22 * noise(rng, shape, (28, 28)) + 0.14 * noise(rng, shape, (11, 11)), 0, 1)[..., None]
    light = 1 + tufts * noise(rng, shape, (128, 128)) + 0.09 * rng.standard_normal(shape)
    light -= 0.16 * (noise(rng, shape, (40, 40)) > 1.2)
    return (np.asarray(low) * (1 - fraction) + np.asarray(high) * fraction) * light[..., None]


def _gravel(seed: int, colour: Numbers) -> Canvas:
    rng = np.random.default_rng(seed)
    shape = (256, 256)
    light = (
        1 + 0.10 * noise(rng, shape, (90, 90)) + 0.06 * rng.standard_normal(shape) + 0.04 * noise(rng, shape, (12, 12))
    )
    return light[..., None] * np.asarray(colour)


DRY_GREENS = ((0.27, 0.31, 0.19), (0.38, 0.39, 0.27))
"""Darkest and lightest green of meadows in the detailed set, less saturated than those of the plain one."""
FIELDS = ("grass", "dry", "dirt", "paving")
GROUND_STRIPS = ("road_plain", "road_two", "road_four", "road_one", "walk", "kerb", "grass", "gravel", "parking")


@lru_cache(maxsize=2)
def ground_meshes(detailed: bool = False) -> dict[str, Mesh]:
    """Build all ground meshes by name: `<strip>_<i>` of 1 m width with curvature ``CURVATURES[i]``, and `field_<name>`.

    The instance's colour tints them. The result is cached; do not modify it.

    Args:
        detailed: Whether to use the textures of the detailed set.
    """
    found = {}
    for name, (texture, period, across) in _strip_textures(detailed).items():
        for i, curve in enumerate(CURVATURES):
            found[f"{name}_{i}"] = ground_strip(texture, period, 1.0, curve, across, kerb=name == "kerb")
    fields = {
        "grass": (_grass(21, *(DRY_GREENS if detailed else ((0.29, 0.36, 0.16), (0.40, 0.43, 0.22)))), 9.0, 0.12),
        "dry": (_grass(22, (0.46, 0.42, 0.25), (0.58, 0.53, 0.34)), 9.0, 0.10),
        "dirt": (_gravel(23, (0.47, 0.40, 0.32)), 7.0, 0.10),
        "paving": (_paving(24, 256, 12, 24, (0.54, 0.53, 0.51)), 6.0, 0.05),
    }
    for seed, (name, (canvas, period, patches)) in enumerate(fields.items()):
        found[f"field_{name}"] = field(to_uint8(canvas), period, seed, patches)
    return found
