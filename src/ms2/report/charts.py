"""Charts as Vega-Lite specifications, made with Altair.

A `Chart` holds data and marks only. Its size is that of the element that it is embedded in, its colours are CSS
variables of the page, so that it follows the page's light and dark colours; its title and legend are HTML, and so is
the table of its values, which needs no script. In each specification the data set named ``points`` holds the points
that the arrow keys select in turn, with the text of their tooltips as ``tip``.

Reference: Vega-Lite: A Grammar of Interactive Graphics, Satyanarayan et al. (2017).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt

from ms2.core.formatting import format_percent
from ms2.report.tables import Table

ROW_COLOURS = {
    "prior": "prior",
    "learned_structure": "c0",
    "learned_parameters": "c9",
    "learned": "learned",
    "best_pcfg": "c4",
    "noise_floor": "good",
    "target": "target",
}
"""CSS variables of the results' rows (prior, learned, ...); other series take the colours of a palette in order."""
NUM_COLOURS = 12
"""Colours of that palette: ``--c0``, ``--c1`` ..."""
NUMBER_FORMAT = ",.4~r"
"""D3 format of numbers on axes: four significant digits without trailing zeros."""
LABEL_WIDTH = 120
"""Maximum width of labels on a vertical axis, in pixels: a third of a narrow phone's screen."""
CONFIG: dict[str, Any] = {
    "aria": False,  # the element around the chart has a label with the numbers in words
    "background": "transparent",
    "font": 'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif',
    "axis": {
        "domain": False,
        "gridColor": "var(--line)",
        "labelColor": "var(--soft)",
        "labelFontSize": 11.5,
        "labelLimit": LABEL_WIDTH,
        "ticks": False,
        "labelPadding": 6,
        "title": None,
        "titleColor": "var(--soft)",
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
    },
    "axisX": {"grid": False, "labelAngle": 0},
    "bar": {"cornerRadiusEnd": 2},
    "view": {"stroke": None},
}
"""Vega-Lite configuration of all charts of a page."""


class LegendEntry(NamedTuple):
    """A name with its colour.

    Attributes:
        name: Name of the series.
        colour: Name of the CSS variable.
    """

    name: str
    colour: str


@dataclass(frozen=True)
class Chart:
    """A chart with its title, table of numbers and text description.

    Attributes:
        title: What is shown.
        spec: Vega-Lite specification.
        description: The numbers in words, for screen readers.
        caption: A line below the title.
        legend: Names of several series with their colours.
        values: The numbers as a table, which is folded.
        aspect: Width over height; None if the specification sets the height.
    """

    title: str
    spec: Mapping[str, Any]
    description: str
    caption: str = ""
    legend: Sequence[LegendEntry] = ()
    values: Table | None = None
    aspect: float | None = None


def histogram(
    title: str, bins: Sequence[str], shares: Mapping[str, Sequence[float]], caption: str = "", ordered: bool = True
) -> Chart:
    """Draw distributions over the same bins side by side: columns if bins are ordered, else horizontal bars.

    Args:
        title: What is counted.
        bins: Names of the bins.
        shares: Share of each bin, 0..1, by the name of the distribution.
        caption: A line below the title.
        ordered: Whether the bins have an order.
    """
    legend = series_legend(list(shares))
    tips = [_bin_tip(name, i, shares) for i, name in enumerate(bins)]
    bars = [
        {"bin": name, "series": who, "share": share[i]} for i, name in enumerate(bins) for who, share in shares.items()
    ]
    points = [{"bin": name, "tip": tip} for name, tip in zip(bins, tips, strict=True)]
    position: dict[str, Any] = {"field": "bin", "type": "ordinal", "sort": list(bins)}
    share: dict[str, Any] = {"field": "share", "type": "quantitative", "stack": None}
    share["axis"] = alt.Axis(format="~%", tickCount=4, grid=True)
    offset: dict[str, Any] = {"field": "series", "type": "nominal", "sort": [entry.name for entry in legend]}
    hover = hover_selection("bin")
    shaded = alt.when(hover).then(alt.value(0.08)).otherwise(alt.value(0))
    chart = create_marks("bars").mark_bar().encode(colour_encoding(legend))
    over = (
        create_marks("points").mark_rect(color="var(--ink)").encode(tooltip="tip:N", opacity=shaded).add_params(hover)
    )
    if ordered:
        x = alt.X(axis=alt.Axis(labelOverlap="parity", labelSeparation=6), **position)
        layers, height = [chart.encode(x, alt.XOffset(**offset), alt.Y(**share)), over.encode(x)], 200
    else:
        y, height = alt.Y(**position), len(bins) * max(18, 8 * len(shares) + 4)
        layers = [chart.encode(y, alt.YOffset(**offset), alt.X(**share)), over.encode(y)]
    values = [[name, *(format_percent(share[i]) for share in shares.values())] for i, name in enumerate(bins)]
    return Chart(
        title,
        specification(layers, height, bars=bars, points=points),
        f"{title}. {'; '.join(tip.replace(chr(10), ', ') for tip in tips)}",
        caption,
        legend if len(legend) > 1 else (),
        Table(["", *shares], values),
    )


def heat_map(title: str, counts: Sequence[Sequence[int]], aspect: float, caption: str = "") -> Chart:
    """Draw counts over the positions of an image, the more opaque the larger.

    Args:
        title: What is counted.
        counts: Rows from top to bottom, of equal length.
        aspect: Width over height.
        caption: A line below the title.
    """
    total = max(1, sum(map(sum, counts)))
    cells: list[dict[str, Any]] = [
        {"x": x, "y": y, "count": count, "tip": f"{count:,} ({format_percent(count / total)})"}
        for y, row in enumerate(counts)
        for x, count in enumerate(row)
    ]
    largest = max(cell["count"] for cell in cells)
    scale = alt.Scale(type="sqrt", domain=[0, max(1, largest)], range=[0, 1])
    drawn = (
        create_marks("points")
        .mark_rect(color="var(--learned)")
        .encode(
            alt.X("x:O", axis=None, scale=alt.Scale(padding=0)),
            alt.Y("y:O", axis=None, scale=alt.Scale(padding=0)),
            opacity=alt.Opacity("count:Q", scale=scale, legend=None),
            tooltip="tip:N",
        )
    )
    rows, columns = len(counts), len(counts[0])
    across = [sum(sum(row[x] for x in _third(i, columns)) for row in counts) / total for i in range(3)]
    down = [sum(sum(counts[y]) for y in _third(i, rows)) / total for i in range(3)]
    parts = zip(("left", "middle", "right", "top", "centre", "bottom"), (*across, *down), strict=True)
    words = ", ".join(f"{where} third {format_percent(share)}" for where, share in parts)
    spec = specification([drawn], "container", points=cells)
    return Chart(title, spec, f"{title}, {caption}: {words}", caption, aspect=aspect)


def duration_chart(title: str, seconds: Mapping[str, float], texts: Mapping[str, str], pale: Sequence[str]) -> Chart:
    """Draw durations as horizontal bars.

    Args:
        title: What took the time.
        seconds: Seconds by name.
        texts: The same as text.
        pale: Names of bars that are drawn in a lighter colour.
    """
    rows = [
        {"name": name, "seconds": value, "text": texts[name], "opacity": 0.4 if name in pale else 1,
         "tip": f"{name}: {texts[name]}"}
        for name, value in seconds.items()
    ]  # fmt: skip
    base = create_marks("points").encode(
        alt.Y("name:N", sort=list(seconds)),
        alt.X("seconds:Q", axis=None, scale=alt.Scale(domain=[0, max(1e-9, *seconds.values()) * 1.35])),
        tooltip="tip:N",
    )
    bars = base.mark_bar(color="var(--learned)").encode(opacity=alt.Opacity("opacity:Q", scale=None))
    labels = base.mark_text(align="left", dx=6, color="var(--ink)", fontSize=12).encode(text="text:N")
    spec = specification([bars, labels], 30 * len(rows), points=rows)
    return Chart(title, spec, f"{title}: {', '.join(str(row['tip']) for row in rows)}")


# -- parts of charts -----------------------------------------------------------------------------------


def series_legend(names: Sequence[str]) -> list[LegendEntry]:
    """Give each series a colour: that of `ROW_COLOURS` if it is a row of results, else the palette's in order."""
    return [LegendEntry(name, ROW_COLOURS.get(name, f"c{i % NUM_COLOURS}")) for i, name in enumerate(names)]


def create_marks(dataset: str) -> alt.Chart:
    """Create an Altair chart of a data set that `specification` gets by this name, such as ``points``."""
    return alt.Chart(alt.NamedData(name=dataset))


def colour_encoding(legend: Sequence[LegendEntry], field: str = "series") -> alt.Color:
    """Colour marks by the name of their series."""
    names, colours = [entry.name for entry in legend], [f"var(--{entry.colour})" for entry in legend]
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=names, range=colours), legend=None)


def hover_selection(field: str, nearest: bool = False) -> alt.Parameter:
    """Select the mark under the pointer, or the nearest one."""
    return alt.selection_point(
        name="hover", fields=[field], on="pointerover", clear="pointerout", empty=False, nearest=nearest
    )


def specification(
    layers: Sequence[alt.Chart], height: int | str, **datasets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Build the Vega-Lite specification of layers, with the width of its container.

    Args:
        layers: Marks, the first at the bottom.
        height: Height in pixels, or ``container`` for that of the surrounding element.
        datasets: Rows of the named data sets. They are put in last, since Altair would check and copy each row.
    """
    found: dict[str, Any] = alt.layer(*layers).properties(width="container", height=height).to_dict()
    del found["config"]  # Altair's default; the page has one for all charts
    return found | {"datasets": {name: list(rows) for name, rows in datasets.items()}}


def _bin_tip(name: str, i: int, shares: Mapping[str, Sequence[float]]) -> str:
    if len(shares) == 1:
        return f"{name}: {format_percent(next(iter(shares.values()))[i])}"
    return "\n".join([name, *(f"{who}: {format_percent(share[i])}" for who, share in shares.items())])


def _third(i: int, length: int) -> range:
    return range(i * length // 3, (i + 1) * length // 3)
