"""Charts: what Vega draws of a specification, at which coordinates, and what is said of it in words."""

import json
from typing import Any

import numpy as np
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from ms2.report.charts import CONFIG, Chart, duration_chart, heat_map, histogram, series_legend
from ms2.report.interval_charts import ChangeRow, IntervalRow, interval_chart, rule_change_chart
from ms2.report.line_charts import MAX_POINTS, Curve, line_chart, smooth, thin

SHARES = {"prior": [0.25, 0.25, 0.5], "learned": [0.125, 0.375, 0.5]}
CHARTS: dict[str, Chart] = {
    "columns": histogram("Counts", ["0", "1", "2"], SHARES, "a caption"),
    "bars": histogram("Classes", ["a", "b", "c"], SHARES, ordered=False),
    "heat map": heat_map("Positions", [[0, 3], [1, 0], [0, 0]], 2 / 3, "centres"),
    "durations": duration_chart("Time", {"one": 1.0, "two": 3.0}, {"one": "1 s", "two": "3 s"}, ["one"]),
    "curves": line_chart("Loss", [Curve("a", range(20), [1.0 + i % 3 for i in range(20)]), Curve("b", [0, 9], [2, 3])]),
    "intervals": interval_chart(
        "Distance", [IntervalRow("learned", "learned", 0.2, (0.1, 0.3)), IntervalRow("prior", "prior", 0.6, None)]
    ),
    "rule changes": rule_change_chart(
        "Changes", [ChangeRow("A → a", 0.2, 0.6, (0.5, 0.7), (1, 2)), ChangeRow("A → b", None, 0.4, (0.3, 0.5), (0, 1))]
    ),
}


def marks(chart: Chart, kind: str) -> list[dict[str, Any]]:
    """Items of all marks of a kind, with coordinates in pixels as Vega computes them."""
    found: list[dict[str, Any]] = []

    def walk(node: dict[str, Any]) -> None:
        if node.get("marktype") == kind and node.get("role") == "mark":
            found.extend(node["items"])
        elif "axis" not in node.get("role", ""):
            for item in node.get("items", ()):
                walk(item)

    spec = {**chart.spec, "config": CONFIG, "width": 300}
    if spec["height"] == "container":
        spec["height"] = 200
    walk(vl_convert.vegalite_to_scenegraph(json.dumps(spec))["scenegraph"])
    return found


@pytest.mark.parametrize("name", CHARTS)
def test_every_specification_compiles_with_all_its_data(name: str) -> None:
    chart = CHARTS[name]
    compiled = json.dumps(vl_convert.vegalite_to_vega(json.dumps({**chart.spec, "config": CONFIG})))
    assert '"points"' in compiled
    assert all("tip" in row for row in chart.spec["datasets"]["points"])
    assert chart.spec["width"] == "container" and "url" not in json.dumps(chart.spec["datasets"])


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_says_its_numbers_in_words(name: str) -> None:
    words = {
        "columns": "Counts. 0, prior: 25 %, learned: 12.5 %; 1, prior: 25 %, learned: 37.5 %; 2, prior: 50 %",
        "bars": "Classes. a, prior: 25 %, learned: 12.5 %",
        "heat map": "Positions, centres: left third 0 %, middle third 25 %, right third 75 %, top third 75 %",
        "durations": "Time: one: 1 s, two: 3 s",
        "curves": "Loss. a: 1.0 at step 0, 2.0 at step 19, lowest 1.0, highest 3.0; b: 2.0 at step 0, 3.0 at step 9",
        "intervals": "Distance. learned 0.200, 95 % interval 0.100 to 0.300; prior 0.600",
        "rule changes": "Changes. A → a: 0.200 under the prior, 0.600 learned; A → b: new, 0.400 learned",
    }
    assert CHARTS[name].description.startswith(words[name])


@pytest.mark.parametrize(("name", "length"), [("columns", "height"), ("bars", "width")])
def test_bars_are_as_long_as_shares(name: str, length: str) -> None:
    bars = marks(CHARTS[name], "rect")
    lengths = {who: [bar.get(length, 0) for bar in bars if bar["fill"] == f"var(--{who})"] for who in SHARES}
    scale = max(lengths["prior"]) / max(SHARES["prior"])
    assert scale > 100
    for who, shares in SHARES.items():
        np.testing.assert_allclose(lengths[who], scale * np.array(shares), rtol=1e-3)


def test_curves_go_through_their_points() -> None:
    values = [3.0, 1.0, 2.0, 5.0]
    dots = marks(line_chart("x", [Curve("a", [0, 10, 20, 40], values)]), "symbol")
    x, y = np.array([[item["x"], item["y"]] for item in dots]).T
    np.testing.assert_allclose(x, 300 * np.array([0, 10, 20, 40]) / 40, atol=0.51)
    slopes = np.diff(y) / np.diff(values)
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-3)
    assert slopes[0] < 0


def test_intervals_and_changes_are_at_their_numbers() -> None:
    points = [item["x"] for item in marks(CHARTS["intervals"], "symbol")]
    assert points[1] / points[0] == pytest.approx(3, rel=1e-3)
    rules = [(item["x"], item.get("x2")) for item in marks(CHARTS["intervals"], "rule")]
    assert [x / points[0] for x in sorted(rules[0])] == pytest.approx([0.5, 1.5], rel=1e-3)
    circles = sorted(item["x"] for item in marks(CHARTS["rule changes"], "symbol"))
    assert circles == pytest.approx([60, 120, 180], abs=0.51), "0.2, 0.4 and 0.6 of 300 pixels"


def test_a_heat_map_is_the_more_opaque_the_larger_its_count() -> None:
    cells = {(item["x"], item["y"]): item["opacity"] for item in marks(CHARTS["heat map"], "rect")}
    assert len(cells) == 6 and max(cells.values()) == 1 and min(cells.values()) == 0
    assert sorted(cells.values())[-2] == pytest.approx(3**-0.5, abs=1e-3)
    tips = [point["tip"] for point in CHARTS["heat map"].spec["datasets"]["points"]]
    assert tips == ["0 (0 %)", "3 (75 %)", "1 (25 %)", "0 (0 %)", "0 (0 %)", "0 (0 %)"]


def test_the_cursor_tells_all_curves_of_a_step() -> None:
    points = CHARTS["curves"].spec["datasets"]["points"]
    assert [point["x"] for point in points] == list(range(20))
    assert points[0]["tip"].split("\n") == ["step 0", "a: 1.0", "b: 2.0"]
    assert points[9]["tip"].split("\n")[2] == "b: 3.0" and len(points[1]["tip"].split("\n")) == 2


def test_smoothing_is_a_weighted_mean_of_earlier_values() -> None:
    values = np.random.default_rng(0).normal(size=60)
    keep = 1 - 2 / (1 + 60 / 12)
    expected = [np.average(values[: i + 1], weights=keep ** np.arange(i, -1, -1)) for i in range(60)]
    np.testing.assert_allclose(smooth(values.tolist()), expected)
    assert smooth([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]


@given(st.integers(1, 5 * MAX_POINTS))
def test_thinning_keeps_both_ends(number: int) -> None:
    kept = thin(range(number))
    assert kept[0] == 0 and kept[-1] == number - 1 and len(kept) <= MAX_POINTS + 1


def test_rows_of_results_have_colours_of_their_own() -> None:
    names = ["a", "prior", "b"]
    assert series_legend(names) == [("a", "c0"), ("prior", "prior"), ("b", "c2")]


@pytest.mark.parametrize("text", ["a.b[c]", "</script>", "x\"'\\", "datum.x"])
def test_any_name_can_be_drawn(text: str) -> None:
    """Names are data in a specification, never expressions or field names."""
    curves = [Curve(text, [0, 1], [1, 2]), Curve("b", [0, 1], [1, 2])]
    for chart, expected in (
        (histogram(text, [text, "b"], {text: [0.5, 0.5], "learned": [1, 0]}), [6, 0, 0, 0]),
        (line_chart(text, curves), [0, 4, 4, 2]),
        (interval_chart(text, [IntervalRow("prior", text, 1, None)]), [0, 0, 1, 1]),
        (rule_change_chart(text, [ChangeRow(text, None, 0.5, (0.4, 0.6), (0, 1))]), [0, 0, 1, 1]),
    ):
        assert [len(marks(chart, kind)) for kind in ("rect", "line", "symbol", "rule")] == expected


def test_the_least_data_can_be_drawn() -> None:
    assert len(marks(histogram("x", ["0"], {"a": [0.0]}), "rect")) == 2
    assert len(marks(line_chart("x", [Curve("a", [3], [0.0])]), "symbol")) == 1
    assert len(marks(interval_chart("x", [IntervalRow("learned", "learned", 0.0, None)]), "symbol")) == 1
    assert len(marks(heat_map("x", [[0] * 4] * 4, 1), "rect")) == 16
