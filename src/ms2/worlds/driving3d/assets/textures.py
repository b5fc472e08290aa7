"""Procedural textures: tileable noise, walls, shops, tiles, leaves, bark."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from ms2.render.scene3d.meshes import TextureImage

Numbers = Sequence[Any] | np.ndarray
"""Nested sequences of numbers; NumPy's ArrayLike excludes tuples in type checks."""

Field = Float[np.ndarray, "h w"]
Canvas = Float[np.ndarray, "h w 3"]


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Field:
    """Generate tileable smooth noise with mean 0 and standard deviation near 1.

    Args:
        rng: Source of random numbers.
        shape: Rows and columns of the result.
        cells: Rows and columns of the grid of random values that are interpolated.
    """
    grid = rng.standard_normal(cells)
    for axis in range(2):
        at = np.arange(shape[axis]) * (cells[axis] / shape[axis])
        first = at.astype(int)
        fraction = at - first
        fraction = fraction * fraction * (3 - 2 * fraction)
        fraction = fraction[:, None] if axis == 0 else fraction
        low, high = np.take(grid, first, axis), np.take(grid, (first + 1) % cells[axis], axis)
        grid = low * (1 - fraction) + high * fraction
    return grid * 1.5  # between grid points noise is weaker than at them


def to_uint8(canvas: Canvas) -> TextureImage:
    """Convert colours in [0, 1] to bytes."""
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


@dataclass
class WallTexture:
    """A wall texture to draw on, in metres from its lower left corner; initially white plaster with stains.

    Args:
        width: Width of the wall in metres.
        height: Height of the wall in metres.
        size: Columns and rows of the texture.
        seed: Seed of the stains.
        grain: Strength of the stains.
    """

    width: float
    height: float
    size: tuple[int, int] = (256, 256)
    seed: int = 0
    grain: float = 0.02

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        shape = (self.size[1], self.size[0])
        stains = noise(self.rng, shape, (4, 5)) + 0.7 * noise(self.rng, shape, (3, 24)) + noise(self.rng, shape, shape)
        self.canvas: Canvas = np.repeat((0.95 + self.grain * stains)[..., None], 3, 2)

    def rect(self, x0: float, x1: float, z0: float, z1: float, colour: Numbers, shade: bool = False) -> None:
        """Fill a rectangle with a colour, or multiply it by the colour if ``shade``."""
        columns, rows = self.size
        i, j = round(x0 / self.width * columns), round(x1 / self.width * columns)
        k, m = round((1 - z1 / self.height) * rows), round((1 - z0 / self.height) * rows)
        part = self.canvas[max(k, 0) : max(m, k + 1, 0), max(i, 0) : max(j, i + 1, 0)]
        part[:] = part * np.asarray(colour) if shade else np.asarray(colour)

    def window(
        self,
        x: float,
        z: float,
        width: float,
        height: float,
        frame: Numbers = (0.97, 0.97, 0.96),
        shutters: Numbers | None = None,
        sill: bool = True,
        panes: int = 2,
    ) -> None:
        """Draw a window with its bottom centre at x, z, with curtains, blinds or a dark room behind it."""
        left, right, top = x - width / 2, x + width / 2, z + height
        if shutters is not None:
            for a in (left - width * 0.52, right + width * 0.04):
                self.rect(a, a + width * 0.48, z, top, shutters)
                for slat in np.arange(z + 0.1, top - 0.05, 0.2):
                    self.rect(a + 0.06, a + width * 0.48 - 0.06, slat, slat + 0.07, (0.8, 0.8, 0.8), shade=True)
        self.rect(left - 0.12, right + 0.12, z - 0.1, top + 0.14, (0.93, 0.93, 0.93), shade=True)
        self.rect(left, right, z, top, frame)
        edge = 0.07
        bars = np.linspace(left + edge, right - edge / 2, panes + 1)
        dark = np.array([0.17, 0.20, 0.24]) * self.rng.uniform(0.75, 1.35)
        behind = self.rng.random()
        for a, b in pairwise(bars):
            self.rect(a, b - edge / 2, z + edge, top - edge, dark)
            if behind < 0.35:  # a curtain
                self.rect(a, a + (b - a) * 0.45, z + edge, top - edge, (0.62, 0.62, 0.60))
            self.rect(a, b - edge / 2, z + height * 0.68, top - edge, dark * 1.35 + 0.03)  # the sky's reflection
        if behind > 0.8:  # a blind, half down
            self.rect(left + edge, right - edge, z + height * 0.5, top - edge, (0.75, 0.74, 0.70))
        self.rect(left, right, top - edge - 0.07, top - edge, (0.5, 0.5, 0.5), shade=True)  # the lintel's shadow
        if sill:
            self.rect(left - 0.1, right + 0.1, z - 0.09, z, (0.86, 0.85, 0.83))
            self.rect(left - 0.1, right + 0.1, z - 0.2, z - 0.09, (0.78, 0.78, 0.78), shade=True)

    def door(self, x: float, colour: Numbers, width: float = 1.1, height: float = 2.2) -> None:
        """Draw a door with a pane and a step."""
        self.rect(x - width / 2 - 0.12, x + width / 2 + 0.12, 0, height + 0.12, (0.9, 0.89, 0.87))
        self.rect(x - width / 2, x + width / 2, 0.12, height, colour)
        self.rect(x - width * 0.28, x + width * 0.28, height * 0.5, height * 0.9, (0.22, 0.25, 0.28))
        self.rect(x - width / 2 - 0.3, x + width / 2 + 0.3, 0, 0.14, (0.6, 0.59, 0.57))

    def plinth(self, height: float = 0.45, colour: Numbers = (0.62, 0.60, 0.58)) -> None:
        """Draw a darker base."""
        self.rect(0, self.width, 0, height, colour, shade=True)

    def gutter(self) -> None:
        """Draw the shadow of the eaves and their gutter."""
        for depth, dark in ((0.5, 0.86), (0.28, 0.8)):
            self.rect(0, self.width, self.height - depth, self.height, (dark, dark, dark), shade=True)

    def bricks(self, colour: Numbers, tint: float = 1.0) -> None:
        """Draw bricks over the wall."""
        columns, rows = self.size
        high, wide = max(3, round(0.16 / self.height * rows)), max(5, round(0.45 / self.width * columns))
        y, x = np.mgrid[:rows, :columns]
        course = y // high
        brick = (x + (course % 2) * (wide // 2)) // wide
        each = self.rng.uniform(0.86, 1.1, (course.max() + 1, brick.max() + 1))[course, brick]
        mortar = (y % high == 0) | ((x + (course % 2) * (wide // 2)) % wide == 0)
        self.canvas = self.canvas * np.asarray(colour) * (each * tint)[..., None]
        self.canvas[mortar] = self.canvas[mortar] * 0.6 + 0.25

    def texture(self) -> TextureImage:
        """Return the texture as an array of bytes."""
        return to_uint8(self.canvas)


SHOP_SIGN_COLOURS: tuple[tuple[float, float, float], ...] = (
    (0.72, 0.12, 0.10),
    (0.12, 0.25, 0.55),
    (0.93, 0.80, 0.25),
    (0.15, 0.42, 0.25),
    (0.90, 0.90, 0.88),
)
SHOP_SIGN_COLOURS += ((0.20, 0.20, 0.22), (0.82, 0.45, 0.12))


def shop_front(seed: int, bays: int = 4, bay: float = 3.2, height: float = 3.8, detailed: bool = False) -> TextureImage:
    """Draw a texture of shop fronts, tileable horizontally.

    Args:
        seed: Seed of the goods and signs.
        bays: Number of shop windows in a row.
        bay: Width of each in metres.
        height: Height in metres.
        detailed: Whether the texture is finer, and goods and signs are in muted colours.
    """
    wall = WallTexture(bays * bay, height, (1024, 256) if detailed else (512, 128), seed)
    vivid = 0.4 if detailed else 1.0
    rng = wall.rng
    wall.canvas *= np.array([0.80, 0.78, 0.75])
    sign = SHOP_SIGN_COLOURS[0]
    for n in range(bays):
        x = n * bay
        if n % 2 == 0 or rng.random() < 0.3:
            sign = SHOP_SIGN_COLOURS[rng.integers(len(SHOP_SIGN_COLOURS))]
        wall.rect(x + 0.25, x + bay - 0.25, 0.12, 2.95, (0.30, 0.30, 0.31))
        door = rng.random() < 0.4
        for a, b, sill in ((0.35, 1.55, 0.5), (1.65, bay - 0.35, 0.16 if door else 0.5)):
            glass = np.array([0.16, 0.19, 0.22]) * rng.uniform(0.8, 1.3)
            wall.rect(x + a, x + b, sill, 2.85, glass)
            wall.rect(x + a, x + b, 1.9, 2.85, glass * 1.5 + 0.03)
            for _ in range(4):  # goods
                c = rng.uniform(a, b - 0.3)
                wall.rect(
                    x + c,
                    x + c + rng.uniform(0.15, 0.45),
                    sill,
                    sill + rng.uniform(0.3, 1.1),
                    vivid * (0.3 + 0.5 * rng.random() + 0.10 * rng.standard_normal(3)),
                )
        board = np.asarray(sign) if vivid == 1 else 0.5 * np.asarray(sign) + 0.22
        wall.rect(x, x + bay, 3.0, 3.55, board)
        ink = (0.95, 0.95, 0.92) if sum(sign) < 1.6 else (0.15, 0.15, 0.2)
        for c in np.arange(0.5, rng.uniform(1.4, bay - 0.5), 0.27):  # letters, as one sees them from afar
            wall.rect(x + c, x + c + 0.17, 3.12, 3.12 + rng.uniform(0.2, 0.32), ink)
    wall.rect(0, wall.width, 2.9, 3.0, (0.55, 0.55, 0.55), shade=True)
    wall.rect(0, wall.width, 3.62, height, (0.9, 0.9, 0.88))
    wall.plinth(0.12, (0.6, 0.6, 0.6))
    return wall.texture()


def storeys(
    seed: int,
    style: str,
    bays: int = 4,
    floors: int = 2,
    bay: float = 2.9,
    floor: float = 3.1,
    detailed: bool = False,
) -> TextureImage:
    """Draw a tileable texture of upper floors, in white for tinting.

    Args:
        seed: Seed of the stains and of what is behind the windows.
        style: "plaster", "brick", "ornate", "modern", "shutters", "office" or "stone".
        bays: Number of windows in a row.
        floors: Number of rows of windows.
        bay: Width of a window with the wall beside it, in metres.
        floor: Height of a floor in metres.
        detailed: Whether the texture has four times the pixels, and more stains.
    """
    side, grain = (512, 0.035) if detailed else (256, 0.02)
    wall = WallTexture(bays * bay, floors * floor, (side, side), seed, grain)
    if style == "brick":
        wall.bricks((0.86, 0.60, 0.50))
    for row in range(floors):
        z = row * floor
        if style == "ornate":
            wall.rect(0, wall.width, z, z + 0.2, (0.99, 0.98, 0.95))
            wall.rect(0, wall.width, z + 0.2, z + 0.3, (0.7, 0.7, 0.7), shade=True)
        if style == "stone":
            for course in np.arange(z, z + floor, 0.44):
                wall.rect(0, wall.width, course, course + 0.05, (0.84, 0.83, 0.82), shade=True)
            wall.rect(0, wall.width, z, z + 0.26, (1.0, 0.98, 0.94))
        if style == "office":
            wall.rect(0, wall.width, z + 0.85, z + 2.75, (0.22, 0.26, 0.31))
            wall.rect(0, wall.width, z + 2.1, z + 2.75, (0.33, 0.39, 0.45))
        for n in range(bays):
            x = (n + 0.5) * bay
            if style == "office":
                for a in (-0.5, 0.0):
                    wall.rect(x + a * bay - 0.06, x + a * bay + 0.06, z + 0.85, z + 2.75, (0.75, 0.76, 0.77))
                if wall.rng.random() < 0.35:
                    wall.rect(x - bay / 2 + 0.08, x - 0.08, z + 1.5, z + 2.7, (0.66, 0.67, 0.66))
            elif style == "modern":
                wall.window(x, z + 0.6, bay * 0.62, 1.9, frame=(0.40, 0.41, 0.43), panes=3, sill=False)
            elif style == "stone":
                wall.rect(x - 0.78, x + 0.78, z + 0.7, z + 2.85, (0.90, 0.87, 0.82))
                wall.rect(x - 0.95, x + 0.95, z + 2.78, z + 2.94, (0.80, 0.77, 0.72))
                wall.window(x, z + 0.85, 1.1, 1.85, frame=(0.80, 0.79, 0.76))
            elif style == "ornate":
                wall.rect(x - 0.75, x + 0.75, z + 0.75, z + 2.75, (0.98, 0.97, 0.94))
                wall.rect(x - 0.9, x + 0.9, z + 2.72, z + 2.9, (0.98, 0.97, 0.94))
                wall.window(x, z + 0.85, 1.15, 1.75)
            else:
                shutters = ((0.30, 0.38, 0.30), (0.42, 0.28, 0.22))[seed % 2] if style == "shutters" else None
                wall.window(x, z + 0.85, 1.2, 1.6, shutters=shutters)
    return wall.texture()


def tiles(seed: int, colour: Numbers) -> TextureImage:
    """Draw a roof tile texture of 3 m per side."""
    rng, side = np.random.default_rng(seed), 128
    y, x = np.mgrid[:side, :side]
    high, wide = 16, 8
    row, column = y // high, x // wide
    each = rng.uniform(0.82, 1.12, (side // high, side // wide))[row, column]
    light = each * (0.72 + 0.38 * (y % high) / high) * (0.9 + 0.14 * np.sin(np.pi * (x % wide) / wide))
    light = light * (1 + 0.05 * noise(rng, (side, side), (4, 4)))
    return to_uint8(light[..., None] * np.asarray(colour))


@lru_cache(maxsize=8)
def leaves(seed: int, needles: bool = False) -> TextureImage:
    """Draw a foliage texture in greys and greens around 0.8, for tinting."""
    rng, side = np.random.default_rng(seed), 128
    shape = (side, side)
    light = 0.42 + 0.06 * noise(rng, shape, (16, 16))
    hue = np.zeros(shape)
    for n in range(420):
        level = 0.45 + 0.62 * n / 420 + rng.normal(0, 0.1)
        angle = rng.uniform(0, np.pi) if not needles else rng.normal(np.pi / 2, 0.35)
        long, wide = (rng.uniform(3.5, 6.5), rng.uniform(1.8, 3.2)) if not needles else (rng.uniform(6, 10), 1.3)
        i, j, half = rng.integers(side), rng.integers(side), 11
        rows, columns = np.arange(i - half, i + half + 1) % side, np.arange(j - half, j + half + 1) % side
        v, u = np.mgrid[-half : half + 1, -half : half + 1]
        along, across = u * np.cos(angle) + v * np.sin(angle), -u * np.sin(angle) + v * np.cos(angle)
        inside = (along / long) ** 2 + (across / wide) ** 2 < 1
        patch = np.ix_(rows, columns)
        light[patch] = np.where(inside, level * (1 - 0.15 * np.sign(across)), light[patch])
        hue[patch] = np.where(inside, rng.normal(0, 1), hue[patch])
    colour = np.stack([1 + 0.10 * hue, 1 + 0.03 * hue, 1 - 0.08 * hue], 2)
    return to_uint8(np.clip(light, 0.25, 1.05)[..., None] * colour * 0.95)


@lru_cache(maxsize=4)
def bark(seed: int, birch: bool = False) -> TextureImage:
    """Draw a bark texture; white with marks for a birch."""
    rng, shape = np.random.default_rng(seed), (64, 64)
    if birch:
        marks = noise(rng, shape, (24, 4)) > 1.2
        light = np.where(marks, 0.25, 0.86 + 0.04 * noise(rng, shape, (8, 4)))
        return to_uint8(light[..., None] * np.array([1.0, 0.98, 0.94]))
    light = 0.36 + 0.07 * noise(rng, shape, (6, 32)) + 0.03 * noise(rng, shape, (16, 16))
    return to_uint8(light[..., None] * np.array([1.0, 0.87, 0.73]))
