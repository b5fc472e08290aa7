"""Figures 6, 7 and 8 of the paper in the paper's form, drawn from kept results.

Usage: python experiments/figures.py 6|7|8 [--config NAME] [--mmd NAME] [--out FILE]

Figures 6 and 7 show the number and the classes of digits: prior, learned and target; learned with batch MMD, learned
with our objective, and target. Figure 8 shows the cars on each road of Aerial 2D. Every kept seed is shown. Seeds with
hidden distributions of their own have a panel each; seeds that share one are drawn as means, with whiskers from the
lowest to the highest seed. Images are those of the first seed, where its run is still in runs/.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from kept import KEPT, kept_runs, seed_names
from PIL import Image

from ms2.core.errors import UserError
from ms2.core.yaml_files import load_yaml
from ms2.evaluation.plots import SERIES_COLOURS
from ms2.metrics.results import (
    LEARNED,
    PRIOR,
    TARGET,
    HistogramResult,
    Results,
    StatisticResult,
    load_histograms,
    load_results,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RUNS = Path("runs")
HISTOGRAMS = "histograms.json"
NUM_IMAGES = 8
"""Images of each series."""
MMD_COLOUR = "#8c564b"


@dataclass(frozen=True)
class PaperFigure:
    """What a figure of the paper shows.

    Attributes:
        title: Title.
        histograms: Names of the statistics.
        config: Configuration whose learned model is shown by default.
        mmd: Configuration learned with batch MMD that is shown in place of the prior by default; empty for the prior.
    """

    title: str
    histograms: tuple[str, ...]
    config: str
    mmd: str = ""


FIGURES = {
    6: PaperFigure("Fig. 6: classes and number of digits", ("class", "count"), "multimnist_paper"),
    7: PaperFigure("Fig. 7: batch MMD and ours", ("class", "count"), "multimnist_paper", "multimnist_mmd"),
    8: PaperFigure("Fig. 8: cars on each road", tuple(f"cars_road{i}" for i in range(1, 5)), "aerial2d_paper"),
}


@dataclass(frozen=True)
class KeptRun:
    """A kept run, read when it is needed."""

    folder: Path

    @cached_property
    def histograms(self) -> dict[str, HistogramResult]:
        """Histograms by statistic."""
        return {one.name: one for one in load_histograms(self.folder / HISTOGRAMS)}

    @cached_property
    def results(self) -> Results:
        """All results."""
        return load_results(self.folder / "metrics.json")

    @cached_property
    def hidden(self) -> str:
        """The hidden distribution of structure, as the settings of its prior."""
        settings = load_yaml((self.folder / "config.yaml").read_text(encoding="utf-8"))
        target = settings["data"]["target"]
        return str((target.get("init_args") or {}).get("structure_prior"))

    def statistic(self, name: str) -> StatisticResult:
        """Distances of a statistic."""
        return self.results.structure[name]


@dataclass(frozen=True)
class Series:
    """Bars of one colour: a row of the results of a configuration's runs, by seed."""

    title: str
    row: str
    colour: str
    runs: Mapping[int, KeptRun]


def series_of(number: int, config: str, mmd: str, folder: Path) -> list[Series]:
    """Read what a figure shows, of the seeds that all its configurations have.

    Raises:
        UserError: If no seed has kept histograms of all configurations; the message says how to make them.
    """
    found = {name: kept_runs(name, HISTOGRAMS, folder) for name in (config, mmd) if name}
    for name, runs in found.items():
        if not runs:
            world, _, rest = name.partition("_")
            raise UserError(
                f"figure {number} needs {folder.name}/{name}_seed*/{HISTOGRAMS}, and there is none: make them with "
                f'make results ARGS="{world} {rest}"'
            )
    seeds = sorted(set.intersection(*(set(runs) for runs in found.values())))
    if not seeds:
        raise UserError(f"{config} and {mmd} have no seed in common, so they can't stand beside each other")
    ours, other = ({seed: KeptRun(found[name][seed]) for seed in seeds} if name else {} for name in (config, mmd))
    first = Series("learned with MMD", LEARNED, MMD_COLOUR, other) if mmd else _of(PRIOR, ours)
    learned = Series("learned, ours" if mmd else "learned", LEARNED, SERIES_COLOURS[LEARNED], ours)
    return [first, learned, _of(TARGET, ours)]


def _of(row: str, runs: Mapping[int, KeptRun]) -> Series:
    return Series(row, row, SERIES_COLOURS[row], runs)


def groups(runs: Mapping[int, KeptRun]) -> list[list[int]]:
    """Group seeds by their hidden distribution."""
    found: dict[str, list[int]] = {}
    for seed, run in runs.items():
        found.setdefault(run.hidden, []).append(seed)
    return list(found.values())


def shares(series: Series, seeds: Sequence[int], name: str, bins: Sequence[str]) -> np.ndarray:
    """Stack the shares of each bin, ``[seed, bin]``; bins that a run does not have are empty."""
    rows = []
    for seed in seeds:
        one = series.runs[seed].histograms[name]
        if list(one.bins) != list(bins[: len(one.bins)]):
            raise UserError(f"{series.runs[seed].folder / HISTOGRAMS} has other bins of {name} than other seeds")
        rows.append([*one.shares[series.row], *[0.0] * (len(bins) - len(one.bins))])
    return np.array(rows)


def all_bins(every: Sequence[Series], seeds: Sequence[int], name: str) -> list[str]:
    """Return the bins of the run that has most."""
    return max((list(one.runs[seed].histograms[name].bins) for one in every for seed in seeds), key=len)


def draw_panel(axes: "Axes", every: Sequence[Series], seeds: Sequence[int], name: str) -> None:
    """Draw the histograms of a statistic: means over seeds, and whiskers from the lowest to the highest."""
    bins = all_bins(every, seeds, name)
    width = 0.8 / len(every)
    said = []
    for i, one in enumerate(every):
        found = shares(one, seeds, name, bins)
        mean = found.mean(0)
        spread = np.stack([mean - found.min(0), found.max(0) - mean]) if len(seeds) > 1 else None
        place = np.arange(len(bins)) + (i - (len(every) - 1) / 2) * width
        axes.bar(place, mean, width, yerr=spread, label=one.title, color=one.colour, error_kw={"elinewidth": 0.8})
        tv = [one.runs[seed].statistic(name).distances["tv"].get(one.row) for seed in seeds]
        known = [estimate.value for estimate in tv if estimate is not None]
        if known and one.row != TARGET:
            said.append(f"{one.title} {np.mean(known):.3f}")
    step = 1 + len(bins) // 12
    axes.set_xticks(range(0, len(bins), step), bins[::step], fontsize=8)
    title = every[-1].runs[seeds[0]].histograms[name].title
    axes.set_title(
        f"{title}, seed{'s' * (len(seeds) > 1)} {seed_names(list(seeds))}\nTV: {', '.join(said)}", fontsize=8
    )
    axes.spines[["top", "right"]].set_visible(False)


def read_image(file: Path) -> np.ndarray:
    """Read the pixels of an image, ``[height, width, 3]``."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def strips(every: Sequence[Series], runs: Path) -> dict[str, np.ndarray]:
    """Return images of each series side by side, of the first seed; empty where the run is no longer there."""
    seed = min(every[0].runs)
    found = {}
    for one in every:
        folder = runs / one.runs[seed].folder.name / "examples"
        files = sorted(folder.glob(f"{one.row}_[0-9]*.png"))[:NUM_IMAGES]
        if not files:
            return {}
        found[one.title] = np.concatenate([read_image(file) for file in files], 1)
    return found


def draw(title: str, names: Sequence[str], every: Sequence[Series], images: Mapping[str, np.ndarray]) -> "Figure":
    """Draw histograms, the statistics of each hidden distribution side by side, and images below."""
    from matplotlib.figure import Figure

    grouped = groups(every[-1].runs)
    seeds = [seed for group in grouped for seed in group]
    places = [(group, name) for group in grouped for name in names]
    columns = len(names) * (1 if len(grouped) < 4 else 2)
    shape = (-(-len(places) // columns), columns)
    heights = [2.2 * shape[0], 1.2 * len(images)][: 2 if images else 1]
    figure = Figure(figsize=(max(8, 3.2 * shape[1]), sum(heights) + 0.8), dpi=120, layout="constrained")
    spread = "; bars: means over seeds, whiskers: lowest and highest" if len(grouped) < len(seeds) else ""
    figure.suptitle(f"{title} (seeds {seed_names(seeds)}{spread})", fontsize=11)
    top, *below = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
    panels = top.subplots(*shape, squeeze=False, sharey="row" if len(grouped) == 1 else "col")
    for axes, (group, name) in zip(panels.flat, places, strict=False):
        draw_panel(axes, every, group, name)
    for axes in panels.flat[len(places) :]:
        axes.set_axis_off()
    panels[0, 0].legend(frameon=False, fontsize=8)
    for part in below:
        for axes, (name, pixels) in zip(part.subplots(len(images), 1, squeeze=False).flat, images.items(), strict=True):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(f"{name}, seed {min(seeds)}", fontsize=8)
            axes.set_axis_off()
    return figure


def main(words: Sequence[str] | None = None) -> None:
    """Draw a figure, and say what it was drawn from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=int, choices=FIGURES, help="number of the figure in the paper")
    parser.add_argument("--config", help="whose learned model is shown; by default the paper's own choices")
    parser.add_argument("--mmd", help="learned with batch MMD, shown in place of the prior; by default in figure 7")
    parser.add_argument("--out", type=Path, help="image file; figure6.png and so on by default")
    args = parser.parse_args(words)
    chosen = FIGURES[args.figure]
    config, mmd = args.config or chosen.config, chosen.mmd if args.mmd is None else args.mmd
    out = args.out or Path(f"figure{args.figure}.png")
    try:
        every = series_of(args.figure, config, mmd, KEPT)
        images = strips(every, RUNS)
        draw(f"{chosen.title}, {config}", chosen.histograms, every, images).savefig(out)
    except UserError as error:
        parser.exit(1, f"{error}\n")
    print(f"{out}: seeds {seed_names(list(every[-1].runs))} of {config}{f' and {mmd}' if mmd else ''}")
    if not images:
        print(f"Histograms alone: images stand in {RUNS}/{config}_seed*/examples, and the first seed's are not there.")


if __name__ == "__main__":
    main()
