"""Hand-made distributions of structure, as samplers of derivations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.registry import Plugin
from ms2.grammar.derivations import DerivationStack
from ms2.grammar.grammar import Grammar, GrammarError, rule_weights


class StructurePrior(Plugin, ABC, kind="structure_priors"):
    """A distribution over derivations, from which structure models are pretrained."""

    @abstractmethod
    def sample(self, grammar: Grammar, n: int, generator: torch.Generator) -> Int[Tensor, "n t"]:
        """Draw n finished derivations, padded with the grammar's padding rule."""

    def log_prob(self, grammar: Grammar, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"] | None:
        """log p(T) where the prior knows it, else None."""
        return None


class Repetition(StructurePrior):
    """A grammar with rule probabilities that may depend on how often a symbol has just come back.

    With ``weights`` alone this is a PCFG. ``lengths`` gives a list such as ``Digits -> Digit Digits | ε`` any
    distribution of its length, which no PCFG can: the list goes on after i items with probability
    P(length > i) / P(length >= i). Lists within the items of another list, the cars of each road, may have one
    distribution for each item: another number of cars on the first road than on the others.

    Args:
        lengths: By non-terminal, the weights of lengths 0, 1, 2, ... of the list that it spells, or a list of such
            weights for the first, second, ... item that it is part of, the last of them for all later ones too. The
            non-terminal must have exactly one rule in which it comes back; its other rules end the list.
        weights: By non-terminal, the weights of its rules in the order of their numbers; uniform where not
            given. For a symbol in ``lengths`` they divide what ends the list.
        max_steps: Steps after which a derivation is an error; a PCFG may be one that rarely ends.
    """

    def __init__(
        self,
        lengths: Mapping[str, Sequence[float] | Sequence[Sequence[float]]] | None = None,
        weights: Mapping[str, Sequence[float]] | None = None,
        max_steps: int = 1000,
    ) -> None:
        self.lengths, self.weights, self.max_steps = dict(lengths or {}), dict(weights or {}), max_steps

    def sample(self, grammar: Grammar, n: int, generator: torch.Generator) -> Int[Tensor, "n t"]:
        """Draw n finished derivations, step by step for all scenes at once.

        Raises:
            GrammarError: If a draw does not end within ``max_steps``.
        """
        probability = self._probability(grammar).to(generator.device)
        frontier = DerivationStack(grammar, n, self.max_steps, generator.device)
        steps: list[Tensor] = []
        while not bool(frontier.finished.all()):
            if len(steps) == self.max_steps:
                raise GrammarError(f"the prior drew a derivation of over {self.max_steps} steps; check its weights")
            p = _look_up(probability, frontier)
            steps.append(torch.multinomial(p, 1, generator=generator)[:, 0])
            frontier.expand(steps[-1])
        return torch.stack(steps, 1) if steps else torch.empty(n, 0, dtype=torch.long, device=generator.device)

    def log_prob(self, grammar: Grammar, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """Exact log p(T); minus infinity for what the prior never draws."""
        probability = self._probability(grammar).to(rules.device)
        frontier = DerivationStack(grammar, len(rules), rules.shape[1], rules.device)
        total = torch.zeros(len(rules), device=rules.device)
        for rule in rules.unbind(1):
            p = _look_up(probability, frontier)
            total = total + p.gather(1, rule[:, None])[:, 0].log()
            # what is impossible must not move the stack below its floor
            frontier.expand(torch.where(total > -torch.inf, rule, grammar.num_rules))
        return total.masked_fill(~frontier.finished, -torch.inf)

    def _probability(self, grammar: Grammar) -> Float[Tensor, "n1 i m k1"]:
        """Probability of each rule by symbol, item and position; the empty stack takes the padding rule."""
        by_item = {symbol: _by_item(given) for symbol, given in self.lengths.items()}
        items = max([1, *map(len, by_item.values())])
        most = max([1, *(len(row) for rows in by_item.values() for row in rows)])
        table = torch.zeros(len(grammar.nonterminals) + 1, items, most, grammar.num_rules + 1)
        table[-1, ..., -1] = 1
        for symbol in (*self.lengths, *self.weights):
            grammar.expansions(symbol)  # raises for a symbol that the grammar lacks
        for i, symbol in enumerate(grammar.nonterminals):
            numbers = grammar.expansions(symbol)
            weights = rule_weights(self.weights.get(symbol, [1.0] * len(numbers)), f"weights of {symbol}", len(numbers))
            table[i, ..., numbers] = weights
            if symbol in by_item:
                again = [k for k in numbers for s in grammar.rules[k].rhs if s == symbol]
                ending = [k for k in numbers if k not in again]
                if len(again) != 1 or not ending:
                    raise GrammarError(f"{symbol!r} has lengths, but not exactly one rule in which it comes back")
                share = table[i, 0, 0, ending]
                if not bool(share.sum() > 0):
                    raise GrammarError(f"the weights of {symbol} must leave a rule that ends its list")
                rows = by_item[symbol]
                stop = torch.stack([_stop(rows[min(j, len(rows) - 1)], most, symbol) for j in range(items)])
                table[i, ..., ending] = stop[..., None] * share / share.sum()
                table[i, ..., again] = (1 - stop)[..., None]
        return table


class Mixture(StructurePrior):
    """Several structure priors, one of them for each scene.

    Args:
        priors: The priors.
        weights: How often each is used; alike by default.
    """

    def __init__(self, priors: list[StructurePrior], weights: list[float] | None = None) -> None:
        self.priors = priors
        self.weights = rule_weights(weights or [1.0] * len(priors), "weights of a mixture", len(priors))

    def sample(self, grammar: Grammar, n: int, generator: torch.Generator) -> Int[Tensor, "n t"]:
        """Draw n finished derivations, each from a prior of its own."""
        device = generator.device
        chosen = torch.multinomial(self.weights.to(device).expand(n, -1), 1, generator=generator)[:, 0]
        places = [(chosen == k).nonzero()[:, 0] for k in range(len(self.priors))]
        parts = [p.sample(grammar, len(at), generator) for p, at in zip(self.priors, places, strict=True)]
        rules = torch.full((n, max(part.shape[1] for part in parts)), grammar.num_rules, device=device)
        for at, part in zip(places, parts, strict=True):
            rules[at, : part.shape[1]] = part
        return rules

    def log_prob(self, grammar: Grammar, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"] | None:
        """Exact log p(T), where all of them know theirs."""
        parts = [prior.log_prob(grammar, rules) for prior in self.priors]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return (torch.stack(known, 1) + self.weights.to(rules.device).log()).logsumexp(1)


def _by_item(lengths: Sequence[float] | Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Lengths for every item: one row for all, or one each."""
    nested = [row for row in lengths if isinstance(row, Sequence)]
    if nested and len(nested) < len(lengths):
        raise GrammarError(f"lengths must be numbers, or a list of numbers for each item, not a mixture: {lengths}")
    return nested or [[float(w) for w in lengths if not isinstance(w, Sequence)]]


def _stop(lengths: Sequence[float], most: int, symbol: str) -> Float[Tensor, "{most}"]:
    """Probability that a list ends after i items."""
    p = rule_weights(lengths, f"lengths of {symbol}")
    left = p.flip(0).cumsum(0).flip(0)  # P(length >= i)
    stop = torch.ones(most)
    stop[: len(p)] = (p / left.clamp(min=torch.finfo().tiny)).where(left > 0, torch.tensor(1.0))
    return stop


def _look_up(probability: Float[Tensor, "n1 i m k1"], frontier: DerivationStack) -> Float[Tensor, "b k1"]:
    """Probability of each rule for what is to be expanded next."""
    top = frontier.top
    item, position = top.item.clamp(max=probability.shape[1] - 1), top.position.clamp(max=probability.shape[2] - 1)
    return probability[top.symbol, item, position]


def fit_pcfg(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Repetition:
    """The probabilistic context-free grammar of maximum likelihood for given derivations.

    It gives each rule its share among the rules of its symbol, wherever that stands: what the best model without
    context makes of them.
    """
    used = rules.flatten().bincount(minlength=grammar.num_rules + 1)
    weights = {}
    for symbol in grammar.nonterminals:
        counts = used[grammar.expansions(symbol)].tolist()
        if sum(counts):
            weights[symbol] = [float(count) for count in counts]
    return Repetition(weights=weights)
