"""Sprites and ground textures of Aerial 2D, seen from above, procedural or from files."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.worlds.aerial2d.declaration import AERIAL_CLASSES, Colour

Plane = NDArray[np.floating[Any]]
"""One channel of a sprite or texture: values on a grid of points (h, w)."""

SUPERSAMPLING = 4
"""Sample points along each side of a texel."""


ROAD_LANE_COUNTS = (0, 2, 4, 6)
"""Numbers of lanes of the road sprites; 0 is a track without lane markings."""
SPRITE_LANE_WIDTH = 3.5
"""Width in metres of the lanes of road sprites, which are scaled to the roads' width."""
SHOULDER_WIDTH = 0.09
"""Width of the shoulder on each side of a road, as a fraction of the road's width."""


class SpriteCanvas:
    """Canvas for procedural sprites, in metres with x forward and y to the right.

    Args:
        length: Extent along x in metres, centred at 0.
        width: Extent along y in metres, centred at 0.
        texels_x: Texels along x.
        texels_y: Texels along y.
    """

    def __init__(self, length: float, width: float, texels_x: int, texels_y: int) -> None:
        columns, lines = texels_x * SUPERSAMPLING, texels_y * SUPERSAMPLING
        x = (np.arange(columns, dtype=np.float32) + 0.5) / columns * length - length / 2
        y = (np.arange(lines, dtype=np.float32) + 0.5) / lines * width - width / 2
        self.x, self.y = np.meshgrid(x, y)
        self.step = length / columns
        self.planes = np.zeros((5, lines, columns), np.float32)

    def box(self, x0: float, x1: float, y0: float, y1: float, radius: float = 0.0) -> Plane:
        """Compute the coverage of a rounded box."""
        dx = np.abs(self.x - (x0 + x1) / 2) - (x1 - x0) / 2 + radius
        dy = np.abs(self.y - (y0 + y1) / 2) - (y1 - y0) / 2 + radius
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - radius
        return self.coverage(outside)

    def disc(self, x: float, y: float, radius: float) -> Plane:
        """Compute the coverage of a disc."""
        return self.coverage(np.hypot(self.x - x, self.y - y) - radius)

    def taper(self, x0: float, x1: float, half0: float, half1: float) -> Plane:
        """Compute the coverage of a symmetric trapezoid from x0 to x1 with half widths half0 to half1."""
        fraction = np.clip((self.x - x0) / (x1 - x0), 0, 1)
        beside = np.abs(self.y) - (half0 + fraction * (half1 - half0))
        return self.coverage(np.maximum(beside, np.maximum(x0 - self.x, self.x - x1)))

    def coverage(self, distance: Plane) -> Plane:
        """Compute antialiased coverage from a signed distance in metres, negative inside."""
        cover: Plane = np.clip(0.5 - distance / self.step, 0, 1)
        return cover

    def fill(self, cover: Plane, colour: Colour) -> None:
        """Blend a shape of fixed colour over the sprite."""
        self._over(cover, (*colour, 1.0, 0.0))

    def paint(self, cover: Plane, shade: float | Plane = 1.0) -> None:
        """Blend a shape tinted by the object's colour, times a shade, over the sprite."""
        self._over(cover, (0.0, 0.0, 0.0, 1.0, shade))

    def shade(self, cover: Plane, factor: float) -> None:
        """Multiply the colours within a shape by ``factor``, weighted by coverage."""
        weighted = 1 - cover * (1 - factor)
        self.planes[:3] *= weighted
        self.planes[4] *= weighted

    def downsample(self) -> Float[Tensor, "5 p q"]:
        """Downsample to texels, each the mean of its sample points."""
        return F.avg_pool2d(torch.from_numpy(self.planes)[None], SUPERSAMPLING)[0]

    def _over(self, cover: Plane, values: Sequence[float | Plane]) -> None:
        for plane, value in zip(self.planes, values, strict=True):
            plane += cover * (value - plane)


# --- cars ---

GLASS_COLOUR = (0.10, 0.13, 0.17)
LAMP_COLOUR = (1.0, 0.98, 0.86)
TAIL_LIGHT_COLOUR = (0.82, 0.05, 0.05)


class CarBody(NamedTuple):
    """Positions along a car in metres ahead of its centre."""

    windscreen_foot: float
    windscreen_head: float
    roof_end: float
    rear_window_foot: float


CAR_BODIES = {
    "sedan": CarBody(1.00, 0.30, -0.95, -1.55),
    "hatchback": CarBody(1.15, 0.45, -1.35, -1.95),
    "estate": CarBody(1.05, 0.35, -1.70, -2.08),
    "van": CarBody(1.75, 1.15, -2.10, -2.22),
    "pickup": CarBody(1.05, 0.45, -0.30, -0.48),
    "coupe": CarBody(0.70, -0.05, -0.80, -1.60),
}


def _car(canvas: SpriteCanvas, body: str) -> None:
    shape = CAR_BODIES[body]
    foot, head = shape.windscreen_foot, shape.windscreen_head
    roof, tail = shape.roof_end, shape.rear_window_foot
    canvas.paint(canvas.box(-2.25, 2.25, -0.95, 0.95, 0.38), 0.72)
    canvas.paint(canvas.box(-2.15, 2.15, -0.84, 0.84, 0.32), 1.0)
    canvas.paint(canvas.box(foot + 0.1, 2.0, -0.55, 0.55, 0.25), 1.10)
    for side in (-1, 1):
        canvas.paint(canvas.box(foot - 0.35, foot - 0.1, 0.93 * side - 0.07, 0.93 * side + 0.07, 0.03), 0.9)
        canvas.fill(canvas.box(2.0, 2.22, 0.63 * side - 0.2, 0.63 * side + 0.2, 0.08), LAMP_COLOUR)
        canvas.fill(canvas.box(-2.22, -2.05, 0.66 * side - 0.2, 0.66 * side + 0.2, 0.05), TAIL_LIGHT_COLOUR)
    canvas.fill(canvas.taper(head, foot, 0.66, 0.80), GLASS_COLOUR)  # the windscreen is widest at its foot
    canvas.fill(canvas.box(roof, head + 0.1, -0.82, 0.82, 0.1), GLASS_COLOUR)
    canvas.fill(canvas.taper(tail, roof + 0.05, 0.76, 0.68), GLASS_COLOUR)
    canvas.paint(canvas.box(roof, head, -0.68, 0.68, 0.16), 1.0)
    canvas.paint(canvas.box(roof + 0.15, head - 0.12, -0.5, 0.42, 0.2), 1.22)
    if body == "pickup":
        canvas.fill(canvas.box(-2.05, -0.62, -0.70, 0.70, 0.08), (0.16, 0.16, 0.17))
        for place in (-1.75, -1.4, -1.05, -0.75):
            canvas.fill(canvas.box(place, place + 0.1, -0.62, 0.62), (0.26, 0.26, 0.27))
    if body in {"estate", "van"}:
        for y in (-0.58, 0.58):
            canvas.shade(canvas.box(roof + 0.1, head - 0.1, y - 0.05, y + 0.05), 0.6)


def _truck(canvas: SpriteCanvas, body: str) -> None:
    canvas.paint(canvas.box(2.9, 5.0, -1.2, 1.2, 0.3), 0.95)
    canvas.paint(canvas.box(3.1, 4.3, -0.9, 0.9, 0.2), 1.15)
    canvas.fill(canvas.box(4.4, 4.85, -1.0, 1.0, 0.15), GLASS_COLOUR)
    canvas.fill(canvas.box(2.5, 2.9, -0.7, 0.7), (0.12, 0.12, 0.13))
    if body == "box":
        canvas.fill(canvas.box(-5.0, 2.6, -1.25, 1.25, 0.08), (0.70, 0.71, 0.72))
        canvas.fill(canvas.box(-4.8, 2.4, -1.05, 1.05, 0.08), (0.90, 0.91, 0.92))
        for place in np.arange(-4.0, 2.0, 1.0):
            canvas.shade(canvas.box(place, place + 0.12, -1.05, 1.05), 0.85)
    else:
        canvas.paint(canvas.box(-5.0, 2.6, -1.25, 1.25, 0.08), 0.7)
        canvas.fill(canvas.box(-4.75, 2.35, -1.05, 1.05, 0.05), (0.35, 0.27, 0.20))
        for place in np.arange(-4.3, 2.2, 0.9):
            canvas.shade(canvas.disc(place, 0.3 * math.sin(5 * place), 0.75), 1.25)
    for y in (-0.85, 0.85):
        canvas.fill(canvas.box(-5.0, -4.85, y - 0.25, y + 0.25), TAIL_LIGHT_COLOUR)
        canvas.fill(canvas.box(4.85, 5.0, y - 0.25, y + 0.25), LAMP_COLOUR)


# --- houses; their left side (y < 0) is the lit one ---

LIT, DARK = 1.12, 0.66


def _facets(canvas: SpriteCanvas, x0: float, x1: float, y0: float, y1: float, hip: float) -> Plane:
    """Compute the shade of a ridged roof over a box; its ends slope over ``hip`` metres (0 for a gable)."""
    middle, half = (y0 + y1) / 2, (y1 - y0) / 2
    across = half - np.abs(canvas.y - middle)  # metres in from the eaves
    sides = np.where(canvas.y < middle, LIT, DARK)
    courses = 1 + 0.07 * np.sin(across * 2 * math.pi / 0.75)  # rows of tiles
    if hip:
        along = np.minimum(canvas.x - x0, x1 - canvas.x) * (half / hip)
        sides = np.where(along < across, np.where(canvas.x > 0, 0.98, 0.82), sides)
        across = np.minimum(across, along)
    edge = np.where(across < 0.3, 0.85, 1)
    shade: Plane = (sides * courses * edge).astype(np.float32)
    return shade


def _roof(canvas: SpriteCanvas, x0: float, x1: float, y0: float, y1: float, hip: float = 0.0) -> None:
    canvas.paint(canvas.box(x0, x1, y0, y1), _facets(canvas, x0, x1, y0, y1, hip))
    middle = (y0 + y1) / 2
    canvas.paint(canvas.box(x0 + hip, x1 - hip, middle - 0.13, middle + 0.13), 1.25)


def _chimney(canvas: SpriteCanvas, x: float, y: float) -> None:
    canvas.shade(canvas.box(x - 0.5, x + 0.8, y - 0.1, y + 1.1), 0.55)
    canvas.fill(canvas.box(x - 0.5, x + 0.5, y - 0.4, y + 0.4), (0.55, 0.38, 0.32))
    canvas.fill(canvas.box(x - 0.25, x + 0.25, y - 0.18, y + 0.18), (0.12, 0.10, 0.10))


def _flat(canvas: SpriteCanvas) -> None:
    canvas.fill(canvas.box(-6, 6, -4.5, 4.5, 0.1), (0.80, 0.79, 0.77))
    canvas.fill(canvas.box(-5.55, 5.55, -4.05, 4.05), (0.45, 0.45, 0.46))
    canvas.paint(canvas.box(-5.55, 5.55, -3.6, 4.05), 0.95)
    for x, y in ((-3.6, -1.8), (-3.6, 0.4), (-3.6, 2.6)):
        canvas.shade(canvas.box(x - 0.8, x + 1.2, y - 0.4, y + 1.0), 0.6)
        canvas.fill(canvas.box(x - 0.9, x + 0.9, y - 0.6, y + 0.6, 0.1), (0.72, 0.80, 0.86))
    canvas.shade(canvas.box(1.6, 4.6, -0.6, 3.0), 0.55)
    canvas.fill(canvas.box(1.2, 4.0, -1.2, 2.2), (0.78, 0.78, 0.76))
    canvas.fill(canvas.disc(2.6, 0.5, 0.8), (0.40, 0.41, 0.42))


def _house(canvas: SpriteCanvas, roof: str) -> None:
    if roof == "flat":
        _flat(canvas)
    elif roof == "hip":
        _roof(canvas, -6, 6, -4.5, 4.5, hip=4.2)
        _chimney(canvas, -1.0, 1.4)
    elif roof == "pyramid":
        _roof(canvas, -6, 6, -4.5, 4.5, hip=6)
        _chimney(canvas, 2.2, -1.0)
    elif roof == "cross":
        canvas.paint(canvas.box(-6, 6, -4.5, 4.5), _facets(canvas, -6, 6, -4.5, 4.5, 0))
        wing = np.abs(canvas.x - 1.5)
        cover = canvas.coverage(np.maximum(wing - 2.6 * np.clip(np.abs(canvas.y) / 4.5, 0, 1), -canvas.y))
        canvas.paint(cover, np.where(canvas.x > 1.5, 0.98, 0.80).astype(np.float32))
        canvas.paint(canvas.box(-6, 6, -0.13, 0.13), 1.25)
        canvas.paint(canvas.box(1.38, 1.62, 0, 4.5), 1.15)
        _chimney(canvas, -3.5, -1.6)
    else:
        _roof(canvas, -6, 6, -4.5, 4.5)
        _chimney(canvas, 3.0 if roof == "solar" else -3.4, 1.0)
        if roof == "solar":
            for x in (-4.6, -2.5, -0.4):
                for y in (-3.9, -2.2):
                    canvas.fill(canvas.box(x, x + 1.95, y, y + 1.55), (0.09, 0.13, 0.27))
                    canvas.fill(canvas.box(x + 0.93, x + 1.02, y, y + 1.55), (0.35, 0.40, 0.52))
        if roof == "dormers":
            for x in (-1.2, 2.0):
                canvas.shade(canvas.box(x - 0.7, x + 1.3, -3.4, -1.2), 0.62)
                canvas.paint(canvas.box(x - 0.9, x + 0.9, -3.5, -1.4), 1.2)
                canvas.fill(canvas.box(x - 0.75, x + 0.75, -3.75, -3.45), (0.85, 0.86, 0.86))


# --- trees ---


def _tree(canvas: SpriteCanvas, crown: str) -> None:
    rng = np.random.default_rng(list(crown.encode()))
    around = np.arctan2(canvas.y, canvas.x)
    conifer, sparse = crown.startswith("conifer"), crown.startswith("sparse")
    outline = sum(rng.uniform(0.4, 1) * np.cos(n * around + rng.uniform(0, 2 * math.pi)) / n for n in range(2, 12))
    outline = 2.66 + 0.24 * np.clip(outline, -1.5, 1.3)
    if conifer:
        outline = 2.62 + 0.30 * np.cos(11 * around + rng.uniform(0, 6)) + 0.1 * np.cos(5 * around)
    out = np.hypot(canvas.x, canvas.y)
    cover = canvas.coverage(out - outline)
    canvas.paint(cover, 0.58)
    if conifer:
        for tier in (2.8, 2.1, 1.4, 0.75):  # whorls of branches, each above the one before
            wave = 0.85 + 0.15 * np.cos(11 * around + 3 * tier)
            ring = np.clip(out / (tier * wave), 0, 1)
            canvas.paint(
                canvas.coverage(out - tier * wave) * cover, (1.16 - 0.13 * tier - 0.22 * ring).astype(np.float32)
            )
        return
    for fraction in np.linspace(0.25, 1, 26 if sparse else 60):  # clumps of leaves, from low and outside to high
        distance = 2.3 * math.sqrt(rng.uniform(0, 1)) * (1.15 - 0.55 * fraction)
        direction, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.38, 0.72)
        x, y = distance * math.cos(direction), distance * math.sin(direction)
        depth = np.clip(1 - np.hypot(canvas.x - x, canvas.y - y) / radius, 0, 1)
        clump = (0.62 + 0.42 * fraction + 0.22 * depth).astype(np.float32)
        canvas.paint(canvas.coverage(np.hypot(canvas.x - x, canvas.y - y) - radius) * cover, clump)


# --- roads ---


def _road(canvas: SpriteCanvas, lanes: int, width: float) -> None:
    rng = np.random.default_rng(lanes)
    half = width / 2
    shoulder = half * (1 + 2 * SHOULDER_WIDTH) - half
    ragged = 0.25 * shoulder * _blur(rng.standard_normal(canvas.x.shape), 6 * SUPERSAMPLING)
    # less than half opaque, so that a road's surface ends at its asphalt
    soft = 0.45 * np.clip(1 - (np.abs(canvas.y) - half) / (0.75 * shoulder) + ragged, 0, 1)
    canvas.fill(soft.astype(np.float32), (0.50, 0.45, 0.34))
    grain = 1 + 0.05 * _blur(rng.standard_normal(canvas.x.shape), SUPERSAMPLING)
    grain += 0.025 * _blur(rng.standard_normal(canvas.x.shape), 12 * SUPERSAMPLING)
    lane = width / max(lanes, 2)
    tracks = 1 - 0.07 * np.cos(4 * math.pi * (canvas.y - half) / lane)  # tyres darken their tracks
    asphalt = canvas.coverage(np.abs(canvas.y) - half)
    canvas.paint(asphalt, (grain * tracks).astype(np.float32))
    canvas.shade(asphalt * np.clip(1 - (half - np.abs(canvas.y)) / 0.5, 0, 1).astype(np.float32), 0.82)
    canvas.fill(_marks(canvas, lanes, half, lane), (0.93, 0.93, 0.91))


def _marks(canvas: SpriteCanvas, lanes: int, half: float, lane: float) -> Plane:
    """Compute the coverage of lane markings: solid at the edges, dashed between lanes, double between directions."""
    if not lanes:
        return np.zeros_like(canvas.x)
    beside = np.abs(canvas.y)
    dashes = np.clip(0.5 + (1.5 - np.abs(np.mod(canvas.x, 6) - 3)) / canvas.step, 0, 1)
    marks = canvas.coverage(np.abs(beside - half + 0.4) - 0.1)
    if lanes == 2:
        return np.maximum(marks, dashes * canvas.coverage(beside - 0.11)).astype(np.float32)
    marks = np.maximum(marks, canvas.coverage(np.abs(beside - 0.2) - 0.08))
    for divider in range(1, lanes // 2):
        marks = np.maximum(marks, dashes * canvas.coverage(np.abs(beside - divider * lane) - 0.11))
    return marks.astype(np.float32)


def road_lanes(width: Float[Tensor, " s"]) -> Tensor:
    """Return the index in `ROAD_LANE_COUNTS` of each road's width."""
    return torch.stack([width > edge for edge in (4.0, 10.5, 17.5)]).sum(0)


# --- ground ---


def _blur(noise: Plane, scale: float, stretch: float = 1.0) -> Plane:
    """Smooth noise, tileable, to details of ``scale`` points (times ``stretch`` along x) and variance 1."""
    fy, fx = np.fft.fftfreq(noise.shape[0])[:, None], np.fft.rfftfreq(noise.shape[1])[None]
    keep = np.exp(-0.5 * (scale * 1.5) ** 2 * (fy**2 + (fx * stretch) ** 2))
    keep[0, 0] = 0
    smooth = np.fft.irfft2(np.fft.rfft2(noise) * keep, s=noise.shape)
    plane: Plane = (smooth / smooth.std()).astype(np.float32)
    return plane


@dataclass(frozen=True)
class GroundTexture:
    """Colours, grain and furrows of a ground texture.

    Attributes:
        low: Colour of the darkest patches.
        high: Colour of the lightest patches.
        grain: Relative standard deviation from pixel to pixel.
        tufts: Strength of dark spots of 1 to 2 m.
        furrows: Relative depth of parallel lines.
        spacing: Distance between the lines in metres.
        slant: Slope of the lines in periods of y per 4 periods of x.
    """

    low: Colour
    high: Colour
    grain: float = 0.04
    tufts: float = 0.0
    furrows: float = 0.0
    spacing: float = 2.5
    slant: int = 0


GROUND_TEXTURES = (
    GroundTexture((0.34, 0.43, 0.20), (0.46, 0.53, 0.27), tufts=0.05),  # meadow
    GroundTexture((0.40, 0.51, 0.25), (0.46, 0.57, 0.29), grain=0.03, furrows=0.04, spacing=4, slant=0),  # mown lawn
    GroundTexture((0.58, 0.53, 0.33), (0.69, 0.63, 0.42), tufts=0.06),  # dry grass
    GroundTexture((0.48, 0.37, 0.27), (0.57, 0.45, 0.33), furrows=0.08, spacing=1.8, slant=3),  # ploughed soil
    GroundTexture((0.40, 0.48, 0.20), (0.52, 0.58, 0.28), furrows=0.12, spacing=2.2, slant=-2),  # crops
    GroundTexture((0.74, 0.64, 0.38), (0.80, 0.71, 0.46), furrows=0.05, spacing=3.0, slant=8),  # ripe grain
    GroundTexture((0.63, 0.58, 0.48), (0.72, 0.67, 0.57), grain=0.05, tufts=0.03),  # sand and gravel
    GroundTexture((0.44, 0.44, 0.24), (0.60, 0.57, 0.34), tufts=0.09),  # heath
)


def _ground(texture: GroundTexture, side: int, metres: float, seed: int) -> Float[Tensor, "3 t t"]:
    """Build a tileable ground texture: ``side`` texels per side of a square of ``metres``."""
    rng = np.random.default_rng(seed)
    texel = metres / side
    patches = _blur(rng.standard_normal((side, side)), 12 / texel) + 0.6 * _blur(
        rng.standard_normal((side, side)), 3.5 / texel
    )
    fraction = np.clip(0.5 + patches / 3.5, 0, 1)[..., None]
    colour = np.asarray(texture.low) * (1 - fraction) + np.asarray(texture.high) * fraction
    light = 1 + texture.grain * _blur(rng.standard_normal((side, side)), max(0.45, 0.25 / texel))
    light += 0.6 * texture.grain * _blur(rng.standard_normal((side, side)), 1.2 / texel)
    spots = _blur(rng.standard_normal((side, side)), 1.0 / texel)
    light -= 2.5 * texture.tufts * np.clip(spots - 1.2, 0, 1)
    if texture.furrows:
        lines = max(1, round(metres / texture.spacing))
        y, x = np.mgrid[:side, :side] / side
        wobble = 0.25 * _blur(rng.standard_normal((side, side)), 10 / texel)
        light += texture.furrows * np.sin(2 * math.pi * (lines * y + texture.slant * (lines // 16) * x) + wobble)
    return torch.from_numpy(np.clip(colour * light[..., None], 0, 1).astype(np.float32)).permute(2, 0, 1)


# --- all together ---


@dataclass(frozen=True)
class SpriteProcedure:
    """How the sprites of a class are drawn.

    Attributes:
        draw: Function that draws a model on a canvas.
        models: Names of the models.
    """

    draw: Callable[[SpriteCanvas, str], None]
    models: tuple[str, ...]


SPRITE_PROCEDURES: dict[str, SpriteProcedure] = {
    "car": SpriteProcedure(_car, tuple(CAR_BODIES)),
    "truck": SpriteProcedure(_truck, ("box", "tipper")),
    "house": SpriteProcedure(_house, ("gable", "hip", "flat", "solar", "pyramid", "dormers", "cross")),
    "tree": SpriteProcedure(_tree, ("oak", "lime", "ash", "conifer", "maple", "sparse", "beech", "conifer2")),
}
SHADOW_BLUR = 0.9
"""Width of a shadow's soft edge in metres."""


@dataclass(frozen=True)
class Atlas:
    """Texture atlas of all sprites, with their regions in units of `torch.nn.functional.grid_sample`.

    Attributes:
        sheet: Red, green and blue of unpainted parts, opacity, and shade of painted parts, the first three and the
            last premultiplied by the opacity.
        centre: Column and row of each sprite's centre.
        half: Half of each sprite's width and height.
        bleed: Half a texel relative to half of the sprite, along and across: interpolation extends it so far.
        first: Index of each class's first sprite.
        number: Number of each class's sprites.
        shadow: Index of each class's shadow.
        palette: Colours of each class's paint, padded with the last.
        colours: Number of each class's colours.
    """

    sheet: Float[Tensor, "1 5 h w"]
    centre: Float[Tensor, "m 2"]
    half: Float[Tensor, "m 2"]
    bleed: Float[Tensor, "m 2"]
    first: Tensor
    number: Tensor
    shadow: Tensor
    palette: Float[Tensor, "k p 3"]
    colours: Tensor


@lru_cache(maxsize=4)
def make_atlas(classes: tuple[str, ...], texels: float, assets: str | None = None) -> Atlas:
    """Build the atlas of classes at ``texels`` per metre.

    Raises:
        UserError: If a file under ``assets`` is not an image.
    """
    sprites: list[Tensor] = []
    first, number, shadow = [], [], []
    for name in classes:
        own = read_sprites(assets, name, texels) if assets is not None else []
        own = own or procedural_sprites(name, texels)
        first.append(len(sprites))
        number.append(len(own))
        shadow.append(len(sprites) + len(own))
        sprites += [*own, _shadow(name, texels)]
    repeating = {start for start, name in zip(first, classes, strict=True) if name == "Road"}
    sheet, places = _pack(sprites, {start + lane for start in repeating for lane in range(len(ROAD_LANE_COUNTS))})
    height, width = sheet.shape[1:]
    size = torch.tensor([width, height])
    sides = torch.tensor([[p.shape[2], p.shape[1]] for p in sprites])
    corner = torch.tensor(places)
    palettes = [AERIAL_CLASSES[name].palette for name in classes]
    most = max(map(len, palettes))
    return Atlas(
        sheet=sheet[None],
        centre=(2 * corner + sides) / size - 1,
        half=sides / size,
        bleed=1 / sides,
        first=torch.tensor(first),
        number=torch.tensor(number),
        shadow=torch.tensor(shadow),
        palette=torch.tensor([[*p, *[p[-1]] * (most - len(p))] for p in palettes]),
        colours=torch.tensor([len(p) for p in palettes]),
    )


def procedural_sprites(name: str, texels: float) -> list[Float[Tensor, "5 _ _"]]:
    """Draw a class's sprites; those of roads are in the order of `ROAD_LANE_COUNTS`."""
    size = AERIAL_CLASSES[name].sprite_size
    if name == "Road":
        found = []
        for lanes in ROAD_LANE_COUNTS:
            width = SPRITE_LANE_WIDTH * max(lanes, 1)
            whole = width * (1 + 2 * SHOULDER_WIDTH)
            canvas = SpriteCanvas(size.length, whole, _texels(size.length, texels), _texels(whole, texels))
            _road(canvas, lanes, width)
            found.append(canvas.downsample())
        return found
    procedure = SPRITE_PROCEDURES[name]
    found = []
    for model in procedure.models:
        canvas = SpriteCanvas(size.length, size.width, _texels(size.length, texels), _texels(size.width, texels))
        procedure.draw(canvas, model)
        found.append(canvas.downsample())
    return found


def _texels(metres: float, texels: float) -> int:
    return max(2, round(metres * texels))


def _shadow(name: str, texels: float) -> Float[Tensor, "5 p q"]:
    """Draw a class's shadow, a blurred box or disc that extends `SHADOW_BLUR` beyond the object."""
    size = AERIAL_CLASSES[name].sprite_size
    length, width = size.length + 2 * SHADOW_BLUR, size.width + 2 * SHADOW_BLUR
    canvas = SpriteCanvas(length, width, _texels(length, texels), _texels(width, texels))
    if name == "tree":
        distance = np.hypot(canvas.x, canvas.y) - size.width / 2 * 0.95
    else:
        dx, dy = np.abs(canvas.x) - size.length / 2 + 0.5, np.abs(canvas.y) - size.width / 2 + 0.5
        distance = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - 0.5
    fraction = np.clip(0.5 - distance / (1.8 * SHADOW_BLUR), 0, 1)
    canvas.fill((fraction * fraction * (3 - 2 * fraction)).astype(np.float32), (0.0, 0.0, 0.0))
    return canvas.downsample()


def _pack(sprites: list[Tensor], repeating: set[int]) -> tuple[Float[Tensor, "5 h w"], list[tuple[int, int]]]:
    """Pack sprites in rows with a transparent border of one texel; also return their upper left corners.

    Sprites with a number in ``repeating`` repeat along x: they begin a row, and have the texels of their opposite end
    in the left and right border.
    """
    widest = max(256, max(p.shape[2] for p in sprites) + 2)
    places, x, y, shelf = [], 0, 0, 0
    for number, sprite in enumerate(sprites):
        height, width = sprite.shape[1] + 2, sprite.shape[2] + 2
        if x + width > widest or number in repeating:
            x, y, shelf = 0, y + shelf, 0
        places.append((x + 1, y + 1))
        x, shelf = x + width, max(shelf, height)
    sheet = torch.zeros(5, y + shelf, widest)
    for number, (sprite, (x, y)) in enumerate(zip(sprites, places, strict=True)):
        lines, end = slice(y, y + sprite.shape[1]), x + sprite.shape[2]
        sheet[:, lines, x:end] = sprite
        if number in repeating:
            sheet[:, lines, x - 1], sheet[:, lines, end] = sprite[..., -1], sprite[..., 0]
    return sheet, places


@lru_cache(maxsize=4)
def make_grounds(canvas_size: int, extent: float, assets: str | None = None) -> Float[Tensor, "g 3 t t"]:
    """Build tileable ground textures with one texel per pixel.

    Raises:
        UserError: If a file under ``assets`` is not an image.
    """
    # textures of twice the canvas repeat less visibly; for large canvases they would need much memory
    side = max(canvas_size, min(2 * canvas_size, 512))
    own = read_grounds(assets, side) if assets is not None else []
    metres = extent * side / canvas_size
    return torch.stack(own or [_ground(texture, side, metres, seed) for seed, texture in enumerate(GROUND_TEXTURES)])


# --- user sprites ---

SPRITE_SUFFIXES = (".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg")
ASSET_SUBFOLDERS = (*SPRITE_PROCEDURES, "ground")


def check_assets(assets: str) -> None:
    """Check the layout of an asset folder.

    Raises:
        UserError: If the folder is missing, has no subfolders, or a subfolder has another name or no images.
    """
    root = Path(assets)
    if not root.is_dir():
        raise UserError(
            f"there is no assets folder {root.absolute()}. Set assets to a folder with one or more "
            f"subfolders of: {', '.join(ASSET_SUBFOLDERS)}; or leave it out for procedural sprites."
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(
            f"the assets folder {root.absolute()} has no subfolders. Put images into one or more of: "
            f"{', '.join(ASSET_SUBFOLDERS)}; or leave assets out for procedural sprites."
        )
    for folder in folders:
        if folder.name not in ASSET_SUBFOLDERS:
            raise UserError(
                f"the assets folder {folder.absolute()} is not named by a class. "
                f"{suggest(folder.name, ASSET_SUBFOLDERS)} Rename or remove it."
            )
        if not _files(folder):
            raise UserError(
                f"the assets folder {folder.absolute()} holds no images ({', '.join(SPRITE_SUFFIXES)}). Add some, or "
                "remove it for procedural sprites."
            )


def read_sprites(assets: str, name: str, texels: float) -> list[Float[Tensor, "5 _ _"]]:
    """Read a class's sprites from a folder: RGBA, seen from above, pointing right. Empty if there are none.

    Raises:
        UserError: If a file is not an image, or has no transparency.
    """
    sprite_size, found = AERIAL_CLASSES[name].sprite_size, []
    for file in _files(Path(assets, name)):
        image = _opened(file)
        if "A" not in image.getbands() and "transparency" not in image.info:
            raise UserError(
                f"{file.absolute()} has no transparency: pixels outside of the {name} must be transparent. Save it "
                "as a PNG with an alpha channel (RGBA)."
            )
        values = torch.from_numpy(np.asarray(image.convert("RGBA"), np.float32) / 255).permute(2, 0, 1)
        if not (values[3] >= 0.5).any():
            raise UserError(f"{file.absolute()} is fully transparent. Remove it.")
        values = torch.cat([values[:3] * values[3:], values[3:], torch.zeros_like(values[:1])])
        shape = _texels(sprite_size.width, texels), _texels(sprite_size.length, texels)
        found.append(_resized(values, shape))
    return found


def read_grounds(assets: str, side: int) -> list[Float[Tensor, "3 t t"]]:
    """Read ground textures from a folder, resized to ``side`` texels. Empty if there are none.

    Raises:
        UserError: If a file is not an image.
    """
    files = _files(Path(assets, "ground"))
    values = [np.asarray(_opened(file).convert("RGB"), np.float32) / 255 for file in files]
    return [_resized(torch.from_numpy(v).permute(2, 0, 1), (side, side)) for v in values]


def _resized(values: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c p q"]:
    return F.interpolate(values[None], size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SPRITE_SUFFIXES and not p.name.startswith("."))


def _opened(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{file.absolute()} cannot be read as an image ({error}). Save it again as a PNG, or remove it."
        ) from None
