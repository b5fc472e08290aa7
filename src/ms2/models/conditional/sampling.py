"""Exact samples of q(T | C), for conditions C on numbers of objects."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.grammar.derivations import Derivations, lengths
from ms2.grammar.grammar import Grammar
from ms2.models.conditional.condition import Condition, ConditionError, emitted, satisfied
from ms2.models.conditional.reachability import Ahead, outlooks, possible_counts
from ms2.models.structure import SamplingError, StructureModel
from ms2.priors.structure import StructurePrior

LANES = 2048
"""Most tries at once."""
EXPANDED = 256
"""Most prefixes expanded at once."""
NEVER = 1e-20
"""Steps less likely than this are taken for impossible: a weight of zero in ``fixed_rule_weights`` is stored as
1e-30."""
NEGLIGIBLE = 1e-3
"""Share of tries that may fail without the envelope being made any finer."""


class _Prefixes(NamedTuple):
    """Beginnings of derivations: the leaves of a tree in which every derivation that is asked for goes through one.

    The mass of each is q of all derivations that begin with it. A prefix is settled if no end within ``t_max`` steps
    violates the conditions.
    """

    rules: Int[Tensor, "l t"]
    latent: Int[Tensor, " l"]
    mass: Float[Tensor, " l"]
    state: Int[Tensor, "l g 2"]
    settled: Bool[Tensor, " l"]

    def take(self, index: Tensor) -> "_Prefixes":
        """Some of them."""
        return _Prefixes(*(part[index] for part in self))


class Conditioned:
    """q(T | C): the structure model, given that a scene meets the conditions and ends within ``t_max`` steps.

    The model is autoregressive, so that P(C | prefix) has no closed form. Samples are exact all the same: a tree of
    prefixes, an envelope, holds every derivation that meets the conditions. It is refined where it is heaviest, by
    exact q(prefix), and branches with no end that meets the conditions are cut off. A try chooses a leaf in
    proportion to its mass, goes on from there by q, and fails as soon as an `Outlook` sees no good end; then another
    leaf is chosen. It succeeds with probability P(C) / ``bound``.

    Where the choice that matters comes early in a derivation, nothing is tried twice: "car == 10" leaves one prefix
    for each choice before the list ``Cars -> car Cars | ε``, however rare ten cars are. Where it comes after many
    other choices, the envelope covers the likely ones, and tries fail for the rest.

    Args:
        structure: The model. It is not to be trained while this is in use, which keeps its probabilities.
        conditions: What scenes have to meet; if none, this is the model itself.
        leaves: Most prefixes that are told apart. More of them make fewer tries fail.
        max_tries: Tries that may fail in a row before the conditions are called too rare.

    Attributes:
        bound: Mass of the envelope, an upper bound of the probability that a draw of q meets the conditions and ends
            in time.

    Raises:
        ConditionError: If no scene of the model meets the conditions.
    """

    @torch.no_grad()
    def __init__(
        self,
        structure: StructureModel,
        conditions: Sequence[Condition],
        leaves: int = 4096,
        max_tries: int = 100_000,
    ) -> None:
        self.structure, self.conditions, self.max_tries, self.bound = structure, list(conditions), max_tries, 1.0
        if not self.conditions:
            return
        longest = structure.max_lengths.tolist()
        device = structure.latents.device
        self._outlooks = outlooks(structure.grammar, conditions, structure.t_max, longest, device)
        if bool((self._start(1).good > structure.t_max).all()):
            raise ConditionError(_impossible(structure, self.conditions))
        self._envelope = self._refined(leaves)
        self.bound = float(self._envelope.mass.sum())
        if not self.bound:
            raise ConditionError(_impossible(structure, self.conditions))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Derivations:
        """Draw n finished derivations that meet the conditions, independent of each other.

        Their ``rejections`` are the failed tries before each.

        Raises:
            SamplingError: If too many tries fail in a row.
        """
        if not self.conditions or not n:
            return self.structure.sample(n, generator)
        end = self.structure.grammar.num_rules

        def too_rare(accepted: int, tries: int) -> str:
            at_most = self.bound * (accepted + 3) / tries  # with 95 % confidence where none was accepted
            return (
                f"{_joined(self.conditions)} is too rare: {accepted or 'none'} of {tries} tries met it, so that its "
                f"probability is at most about {at_most:.1g}. Ask for less, or raise leaves or max_tries."
            )

        return _collected(lambda size: self._try(size, generator), n, self.max_tries, too_rare, end)

    def _start(self, n: int) -> Ahead:
        return _joint(outlook.start(n) for outlook in self._outlooks)

    def _after(self, state: Int[Tensor, "n g 2"], rule: Int[Tensor, " n"]) -> Ahead:
        return _joint(o.after(part, rule) for o, part in zip(self._outlooks, state.unbind(1), strict=True))

    def _refined(self, leaves: int) -> _Prefixes:
        """The envelope: from the roots, one for each latent, to leaves that are settled, or as many as may be."""
        model = self.structure
        num, device = len(model.latents), model.latents.device
        branches = max(len(model.grammar.rules_of(symbol)) for symbol in model.grammar.nonterminals)
        state, _, bad = self._start(num)
        tree = _Prefixes(
            rules=torch.full((num, model.t_max), model.grammar.num_rules, device=device),
            latent=torch.arange(num, device=device),
            mass=torch.full((num,), 1 / num, dtype=torch.double, device=device),
            state=state,
            settled=bad > model.t_max,
        )
        while len(tree.mass) < leaves:
            doubtful = tree.mass.masked_fill(tree.settled, 0.0)
            if float(doubtful.sum()) <= NEGLIGIBLE * float(tree.mass.sum()):
                break
            room = max(1, (leaves - len(tree.mass)) // max(1, branches - 1))
            heaviest = doubtful.topk(min(room, EXPANDED, int((doubtful > 0).sum()))).indices
            others = torch.ones_like(tree.settled).index_fill(0, heaviest, False)
            parts = zip(tree.take(others), self._children(tree.take(heaviest)), strict=True)
            tree = _Prefixes(*(torch.cat(part) for part in parts))
        return tree

    def _children(self, parents: _Prefixes) -> _Prefixes:
        """Prefixes one step longer that can still meet the conditions."""
        model = self.structure
        length = lengths(model.grammar, parents.rules)
        probability = model.rule_probabilities(parents.rules[:, : int(length.max())], parents.latent).double()
        row, rule = (probability > NEVER).nonzero(as_tuple=True)
        state, good, bad = self._after(parents.state[row], rule)
        left = model.t_max - 1 - length[row]
        rules = parents.rules[row].scatter(1, length[row][:, None], rule[:, None])
        mass = parents.mass[row] * probability[row, rule]
        return _Prefixes(rules, parents.latent[row], mass, state, bad > left).take(good <= left)

    def _try(self, n: int, generator: torch.Generator) -> tuple[Int[Tensor, "n t"], Bool[Tensor, " n"]]:
        """n tries, and which of them met the conditions."""
        model, tree = self.structure, self._envelope
        end = model.grammar.num_rules
        leaf = torch.multinomial(tree.mass / self.bound, n, replacement=True, generator=generator)
        forced = tree.rules[leaf]
        derivation, state = model.begin(tree.latent[leaf]), self._start(n).state
        drawn = torch.full_like(forced, end)
        alive = torch.ones(n, dtype=torch.bool, device=leaf.device)
        place = torch.arange(n, device=leaf.device)  # of the tries that are followed
        for step in range(model.t_max):
            rule = torch.where(forced[place, step] < end, forced[place, step], derivation.sample_rule(generator))
            derivation.advance(rule)
            drawn[place, step] = rule
            # what has failed walks on until it is dropped, but needs no outlook
            state, good, _ = self._after(state, torch.where(alive[place], rule, end))
            alive[place] &= good <= model.t_max - 1 - step
            going = (alive[place] & ~derivation.finished).nonzero()[:, 0]
            if not len(going):
                break
            if 2 * len(going) < len(place):
                derivation, state, place = derivation[going], state[going], place[going]
        return drawn, alive


def sample_given(
    structure: StructureModel, conditions: Sequence[Condition], n: int, generator: torch.Generator
) -> Derivations:
    """Draw n scenes from q(T | C), see `Conditioned`, which is to be kept where more than one batch is drawn.

    Raises:
        ConditionError: If no scene of the model meets the conditions.
        SamplingError: If they are too rare.
    """
    return Conditioned(structure, conditions).sample(n, generator)


def sample_prior_given(
    prior: StructurePrior,
    grammar: Grammar,
    conditions: Sequence[Condition],
    n: int,
    generator: torch.Generator,
    max_tries: int = 100_000,
) -> Derivations:
    """Draw n derivations of a prior that meet the conditions, by rejecting all others.

    Their ``rejections`` are the failed tries before each.

    Raises:
        SamplingError: If ``max_tries`` draws in a row don't meet them.
    """
    if not conditions or not n:
        rules = prior.sample(grammar, n, generator)
        return Derivations(rules, rules.new_zeros(n))
    seen: dict[tuple[str, ...], set[int]] = {condition.classes: set() for condition in conditions}

    def attempt(size: int) -> tuple[Int[Tensor, "b t"], Bool[Tensor, " b"]]:
        rules = prior.sample(grammar, size, generator)
        for classes, numbers in seen.items():
            numbers.update(emitted(grammar, classes).to(rules.device)[rules].sum(1).unique().tolist())
        return rules, satisfied(grammar, rules, conditions)

    def too_rare(accepted: int, tries: int) -> str:
        found = "; ".join(f"{' + '.join(classes)} was {_runs(sorted(numbers))}" for classes, numbers in seen.items())
        return (
            f"{_joined(conditions)} is too rare for the prior {type(prior).__name__}: {accepted or 'none'} of {tries} "
            f"draws met it. In them, {found}. Ask for less, or raise max_tries."
        )

    return _collected(attempt, n, max_tries, too_rare, grammar.num_rules)


def _collected(
    attempt: Callable[[int], tuple[Int[Tensor, "b t"], Bool[Tensor, " b"]]],
    n: int,
    max_tries: int,
    too_rare: Callable[[int, int], str],
    padding: int,
) -> Derivations:
    """The first n accepted of a sequence of tries, which are made in batches.

    A batch is judged as a whole, never by what is ready first: short derivations would be favoured.
    """
    rows: list[Tensor] = []
    places: list[Tensor] = []  # of the accepted in the sequence
    accepted = tries = 0
    last = -1
    while accepted < n:
        if tries - last > max_tries:
            raise SamplingError(too_rare(accepted, tries))
        size = min(LANES, -(-(n - accepted) * max(tries, 1) // max(accepted, 1)))
        rules, met = attempt(size)
        rows.append(rules[met])
        places.append(met.nonzero()[:, 0] + tries)
        tries += size
        if len(places[-1]):
            accepted, last = accepted + len(places[-1]), int(places[-1][-1])
    width = max(part.shape[1] for part in rows)
    rules = torch.cat([F.pad(part, (0, width - part.shape[1]), value=padding) for part in rows])[:n]
    place = torch.cat(places)[:n]
    return Derivations(rules, place.diff(prepend=place.new_tensor([-1])) - 1)


def _joint(parts: Iterable[Ahead]) -> Ahead:
    """States side by side; a good end has to be one for all outlooks, a bad one for any."""
    states, good, bad = zip(*parts, strict=True)
    return Ahead(torch.stack(states, 1), torch.stack(good).amax(0), torch.stack(bad).amin(0))


# -- what is said when it can't be done --------------------------------------------------------------------


def _impossible(structure: StructureModel, conditions: Sequence[Condition]) -> str:
    """Why no scene of the model meets the conditions: each alone first, then all together."""
    ranges = {}
    for condition in conditions:
        classes = condition.classes
        counts = possible_counts(structure.grammar, classes, structure.t_max, structure.max_lengths.tolist())
        ranges[classes] = f"{' + '.join(classes)} can be {_runs(counts)}"
        if not bool(condition.holds(torch.tensor(counts)).any()):
            return f"'{condition}' can't be met: {ranges[classes]} here, in {structure.t_max} steps at most."
    alone = "; ".join(ranges.values())
    if len(conditions) == 1:
        return f"{_joined(conditions)} can't be met: {alone} here, but to this model that has probability 0."
    return (
        f"{_joined(conditions)} can't be met together. By themselves, {alone} here, in {structure.t_max} steps at most."
    )


def _joined(conditions: Sequence[Condition]) -> str:
    return " and ".join(f"'{condition}'" for condition in conditions)


def _runs(numbers: Sequence[int]) -> str:
    """Sorted numbers for people: "0, 2, 4 to 9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    words = [" to ".join(map(str, run)) for run in runs]
    return ", ".join(words if len(words) <= 6 else [*words[:4], "...", words[-1]])
