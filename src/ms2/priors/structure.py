"""Hand-made distributions of structure, as samplers of derivations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import Dimension, NonNegativeFloat
from ms2.core.registry import Plugin
from ms2.grammar.derivations import contexts_of, steps_of
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import GrammarError, normalise_weights
from ms2.grammar.stack import DerivationStack

STEPS_BETWEEN_CHECKS = 8
"""Steps of sampling after which finished derivations are left out, which waits for the device."""


class StructurePrior(Plugin, ABC, kind="structure_priors"):
    """Base class: a distribution over derivations, on which structure models are pretrained."""

    @abstractmethod
    def sample(self, grammar: Grammar, n: int, generator: torch.Generator) -> Int[Tensor, "n t"]:
        """Sample n finished derivations, padded with the grammar's padding rule."""

    def log_prob(self, grammar: Grammar, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"] | None:
        """Compute log p(T), or return None if it is not known."""
        return None


class ListLengthPrior(StructurePrior):
    """A PCFG whose lists (recursive non-terminals, ``Cars -> car Cars | ε``) have given length distributions.

    With ``weights`` alone this is a PCFG. ``lengths`` gives a list such as ``Digits -> Digit Digits | ε`` any
    distribution of its length, which no PCFG can: the list continues after i items with probability
    P(length > i) / P(length >= i). Lists within the items of another list, the cars of each road, may have one
    distribution for each item: another number of cars on the first road than on the others.

    Args:
        lengths: By non-terminal, the weights of lengths 0, 1, 2, ... of its list, or a list of such weights for the
            first, second, ... item of the enclosing list, the last of them for all later items too. The non-terminal
            must have exactly one rule whose right-hand side has the non-terminal in it; its other rules end the list.
        weights: By non-terminal, the weights of its rules in the order of their numbers; uniform by default. For a
            non-terminal in ``lengths``, those of the rules that end its list say how often each of them does.
        t_max: Maximum number of steps of a derivation; a longer one is an error, since a PCFG may rarely end.

    Example:
        >>> grammar = Grammar("Ducks -> duck Ducks | ε")
        >>> prior = ListLengthPrior(lengths={"Ducks": [0, 1, 3]})  # one duck, or three times as often two
        >>> rules = prior.sample(grammar, 100, generator(0, "example"))
        >>> prior.log_prob(grammar, rules).exp().unique()
        tensor([0.2500, 0.7500])
    """

    def __init__(
        self,
        lengths: Mapping[str, Sequence[NonNegativeFloat] | Sequence[Sequence[NonNegativeFloat]]] | None = None,
        weights: Mapping[str, Sequence[NonNegativeFloat]] | None = None,
        t_max: Dimension = 1000,
    ) -> None:
        self.lengths, self.weights, self.t_max = dict(lengths or {}), dict(weights or {}), t_max
        self._probabilities: dict[tuple[str, torch.device], Tensor] = {}

    def sample(self, grammar: Grammar, n: int, generator: torch.Generator) -> Int[Tensor, "n t"]:
        """Sample n finished derivations, one batched step at a time.

        Raises:
            GrammarError: If a derivation does not end within ``t_max`` steps.
        """
        table = self.probability(grammar, generator.device)[None]
        return _sample(grammar, table, torch.zeros(n, dtype=torch.long, device=table.device), self.t_max, generator)

    def log_prob(self, grammar: Grammar, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """Compute the exact log p(T); minus infinity outside of the prior's support."""
        table, steps = self.probability(grammar, rules.device), steps_of(grammar, rules)
        place = contexts_of(grammar, steps)
        item, position = place.item.clamp(max=table.shape[1] - 1), place.position.clamp(max=table.shape[2] - 1)
        # where a rule is impossible its probability is 0; what comes after it makes no difference
        total = table[place.symbol, item, position, rules].log().sum(1)
        return total.masked_fill(steps.remaining[:, -1] != 0, -torch.inf)

    def probability(self, grammar: Grammar, device: torch.device) -> Float[Tensor, "n1 i m k1"]:
        """Compute the probability of each rule by symbol, item of the enclosing list, and position in its own list.

        An empty stack takes the padding rule. The last item and the last position stand for all later ones too.
        """
        key = grammar.fingerprint, device
        if key not in self._probabilities:
            self._probabilities[key] = self._probability(grammar).to(device)
        return self._probabilities[key]

    def _probability(self, grammar: Grammar) -> Float[Tensor, "n1 i m k1"]:
        by_item = {symbol: _lengths_by_item(given) for symbol, given in self.lengths.items()}
        num_items = max([1, *map(len, by_item.values())])
        num_positions = max([1, *(len(row) for rows in by_item.values() for row in rows)])
        table = torch.zeros(len(grammar.nonterminals) + 1, num_items, num_positions, grammar.num_rules + 1)
        table[-1, ..., -1] = 1
        for symbol in (*self.lengths, *self.weights):
            grammar.rules_of(symbol)  # raises for a symbol that the grammar lacks
        for i, symbol in enumerate(grammar.nonterminals):
            numbers = grammar.rules_of(symbol)
            given = self.weights.get(symbol, [1.0] * len(numbers))
            table[i, ..., numbers] = normalise_weights(given, f"weights of {symbol}", len(numbers))
            if symbol in by_item:
                continuing = [k for k in numbers for s in grammar.rules[k].rhs if s == symbol]
                ending = [k for k in numbers if k not in continuing]
                if len(continuing) != 1 or not ending:
                    raise GrammarError(
                        f"{symbol!r} has lengths, but not exactly one rule that has it on its right-hand side"
                    )
                share = table[i, 0, 0, ending]
                if not bool(share.sum() > 0):
                    raise GrammarError(f"the weights of {symbol} must leave a rule that ends its list")
                rows = by_item[symbol]
                last = len(rows) - 1
                stop = torch.stack([_stop(rows[min(j, last)], num_positions, symbol) for j in range(num_items)])
                table[i, ..., ending] = stop[..., None] * share / share.sum()
                table[i, ..., continuing] = (1 - stop)[..., None]
        return table


class MixturePrior(StructurePrior):
    """A mixture of structure priors: each scene is drawn from one of them.

    Args:
        priors: The components.
        weights: Weights of the components; uniform by default.
    """

    def __init__(self, priors: list[StructurePrior], weights: list[NonNegativeFloat] | None = None) -> None:
        self.priors = priors
        self.weights = normalise_weights(weights or [1.0] * len(priors), "weights of a mixture", len(priors))

    def sample(self, grammar: Grammar, n: int, generator: torch.Generator) -> Int[Tensor, "n t"]:
        """Sample n finished derivations, each from a component drawn at random."""
        device = generator.device
        weights = self.weights.to(device)
        chosen = torch.searchsorted(
            _cumulative(weights), torch.rand(n, generator=generator, **_like(device)), right=True
        )
        lists = [p for p in self.priors if isinstance(p, ListLengthPrior) and type(p).sample is ListLengthPrior.sample]
        if len(lists) == len(self.priors):
            table = _stacked([p.probability(grammar, device) for p in lists])
            return _sample(grammar, table, chosen, max(p.t_max for p in lists), generator)
        rows = [(chosen == k).nonzero()[:, 0] for k in range(len(self.priors))]
        parts = [p.sample(grammar, len(some), generator) for p, some in zip(self.priors, rows, strict=True)]
        rules = torch.full((n, max(part.shape[1] for part in parts)), grammar.num_rules, device=device)
        for some, part in zip(rows, parts, strict=True):
            rules[some, : part.shape[1]] = part
        return rules

    def log_prob(self, grammar: Grammar, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"] | None:
        """Compute the exact log p(T), or return None if that of a component is not known."""
        parts = [prior.log_prob(grammar, rules) for prior in self.priors]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return (torch.stack(known, 1) + self.weights.to(rules.device).log()).logsumexp(1)


def _lengths_by_item(lengths: Sequence[float] | Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Return the weights of lengths by item of the enclosing list: one row for all items, or one for each."""
    nested = [row for row in lengths if isinstance(row, Sequence)]
    if nested and len(nested) < len(lengths):
        raise GrammarError(f"lengths must be numbers, or a list of numbers for each item, not a mixture: {lengths}")
    return nested or [[float(w) for w in lengths if not isinstance(w, Sequence)]]


def _stop(lengths: Sequence[float], size: int, symbol: str) -> Float[Tensor, "{size}"]:
    """Compute, for each i, the probability that a list ends after i items if it has so many."""
    p = normalise_weights(lengths, f"lengths of {symbol}")
    at_least = p.flip(0).cumsum(0).flip(0)  # P(length >= i)
    stop = torch.ones(size)
    stop[: len(p)] = (p / at_least.clamp(min=torch.finfo().tiny)).where(at_least > 0, torch.tensor(1.0))
    return stop


def _sample(
    grammar: Grammar,
    probability: Float[Tensor, "c n1 i m k1"],
    component: Int[Tensor, " n"],
    t_max: int,
    generator: torch.Generator,
) -> Int[Tensor, "n t"]:
    """Sample a derivation of each component, by the probabilities of rules in each context.

    After every few steps, those that are finished are left out, for which alone the device is waited for.
    """
    n, device = len(component), component.device
    rows = _cumulative(probability.flatten(0, 3))
    _, symbols, items, positions, _ = probability.shape
    limits = torch.tensor([symbols - 1, symbols - 1, positions - 1, items - 1], device=device)  # in a `Context`'s order
    strides = torch.tensor([items * positions, 0, 1, positions], device=device)
    first = component * (symbols * items * positions)
    stack, left = DerivationStack(grammar, n, t_max, device), torch.arange(n, device=device)
    blocks: list[Tensor] = []
    for start in range(0, t_max, STEPS_BETWEEN_CHECKS):
        if not len(left):
            break
        size = min(STEPS_BETWEEN_CHECKS, t_max - start)
        drawn = torch.empty(size, len(left), dtype=torch.long, device=device)
        for rule, u in zip(drawn, torch.rand(size, len(left), 1, generator=generator, **_like(device)), strict=True):
            row = (torch.minimum(stack.fields, limits) * strides).sum(1) + first
            torch.searchsorted(rows[row], u, right=True, out=rule[:, None])
            stack.expand(rule)
        blocks.append(torch.full((n, size), grammar.num_rules, device=device).index_copy_(0, left, drawn.T))
        unfinished = (~stack.finished).nonzero()[:, 0]
        left, first, stack = left[unfinished], first[unfinished], stack[unfinished]
    if len(left):
        raise GrammarError(f"the prior drew a derivation of over {t_max} steps; check its weights")
    rules = torch.cat(blocks, 1) if blocks else torch.empty(n, 0, dtype=torch.long, device=device)
    return rules[:, : int((rules != grammar.num_rules).any(0).sum())]


def _cumulative(probability: Float[Tensor, "*n k"]) -> Float[Tensor, "*n k"]:
    """Add probabilities up, in double precision; the last sum is 1, above all numbers that `torch.rand` draws."""
    total = probability.double().cumsum(-1)
    return total / total[..., -1:]


def _like(device: torch.device) -> dict[str, Any]:
    return {"device": device, "dtype": torch.double}


def _stacked(tables: list[Float[Tensor, "n1 _ _ k1"]]) -> Float[Tensor, "c n1 i m k1"]:
    """Stack tables of probabilities: the last item and the last position of each stand for all later ones too."""
    items, positions = (torch.arange(max(table.shape[d] for table in tables), device=tables[0].device) for d in (1, 2))
    return torch.stack(
        [
            table[:, items.clamp(max=table.shape[1] - 1)][:, :, positions.clamp(max=table.shape[2] - 1)]
            for table in tables
        ]
    )


def fit_pcfg(grammar: Grammar, rules: Int[Tensor, "b t"]) -> ListLengthPrior:
    """Fit a probabilistic context-free grammar to derivations by maximum likelihood.

    Each rule's probability is its fraction among the rules of its symbol, in whatever context: the best model without
    context.
    """
    used = rules.flatten().bincount(minlength=grammar.num_rules + 1)
    weights = {}
    for symbol in grammar.nonterminals:
        counts = used[grammar.rules_of(symbol)].tolist()
        if sum(counts):
            weights[symbol] = [float(count) for count in counts]
    return ListLengthPrior(weights=weights)
