"""What moved: how often each rule is taken, place by place in the derivations, before and after learning.

A *place* is a `ms2.grammar.Context`, such as the list of cars of the second road when it has three cars. The
probability of a rule there is the number of times it was taken divided by the number of times the place was reached,
so a move of one place says nothing of what leads there: a model that draws more roads, each with as many cars as
before, moves in its list of roads only.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ms2.evaluation.plots import COLOURS
from ms2.grammar.derivations import contexts
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import EMPTY_STRING, Rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
import csv
import io
import math

import numpy as np
import torch

Z = 1.959964  # the normal distribution has 95 % of its mass within so many standard deviations


class Move(NamedTuple):
    """The probability of one rule in one place, before and after.

    Attributes:
        label: Place and rule for people; counts items from 1: ``Road 2 · Cars: one more car after 3``.
        symbol: The non-terminal that is expanded.
        parent: The non-terminal whose rule brought it in; empty for the start.
        item: Index, from 0, of the list's item that it is part of; 0 outside of lists.
        position: Items that the list which it spells has so far.
        rule: The rule as text.
        before: Probability of the rule before, 0..1; NaN where the place was never reached.
        after: Probability of the rule after, 0..1.
        change: ``after - before``.
        before_interval: Ends of the 95 % Wilson interval of ``before``; 0 and 1 where the place was never reached.
        after_interval: The same of ``after``.
        visits_before: How often a scene reaches the place, on average, before.
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


def moves(
    grammar: Grammar, before: Int[Tensor, "n t"], after: Int[Tensor, "m u"], least_visits: int = 30
) -> list[Move]:
    """What changed between two samples of finished derivations, the largest absolute change first.

    A place that either sample reached fewer than ``least_visits`` times is left out: its probability is hardly known.
    Places that only ``after`` reaches, and that often, are new territory; they come last, the most visited first, and
    have no change. A symbol with one rule has nothing to choose and is left out. Of two rules the second one's
    probability follows, so only that is reported which continues a list, or else the first.

    The intervals take visits as independent. A place that one scene reaches several times, as with ``S -> S S``, may
    need wider ones.

    Raises:
        ValueError: If ``least_visits`` is below 1.
    """
    if least_visits < 1:
        raise ValueError(
            f"least_visits={least_visits} was given, but a probability takes at least 1 visit: the default is 30."
        )
    places, taken = _count(grammar, before, after)
    visits = taken.sum(-1, keepdim=True)
    often = visits[..., 0] >= least_visits
    kept = often[1] & (often[0] | (visits[0, :, 0] == 0))
    share, interval = (taken.double() / visits).tolist(), wilson(taken, visits.expand_as(taken)).tolist()
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
            Move(
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


def wilson(taken: Int[Tensor, "*b"], visits: Int[Tensor, "*b"]) -> Float[Tensor, "*b 2"]:
    """Ends of the 95 % score interval of a probability (Wilson 1927); 0 and 1 without a visit."""
    n = visits.double()
    p = taken / n.clamp(min=1)
    centre, spread = (p + Z**2 / (2 * n)) / (1 + Z**2 / n), p * (1 - p) / n + (Z / (2 * n)) ** 2
    half = Z * spread.sqrt() / (1 + Z**2 / n)
    # the interval holds p, which rounding may undo where p is 0 or 1
    low, high = (centre - half).clamp(min=0).minimum(p), (centre + half).clamp(max=1).maximum(p)
    return torch.stack([low.where(n > 0, torch.zeros_like(p)), high.where(n > 0, torch.ones_like(p))], -1)


def as_table(moves: Sequence[Move]) -> list[dict[str, str | int | float | None]]:
    """Plain values, a row per move; intervals as ``before_low``, ``before_high``, ..., None instead of NaN."""
    table = []
    for move in moves:
        row = move._asdict()
        for name in ("before", "after"):
            row[f"{name}_low"], row[f"{name}_high"] = row.pop(f"{name}_interval")
        table.append(
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        )
    return table


def to_csv(moves: Sequence[Move]) -> str:
    """The table as text with a line of names first; what is not known is an empty cell."""
    names = [name for name in Move._fields if not name.endswith("_interval")]
    names += ["before_low", "before_high", "after_low", "after_high"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_table(moves))
    return text.getvalue()


def picture(moves: Sequence[Move], title: str, most: int = 24) -> UInt8[np.ndarray, "height width 3"]:
    """The first ``most`` moves, a row each: from the prior's probability to the learned one, with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = moves[:most]
    # Not pyplot: it keeps global state, and would want a screen.
    figure = Figure(figsize=(12, 2.1 + 0.34 * max(1, len(shown))), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15)
    axes = figure.subplots()
    if shown:
        _draw_moves(axes, shown)
        axes.set_title(_caption(moves, len(shown)), fontsize=11, color="#555555", pad=28)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no choice was met often enough in both samples", ha="center", va="center", fontsize=12)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _order(move: Move) -> tuple[bool, float]:
    new = math.isnan(move.change)
    return new, -move.visits_after if new else -abs(move.change)


def _count(
    grammar: Grammar, before: Int[Tensor, "n t"], after: Int[Tensor, "m u"]
) -> tuple[Int[Tensor, "c 4"], Int[Tensor, "2 c k"]]:
    """All places that either sample reaches, in order, and how often each sample takes each rule there."""
    samples = [_steps(grammar, rules) for rules in (before, after)]
    steps = torch.cat(samples)
    whose = torch.arange(2).repeat_interleave(torch.tensor([len(s) for s in samples]))
    # One number per place: unique numbers are found several times faster than unique rows.
    radix = [1 + int(column.max()) if len(steps) else 1 for column in steps[:, :4].unbind(1)]
    code = steps[:, 0]
    for column, size in zip(steps[:, 1:4].unbind(1), radix[1:], strict=True):
        code = code * size + column
    code, place = code.unique(return_inverse=True)
    cell = (whose * len(code) + place) * grammar.num_rules + steps[:, 4]
    taken = torch.bincount(cell, minlength=2 * len(code) * grammar.num_rules)
    columns = []
    for size in reversed(radix):
        columns.append(code % size)
        code = code // size
    return torch.stack(columns[::-1], 1), taken.reshape(2, -1, grammar.num_rules)


def _steps(grammar: Grammar, rules: Int[Tensor, "n t"]) -> Int[Tensor, "s 5"]:
    """Symbol, parent, position, item and rule of every step of every scene, padding left out."""
    if not rules.numel():
        return torch.empty(0, 5, dtype=torch.long)
    place = contexts(grammar, rules)
    steps = torch.stack([place.symbol, place.parent, place.position, place.item, rules.long()], -1)
    return steps[rules != grammar.num_rules].cpu()


def _reported(grammar: Grammar) -> Bool[Tensor, "s k"]:
    """Which rules to report of each symbol: those whose probability does not follow from the others'."""
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
    """Words for a rule in a place."""

    def __init__(self, grammar: Grammar) -> None:
        self.lists = {rule.lhs for rule in grammar.rules if rule.lhs in rule.rhs}
        self.parents = {
            symbol: {rule.lhs for rule in grammar.rules if symbol in rule.rhs} - {symbol}
            for symbol in grammar.nonterminals
        }
        self.inside: set[str] = set()  # what is part of a list's item, so that its item's number means something
        queue = list(self.lists)
        while queue:
            head = queue.pop()
            new = {s for s in grammar.nonterminals if head in self.parents[s]} - self.inside
            self.inside |= new
            queue += new

    def __call__(self, rule: Rule, parent: str, position: int, item: int) -> str:
        return f"{self._where(rule.lhs, parent, item)}{self._what(rule, position)}"

    def _where(self, symbol: str, parent: str, item: int) -> str:
        if parent in self.lists:  # the symbol itself is what the list counts
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


def _caption(moves: Sequence[Move], shown: int) -> str:
    text = "probability of each choice, where it has to be made"
    if shown < len(moves):
        text += f"; the first {shown} of {len(moves)}"
    new = sum(math.isnan(move.change) for move in moves)
    return text + (f"; the prior never gets to {new} of them" if new and shown < len(moves) else "")


def _draw_moves(axes: "Axes", moves: Sequence[Move]) -> None:
    rows = np.arange(len(moves))
    before, after = (np.array([getattr(move, name) for move in moves], dtype=float) for name in ("before", "after"))
    axes.hlines(rows, before, after, color=COLOURS["learned"], alpha=0.2, linewidth=5)
    for name, values, intervals, ink in (
        # the prior's grey is too faint for a thin line
        ("prior", before, [move.before_interval for move in moves], "#868d98"),
        ("learned", after, [move.after_interval for move in moves], COLOURS["learned"]),
    ):
        known = ~np.isnan(values)
        low, high = np.array(intervals).reshape(-1, 2)[known].T
        axes.hlines(rows[known], low, high, color=ink, linewidth=1.5)
        for end in (low, high):
            axes.plot(end, rows[known], "|", color=ink, markersize=7)
        axes.plot(values, rows, "o", color=COLOURS[name], markersize=9, label=name, zorder=3)
    axes.set_yticks(rows, [move.label for move in moves], fontsize=11)
    axes.set_ylim(len(moves) - 0.3, -0.7)  # the first on top
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("probability, with 95 % interval")
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    _write_visits(axes, moves)


def _write_visits(axes: "Axes", moves: Sequence[Move]) -> None:
    """To the right of the rows, how often the places are reached: a large move of a rare place matters little."""
    axes.text(1.05, -0.9, "reached per scene", fontsize=9, color="#555555", va="bottom")
    for row, move in enumerate(moves):
        visits = f"{move.visits_before:.2f} → {move.visits_after:.2f}"
        axes.text(
            1.05, row, visits if move.visits_before else f"never → {move.visits_after:.2f}", fontsize=10, va="center"
        )
