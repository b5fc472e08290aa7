"""A sheet of labelled images: boxes and class names drawn over each, to see at a glance whether labels are right."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ms2.core.images import to_pixels
from ms2.evaluation.examples import Example

TILE_WIDTH = 360
"""Least width of an image on the sheet in pixels: smaller ones are enlarged by a whole factor."""
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#469990")
"""Colours of classes, in the order in which they occur."""
GAP, FONT_SIZE = 6, 13


def label_sheet(examples: Sequence[Example], columns: int = 4) -> UInt8[np.ndarray, "height width 3"]:
    """Draw boxes and class names over images, and tile these to one."""
    colours: dict[str, str] = {}
    tiles = [_tile(example, colours) for example in examples]
    width, height = tiles[0].size
    rows = math.ceil(len(tiles) / columns)
    columns = min(columns, len(tiles))
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), "#808080")
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        sheet.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return np.asarray(sheet)


def _tile(example: Example, colours: dict[str, str]) -> Image.Image:
    """Draw an image with its labels; ``colours`` holds those of the classes so far."""
    pixels = to_pixels(example.image.nan_to_num())
    image = Image.fromarray(pixels if pixels.ndim == 2 or pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")
    factor = max(1, math.ceil(TILE_WIDTH / image.width))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)
    for label in example.labels or ():
        name = str(label["category"])
        colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
        x, y, w, h = (factor * value for value in label["bbox"])
        draw.rectangle((x, y, x + w - 1, y + h - 1), outline=colour, width=2)
        left, _, right, bottom = draw.textbbox((0, 0), name, font)
        tx, ty = min(x, image.width - right - 2), y - bottom - 2 if y > bottom + 2 else y + h
        ty = min(max(ty, 0), image.height - bottom - 2)
        draw.rectangle((tx, ty, tx + right - left + 3, ty + bottom + 2), fill=colour)
        draw.text((tx + 1, ty), name, "black", font)
    return image
