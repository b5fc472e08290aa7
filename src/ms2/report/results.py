"""What a run has reached: distances to the target, beside those of what it is compared with."""

import math
import re
from collections.abc import Mapping
from typing import Any

from ms2.report.charts import span
from ms2.report.markup import Html, details, element, fragment, table

ORACLE, FLOOR = "_pcfg_oracle", "_noise_floor"
COMPARED = {
    "_prior": "prior",
    "_learned_structure": "structure alone",
    "_learned_parameters": "parameters alone",
    ORACLE: "best PCFG",
    FLOOR: "noise floor",
}
"""What is compared with the learned model, by the ending of its keys in ``metrics.json``."""
DISTANCES = {
    "tv": "total variation",
    "kl": "KL divergence",
    "wasserstein": "Wasserstein distance",
    "distance": "energy distance",
    "w1": "Wasserstein distance",
}
"""Distances between distributions of a statistic, by the ending of their keys."""
IMAGES = ("kid", "fid")
"""Distances between images."""

Metrics = Mapping[str, Any]
"""What ``metrics.json`` holds."""


class Measure:
    """One number that tells how well a run went, and what it is compared with.

    Args:
        metrics: All numbers of the run.
        key: Its key, such as ``count_tv``.
        titles: Titles of statistics by name.

    Attributes:
        key: Its key.
        value: The number itself; lower is better.
        interval: Ends of its 95 % interval, where it has one.
        others: The same number of the prior, of the oracle and of a perfect model, by the ending of their keys.
        title: What is measured.
        kind: How.
    """

    def __init__(self, metrics: Metrics, key: str, titles: Mapping[str, str]) -> None:
        name, _, ending = key.rpartition("_")
        self.key, self.value = key, float(metrics[key])
        self.interval = _interval(metrics, key)
        self.others = {end: metrics[f"{key}{end}"] for end in COMPARED if _known(metrics, f"{key}{end}")}
        self.other_intervals = {end: _interval(metrics, f"{key}{end}") for end in self.others}
        self.title = titles.get(name) or name.replace("_", " ") or key.upper()
        unit = metrics.get(f"{key}_unit")
        self.kind = DISTANCES.get(ending, "images") + (f" in {unit}" if unit else "")
        ends = {"learned": "", "prior": "_prior", "target": "_target"}
        known = {who: metrics[f"{name}_mean{e}"] for who, e in ends.items() if _known(metrics, f"{name}_mean{e}")}
        self.means = known if len(known) == len(ends) else {}

    @property
    def judgement(self) -> tuple[str, str]:
        """What came of learning, by the intervals: ``good``, ``bad`` or ``even``, and in words; empty if not known."""
        prior, before = self.others.get("_prior"), self.other_intervals.get("_prior")
        if not prior or self.interval is None or before is None:
            return "", ""
        change = f"{100 * (self.value / prior - 1):+.0f} %".replace("-", "−")
        if self.interval[1] < before[0]:
            at_floor = self.interval[0] <= self.others.get(FLOOR, -math.inf)
            return "good", f"{change}, at the noise floor" if at_floor else f"{change} from the prior"
        if self.interval[0] > before[1]:
            return "bad", f"{change} from the prior: worse"
        return "even", f"{change}, within the intervals"

    @property
    def badge(self) -> Html | None:
        """The judgement, to be shown beside the number."""
        kind, words = self.judgement
        return element("span", words, class_=f"badge {kind}") if words else None

    def in_words(self) -> Html:
        """One line."""
        before = f"{number(self.others['_prior'])} → " if "_prior" in self.others else ""
        floor = f" (a perfect model: {number(self.others[FLOOR])})" if FLOOR in self.others else ""
        kind = "" if self.title.lower() in IMAGES else f", {self.kind}"
        return fragment(f"{self.title}{kind}: {before}", element("strong", number(self.value)), floor, " ", self.badge)

    def card(self) -> Html:
        """The number with its interval, on a line with what it is compared with."""
        values = [self.value, *self.others.values(), *(self.interval or ())]
        top = max(1e-12, *values) * 1.04
        marks = {"prior": "_prior", "oracle": ORACLE, "floor": FLOOR}
        places = {name: self.others[end] / top for name, end in marks.items() if end in self.others}
        said = [f"learned {number(self.value)}", *(f"{COMPARED[e]} {number(v)}" for e, v in self.others.items())]
        inks = {"_prior": "ink-prior", ORACLE: "mark-oracle", FLOOR: "mark-floor"}
        rows = [
            element(
                "div",
                element("dt", element("i", class_=f"key {inks.get(end, 'ink-learned')}"), COMPARED[end]),
                element("dd", _with_interval(value, self.other_intervals[end])),
            )
            for end, value in self.others.items()
        ]
        means = ", ".join(f"{who} {value:.2f}" for who, value in self.means.items())
        ends = self.interval
        return element(
            "article",
            element("h3", self.title, element("small", self.kind)),
            element("p", element("strong", number(self.value)), self.badge, class_="figure"),
            element("p", f"95 % interval {number(ends[0])} to {number(ends[1])}", class_="note") if ends else None,
            span(ends and (ends[0] / top, ends[1] / top), {**places, "learned": self.value / top}, "\n".join(said)),
            element("dl", rows),
            element("p", f"mean: {means}", class_="note") if means else None,
            class_="card",
        )


def measures(metrics: Metrics, titles: Mapping[str, str]) -> list[Measure]:
    """The numbers that tell how well a run went: one for each statistic, then KID and FID."""
    keys = [key for key in metrics if re.search(r"_(tv|distance|w1)$", key) and f"{key}_interval" in metrics]
    return [Measure(metrics, key, titles) for key in (*keys, *IMAGES) if _known(metrics, key)]


def results(metrics: Metrics, titles: Mapping[str, str]) -> Html:
    """All that was measured in the end.

    Args:
        metrics: What ``metrics.json`` holds.
        titles: Titles of statistics by name.
    """
    found = measures(metrics, titles)
    if not found:
        unknown = "The structure of the target is not known, so there is nothing to compare with."
        return element("p", unknown) if metrics else Html()
    explained = [
        "Total variation is half the sum of the differences between two histograms: 0 where they agree, 1 where they "
        "share nothing. A Wasserstein distance is how far an attribute has to be moved on average. The noise floor is "
        "what a perfect model would show, measured on as many scenes."
    ]
    if any(ORACLE in measure.others for measure in found):
        explained.append(
            "The best PCFG is the grammar with the rule probabilities that fit the target's true structures best: it "
            "sees the labels, which learning does not."
        )
    if "kid" in metrics:
        generated, real = (metrics.get(f"realism_num_{which}", "some") for which in ("generated", "real"))
        explained.append(
            f"KID and FID compare {generated} generated images with {real} of the target, by "
            f"{metrics.get('realism_features', 'features')}."
        )
    return fragment(
        element("p", " ".join(explained), class_="note"),
        element("div", [measure.card() for measure in found], class_="cards"),
        details("all distances, with 95 % intervals", _all_distances(metrics, titles)),
    )


def number(value: float) -> str:
    """Three decimals, or four of small numbers; fewer of large ones."""
    size = abs(value)
    if size >= 10:
        return f"{value:,.1f}" if size < 1000 else f"{value:,.0f}"
    return f"{value:.3f}" if size >= 0.1 else f"{value:.1g}" if 0 < size < 0.00005 else f"{value:.4f}"


def _all_distances(metrics: Metrics, titles: Mapping[str, str]) -> Html:
    keys = [key for key in metrics if re.search(rf"_({'|'.join(DISTANCES)})$", key) and f"{key}_interval" in metrics]
    every = [Measure(metrics, key, titles) for key in (*keys, *IMAGES) if _known(metrics, key)]
    endings = [ending for ending in COMPARED if any(ending in one.others for one in every)]
    rows = [
        [
            f"{one.title}, {one.kind}",
            _with_interval(one.value, one.interval),
            *(_with_interval(one.others.get(end), one.other_intervals.get(end)) for end in endings),
        ]
        for one in every
    ]
    return table(["", "learned", *(COMPARED[ending] for ending in endings)], rows)


def _with_interval(value: float | None, ends: tuple[float, float] | None) -> Html:
    if value is None:
        return Html()
    return fragment(number(value), element("small", f" {number(ends[0])} to {number(ends[1])}") if ends else None)


def _known(metrics: Metrics, key: str) -> bool:
    """Whether there is a number under the key; a divergence may be infinite, which no chart can show."""
    value = metrics.get(key)
    return isinstance(value, (int, float)) and math.isfinite(value)


def _interval(metrics: Metrics, key: str) -> tuple[float, float] | None:
    ends = metrics.get(f"{key}_interval")
    if not isinstance(ends, list) or len(ends) != 2 or not all(_known({"": end}, "") for end in ends):
        return None
    return float(ends[0]), float(ends[1])
