"""Charts of intervals: distances beside those of baselines, and changes of rule probabilities."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from ms2.core.formatting import format_interval, format_number
from ms2.report.charts import NUMBER_FORMAT, Chart, colour_encoding, create_marks, series_legend, specification


class IntervalRow(NamedTuple):
    """A number with its interval.

    Attributes:
        name: Name of the row, which has a colour in `ms2.report.charts.ROW_COLOURS`.
        title: Its title.
        value: The number.
        interval: Ends of its 95 % interval, if known.
    """

    name: str
    title: str
    value: float
    interval: tuple[float, float] | None

    @property
    def text(self) -> str:
        """Title, number and interval, for the tooltip."""
        ends = f", 95 % interval {format_interval(*self.interval)}" if self.interval else ""
        return f"{self.title} {format_number(self.value)}{ends}"


class ChangeRow(NamedTuple):
    """A rule's probability under the prior and under the learned model.

    Attributes:
        label: Context and rule.
        prior: Probability under the prior; None if the prior never reaches the context.
        learned: Probability under the learned model.
        interval: Ends of the 95 % interval of the learned probability.
        visits: How often a scene reaches the context on average, under the prior and under the learned model.
    """

    label: str
    prior: float | None
    learned: float
    interval: tuple[float, float]
    visits: tuple[float, float]

    @property
    def change(self) -> str:
        """Both probabilities, such as ``0.200 → 0.350``."""
        return f"{self.texts[0]} → {self.texts[1]}"

    @property
    def texts(self) -> list[str]:
        """Both probabilities, the interval, and how often a scene reaches the context."""
        low, high = self.interval
        return [
            "new" if self.prior is None else f"{self.prior:.3f}",
            f"{self.learned:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{self.visits[0]:.2f} → {self.visits[1]:.2f}",
        ]


def interval_chart(title: str, rows: Sequence[IntervalRow]) -> Chart:
    """Draw numbers with their intervals, one below the other, on an axis that starts at 0."""
    legend = series_legend([row.name for row in rows])
    points: list[dict[str, Any]] = []
    for row in rows:
        low, high = row.interval or (row.value, row.value)
        points.append({"name": row.name, "title": row.title, "value": row.value, "low": low, "high": high,
                       "tip": row.text})  # fmt: skip
    largest = max(1e-12, *(point["high"] for point in points), *(point["value"] for point in points))
    scale = alt.Scale(domain=[min(0.0, *(point["low"] for point in points)), largest], nice=True)
    axis = alt.Axis(format=NUMBER_FORMAT, tickCount=4, grid=True)
    base = create_marks("points").encode(
        alt.Y("title:N", sort=[row.title for row in rows]), colour_encoding(legend, "name"), tooltip="tip:N"
    )
    drawn = [
        base.mark_rule(strokeWidth=3, opacity=0.45, strokeCap="round").encode(
            alt.X("low:Q", axis=axis, scale=scale), x2="high:Q"
        ),
        base.mark_circle(size=75, opacity=1).encode(alt.X("value:Q", axis=axis, scale=scale)),
    ]
    words = "; ".join(row.text for row in rows)
    spec = specification(drawn, 24 * len(rows), points=points)
    return Chart(title, spec, f"{title}. {words}")


def rule_change_chart(title: str, rows: Sequence[ChangeRow]) -> Chart:
    """Draw probabilities before and after learning, each rule on a line from 0 to 1 with its label above."""
    points: list[dict[str, Any]] = []
    for i, row in enumerate(rows):
        low, high = row.interval
        tip = f"{row.label}\n{row.change}\n95 % interval {row.texts[2]}\nreached per scene: {row.texts[3]}"
        points.append({"row": i, "label": row.label, "change": row.change, "prior": row.prior, "learned": row.learned,
                       "low": low, "high": high, "tip": tip})  # fmt: skip
    scale = alt.Scale(domain=[0, 1])
    axis = alt.Axis(orient="top", values=[0, 0.25, 0.5, 0.75, 1], format=NUMBER_FORMAT, grid=True)
    base = create_marks("points").encode(alt.Y("row:O", axis=None, scale=alt.Scale(padding=0)), tooltip="tip:N")

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", axis=axis, scale=scale)

    line: dict[str, Any] = {"yOffset": 9}
    text: dict[str, Any] = {"fontSize": 12, "yOffset": -9}
    room = alt.ExprRef("max(60, width - 105)")
    drawn = [
        base.mark_rule(color="var(--learned)", strokeWidth=7, opacity=0.2, **line).encode(x("prior"), x2="learned:Q"),
        base.mark_rule(color="var(--learned)", strokeWidth=2, **line).encode(x("low"), x2="high:Q"),
        base.mark_circle(color="var(--prior)", size=75, opacity=1, **line).encode(x("prior")),
        base.mark_circle(color="var(--learned)", size=75, opacity=1, **line).encode(x("learned")),
        base.mark_text(color="var(--ink)", align="left", limit=room, **text).encode(x=alt.value(0), text="label:N"),
        base.mark_text(color="var(--soft)", align="right", **text).encode(x=alt.value("width"), text="change:N"),
    ]
    befores = ["new" if row.prior is None else f"{row.prior:.3f} under the prior" for row in rows]
    words = "; ".join(
        f"{row.label}: {before}, {row.learned:.3f} learned" for row, before in zip(rows, befores, strict=True)
    )
    spec = specification(drawn, 44 * len(rows), points=points)
    return Chart(title, spec, f"{title}. {words}", legend=series_legend(["prior", "learned"]))
