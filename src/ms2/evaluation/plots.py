"""Plots of a run: histograms and grids of images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jaxtyping import Float, UInt8
from torch import Tensor

from ms2.core.images import image_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
import numpy as np

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
