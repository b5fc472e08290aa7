"""Summary figure of a run: histograms and image grids."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from ms2.core.images import image_grid
from ms2.metrics.results import (
    DISTANCE_TITLES,
    LEARNED,
    NOISE_FLOOR,
    PRIOR,
    ROW_TITLES,
    VISIBLE,
    HistogramResult,
    StatisticResult,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SERIES_COLOURS = {"prior": "#b8bec7", "learned_structure": "#7fb2d9", "learned": "#1f77b4", "target": "#e08214"}
"""Colours of rows by name."""
TITLE_WIDTH = 38
"""Characters of a histogram's title in one line, so that those of three beside each other do not overlap."""


def summary_figure(
    title: str,
    histograms: Sequence[HistogramResult],
    grids: Mapping[str, Float[Tensor, "b c h w"]],
    statistics: Mapping[str, StatisticResult] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Compose histograms above and image grids below; grids of wide images stand one below the other.

    Args:
        title: Title of the figure.
        histograms: The histograms; pairs of structure and what can be seen of it stand beside each other.
        grids: Images by row.
        statistics: Distances by statistic, written above the histograms.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # not pyplot, which keeps global state and may need a display
    paired = any(one.name.startswith(VISIBLE) for one in histograms)
    most = 4 if paired else 3  # histograms side by side
    rows = max(1, -(-len(histograms) // most))
    columns = most if paired and rows > 1 else -(-len(histograms) // rows)
    below = _grids_height(grids)
    figure = Figure(figsize=(14, below + 3.2 * rows), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15)
    top, bottom = cast("list[SubFigure]", figure.subfigures(2, 1, height_ratios=[3.2 * rows, below]))
    places = list(top.subplots(rows, columns, squeeze=False).flat)
    for axes, histogram in zip(places, histograms, strict=False):
        said = caption((statistics or {}).get(histogram.name))
        _draw_histogram(axes, histogram, said if columns < 4 else said.replace(": ", ":\n", 1))
    if columns < 4:
        for axes in places[: len(histograms)]:
            axes.legend(frameon=False, loc="upper right")  # the best place takes long to find
    else:  # narrow histograms leave no room
        figure.legend(*places[0].get_legend_handles_labels(), loc="upper right", ncols=3, frameon=False)
    for axes in places[len(histograms) :]:
        axes.set_axis_off()
    _draw_grids(bottom, grids)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def image_sheet(title: str, grids: Mapping[str, Float[Tensor, "b c h w"]]) -> UInt8[np.ndarray, "height width 3"]:
    """Compose image grids without histograms, see `summary_figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 1 + _grids_height(grids)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15)
    _draw_grids(figure, grids)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _are_wide(grids: Mapping[str, Float[Tensor, "_ _ _ _"]]) -> bool:
    return any(images.shape[-1] >= 2 * images.shape[-2] for images in grids.values())


def _grids_height(grids: Mapping[str, Float[Tensor, "_ _ _ _"]]) -> float:
    """Height of image grids in inches, where the figure is 14 wide."""
    if not _are_wide(grids):
        return 5.5
    return sum(0.5 + 14 * images.shape[-2] / images.shape[-1] * -(-len(images) // 16) for images in grids.values())


def _draw_grids(figure: "Figure | SubFigure", grids: Mapping[str, Float[Tensor, "_ _ _ _"]]) -> None:
    shape = (len(grids), 1) if _are_wide(grids) else (1, len(grids))
    for axes, (name, images) in zip(np.atleast_1d(figure.subplots(*shape)), grids.items(), strict=True):
        axes.imshow(image_grid(images), interpolation="nearest")
        axes.set_title(ROW_TITLES.get(name, name), fontsize=14, color=SERIES_COLOURS.get(name, "black"), weight="bold")
        axes.set_axis_off()


def caption(statistic: StatisticResult | None) -> str:
    """Format the main distance of prior, learned model and noise floor; empty where there is none."""
    if statistic is None:
        return ""
    rows = statistic.distances[statistic.main]
    known = [(ROW_TITLES[row], rows[row].value) for row in (PRIOR, LEARNED, NOISE_FLOOR) if row in rows]
    numbers = [f"{title} {value:.3g}{' ' if statistic.unit else ''}{statistic.unit}" for title, value in known]
    return f"{DISTANCE_TITLES.get(statistic.main, statistic.main)}: {', '.join(numbers)}"


def _draw_histogram(axes: "Axes", histogram: HistogramResult, caption: str) -> None:
    width = 0.8 / len(histogram.shares)
    for i, (name, share) in enumerate(histogram.shares.items()):
        place = np.arange(len(share)) + (i - (len(histogram.shares) - 1) / 2) * width
        axes.bar(place, np.asarray(share), width, label=ROW_TITLES.get(name, name), color=SERIES_COLOURS.get(name))
    step = 1 + len(histogram.bins) // 16  # more labels would overlap
    shown = histogram.bins[::step]
    slanted: dict[str, Any] = {"rotation": 40, "ha": "right"} if sum(map(len, shown)) > 40 else {}
    axes.set_xticks(range(0, len(histogram.bins), step), shown, **slanted)
    lines = 1 + caption.count("\n")
    title = fill(histogram.title, TITLE_WIDTH)
    axes.set_title(title + lines * "\n", fontsize=13 if lines == 1 and title == histogram.title else 11)
    axes.text(0.5, 1.02, caption, transform=axes.transAxes, ha="center", fontsize=9, color="#555555")
    axes.set_ylabel("share")
    axes.spines[["top", "right"]].set_visible(False)
