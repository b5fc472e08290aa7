"""Curves over steps, with a cursor that reads them."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from ms2.report.charts import at, axis, colour, grid, heading, plain, plot
from ms2.report.markup import Html, element

MAX_POINTS = 600
"""Points of a curve; a screen has no room for more."""
FEW_POINTS = 9
"""Curves of fewer points are not smoothed, and their points are marked."""


class Curve(NamedTuple):
    """Values over steps.

    Attributes:
        name: What was measured.
        steps: Steps in order.
        values: As many finite values.
    """

    name: str
    steps: Sequence[float]
    values: Sequence[float]


def curves(title: str, lines: Sequence[Curve], caption: str = "", from_zero: bool = False, along: str = "step") -> Html:
    """Curves over steps: pale as measured, and strong smoothed.

    Args:
        title: What is shown.
        lines: The curves, each with at least one point.
        caption: A line below the title.
        from_zero: Whether the axis starts at 0 if no value is below.
        along: What is counted along the horizontal axis.
    """
    values = [value for line in lines for value in line.values]
    low, high = min(values), max(values)
    ticks = axis(min(0.0, low), high or 1.0) if from_zero else axis(low, high)
    first, last = min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines)
    width, height = (last - first) or 1, ticks[-1] - ticks[0]

    def drawn(steps: Sequence[float], values: Sequence[float], kind: str) -> Html:
        places = zip(steps, values, strict=True)
        points = [f"{100 * (s - first) / width:.2f},{100 * (ticks[-1] - v) / height:.2f}" for s, v in places]
        return element("polyline", points=" ".join(points), class_=kind)

    shapes, data = [], []
    for i, line in enumerate(lines):
        ink, name = colour(line.name, i), line.name if len(lines) > 1 else ""
        few = len(line.values) < FEW_POINTS
        steps, raw, smooth = _thinned(line.steps), _thinned(line.values), _thinned(smoothed(line.values))
        if few:  # a line without length is a dot, whatever the picture's shape
            shapes += [drawn([s, s], [v, v], f"dot {ink}") for s, v in zip(steps, raw, strict=True)]
        else:
            shapes.append(drawn(steps, raw, f"raw {ink}"))
        shapes.append(drawn(steps, smooth, f"line {ink}"))
        columns = zip(steps, map(_short, raw), *([] if few else [map(_short, smooth)]), strict=True)
        data.append({"name": name, "points": [list(point) for point in columns]})
    said = "; ".join(
        f"{line.name}: {_short(line.values[0])} at {along} {line.steps[0]:g}, {_short(line.values[-1])} at {along} "
        f"{line.steps[-1]:g}, lowest {_short(min(line.values))}, highest {_short(max(line.values))}"
        for line in lines
    )
    picture = element(
        "svg",
        grid(ticks),
        shapes,
        element("line", class_="cursor", y1=0, y2=100),
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        role="img",
        tabindex=0,
        aria_label=f"{title}. {said}",
        data_curves=json.dumps(data),
        data_along=along,
        data_first=first,
        data_last=last,
    )
    below = [at("left", (step - first) / width, plain(step)) for step in axis(first, last) if first <= step <= last]
    return element(
        "figure",
        heading(title, caption, [line.name for line in lines] if len(lines) > 1 else []),
        plot(ticks, plain, picture, below),
        element("div", along, class_="axis"),
        class_="chart",
    )


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average over about a twelfth of the values, unbiased at the start; short curves stay."""
    if len(values) < FEW_POINTS:
        return list(values)
    new = 2 / (1 + max(1.0, len(values) / 12))
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = total * (1 - new) + value * new, weight * (1 - new) + new
        means.append(total / weight)
    return means


def _thinned(values: Sequence[float]) -> Sequence[float]:
    """At most `MAX_POINTS` of them, the first and the last included."""
    every = -(-len(values) // MAX_POINTS)
    return values if every <= 1 else [*values[:-1:every], values[-1]]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
