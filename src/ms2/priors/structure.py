"""Hand-made distributions of structure, as samplers of derivations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import Dimension, NonNegativeFloat
from ms2.core.registry import Plugin
from ms2.grammar.derivations import DerivationStack
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import GrammarError, normalise_weights


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

    def sample(self, grammar: Grammar, n: int, generator: torch.Generator) -> Int[Tensor, "n t"]:
        """Sample n finished derivations, one batched step at a time.

        Raises:
            GrammarError: If a derivation does not end within ``t_max`` steps.
        """
        probability = self._probability(grammar).to(generator.device)
        stack = DerivationStack(grammar, n, self.t_max, generator.device)
        steps: list[Tensor] = []
        while not bool(stack.finished.all()):
            if len(steps) == self.t_max:
                raise GrammarError(f"the prior drew a derivation of over {self.t_max} steps; check its weights")
            p = _rule_probabilities(probability, stack)
            steps.append(torch.multinomial(p, 1, generator=generator)[:, 0])
            stack.expand(steps[-1])
        return torch.stack(steps, 1) if steps else torch.empty(n, 0, dtype=torch.long, device=generator.device)

    def log_prob(self, grammar: Grammar, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """Compute the exact log p(T); minus infinity outside of the prior's support."""
        probability = self._probability(grammar).to(rules.device)
        stack = DerivationStack(grammar, len(rules), rules.shape[1], rules.device)
        total = torch.zeros(len(rules), device=rules.device)
        for rule in rules.unbind(1):
            p = _rule_probabilities(probability, stack)
            total = total + p.gather(1, rule[:, None])[:, 0].log()
            # an impossible rule must not pop an empty stack
            stack.expand(torch.where(total > -torch.inf, rule, grammar.num_rules))
        return total.masked_fill(~stack.finished, -torch.inf)

    def _probability(self, grammar: Grammar) -> Float[Tensor, "n1 i m k1"]:
        """Compute the probability of each rule by symbol, item of the enclosing list, and position in its own list.

        An empty stack takes the padding rule.
        """
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
        chosen = torch.multinomial(self.weights.to(device).expand(n, -1), 1, generator=generator)[:, 0]
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


def _rule_probabilities(probability: Float[Tensor, "n1 i m k1"], stack: DerivationStack) -> Float[Tensor, "b k1"]:
    """Look up the probability of each rule for the top of each stack."""
    top = stack.top
    item, position = top.item.clamp(max=probability.shape[1] - 1), top.position.clamp(max=probability.shape[2] - 1)
    return probability[top.symbol, item, position]


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
