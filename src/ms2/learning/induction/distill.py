"""Write what a structure model has learned as list-length tables for its grammar: the fewest within a stated loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.files import write_json, write_text
from ms2.grammar.derivations import contexts
from ms2.grammar.grammar import Grammar
from ms2.learning.induction.codes import choice_probabilities, fit_lengths
from ms2.learning.induction.list_search import MAX_LEADING
from ms2.learning.induction.object_table import InductionError
from ms2.learning.induction.writing import rounded, to_yaml
from ms2.priors.structure import ListLengthPrior
from ms2.scene.batch import scenes_from_derivations

ALWAYS_OUT = 1e-6
"""Probability below which the last entries of a table are left out."""


class Step(NamedTuple):
    """One refinement of the tables.

    Attributes:
        list_symbol: List that got a table, or one for one more of the first parents.
        leading: How many of the first parents have tables of their own.
        loss: Loss afterwards, in nats per object.
    """

    list_symbol: str
    leading: int
    loss: float


@dataclass(frozen=True)
class Distilled:
    """Tables of a structure model.

    Attributes:
        grammar: The model's grammar.
        prior: The tables.
        steps: Refinements in the order in which they were chosen.
        loss: KL(model || tables) in nats per object, on scenes that the tables were not fitted to.
        first_loss: The same of the best probabilistic grammar, without tables.
        target: The loss that was asked for.
    """

    grammar: Grammar
    prior: ListLengthPrior
    steps: tuple[Step, ...]
    loss: float
    first_loss: float
    target: float

    def lines(self) -> Iterator[str]:
        """Yield an account for people."""
        yield f"A probabilistic grammar without tables loses {self.first_loss:.4f} nats per object."
        for step in self.steps:
            which = (
                "a table" if step.leading == 0 else f"a table of its own for the first {step.leading} of its parents"
            )
            yield f"  {step.list_symbol}: {which}, then {step.loss:.4f}"
        if self.loss > self.target:
            yield (
                f"The loss stays above {self.target:g}: the rest is context that no table of list lengths tells, such "
                "as what one list has to do with another."
            )

    def counts(self) -> dict[str, Any]:
        """Return the distribution of numbers by list, item and parent, for other generators."""
        lists = []
        for symbol, rows in self.prior.lengths.items():
            table: list[list[float]] = _by_item(rows)
            (continuing,) = (k for k in self.grammar.rules_of(symbol) if symbol in self.grammar.rules[k].rhs)
            items = [s for s in self.grammar.rules[continuing].rhs if s != symbol]
            above = sorted({r.lhs for r in self.grammar.rules if symbol in r.rhs and r.lhs != symbol})
            numbers = [
                {
                    "parent_number": f"{i + 1}" if i < len(table) - 1 else ("any" if i == 0 else f"{i + 1} and later"),
                    "mean": round(sum(n * p for n, p in enumerate(row)), 4),
                    "probability": {str(n): p for n, p in enumerate(row) if p > 0},
                }
                for i, row in enumerate(table)
            ]
            lists.append({"list": symbol, "items": items, "parents": above, "numbers": numbers})
        choices = {
            symbol: {
                " ".join(self.grammar.rules[k].rhs): weights[i] for i, k in enumerate(self.grammar.rules_of(symbol))
            }
            for symbol, weights in self.prior.weights.items()
        }
        return {"lists": lists, "choices": choices}

    def write(self, folder: Path) -> None:
        """Write ``structure.yaml`` and ``counts.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        prior = {
            "class_path": "ListLengthPrior",
            "init_args": {
                name: some for name, some in (("lengths", self.prior.lengths), ("weights", self.prior.weights)) if some
            },
        }
        rules: dict[str, list[str]] = {}
        for rule in self.grammar.rules:
            rules.setdefault(rule.lhs, []).append(" ".join(rule.rhs) or "ε")
        text = "\n".join(f"{lhs} -> {' | '.join(bodies)}" for lhs, bodies in rules.items()) + "\n"
        grammar = {
            "class_path": "Grammar",
            "init_args": {"rules": text, "renderable": list(self.grammar.classes)},
        }
        write_text(folder / "structure.yaml", to_yaml({"world": {"grammar": grammar, "structure_prior": prior}}))
        write_json(folder / "counts.json", self.counts())


def distill(grammar: Grammar, rules: Int[Tensor, "b t"], log_q: Float[Tensor, " b"], loss: float) -> Distilled:
    """Fit the fewest tables to derivations of a model such that they lose no more than was asked for.

    Begin with the best probabilistic grammar. In each step, the refinement that lowers the loss most per table is
    added: a table of a list's length, or one of its own for one more of the first parents.

    Args:
        grammar: The model's grammar.
        rules: Derivations drawn from the model; the second half measures the loss.
        log_q: The model's log-probability of each.
        loss: Loss in nats per object at which to stop.

    Raises:
        InductionError: If there are fewer than four derivations, or none has an object.
    """
    half = len(rules) // 2
    if half < 2:
        raise InductionError(f"{len(rules)} scenes are too few to fit tables and measure their loss: draw thousands")
    held_out, log_q = rules[half:], log_q[half:].double()
    objects = float(scenes_from_derivations(grammar, held_out).mask.sum())
    if not objects:
        raise InductionError("no scene of the model has an object: there is nothing to write down")
    fit = _Tables(grammar, rules[:half])

    def measured(leading: Mapping[str, int]) -> tuple[float, ListLengthPrior]:
        prior = fit.prior(leading)
        return float((log_q - prior.log_prob(grammar, held_out).double()).sum()) / objects, prior

    chosen, steps = dict[str, int](), list[Step]()
    now, prior = measured(chosen)
    first = now
    while now > loss:
        tried = [
            (*measured({**chosen, symbol: k}), symbol, k)
            for symbol in fit.lists
            if (k := chosen.get(symbol, -1) + 1) <= min(MAX_LEADING, fit.most_items(symbol))
        ]
        if not tried:
            break
        best = min(tried, key=lambda one: one[0])
        if best[0] >= now:
            break
        now, prior, chosen[best[2]] = best[0], best[1], best[3]
        steps.append(Step(best[2], best[3], now))
    return Distilled(grammar, prior, tuple(steps), now, first, loss)


class _Tables:
    """Lengths of lists and choices of rules in derivations.

    Args:
        grammar: The grammar.
        rules: The derivations.
    """

    def __init__(self, grammar: Grammar, rules: Int[Tensor, "b t"]) -> None:
        self.grammar, self.used = grammar, rules.flatten().bincount(minlength=grammar.num_rules + 1)
        place = contexts(grammar, rules)
        self.observed: dict[str, tuple[Int[Tensor, " n"], Int[Tensor, " n"]]] = {}
        for symbol in grammar.lists:
            continuing = [k for k in grammar.rules_of(symbol) if symbol in grammar.rules[k].rhs]
            once = grammar.rules[continuing[0]].rhs.count(symbol) == 1
            ends = torch.tensor([k for k in grammar.rules_of(symbol) if k not in continuing])
            at_end = torch.isin(rules, ends)
            if len(continuing) == 1 and once and bool(at_end.any()):
                self.observed[symbol] = place.position[at_end], place.item[at_end]

    @property
    def lists(self) -> tuple[str, ...]:
        """Lists that can have a table and occur."""
        return tuple(self.observed)

    def most_items(self, symbol: str) -> int:
        """Return the largest number of a parent of the list, from 0."""
        return int(self.observed[symbol][1].max())

    def prior(self, leading: Mapping[str, int]) -> ListLengthPrior:
        """Fit a prior with tables for some lists, and constant probabilities of all other rules."""
        lengths, weights = dict[str, Any](), dict[str, list[float]]()
        for symbol, first in leading.items():
            length, item = self.observed[symbol]
            rows = [_shortened(fit_lengths(length[item.clamp(max=first) == k]).weights) for k in range(first + 1)]
            lengths[symbol] = rows if first else rows[0]
        for symbol in self.grammar.nonterminals:
            numbers = self.grammar.rules_of(symbol)
            ends = [k for k in numbers if symbol not in self.grammar.rules[k].rhs]
            if len(numbers) > 1 and not (symbol in lengths and len(ends) == 1):
                weights[symbol] = rounded(choice_probabilities(self.used[numbers]).tolist())
        return ListLengthPrior(lengths, weights)


def _by_item(lengths: Any) -> list[list[float]]:
    """Return the rows of a table: one for all parents, or one for each of the first."""
    return [list(row) for row in lengths] if isinstance(lengths[0], list) else [list(lengths)]


def _shortened(weights: tuple[float, ...]) -> list[float]:
    """Round a table, and leave its last entries out if they are together improbable."""
    size = len(weights)
    while size > 1 and sum(weights[size - 1 :]) < ALWAYS_OUT:
        size -= 1
    return rounded(weights[:size])
