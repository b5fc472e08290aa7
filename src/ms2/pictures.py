"""Pictures that a person understands at a glance: histograms and grids of images."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLOURS = {"prior": "#b8bec7", "learned structure": "#7fb2d9", "learned": "#1f77b4", "target": "#e08214"}


class Histogram(NamedTuple):
    """Distributions over the same bins, to be drawn side by side.

    Attributes:
        title: What is counted.
        bins: Names of the bins.
        shares: Share of each bin by who has it (prior, learned, target).
        caption: A line below the title.
        name: Short name of what is counted.
    """

    title: str
    bins: Sequence[str]
    shares: Mapping[str, Float[Tensor, " k"]]
    caption: str = ""
    name: str = ""


def image_grid(images: Float[Tensor, "b c h w"], columns: int = 4) -> UInt8[np.ndarray, "height width 3"]:
    """Images as one picture, with grey lines between them."""
    grid = make_grid(images.detach().cpu().float(), columns, padding=max(1, images.shape[-1] // 40), pad_value=0.5)
    return to_pixels(grid)


def to_pixels(image: Float[Tensor, "c h w"]) -> UInt8[np.ndarray, "height width *channels"]:
    """One image with pixels in [0, 1] as an array for Pillow."""
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def encode(pixels: UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."], kind: Literal["png", "jpeg"]) -> bytes:
    """An image file: PNG without loss, or JPEG of quality 95."""
    if kind == "png" and pixels.dtype == np.uint8:
        return _quick_png(pixels)
    out = io.BytesIO()
    if kind == "png":
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    else:
        Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def _quick_png(pixels: UInt8[np.ndarray, "height width *channels"]) -> bytes:
    """A PNG whose bytes are all differences to the pixel on the left.

    Pillow tries five ways for every row, which takes twice as long and saves a tenth of the room: a tenth of the time
    in which a street is drawn.
    """
    height, width = pixels.shape[:2]
    channels = pixels[0, 0].size
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = 1  # the filter's number
    rows[:, 1:] = pixels.reshape(height, -1)
    rows[:, 1 + channels :] -= pixels.reshape(height, -1)[:, :-channels]
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    data = packer.compress(rows.tobytes()) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def summary(
    title: str, histograms: Sequence[Histogram], grids: Mapping[str, Float[Tensor, "b c h w"]]
) -> UInt8[np.ndarray, "height width 3"]:
    """Histograms above, grids of images below, as one picture; grids of wide images one below the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps global state, and would want a screen.
    rows = max(1, -(-len(histograms) // 3))  # at most three histograms side by side
    wide = any(images.shape[-1] >= 2 * images.shape[-2] for images in grids.values())
    below = 5.5
    if wide:
        below = sum(0.5 + 14 * images.shape[-2] / images.shape[-1] * -(-len(images) // 16) for images in grids.values())
    figure = Figure(figsize=(14, below + 3.2 * rows), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15)
    top, bottom = cast("list[SubFigure]", figure.subfigures(2, 1, height_ratios=[3.2 * rows, below]))
    places = list(top.subplots(rows, -(-len(histograms) // rows), squeeze=False).flat)
    for axes, histogram in zip(places, histograms, strict=False):
        _draw_histogram(axes, histogram)
    for axes in places[len(histograms) :]:
        axes.set_axis_off()
    for axes, (name, images) in zip(
        np.atleast_1d(bottom.subplots(*((len(grids), 1) if wide else (1, len(grids))))), grids.items(), strict=True
    ):
        axes.imshow(image_grid(images), interpolation="nearest")
        axes.set_title(name, fontsize=14, color=COLOURS.get(name, "black"), weight="bold")
        axes.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_histogram(axes: "Axes", histogram: Histogram) -> None:
    width = 0.8 / len(histogram.shares)
    for i, (name, share) in enumerate(histogram.shares.items()):
        place = np.arange(len(share)) + (i - (len(histogram.shares) - 1) / 2) * width
        axes.bar(place, share.cpu().numpy(), width, label=name, color=COLOURS.get(name))
    every = 1 + len(histogram.bins) // 16  # more labels would run into each other
    shown = histogram.bins[::every]
    slant: dict[str, Any] = (
        {"rotation": 40, "ha": "right"} if sum(map(len, shown)) > 40 else {}
    )  # names would run into each other
    axes.set_xticks(range(0, len(histogram.bins), every), shown, **slant)
    axes.set_title(f"{histogram.title}\n", fontsize=13)
    axes.text(0.5, 1.02, histogram.caption, transform=axes.transAxes, ha="center", fontsize=9, color="#555555")
    axes.set_ylabel("share")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
