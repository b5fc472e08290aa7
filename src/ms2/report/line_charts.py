"""Line charts over steps, with a cursor that shows the values of a step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from ms2.core.formatting import format_short
from ms2.report.charts import (
    NUMBER_FORMAT,
    Chart,
    LegendEntry,
    colour_encoding,
    create_marks,
    hover_selection,
    series_legend,
    specification,
)
from ms2.report.tables import Table

MAX_POINTS = 500
"""Points of a curve; a screen has no room for more."""
MIN_SMOOTHED_POINTS = 9
"""Shorter curves are not smoothed, and their points are marked."""


class Curve(NamedTuple):
    """Values over steps.

    Attributes:
        name: What was measured.
        steps: Steps in increasing order.
        values: As many finite values.
    """

    name: str
    steps: Sequence[float]
    values: Sequence[float]


def line_chart(
    title: str, curves: Sequence[Curve], caption: str = "", from_zero: bool = False, x_label: str = "step"
) -> Chart:
    """Draw raw (light) and smoothed (bold) curves.

    Args:
        title: What is shown.
        curves: The curves, each with at least one point.
        caption: A line below the title.
        from_zero: Whether the axis starts at 0 if no value is below.
        x_label: What the horizontal axis counts.
    """
    legend = series_legend([curve.name for curve in curves])
    smoothed_rows: list[dict[str, Any]] = []
    marked_rows: list[dict[str, Any]] = []
    for curve in curves:
        columns = (thin(curve.steps), thin(curve.values), thin(smooth(curve.values)))
        rows = [
            {"x": x, "series": curve.name, "value": _short(value), "smoothed": _short(mean)}
            for x, value, mean in zip(*columns, strict=True)
        ]
        (marked_rows if len(curve.values) < MIN_SMOOTHED_POINTS else smoothed_rows).extend(rows)
    spec = specification(
        _layers(bool(smoothed_rows), bool(marked_rows), from_zero, x_label, legend),
        210,
        smoothed=smoothed_rows,
        marked=marked_rows,
        points=_cursor_points([*smoothed_rows, *marked_rows], x_label, len(legend) > 1),
    )
    values = Table(
        ["", "first", "last", "lowest", "highest"],
        [[curve.name, *map(format_short, _extremes(curve.values))] for curve in curves],
    )
    description = "; ".join(
        f"{curve.name}: {_short(first)} at {x_label} {curve.steps[0]:g}, {_short(last)} at {x_label} "
        f"{curve.steps[-1]:g}, lowest {_short(low)}, highest {_short(high)}"
        for curve in curves
        for first, last, low, high in [_extremes(curve.values)]
    )
    shown = legend if len(legend) > 1 else ()
    return Chart(title, spec, f"{title}. {description}", caption, shown, values)


def smooth(values: Sequence[float]) -> list[float]:
    """Smooth by a bias-corrected exponential moving average over about a twelfth of the values.

    Fewer than `MIN_SMOOTHED_POINTS` values are returned as they are.
    """
    if len(values) < MIN_SMOOTHED_POINTS:
        return list(values)
    new = 2 / (1 + max(1.0, len(values) / 12))
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = total * (1 - new) + value * new, weight * (1 - new) + new
        means.append(total / weight)
    return means


def thin(values: Sequence[float]) -> Sequence[float]:
    """Return at most about `MAX_POINTS` of the values, evenly spaced, the first and the last included."""
    every = -(-len(values) // MAX_POINTS)
    return values if every <= 1 else [*values[:-1:every], values[-1]]


def _layers(
    smoothed: bool, marked: bool, from_zero: bool, x_label: str, legend: Sequence[LegendEntry]
) -> list[alt.Chart]:
    """Raw curves, smoothed curves, points of short curves, and the cursor."""
    x = alt.X("x:Q", axis=alt.Axis(title=x_label, tickCount=5), scale=alt.Scale(nice=False, zero=False))
    axis = alt.Axis(format=NUMBER_FORMAT, tickCount=4, grid=True)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", axis=axis, scale=alt.Scale(zero=from_zero))

    layers = []
    if smoothed:
        curves = create_marks("smoothed").encode(x, colour_encoding(legend))
        layers += [curves.mark_line(strokeWidth=1, opacity=0.35).encode(y("value"))]
        layers += [curves.mark_line(strokeWidth=2).encode(y("smoothed"))]
    if marked:
        points = create_marks("marked").encode(x, y("value"), colour_encoding(legend))
        layers += [points.mark_line(strokeWidth=2), points.mark_circle(size=45, opacity=1)]
    hover = hover_selection("x", nearest=True)
    cursor = create_marks("points").mark_rule(color="var(--soft)").add_params(hover)
    shown = alt.when(hover).then(alt.value(1)).otherwise(alt.value(0))
    return [*layers, cursor.encode(x, opacity=shown, tooltip="tip:N")]


def _cursor_points(rows: Sequence[dict[str, Any]], x_label: str, several: bool) -> list[dict[str, Any]]:
    """One point for each step, with the values of all curves there as text."""
    lines: dict[float, list[str]] = {}
    for row in rows:
        name = f"{row['series']}: " if several else ""
        mean = "" if row["smoothed"] == row["value"] else f" (smoothed {row['smoothed']})"
        lines.setdefault(row["x"], []).append(f"{name}{row['value']}{mean}")
    return [{"x": x, "tip": "\n".join([f"{x_label} {x:g}", *lines[x]])} for x in sorted(lines)]


def _extremes(values: Sequence[float]) -> tuple[float, float, float, float]:
    return values[0], values[-1], min(values), max(values)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
