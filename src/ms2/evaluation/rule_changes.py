"""Change of rule probabilities per derivation context, before and after learning.

A context is a `ms2.grammar.derivations.Context`, such as the list of cars of the second road when it has three cars.
The probability of a rule is the number of times it was chosen there, divided by the number of times the context was
reached. So a change in one context does not depend on what leads there: for a model that draws more roads, each with as
many cars as before, only the context of the list of roads changes.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ms2.evaluation.plots import SERIES_COLOURS
from ms2.grammar.derivations import contexts
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import EMPTY_STRING, Rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Z_95 = 1.959964
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""


class RuleChange(NamedTuple):
    """Probability of a rule in a derivation context, before and after learning.

    Attributes:
        label: Context and rule for people; counts items from 1: ``Road 2 · Cars: one more car after 3``.
        symbol: The non-terminal that is expanded.
        parent: The non-terminal whose rule emitted it; empty for the start symbol.
        item: Index, from 0, of the list's item that it is part of; 0 outside of lists.
        position: Items that the list has so far.
        rule: The rule as text.
        before: Probability of the rule before, 0..1; NaN where the context was never reached.
        after: Probability of the rule after, 0..1.
        change: ``after - before``.
        before_interval: 95 % Wilson interval of ``before``; (0, 1) where the context was never reached.
        after_interval: 95 % Wilson interval of ``after``.
        visits_before: Mean number of times that a scene reaches the context, before.
        visits_after: The same after.
    """

    label: str
    symbol: str
    parent: str
    item: int
    position: int
    rule: str
    before: float
    after: float
    change: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    visits_before: float
    visits_after: float


def rule_changes(
    grammar: Grammar, before: Int[Tensor, "n t"], after: Int[Tensor, "m u"], min_visits: int = 30
) -> list[RuleChange]:
    """Compute probability changes between two samples of finished derivations, the largest absolute change first.

    Contexts that either sample reached fewer than ``min_visits`` times are left out: their probabilities are too
    uncertain. Contexts that only ``after`` reaches, that often, come last, the most visited first, and have no change.
    Symbols with one rule are left out. Of two rules one probability determines the other, so only the rule is reported
    that continues a list, or else the first.

    The intervals take visits as independent. A context that one scene reaches several times, as with ``S -> S S``, may
    need wider ones.

    Raises:
        ValueError: If ``min_visits`` is below 1.
    """
    if min_visits < 1:
        raise ValueError(
            f"min_visits={min_visits} was given, but a probability takes at least 1 visit: the default is 30."
        )
    places, taken = _count(grammar, before, after)
    visits = taken.sum(-1, keepdim=True)
    often = visits[..., 0] >= min_visits
    kept = often[1] & (often[0] | (visits[0, :, 0] == 0))
    share, interval = (taken.double() / visits).tolist(), wilson_interval(taken, visits.expand_as(taken)).tolist()
    per_scene = [
        (count[:, 0].double() / max(1, len(rules))).tolist()
        for count, rules in zip(visits, (before, after), strict=True)
    ]
    names, namer = (*grammar.nonterminals, ""), _Namer(grammar)
    found = []
    for i, k in (_reported(grammar)[places[:, 0]] & kept[:, None]).nonzero().tolist():
        symbol, parent, position, item = places[i].tolist()
        p, q = share[0][i][k], share[1][i][k]
        found.append(
            RuleChange(
                label=namer(grammar.rules[k], names[parent], position, item),
                symbol=names[symbol],
                parent=names[parent],
                item=item,
                position=position,
                rule=str(grammar.rules[k]),
                before=p,
                after=q,
                change=q - p,
                before_interval=(interval[0][i][k][0], interval[0][i][k][1]),
                after_interval=(interval[1][i][k][0], interval[1][i][k][1]),
                visits_before=per_scene[0][i],
                visits_after=per_scene[1][i],
            )
        )
    return sorted(found, key=_order)


def wilson_interval(taken: Int[Tensor, "*b"], visits: Int[Tensor, "*b"]) -> Float[Tensor, "*b 2"]:
    """Compute the 95 % score interval of a proportion (Wilson 1927); (0, 1) without data."""
    n = visits.double()
    p = taken / n.clamp(min=1)
    centre, spread = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n), p * (1 - p) / n + (Z_95 / (2 * n)) ** 2
    half = Z_95 * spread.sqrt() / (1 + Z_95**2 / n)
    # the interval holds p, which rounding may undo where p is 0 or 1
    low, high = (centre - half).clamp(min=0).minimum(p), (centre + half).clamp(max=1).maximum(p)
    return torch.stack([low.where(n > 0, torch.zeros_like(p)), high.where(n > 0, torch.ones_like(p))], -1)


def to_rows(changes: Sequence[RuleChange]) -> list[dict[str, str | int | float | None]]:
    """Convert to rows of plain values, intervals as ``before_low``, ``before_high``, ...; None for NaN."""
    table = []
    for change in changes:
        row = change._asdict()
        for name in ("before", "after"):
            row[f"{name}_low"], row[f"{name}_high"] = row.pop(f"{name}_interval")
        table.append(
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        )
    return table


def to_csv(changes: Sequence[RuleChange]) -> str:
    """Format as CSV with a header; unknown values are empty."""
    names = [name for name in RuleChange._fields if not name.endswith("_interval")]
    names += ["before_low", "before_high", "after_low", "after_high"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(to_rows(changes))
    return text.getvalue()


def plot_rule_changes(
    changes: Sequence[RuleChange], title: str, max_rows: int = 24
) -> UInt8[np.ndarray, "height width 3"]:
    """Plot the first ``max_rows`` changes with intervals, from the prior's probability to the learned one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = changes[:max_rows]
    # not pyplot, which keeps global state and may need a display
    figure = Figure(figsize=(12, 2.1 + 0.34 * max(1, len(shown))), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15)
    axes = figure.subplots()
    if shown:
        _draw_changes(axes, shown)
        axes.set_title(_caption(changes, len(shown)), fontsize=11, color="#555555", pad=28)
    else:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "no context was reached often enough in both samples", ha="center", va="center", fontsize=12
        )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _order(change: RuleChange) -> tuple[bool, float]:
    new = math.isnan(change.change)
    return new, -change.visits_after if new else -abs(change.change)


def _count(
    grammar: Grammar, before: Int[Tensor, "n t"], after: Int[Tensor, "m u"]
) -> tuple[Int[Tensor, "c 4"], Int[Tensor, "2 c k"]]:
    """All contexts that either sample reaches, in order, and how often each sample chooses each rule there."""
    samples = [_steps(grammar, rules) for rules in (before, after)]
    steps = torch.cat(samples)
    sample = torch.arange(2).repeat_interleave(torch.tensor([len(s) for s in samples]))
    # one number per context: unique numbers are found several times faster than unique rows.
    radix = [1 + int(column.max()) if len(steps) else 1 for column in steps[:, :4].unbind(1)]
    code = steps[:, 0]
    for column, size in zip(steps[:, 1:4].unbind(1), radix[1:], strict=True):
        code = code * size + column
    code, place = code.unique(return_inverse=True)
    cell = (sample * len(code) + place) * grammar.num_rules + steps[:, 4]
    taken = torch.bincount(cell, minlength=2 * len(code) * grammar.num_rules)
    columns = []
    for size in reversed(radix):
        columns.append(code % size)
        code = code // size
    return torch.stack(columns[::-1], 1), taken.reshape(2, -1, grammar.num_rules)


def _steps(grammar: Grammar, rules: Int[Tensor, "n t"]) -> Int[Tensor, "s 5"]:
    """Return `Context` (symbol, parent, position, item) and rule of every step of every scene, padding left out."""
    if not rules.numel():
        return torch.empty(0, 5, dtype=torch.long)
    place = contexts(grammar, rules)
    steps = torch.stack([place.symbol, place.parent, place.position, place.item, rules.long()], -1)
    return steps[rules != grammar.num_rules].cpu()


def _reported(grammar: Grammar) -> Bool[Tensor, "s k"]:
    """Rules to report of each symbol: those whose probability is not determined by the others'."""
    table = torch.zeros(len(grammar.nonterminals), grammar.num_rules, dtype=torch.bool)
    for i, symbol in enumerate(grammar.nonterminals):
        numbers = grammar.rules_of(symbol)
        if len(numbers) == 2:
            again = [k for k in numbers if symbol in grammar.rules[k].rhs]
            numbers = again if len(again) == 1 else numbers[:1]
        if len(grammar.rules_of(symbol)) > 1:
            table[i, numbers] = True
    return table


class _Namer:
    """Labels of a rule in a context."""

    def __init__(self, grammar: Grammar) -> None:
        self.lists = {rule.lhs for rule in grammar.rules if rule.lhs in rule.rhs}
        self.parents = {
            symbol: {rule.lhs for rule in grammar.rules if symbol in rule.rhs} - {symbol}
            for symbol in grammar.nonterminals
        }
        self.inside: set[str] = set()  # symbols inside list items, which the item's number tells apart
        queue = list(self.lists)
        while queue:
            head = queue.pop()
            new = {s for s in grammar.nonterminals if head in self.parents[s]} - self.inside
            self.inside |= new
            queue += new

    def __call__(self, rule: Rule, parent: str, position: int, item: int) -> str:
        return f"{self._where(rule.lhs, parent, item)}{self._what(rule, position)}"

    def _where(self, symbol: str, parent: str, item: int) -> str:
        if parent in self.lists:  # the list counts the symbol itself
            several = len(self.parents[symbol]) > 1
            return f"{parent} · {symbol} {item + 1}" if several else f"{symbol} {item + 1}"
        number = f" {item + 1}" if parent in self.inside else ""
        return f"{parent}{number} · {symbol}" if parent else symbol

    def _what(self, rule: Rule, position: int) -> str:
        if rule.lhs not in self.lists:
            return f" → {' '.join(rule.rhs) or EMPTY_STRING}"
        rest = [symbol for symbol in rule.rhs if symbol != rule.lhs]
        if rest and len(rest) == len(rule.rhs) - 1:
            return f": one more {' '.join(rest)} after {position}"
        return f": {' '.join(rule.rhs) or 'end'} after {position}"


def _caption(changes: Sequence[RuleChange], shown: int) -> str:
    text = "probability of each rule in its context"
    if shown < len(changes):
        text += f"; the first {shown} of {len(changes)}"
    new = sum(math.isnan(change.change) for change in changes)
    return text + (f"; the prior never reaches {new} of them" if new and shown < len(changes) else "")


def _draw_changes(axes: "Axes", changes: Sequence[RuleChange]) -> None:
    rows = np.arange(len(changes))
    before, after = (
        np.array([getattr(change, name) for change in changes], dtype=float) for name in ("before", "after")
    )
    axes.hlines(rows, before, after, color=SERIES_COLOURS["learned"], alpha=0.2, linewidth=5)
    for name, values, intervals, ink in (
        # the prior's grey is too faint for a thin line
        ("prior", before, [change.before_interval for change in changes], "#868d98"),
        ("learned", after, [change.after_interval for change in changes], SERIES_COLOURS["learned"]),
    ):
        known = ~np.isnan(values)
        low, high = np.array(intervals).reshape(-1, 2)[known].T
        axes.hlines(rows[known], low, high, color=ink, linewidth=1.5)
        for end in (low, high):
            axes.plot(end, rows[known], "|", color=ink, markersize=7)
        axes.plot(values, rows, "o", color=SERIES_COLOURS[name], markersize=9, label=name, zorder=3)
    axes.set_yticks(rows, [change.label for change in changes], fontsize=11)
    axes.set_ylim(len(changes) - 0.3, -0.7)  # the first on top
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("probability, with 95 % interval")
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    _write_visits(axes, changes)


def _write_visits(axes: "Axes", changes: Sequence[RuleChange]) -> None:
    """Write beside the rows how often the contexts are reached: a large change in a rare context matters little."""
    axes.text(1.05, -0.9, "reached per scene", fontsize=9, color="#555555", va="bottom")
    for row, change in enumerate(changes):
        visits = f"{change.visits_before:.2f} → {change.visits_after:.2f}"
        axes.text(
            1.05,
            row,
            visits if change.visits_before else f"never → {change.visits_after:.2f}",
            fontsize=10,
            va="center",
        )
