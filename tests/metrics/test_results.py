"""Typed results: what is written is read back, and a broken file is named with its fault."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ms2.core.errors import UserError
from ms2.metrics.intervals import Interval
from ms2.metrics.results import (
    Estimate,
    HistogramResult,
    ImageResult,
    ProbeResult,
    ReadingResult,
    Results,
    RunProvenance,
    StageRecord,
    StatisticResult,
    load_histograms,
    load_results,
    save_histograms,
    save_results,
)


@pytest.fixture
def results() -> Results:
    """Results with something in every field."""
    rows = {
        "learned": Estimate.from_interval(Interval(0.04, 0.02, 0.06)),
        "prior": Estimate(0.6, 0.5, 0.7),
        "best_pcfg": Estimate(0.03, 0.02, 0.05),
        "noise_floor": Estimate(0.01),
    }
    return Results(
        RunProvenance(4000, 3, "Synthetic", 1000, 500, "abc", "ms2 fit", {"ms2": "0.1"}),
        {"count": StatisticResult("objects per scene", {"tv": rows, "kl": rows}, {"learned": 4.1, "target": 4.2})},
        {"x": StatisticResult("x of objects", {"w1": {"learned": Estimate(0.2, 0.1, 0.3)}}, {}, "m")},
        ImageResult(
            "Backbone",
            50,
            40,
            {"kid": {"learned": Estimate(0.1, 0.0, 0.2), "prior": Estimate(0.4)}},
            {"kid": {"learned": Estimate(-0.75, -0.9, -0.5)}},
        ),
        ReadingResult(50, 500, {"learned": 4.0, "target": 4.1}, {"car": {"learned": 4.0, "target": 4.1}}),
        {"extractor": StageRecord(3.5, True, {"extractor/loss": 0.5}, {"line": ProbeResult({"a": 1.0}, {0: 0.5})})},
        {"training": 10.0, "total": 20.0},
    )


def test_results_are_read_as_they_were_written(tmp_path: Path, results: Results) -> None:
    save_results(tmp_path / "metrics.json", results)
    assert load_results(tmp_path / "metrics.json") == results


def test_results_from_before_there_was_a_field_are_read(tmp_path: Path, results: Results) -> None:
    path = tmp_path / "metrics.json"
    save_results(path, results)
    edit(path, "visible")
    edit(path, "measured_with", "num_visible")
    edit(path, "structure", "count", "counted_class")
    assert load_results(path) == results


def test_the_summary_has_flat_keys_for_scripts(tmp_path: Path, results: Results) -> None:
    save_results(tmp_path / "metrics.json", results)
    summary = json.loads((tmp_path / "metrics.json").read_text())["summary"]
    assert summary == results.summary
    assert summary["count_tv"] == 0.04 and summary["count_tv_prior"] == 0.6 and summary["count_tv_best_pcfg"] == 0.03
    assert summary["count_tv_noise_floor"] == 0.01 and summary["count_mean"] == 4.1
    assert summary["count_mean_target"] == 4.2 and summary["x_w1"] == 0.2
    assert summary["kid"] == 0.1 and summary["kid_prior"] == 0.4
    assert summary["seconds_extractor"] == 3.5 and summary["seconds_total"] == 20


def test_values_that_are_not_finite_are_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    rows = {"w1": {"learned": Estimate(math.nan, math.nan, math.nan)}}
    save_results(path, Results(RunProvenance(1, 0, "T"), attributes={"x": StatisticResult("x", rows)}))
    assert "NaN" not in path.read_text()
    estimate = load_results(path).attributes["x"].distances["w1"]["learned"]
    assert math.isnan(estimate.value) and estimate.interval is None


def test_histograms_are_read_as_they_were_written(tmp_path: Path) -> None:
    drawn = [HistogramResult("count", "objects", ["0", "1"], {"prior": [0.5, 0.5], "target": [0.25, 0.75]})]
    save_histograms(tmp_path / "histograms.json", drawn)
    assert load_histograms(tmp_path / "histograms.json") == drawn


def edit(path: Path, *keys: str, value: Any = None) -> None:
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("schema_version",), None, "no schema_version, but this version reads 1"),
        (("schema_version",), 99, "schema_version 99, but this version reads 1"),
        (("measured_with",), None, "lacks the field measured_with"),
        (("measured_with", "num_scenes"), None, "lacks the field measured_with.num_scenes"),
        (("structure", "count", "distances", "tv", "prior", "value"), "much", "structure.count.distances.tv.prior.v"),
        (("stages", "extractor", "reused"), 3, "stages.extractor.reused is 3"),
    ],
)
def test_an_edited_file_is_named_with_the_field_that_is_wrong(
    tmp_path: Path, results: Results, keys: tuple[str, ...], value: Any, said: str
) -> None:
    path = tmp_path / "metrics.json"
    save_results(path, results)
    edit(path, *keys, value=value)
    with pytest.raises(UserError) as error:
        load_results(path)
    assert str(path) in str(error.value) and said in str(error.value)


@pytest.mark.parametrize("content", ['{"schema_ver', "[]", "\xff"])
def test_a_file_that_holds_no_results_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"metrics\.json"):
        load_results(path)
    with pytest.raises(UserError, match=r"missing\.json: there is no such file"):
        load_results(tmp_path / "missing.json")
