"""Pictures of Aerial 2D, seen from above: cars, houses, trees, roads, grounds; drawn by code or read from a folder."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ms2.core.errors import UserError, suggest

Plane = NDArray[np.floating[Any]]
"""Numbers on a grid of points, h w."""
Colour = tuple[float, float, float]

OVERSAMPLING = 4
"""Points across a texel at which shapes are drawn."""


@dataclass(frozen=True)
class Kind:
    """What is drawn in one manner.

    Attributes:
        level: Its height: what is higher hides, and throws shadows on, what is lower.
        length: Metres along the heading for which its pictures are drawn; objects of other sizes stretch them.
        width: Metres across.
        shadow: Metres by which its shadow is shifted.
        palette: Colours of its paint.
    """

    level: int
    length: float
    width: float
    shadow: float
    palette: tuple[Colour, ...]


CAR_PAINT = (
    (0.95, 0.95, 0.94),
    (0.78, 0.80, 0.82),
    (0.10, 0.10, 0.12),
    (0.72, 0.10, 0.10),
    (0.12, 0.25, 0.58),
    (0.93, 0.93, 0.92),
    (0.98, 0.78, 0.12),
    (0.09, 0.12, 0.22),
    (0.16, 0.52, 0.66),
    (0.86, 0.36, 0.10),
    (0.10, 0.44, 0.24),
    (0.86, 0.80, 0.66),
)
KINDS = {
    "Road": Kind(0, 24, 7, 0, ((0.36, 0.36, 0.38), (0.41, 0.41, 0.42), (0.47, 0.46, 0.45), (0.52, 0.51, 0.49))),
    "car": Kind(1, 4.5, 1.9, 0.55, CAR_PAINT),
    "truck": Kind(1, 10, 2.5, 1.1, (*CAR_PAINT[:2], (0.30, 0.42, 0.60), (0.75, 0.22, 0.16), (0.88, 0.86, 0.78))),
    "house": Kind(
        2,
        12,
        9,
        1.7,
        (
            (0.72, 0.36, 0.24),
            (0.60, 0.28, 0.20),
            (0.44, 0.31, 0.25),
            (0.37, 0.38, 0.42),
            (0.52, 0.52, 0.53),
            (0.78, 0.50, 0.33),
            (0.70, 0.66, 0.60),
            (0.28, 0.30, 0.34),
        ),
    ),
    "tree": Kind(
        3,
        6,
        6,
        1.6,
        (
            (0.19, 0.37, 0.13),
            (0.25, 0.44, 0.16),
            (0.15, 0.31, 0.15),
            (0.34, 0.48, 0.17),
            (0.21, 0.36, 0.20),
            (0.42, 0.50, 0.20),
            (0.55, 0.47, 0.16),
            (0.17, 0.34, 0.11),
        ),
    ),
}
"""What can be drawn, by class name."""
LANES = (0, 2, 4, 6)
"""Lanes of the road pictures; one of none is a track without a centre line."""
LANE_WIDTH = 3.5
SHOULDER = 0.09
"""Metres of verge on each side of a road, per metre of its width."""


class Sketch:
    """A picture that grows shape by shape on a grid of points in metres, x ahead and y to the right.

    Args:
        length: Metres along x that the picture shows, about 0.
        width: Metres along y.
        texels: Texels along x.
        rows: Texels along y.
    """

    def __init__(self, length: float, width: float, texels: int, rows: int) -> None:
        columns, lines = texels * OVERSAMPLING, rows * OVERSAMPLING
        x = (np.arange(columns, dtype=np.float32) + 0.5) / columns * length - length / 2
        y = (np.arange(lines, dtype=np.float32) + 0.5) / lines * width - width / 2
        self.x, self.y = np.meshgrid(x, y)
        self.step = length / columns
        self.planes = np.zeros((5, lines, columns), np.float32)

    def box(self, x0: float, x1: float, y0: float, y1: float, radius: float = 0.0) -> Plane:
        """Coverage of a box with rounded corners."""
        dx = np.abs(self.x - (x0 + x1) / 2) - (x1 - x0) / 2 + radius
        dy = np.abs(self.y - (y0 + y1) / 2) - (y1 - y0) / 2 + radius
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - radius
        return self.inside(outside)

    def disc(self, x: float, y: float, radius: float) -> Plane:
        """Coverage of a disc."""
        return self.inside(np.hypot(self.x - x, self.y - y) - radius)

    def taper(self, x0: float, x1: float, half0: float, half1: float) -> Plane:
        """Coverage of a symmetric piece from x0 to x1 whose half width goes from half0 to half1."""
        share = np.clip((self.x - x0) / (x1 - x0), 0, 1)
        beside = np.abs(self.y) - (half0 + share * (half1 - half0))
        return self.inside(np.maximum(beside, np.maximum(x0 - self.x, self.x - x1)))

    def inside(self, distance: Plane) -> Plane:
        """Coverage where a signed distance in metres is negative."""
        cover: Plane = np.clip(0.5 - distance / self.step, 0, 1)
        return cover

    def fill(self, cover: Plane, colour: Colour) -> None:
        """Lay a shape of one's own colour over the picture."""
        self._over(cover, (*colour, 1.0, 0.0))

    def paint(self, cover: Plane, shade: float | Plane = 1.0) -> None:
        """Lay over a shape that takes the object's paint, times a shade."""
        self._over(cover, (0.0, 0.0, 0.0, 1.0, shade))

    def shade(self, cover: Plane, by: float) -> None:
        """Multiply what is there, at full coverage by ``by``."""
        factor = 1 - cover * (1 - by)
        self.planes[:3] *= factor
        self.planes[4] *= factor

    def done(self) -> Float[Tensor, "5 p q"]:
        """The picture at its final size, each texel the mean of its points."""
        return F.avg_pool2d(torch.from_numpy(self.planes)[None], OVERSAMPLING)[0]

    def _over(self, cover: Plane, values: Sequence[float | Plane]) -> None:
        for plane, value in zip(self.planes, values, strict=True):
            plane += cover * (value - plane)


# --- cars ---

GLASS = (0.10, 0.13, 0.17)
LAMP = (1.0, 0.98, 0.86)
TAIL = (0.82, 0.05, 0.05)
# where, in metres ahead of the centre: windscreen's foot and head, the roof's end, the rear window's foot
BODIES = {
    "sedan": (1.00, 0.30, -0.95, -1.55),
    "hatchback": (1.15, 0.45, -1.35, -1.95),
    "estate": (1.05, 0.35, -1.70, -2.08),
    "van": (1.75, 1.15, -2.10, -2.22),
    "pickup": (1.05, 0.45, -0.30, -0.48),
    "coupe": (0.70, -0.05, -0.80, -1.60),
}


def _car(sketch: Sketch, body: str) -> None:
    foot, head, roof, tail = BODIES[body]
    sketch.paint(sketch.box(-2.25, 2.25, -0.95, 0.95, 0.38), 0.72)
    sketch.paint(sketch.box(-2.15, 2.15, -0.84, 0.84, 0.32), 1.0)
    sketch.paint(sketch.box(foot + 0.1, 2.0, -0.55, 0.55, 0.25), 1.10)
    for side in (-1, 1):
        sketch.paint(sketch.box(foot - 0.35, foot - 0.1, 0.93 * side - 0.07, 0.93 * side + 0.07, 0.03), 0.9)
        sketch.fill(sketch.box(2.0, 2.22, 0.63 * side - 0.2, 0.63 * side + 0.2, 0.08), LAMP)
        sketch.fill(sketch.box(-2.22, -2.05, 0.66 * side - 0.2, 0.66 * side + 0.2, 0.05), TAIL)
    sketch.fill(sketch.taper(head, foot, 0.66, 0.80), GLASS)  # the windscreen is widest at its foot
    sketch.fill(sketch.box(roof, head + 0.1, -0.82, 0.82, 0.1), GLASS)
    sketch.fill(sketch.taper(tail, roof + 0.05, 0.76, 0.68), GLASS)
    sketch.paint(sketch.box(roof, head, -0.68, 0.68, 0.16), 1.0)
    sketch.paint(sketch.box(roof + 0.15, head - 0.12, -0.5, 0.42, 0.2), 1.22)
    if body == "pickup":
        sketch.fill(sketch.box(-2.05, -0.62, -0.70, 0.70, 0.08), (0.16, 0.16, 0.17))
        for place in (-1.75, -1.4, -1.05, -0.75):
            sketch.fill(sketch.box(place, place + 0.1, -0.62, 0.62), (0.26, 0.26, 0.27))
    if body in {"estate", "van"}:
        for y in (-0.58, 0.58):
            sketch.shade(sketch.box(roof + 0.1, head - 0.1, y - 0.05, y + 0.05), 0.6)


def _truck(sketch: Sketch, body: str) -> None:
    sketch.paint(sketch.box(2.9, 5.0, -1.2, 1.2, 0.3), 0.95)
    sketch.paint(sketch.box(3.1, 4.3, -0.9, 0.9, 0.2), 1.15)
    sketch.fill(sketch.box(4.4, 4.85, -1.0, 1.0, 0.15), GLASS)
    sketch.fill(sketch.box(2.5, 2.9, -0.7, 0.7), (0.12, 0.12, 0.13))
    if body == "box":
        sketch.fill(sketch.box(-5.0, 2.6, -1.25, 1.25, 0.08), (0.70, 0.71, 0.72))
        sketch.fill(sketch.box(-4.8, 2.4, -1.05, 1.05, 0.08), (0.90, 0.91, 0.92))
        for place in np.arange(-4.0, 2.0, 1.0):
            sketch.shade(sketch.box(place, place + 0.12, -1.05, 1.05), 0.85)
    else:
        sketch.paint(sketch.box(-5.0, 2.6, -1.25, 1.25, 0.08), 0.7)
        sketch.fill(sketch.box(-4.75, 2.35, -1.05, 1.05, 0.05), (0.35, 0.27, 0.20))
        for place in np.arange(-4.3, 2.2, 0.9):
            sketch.shade(sketch.disc(place, 0.3 * math.sin(5 * place), 0.75), 1.25)
    for y in (-0.85, 0.85):
        sketch.fill(sketch.box(-5.0, -4.85, y - 0.25, y + 0.25), TAIL)
        sketch.fill(sketch.box(4.85, 5.0, y - 0.25, y + 0.25), LAMP)


# --- houses; their left side (y < 0) is the lit one ---

LIT, DARK = 1.12, 0.66


def _facets(sketch: Sketch, x0: float, x1: float, y0: float, y1: float, hip: float) -> Plane:
    """Shade of a ridged roof over a box: its ends slope over ``hip`` metres (0 for a gable)."""
    middle, half = (y0 + y1) / 2, (y1 - y0) / 2
    across = half - np.abs(sketch.y - middle)  # metres in from the eaves
    sides = np.where(sketch.y < middle, LIT, DARK)
    courses = 1 + 0.07 * np.sin(across * 2 * math.pi / 0.75)  # rows of tiles
    if hip:
        along = np.minimum(sketch.x - x0, x1 - sketch.x) * (half / hip)
        sides = np.where(along < across, np.where(sketch.x > 0, 0.98, 0.82), sides)
        across = np.minimum(across, along)
    edge = np.where(across < 0.3, 0.85, 1)
    shade: Plane = (sides * courses * edge).astype(np.float32)
    return shade


def _roof(sketch: Sketch, x0: float, x1: float, y0: float, y1: float, hip: float = 0.0) -> None:
    sketch.paint(sketch.box(x0, x1, y0, y1), _facets(sketch, x0, x1, y0, y1, hip))
    middle = (y0 + y1) / 2
    sketch.paint(sketch.box(x0 + hip, x1 - hip, middle - 0.13, middle + 0.13), 1.25)


def _chimney(sketch: Sketch, x: float, y: float) -> None:
    sketch.shade(sketch.box(x - 0.5, x + 0.8, y - 0.1, y + 1.1), 0.55)
    sketch.fill(sketch.box(x - 0.5, x + 0.5, y - 0.4, y + 0.4), (0.55, 0.38, 0.32))
    sketch.fill(sketch.box(x - 0.25, x + 0.25, y - 0.18, y + 0.18), (0.12, 0.10, 0.10))


def _flat(sketch: Sketch) -> None:
    sketch.fill(sketch.box(-6, 6, -4.5, 4.5, 0.1), (0.80, 0.79, 0.77))
    sketch.fill(sketch.box(-5.55, 5.55, -4.05, 4.05), (0.45, 0.45, 0.46))
    sketch.paint(sketch.box(-5.55, 5.55, -3.6, 4.05), 0.95)
    for x, y in ((-3.6, -1.8), (-3.6, 0.4), (-3.6, 2.6)):
        sketch.shade(sketch.box(x - 0.8, x + 1.2, y - 0.4, y + 1.0), 0.6)
        sketch.fill(sketch.box(x - 0.9, x + 0.9, y - 0.6, y + 0.6, 0.1), (0.72, 0.80, 0.86))
    sketch.shade(sketch.box(1.6, 4.6, -0.6, 3.0), 0.55)
    sketch.fill(sketch.box(1.2, 4.0, -1.2, 2.2), (0.78, 0.78, 0.76))
    sketch.fill(sketch.disc(2.6, 0.5, 0.8), (0.40, 0.41, 0.42))


def _house(sketch: Sketch, roof: str) -> None:
    if roof == "flat":
        _flat(sketch)
    elif roof == "hip":
        _roof(sketch, -6, 6, -4.5, 4.5, hip=4.2)
        _chimney(sketch, -1.0, 1.4)
    elif roof == "pyramid":
        _roof(sketch, -6, 6, -4.5, 4.5, hip=6)
        _chimney(sketch, 2.2, -1.0)
    elif roof == "cross":
        sketch.paint(sketch.box(-6, 6, -4.5, 4.5), _facets(sketch, -6, 6, -4.5, 4.5, 0))
        wing = np.abs(sketch.x - 1.5)
        cover = sketch.inside(np.maximum(wing - 2.6 * np.clip(np.abs(sketch.y) / 4.5, 0, 1), -sketch.y))
        sketch.paint(cover, np.where(sketch.x > 1.5, 0.98, 0.80).astype(np.float32))
        sketch.paint(sketch.box(-6, 6, -0.13, 0.13), 1.25)
        sketch.paint(sketch.box(1.38, 1.62, 0, 4.5), 1.15)
        _chimney(sketch, -3.5, -1.6)
    else:
        _roof(sketch, -6, 6, -4.5, 4.5)
        _chimney(sketch, 3.0 if roof == "solar" else -3.4, 1.0)
        if roof == "solar":
            for x in (-4.6, -2.5, -0.4):
                for y in (-3.9, -2.2):
                    sketch.fill(sketch.box(x, x + 1.95, y, y + 1.55), (0.09, 0.13, 0.27))
                    sketch.fill(sketch.box(x + 0.93, x + 1.02, y, y + 1.55), (0.35, 0.40, 0.52))
        if roof == "dormers":
            for x in (-1.2, 2.0):
                sketch.shade(sketch.box(x - 0.7, x + 1.3, -3.4, -1.2), 0.62)
                sketch.paint(sketch.box(x - 0.9, x + 0.9, -3.5, -1.4), 1.2)
                sketch.fill(sketch.box(x - 0.75, x + 0.75, -3.75, -3.45), (0.85, 0.86, 0.86))


# --- trees ---


def _tree(sketch: Sketch, crown: str) -> None:
    rng = np.random.default_rng(list(crown.encode()))
    around = np.arctan2(sketch.y, sketch.x)
    conifer, sparse = crown.startswith("conifer"), crown.startswith("sparse")
    outline = sum(rng.uniform(0.4, 1) * np.cos(n * around + rng.uniform(0, 2 * math.pi)) / n for n in range(2, 12))
    outline = 2.66 + 0.24 * np.clip(outline, -1.5, 1.3)
    if conifer:
        outline = 2.62 + 0.30 * np.cos(11 * around + rng.uniform(0, 6)) + 0.1 * np.cos(5 * around)
    out = np.hypot(sketch.x, sketch.y)
    cover = sketch.inside(out - outline)
    sketch.paint(cover, 0.58)
    if conifer:
        for tier in (2.8, 2.1, 1.4, 0.75):  # whorls of branches, each above the one before
            wave = 0.85 + 0.15 * np.cos(11 * around + 3 * tier)
            ring = np.clip(out / (tier * wave), 0, 1)
            sketch.paint(
                sketch.inside(out - tier * wave) * cover, (1.16 - 0.13 * tier - 0.22 * ring).astype(np.float32)
            )
        return
    for share in np.linspace(0.25, 1, 26 if sparse else 60):  # clumps of leaves, from low and outside to high
        distance = 2.3 * math.sqrt(rng.uniform(0, 1)) * (1.15 - 0.55 * share)
        direction, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.38, 0.72)
        x, y = distance * math.cos(direction), distance * math.sin(direction)
        depth = np.clip(1 - np.hypot(sketch.x - x, sketch.y - y) / radius, 0, 1)
        clump = (0.62 + 0.42 * share + 0.22 * depth).astype(np.float32)
        sketch.paint(sketch.inside(np.hypot(sketch.x - x, sketch.y - y) - radius) * cover, clump)


# --- roads ---


def _road(sketch: Sketch, lanes: int, width: float) -> None:
    rng = np.random.default_rng(lanes)
    half = width / 2
    verge = half * (1 + 2 * SHOULDER) - half
    ragged = 0.25 * verge * _blur(rng.standard_normal(sketch.x.shape), 6 * OVERSAMPLING)
    # less than half opaque, so that a road's surface ends at its asphalt
    soft = 0.45 * np.clip(1 - (np.abs(sketch.y) - half) / (0.75 * verge) + ragged, 0, 1)
    sketch.fill(soft.astype(np.float32), (0.50, 0.45, 0.34))
    grain = 1 + 0.05 * _blur(rng.standard_normal(sketch.x.shape), OVERSAMPLING)
    grain += 0.025 * _blur(rng.standard_normal(sketch.x.shape), 12 * OVERSAMPLING)
    lane = width / max(lanes, 2)
    tracks = 1 - 0.07 * np.cos(4 * math.pi * (sketch.y - half) / lane)  # tyres darken what lies under them
    asphalt = sketch.inside(np.abs(sketch.y) - half)
    sketch.paint(asphalt, (grain * tracks).astype(np.float32))
    sketch.shade(asphalt * np.clip(1 - (half - np.abs(sketch.y)) / 0.5, 0, 1).astype(np.float32), 0.82)
    sketch.fill(_marks(sketch, lanes, half, lane), (0.93, 0.93, 0.91))


def _marks(sketch: Sketch, lanes: int, half: float, lane: float) -> Plane:
    """Coverage of the lines: solid at the edges, dashed between lanes, double between directions of wide roads."""
    if not lanes:
        return np.zeros_like(sketch.x)
    beside = np.abs(sketch.y)
    dashes = np.clip(0.5 + (1.5 - np.abs(np.mod(sketch.x, 6) - 3)) / sketch.step, 0, 1)
    marks = sketch.inside(np.abs(beside - half + 0.4) - 0.1)
    if lanes == 2:
        return np.maximum(marks, dashes * sketch.inside(beside - 0.11)).astype(np.float32)
    marks = np.maximum(marks, sketch.inside(np.abs(beside - 0.2) - 0.08))
    for divider in range(1, lanes // 2):
        marks = np.maximum(marks, dashes * sketch.inside(np.abs(beside - divider * lane) - 0.11))
    return marks.astype(np.float32)


def road_lanes(width: Float[Tensor, " s"]) -> Tensor:
    """Which of `LANES` suits each road: its place there."""
    return torch.bucketize(width, torch.tensor([4.0, 10.5, 17.5], device=width.device))


# --- ground ---


def _blur(noise: Plane, scale: float, stretch: float = 1.0) -> Plane:
    """Noise that wraps around, with details from ``scale`` points on (times ``stretch`` along x); variance 1."""
    fy, fx = np.fft.fftfreq(noise.shape[0])[:, None], np.fft.rfftfreq(noise.shape[1])[None]
    keep = np.exp(-0.5 * (scale * 1.5) ** 2 * (fy**2 + (fx * stretch) ** 2))
    keep[0, 0] = 0
    smooth = np.fft.irfft2(np.fft.rfft2(noise) * keep, s=noise.shape)
    plane: Plane = (smooth / smooth.std()).astype(np.float32)
    return plane


@dataclass(frozen=True)
class Soil:
    """How a ground looks: two colours that patches mix, grain, furrows.

    Attributes:
        low: Colour where patches are darkest.
        high: Colour where they are lightest.
        grain: Relative deviation from pixel to pixel.
        tufts: Share of small dark spots a metre or two wide.
        furrows: Relative depth of parallel lines.
        spacing: Metres between those.
        slant: Lines' direction in whole periods of y for each 4 of x.
    """

    low: Colour
    high: Colour
    grain: float = 0.04
    tufts: float = 0.0
    furrows: float = 0.0
    spacing: float = 2.5
    slant: int = 0


SOILS = (
    Soil((0.34, 0.43, 0.20), (0.46, 0.53, 0.27), tufts=0.05),  # meadow
    Soil((0.40, 0.51, 0.25), (0.46, 0.57, 0.29), grain=0.03, furrows=0.04, spacing=4, slant=0),  # mown lawn
    Soil((0.58, 0.53, 0.33), (0.69, 0.63, 0.42), tufts=0.06),  # dry grass
    Soil((0.48, 0.37, 0.27), (0.57, 0.45, 0.33), furrows=0.08, spacing=1.8, slant=3),  # ploughed soil
    Soil((0.40, 0.48, 0.20), (0.52, 0.58, 0.28), furrows=0.12, spacing=2.2, slant=-2),  # crops
    Soil((0.74, 0.64, 0.38), (0.80, 0.71, 0.46), furrows=0.05, spacing=3.0, slant=8),  # ripe grain
    Soil((0.63, 0.58, 0.48), (0.72, 0.67, 0.57), grain=0.05, tufts=0.03),  # sand and gravel
    Soil((0.44, 0.44, 0.24), (0.60, 0.57, 0.34), tufts=0.09),  # heath
)


def _ground(soil: Soil, side: int, metres: float, seed: int) -> Float[Tensor, "3 t t"]:
    """A texture of ``side`` texels for ``metres`` that joins itself at its edges."""
    rng = np.random.default_rng(seed)
    texel = metres / side
    patches = _blur(rng.standard_normal((side, side)), 12 / texel) + 0.6 * _blur(
        rng.standard_normal((side, side)), 3.5 / texel
    )
    share = np.clip(0.5 + patches / 3.5, 0, 1)[..., None]
    colour = np.asarray(soil.low) * (1 - share) + np.asarray(soil.high) * share
    light = 1 + soil.grain * _blur(rng.standard_normal((side, side)), max(0.45, 0.25 / texel))
    light += 0.6 * soil.grain * _blur(rng.standard_normal((side, side)), 1.2 / texel)
    spots = _blur(rng.standard_normal((side, side)), 1.0 / texel)
    light -= 2.5 * soil.tufts * np.clip(spots - 1.2, 0, 1)
    if soil.furrows:
        lines = max(1, round(metres / soil.spacing))
        y, x = np.mgrid[:side, :side] / side
        wobble = 0.25 * _blur(rng.standard_normal((side, side)), 10 / texel)
        light += soil.furrows * np.sin(2 * math.pi * (lines * y + soil.slant * (lines // 16) * x) + wobble)
    return torch.from_numpy(np.clip(colour * light[..., None], 0, 1).astype(np.float32)).permute(2, 0, 1)


# --- all together ---

DRAWINGS: dict[str, tuple[Callable[[Sketch, str], None], tuple[str, ...]]] = {
    "car": (_car, tuple(BODIES)),
    "truck": (_truck, ("box", "tipper")),
    "house": (_house, ("gable", "hip", "flat", "solar", "pyramid", "dormers", "cross")),
    "tree": (_tree, ("oak", "lime", "ash", "conifer", "maple", "sparse", "beech", "conifer2")),
}
SHADOW_BLUR = 0.9
"""Metres over which a shadow's edge fades."""


@dataclass(frozen=True)
class Atlas:
    """All pictures side by side on one sheet, and where each lies, in the units of `torch.nn.functional.grid_sample`.

    Attributes:
        sheet: Red, green and blue of unpainted parts, opacity, and shade of painted parts, the first three and the
            last multiplied by the opacity.
        centre: Column and row of each picture's centre.
        half: Half its width and height.
        bleed: Half a texel as a share of half the picture, along and across: so far it fades beyond its edges.
        first: Place of each class's first picture.
        number: Number of each class's pictures.
        shadow: Place of each class's shadow.
        palette: Colours of each class's paint, the last repeated.
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
    """The pictures of classes at ``texels`` per metre.

    Raises:
        UserError: If a file under ``assets`` does not hold a picture.
    """
    pictures: list[Tensor] = []
    first, number, shadow = [], [], []
    for name in classes:
        own = read_sprites(assets, name, texels) if assets is not None else []
        own = own or drawn(name, texels)
        first.append(len(pictures))
        number.append(len(own))
        shadow.append(len(pictures) + len(own))
        pictures += [*own, _shadow(name, texels)]
    repeating = {start for start, name in zip(first, classes, strict=True) if name == "Road"}
    sheet, places = _pack(pictures, {start + lane for start in repeating for lane in range(len(LANES))})
    height, width = sheet.shape[1:]
    size = torch.tensor([width, height])
    sides = torch.tensor([[p.shape[2], p.shape[1]] for p in pictures])
    corner = torch.tensor(places)
    palettes = [KINDS[name].palette for name in classes]
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


def drawn(name: str, texels: float) -> list[Float[Tensor, "5 _ _"]]:
    """The pictures of a class that code draws; roads by `LANES`."""
    kind = KINDS[name]
    if name == "Road":
        found = []
        for lanes in LANES:
            width = LANE_WIDTH * max(lanes, 1)
            whole = width * (1 + 2 * SHOULDER)
            sketch = Sketch(kind.length, whole, _texels(kind.length, texels), _texels(whole, texels))
            _road(sketch, lanes, width)
            found.append(sketch.done())
        return found
    draw, models = DRAWINGS[name]
    found = []
    for model in models:
        sketch = Sketch(kind.length, kind.width, _texels(kind.length, texels), _texels(kind.width, texels))
        draw(sketch, model)
        found.append(sketch.done())
    return found


def _texels(metres: float, texels: float) -> int:
    return max(2, round(metres * texels))


def _shadow(name: str, texels: float) -> Float[Tensor, "5 p q"]:
    """A blurred box or disc; its picture reaches `SHADOW_BLUR` beyond the object."""
    kind = KINDS[name]
    length, width = kind.length + 2 * SHADOW_BLUR, kind.width + 2 * SHADOW_BLUR
    sketch = Sketch(length, width, _texels(length, texels), _texels(width, texels))
    if name == "tree":
        distance = np.hypot(sketch.x, sketch.y) - kind.width / 2 * 0.95
    else:
        dx, dy = np.abs(sketch.x) - kind.length / 2 + 0.5, np.abs(sketch.y) - kind.width / 2 + 0.5
        distance = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - 0.5
    share = np.clip(0.5 - distance / (1.8 * SHADOW_BLUR), 0, 1)
    sketch.fill((share * share * (3 - 2 * share)).astype(np.float32), (0.0, 0.0, 0.0))
    return sketch.done()


def _pack(pictures: list[Tensor], repeating: set[int]) -> tuple[Float[Tensor, "5 h w"], list[tuple[int, int]]]:
    """Pictures on shelves, each within a clear border of a texel; and each one's left upper corner.

    Those that are repeated have the texels of their other end left and right of them, and begin a shelf.
    """
    widest = max(256, max(p.shape[2] for p in pictures) + 2)
    places, x, y, shelf = [], 0, 0, 0
    for number, picture in enumerate(pictures):
        height, width = picture.shape[1] + 2, picture.shape[2] + 2
        if x + width > widest or number in repeating:
            x, y, shelf = 0, y + shelf, 0
        places.append((x + 1, y + 1))
        x, shelf = x + width, max(shelf, height)
    sheet = torch.zeros(5, y + shelf, widest)
    for number, (picture, (x, y)) in enumerate(zip(pictures, places, strict=True)):
        lines, end = slice(y, y + picture.shape[1]), x + picture.shape[2]
        sheet[:, lines, x:end] = picture
        if number in repeating:
            sheet[:, lines, x - 1], sheet[:, lines, end] = picture[..., -1], picture[..., 0]
    return sheet, places


@lru_cache(maxsize=4)
def make_grounds(canvas: int, extent: float, assets: str | None = None) -> Float[Tensor, "g 3 t t"]:
    """Textures of the ground, one texel a pixel, that join themselves at their edges.

    Raises:
        UserError: If a file under ``assets`` does not hold a picture.
    """
    # twice the canvas shows the same place less often; large canvases would need much memory
    side = max(canvas, min(2 * canvas, 512))
    own = read_grounds(assets, side) if assets is not None else []
    metres = extent * side / canvas
    return torch.stack(own or [_ground(soil, side, metres, seed) for seed, soil in enumerate(SOILS)])


# --- a folder of one's own ---

SUFFIXES = (".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg")
FOLDERS = (*DRAWINGS, "ground")


def check_assets(assets: str) -> None:
    """See that a folder holds pictures where they are looked for.

    Raises:
        UserError: If it is missing, or has none, or a subfolder has another name or no pictures.
    """
    root = Path(assets)
    if not root.is_dir():
        raise UserError(
            f"there is no folder {root.absolute()} to take pictures from. Give assets a folder with one or more "
            f"subfolders of: {', '.join(FOLDERS)}; or leave it out, and all pictures are drawn by code."
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(
            f"the assets folder {root.absolute()} has no subfolders. Put pictures into one or more of: "
            f"{', '.join(FOLDERS)}; or leave assets out, and all pictures are drawn by code."
        )
    for folder in folders:
        if folder.name not in FOLDERS:
            raise UserError(
                f"the assets folder {folder.absolute()} is of no use. {suggest(folder.name, FOLDERS)} "
                "Rename it, or move it elsewhere."
            )
        if not _files(folder):
            raise UserError(
                f"the assets folder {folder.absolute()} holds no pictures ({', '.join(SUFFIXES)}). Put some there, or "
                "remove it, and its pictures are drawn by code."
            )


def read_sprites(assets: str, name: str, texels: float) -> list[Float[Tensor, "5 _ _"]]:
    """The pictures of a class in a folder: RGBA, seen from above, pointing right. None if it has none.

    Raises:
        UserError: If a file is no picture, or has no transparency.
    """
    kind, found = KINDS[name], []
    for file in _files(Path(assets, name)):
        picture = _opened(file)
        if "A" not in picture.getbands() and "transparency" not in picture.info:
            raise UserError(
                f"{file.absolute()} has no transparency: what is not {name} has to be transparent. Save it as a PNG "
                "with an alpha channel (RGBA)."
            )
        values = torch.from_numpy(np.asarray(picture.convert("RGBA"), np.float32) / 255).permute(2, 0, 1)
        if not (values[3] >= 0.5).any():
            raise UserError(f"{file.absolute()} is transparent all over: nothing of it would be seen. Remove it.")
        values = torch.cat([values[:3] * values[3:], values[3:], torch.zeros_like(values[:1])])
        size = _texels(kind.width, texels), _texels(kind.length, texels)
        found.append(_resized(values, size))
    return found


def read_grounds(assets: str, side: int) -> list[Float[Tensor, "3 t t"]]:
    """The ground textures in a folder, resized to ``side`` texels. None if it has none.

    Raises:
        UserError: If a file is no picture.
    """
    files = _files(Path(assets, "ground"))
    values = [np.asarray(_opened(file).convert("RGB"), np.float32) / 255 for file in files]
    return [_resized(torch.from_numpy(v).permute(2, 0, 1), (side, side)) for v in values]


def _resized(values: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c p q"]:
    return F.interpolate(values[None], size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _opened(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            picture.load()
            return picture
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{file.absolute()} does not load as a picture ({error}). Save it again as a PNG, or remove it."
        ) from None
