"""Charts as inline SVG beside labels in HTML: they take any width, and text keeps its size.

A chart's SVG is stretched over its plot, so it holds bars and lines only. What it shows is also said in words: in the
hover text, and in a table below or in the chart's label.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from ms2.report.markup import Html, details, element, table

SERIES = ("prior", "learned", "target")
"""Names that have a colour of their own; all others take those of a palette in order."""
INKS = 12
"""Colours of that palette."""
MAX_LETTERS = 44
"""Room for labels along an axis, in letters: more of them would run into each other on a phone."""


def histogram(
    title: str,
    bins: Sequence[str],
    shares: Mapping[str, Sequence[float]],
    caption: str = "",
    ordered: bool = True,
    edges: Sequence[str] = (),
) -> Html:
    """Shares of bins side by side, as columns where bins have an order, or else as rows.

    Args:
        title: What is counted.
        bins: Names of the bins.
        shares: Share of each bin, 0..1, by the name of the distribution.
        caption: A line below the title.
        ordered: Whether the bins have an order.
        edges: What stands between the bins, where those are ranges: one more than there are bins.
    """
    drawn = _columns(bins, shares, edges) if ordered else _rows(bins, shares)
    values = table(
        ["", *shares], [[name, *(percent(share[i]) for share in shares.values())] for i, name in enumerate(bins)]
    )
    return element(
        "figure",
        heading(title, caption, list(shares) if len(shares) > 1 else []),
        drawn,
        details("values", values),
        class_="chart",
    )


def span(ends: tuple[float, float] | None, marks: Mapping[str, float | None], said: str) -> Html:
    """A strip from 0 to 1 with an interval of what was learned, and marks for what it is compared with."""
    shapes = [element("line", x1="0%", x2="100%", y1=12, y2=12, class_="rail")]
    prior, learned = marks.get("prior"), marks.get("learned")
    if prior is not None and learned is not None:
        shapes.append(element("line", x1=_share(prior), x2=_share(learned), y1=12, y2=12, class_="way"))
    if ends is not None:
        low, high = ends
        shapes.append(element("line", x1=_share(low), x2=_share(high), y1=12, y2=12, class_="interval"))
    for name, value in marks.items():
        if value is None:
            continue
        if name in SERIES:
            shapes.append(element("circle", cx=_share(value), cy=12, r=5, class_=f"fill-{name}"))
        else:
            shapes.append(element("line", x1=_share(value), x2=_share(value), y1=3, y2=21, class_=f"mark {name}"))
    return element("svg", shapes, class_="span", role="img", aria_label=said, data_tip=said)


def heat_map(title: str, counts: Sequence[Sequence[int]], aspect: float, caption: str = "") -> Html:
    """Counts over the places of an image, darker where there are more.

    Args:
        title: What is counted.
        counts: Rows from top to bottom, as long as each other.
        aspect: Width over height.
        caption: A line below the title.
    """
    most = max(1, *(count for row in counts for count in row))
    total = max(1, sum(map(sum, counts)))
    cells = [
        element("rect", x=x, y=y, width=1.02, height=1.02, fill_opacity=round((count / most) ** 0.5, 3),
                data_tip=f"{count:,} ({percent(count / total)})")
        for y, row in enumerate(counts)
        for x, count in enumerate(row)
    ]  # fmt: skip
    picture = element(
        "svg",
        cells,
        viewBox=f"0 0 {len(counts[0])} {len(counts)}",
        preserveAspectRatio="none",
        class_="heat",
        role="img",
        aria_label=f"{title}. {caption}",
        style=f"aspect-ratio: {aspect:.4g}",
    )
    return element("figure", heading(title, caption, []), picture, class_="chart")


def _columns(bins: Sequence[str], shares: Mapping[str, Sequence[float]], edges: Sequence[str]) -> Html:
    ticks = _ticks(shares)
    top, width = ticks[-1], 0.8 / len(shares)
    bars = [
        element("rect", x=round(i + 0.1 + j * width, 4), y=round(1 - value / top, 5), width=round(width * 0.94, 4),
                height=round(value / top, 5), class_=colour(name, j))
        for j, (name, share) in enumerate(shares.items())
        for i, value in enumerate(share)
    ]  # fmt: skip
    hits = [
        element("rect", x=i, y=0, width=1, height=1, class_="hit", data_tip=_tip(name, i, shares))
        for i, name in enumerate(bins)
    ]
    picture = element(
        "svg",
        element("g", grid(ticks), transform=f"scale({len(bins) / 100:g} 0.01)"),
        bars,
        hits,
        viewBox=f"0 0 {len(bins)} 1",
        preserveAspectRatio="none",
        aria_hidden="true",  # the table of values says the same
    )
    names, offset = (edges, 0.0) if edges else (bins, 0.5)
    every = -(-sum(len(name) + 1 for name in names) // MAX_LETTERS)
    below = [at("left", (i + offset) / len(bins), names[i]) for i in range(0, len(names), every)]
    return plot(ticks, percent, picture, below)


def _rows(bins: Sequence[str], shares: Mapping[str, Sequence[float]]) -> Html:
    ticks = _ticks(shares)
    rows = []
    for i, name in enumerate(bins):
        bars = [
            element("rect", x=0, y=round(j + 0.08, 3), width=round(100 * share[i] / ticks[-1], 3), height=0.84,
                    class_=colour(who, j))
            for j, (who, share) in enumerate(shares.items())
        ]  # fmt: skip
        hit = element("rect", x=0, y=0, width=100, height=len(shares), class_="hit", data_tip=_tip(name, i, shares))
        picture = element(
            "svg", bars, hit, viewBox=f"0 0 100 {len(shares)}", preserveAspectRatio="none", aria_hidden="true"
        )
        rows.append(element("div", element("span", name, title=name), picture, class_="row"))
    below = [at("left", tick / ticks[-1], percent(tick)) for tick in ticks]
    return element("div", rows, element("div", below, class_="x"), class_=f"rows of-{min(len(shares), 3)}")


def _ticks(shares: Mapping[str, Sequence[float]]) -> list[float]:
    return axis(0, max((value for share in shares.values() for value in share), default=0) or 1)


def _tip(name: str, i: int, shares: Mapping[str, Sequence[float]]) -> str:
    if len(shares) == 1:
        return f"{name}: {percent(next(iter(shares.values()))[i])}"
    return "\n".join([name, *(f"{who}: {percent(share[i])}" for who, share in shares.items())])


def _share(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.2f}%"


# -- parts of charts -----------------------------------------------------------------------------------


def heading(title: str, caption: str, names: Sequence[str]) -> Html:
    """What stands above a chart: its title, a line about it, and the colours of its series."""
    return element(
        "figcaption",
        element("strong", title),
        element("span", caption) if caption else None,
        legend(names) if names else None,
    )


def legend(names: Sequence[str]) -> Html:
    """Names with their colours."""
    return element(
        "ul",
        [element("li", element("i", class_=f"key {colour(name, i)}"), name) for i, name in enumerate(names)],
        class_="legend",
    )


def colour(name: str, number: int) -> str:
    """The class that paints a series."""
    return f"ink-{name}" if name in SERIES else f"ink-{number % INKS}"


def plot(ticks: Sequence[float], text: Callable[[float], str], picture: Html, below: Sequence[Html]) -> Html:
    """A picture with labels on its left, and below it."""
    heights = [at("bottom", (tick - ticks[0]) / (ticks[-1] - ticks[0]), text(tick)) for tick in ticks]
    return element(
        "div",
        element("div", heights, class_="y", aria_hidden="true"),
        element("div", picture, class_="area"),
        element("div", below, class_="x", aria_hidden="true"),
        class_="plot",
    )


def grid(ticks: Sequence[float]) -> list[Html]:
    """Lines across a picture of 100 by 100 units, one for each label on its left."""
    places = [100 * (ticks[-1] - tick) / (ticks[-1] - ticks[0]) for tick in ticks]
    return [element("line", x1=0, x2=100, y1=round(y, 3), y2=round(y, 3), class_="grid") for y in places]


def at(side: str, share: float, text: str) -> Html:
    """A label at a share of the way from a side."""
    return element("span", text, style=f"{side}: {100 * share:.2f}%")


def axis(low: float, high: float, parts: int = 4) -> list[float]:
    """Round numbers, evenly spaced, about ``parts`` of them, from at most ``low`` to at least ``high``."""
    size = max(abs(low), abs(high), 1e-12)
    if high - low <= 1e-9 * size:  # one value, or nearly so
        room = size / 2 if size > 1e-12 else 0.5
        low, high = low - room, high + room
    rough = (high - low) / parts
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def plain(value: float) -> str:
    """A number on an axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 10):g}".replace("-", "−")


def percent(share: float) -> str:
    """A share with three digits."""
    return f"{100 * share:.3g} %" if share < 0.9995 else f"{100 * share:.4g} %"
