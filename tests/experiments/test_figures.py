"""Figures 6 to 8: what is drawn is what was kept, of every seed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ms2.core.configurations import load
from ms2.core.errors import UserError
from ms2.metrics.results import (
    Estimate,
    HistogramResult,
    Results,
    RunProvenance,
    StatisticResult,
    save_histograms,
    save_results,
)

sys.path.append(str(Path(__file__).parents[2] / "experiments"))
import figures
from kept import kept_runs, seed_names


def keep(folder: Path, config: str, seed: int, hidden: int, learned: list[float], names: tuple[str, ...]) -> None:
    """Keep the results of a made-up run: the target has as many of each bin."""
    run = folder / f"{config}_seed{seed}"
    run.mkdir(parents=True)
    n = len(learned)
    rows = {"prior": [1.0] + [0.0] * (n - 1), "learned": learned, "target": [1 / n] * n}
    save_histograms(
        run / "histograms.json", [HistogramResult(name, f"{name}s", [*map(str, range(n))], rows) for name in names]
    )
    tv = {"prior": Estimate(1 - 1 / n), "learned": Estimate(sum(abs(x - 1 / n) for x in learned) / 2)}
    statistics = {name: StatisticResult(name, {"tv": tv}) for name in names}
    save_results(run / "metrics.json", Results(RunProvenance(10, seed, "Synthetic"), statistics))
    target = {
        "class_path": "Synthetic",
        "init_args": {"seed": seed, "structure_prior": {"init_args": {"seed": hidden}}},
    }
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"target": target}}), encoding="utf-8")


DIGITS = ("class", "count")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    keep(tmp_path, "multimnist_paper", 0, 0, [0.5, 0.5], DIGITS)
    keep(tmp_path, "multimnist_paper", 10, 1, [0.2, 0.3, 0.5], DIGITS)
    keep(tmp_path, "multimnist_mmd", 10, 1, [0.0, 0.0, 1.0], DIGITS)
    for seed, learned in enumerate(([0.4, 0.6], [0.8, 0.2])):
        keep(tmp_path, "aerial2d_paper", seed, 0, learned, figures.FIGURES[8].histograms)
    return tmp_path


def heights(axes: object) -> list[list[float]]:
    """The heights of the bars of each series."""
    return [[bar.get_height() for bar in bars] for bars in axes.containers if hasattr(bars, "patches")]


def test_runs_are_found_by_seed(kept: Path) -> None:
    assert list(kept_runs("multimnist_paper", folder=kept)) == [0, 10]
    assert kept_runs("multimnist", folder=kept) == {} == kept_runs("multimnist_paper", "images.png", kept)
    assert seed_names([0, 1, 2, 4, 8, 9]) == "0 to 2, 4, 8, 9"


def test_seeds_with_hidden_distributions_of_their_own_have_panels(kept: Path) -> None:
    every = figures.series_of(6, "multimnist_paper", "", kept)
    figure = figures.draw("digits", DIGITS, every, {})
    first, _, second, _ = panels = figure.subfigs[0].axes
    assert len(panels) == 2 * 2, "two statistics of two seeds"
    assert heights(first) == [[1, 0], [0.5, 0.5], [0.5, 0.5]]
    assert np.allclose(heights(second), [[1, 0, 0], [0.2, 0.3, 0.5], [1 / 3] * 3])
    assert "seed 10\nTV: prior 0.667, learned 0.167" in second.get_title()
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["prior", "learned", "target"]
    assert "whiskers" not in figure.get_suptitle()


def test_ten_hidden_distributions_stand_two_a_row(tmp_path: Path) -> None:
    for seed in range(9):
        keep(tmp_path, "multimnist_paper", seed, seed, [seed / 10, 1 - seed / 10], DIGITS)
    figure = figures.draw("digits", DIGITS, figures.series_of(6, "multimnist_paper", "", tmp_path), {})
    panels = figure.subfigs[0].axes
    assert [axes.get_title().partition(",")[0] for axes in panels] == ["classs", "counts"] * 9 + ["", ""]
    assert [heights(axes)[1][0] for axes in panels[:18:2]] == [seed / 10 for seed in range(9)]
    assert panels[0].get_gridspec().get_geometry() == (5, 4)


def test_seeds_with_the_same_hidden_distribution_are_a_mean_with_its_spread(kept: Path) -> None:
    every = figures.series_of(8, "aerial2d_paper", "", kept)
    figure = figures.draw("cars", figures.FIGURES[8].histograms, every, {})
    panels = figure.subfigs[0].axes
    assert len(panels) == 4, "a road each"
    assert np.allclose(heights(panels[2])[1], [0.6, 0.4])
    whiskers = panels[2].containers[2][2][0].get_segments()  # those of the learned model
    assert np.allclose([[y for _, y in whisker] for whisker in whiskers], [[0.4, 0.8], [0.2, 0.6]])
    assert "seeds 0, 1" in figure.get_suptitle() and "whiskers" in figure.get_suptitle()


def test_mmd_stands_beside_ours_of_the_same_seeds(kept: Path) -> None:
    mmd, ours, target = figures.series_of(7, "multimnist_paper", "multimnist_mmd", kept)
    assert list(mmd.runs) == list(ours.runs) == list(target.runs) == [10], "seed 0 has no run with MMD"
    axes = figures.draw("both", DIGITS, [mmd, ours, target], {}).subfigs[0].axes[0]
    assert np.allclose(heights(axes)[:2], [[0, 0, 1], [0.2, 0.3, 0.5]])


def test_images_of_the_first_seed_stand_below(kept: Path, tmp_path: Path) -> None:
    every = figures.series_of(8, "aerial2d_paper", "", kept)
    assert figures.strips(every, tmp_path / "runs") == {}
    examples = tmp_path / "runs" / "aerial2d_paper_seed0" / "examples"
    examples.mkdir(parents=True)
    for row, light in (("prior", 50), ("learned", 100), ("learned_structure", 0), ("target", 150)):
        for i in range(16):
            Image.new("L", (4, 3), light + i).save(examples / f"{row}_{i:02d}.png")
    found = figures.strips(every, tmp_path / "runs")
    assert {name: pixels.shape for name, pixels in found.items()} == dict.fromkeys(
        ("prior", "learned", "target"), (3, 4 * figures.NUM_IMAGES, 3)
    )
    assert found["learned"][0, ::4, 0].tolist() == list(range(100, 100 + figures.NUM_IMAGES))
    _, below = figures.draw("cars", figures.FIGURES[8].histograms, every, found).subfigs
    assert [axes.get_title() for axes in below.axes] == [f"{row}, seed 0" for row in ("prior", "learned", "target")]


def test_what_is_missing_is_said_with_what_makes_it(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UserError, match=r'figure 6 needs .*multimnist_quick_seed\*.*make results ARGS="multimnist quick"'
    ):
        figures.series_of(6, "multimnist_quick", "", kept)
    keep(kept, "multimnist_other", 5, 0, [1.0], DIGITS)
    with pytest.raises(UserError, match="multimnist_other and multimnist_mmd have no seed in common"):
        figures.series_of(7, "multimnist_other", "multimnist_mmd", kept)


def test_the_command_writes_a_file(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "KEPT", kept)
    monkeypatch.chdir(tmp_path)
    figures.main(["6", "--out", "six.png"])
    with Image.open("six.png") as image:
        assert image.width > 500
    out = capsys.readouterr().out
    assert "six.png: seeds 0, 10 of multimnist_paper" in out and "Histograms alone" in out
    with pytest.raises(SystemExit):
        figures.main(["6", "--config", "nothing"])
    assert "nothing_seed*" in capsys.readouterr().err


@pytest.mark.parametrize("number", figures.FIGURES)
def test_what_a_figure_shows_is_measured_by_its_configurations(number: int) -> None:
    chosen = figures.FIGURES[number]
    for config in filter(None, (chosen.config, chosen.mmd)):
        found = load(config).get("evaluation", {}).get("statistics")
        default = {"count", "class"}  # of a configuration that names no statistics
        names = {one["init_args"].get("name") for one in found or () if isinstance(one, dict) and "init_args" in one}
        assert set(chosen.histograms) <= (names if found else default)
