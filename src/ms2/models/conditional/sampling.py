"""Exact sampling from q(T | C), for conditions C on object counts."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.grammar.derivations import Derivations, lengths
from ms2.grammar.grammar import Grammar
from ms2.models.conditional.condition import Condition, ConditionError, emitted_counts, satisfies
from ms2.models.conditional.reachability import ReachabilityState, build_reachability, possible_counts
from ms2.models.structure import SamplingError, StructureModel
from ms2.priors.structure import StructurePrior

MAX_BATCH_SIZE = 2048
"""Largest number of derivations that are tried at once."""
MAX_EXPANSIONS = 256
"""Largest number of prefixes that are expanded at once."""
MIN_STEP_PROBABILITY = 1e-20
"""Probability of a rule below which it is taken for impossible: a weight of zero in ``fixed_rule_weights`` is stored as
1e-30."""
MAX_REJECTED_FRACTION = 1e-3
"""Fraction of rejected tries below which the envelope is not refined further."""


class _Prefixes(NamedTuple):
    """Leaves of a tree of prefixes; every derivation that meets the conditions begins with one of them.

    Attributes:
        rules: The prefixes, padded.
        latent: Index of the latent of each.
        mass: Probability under q of all derivations that begin with it.
        state: Its state in each `Reachability`.
        settled: Whether no end within ``t_max`` steps violates the conditions.
    """

    rules: Int[Tensor, "l t"]
    latent: Int[Tensor, " l"]
    mass: Float[Tensor, " l"]
    state: Int[Tensor, "l g 2"]
    settled: Bool[Tensor, " l"]

    def select(self, index: Tensor) -> "_Prefixes":
        """Select some of the prefixes."""
        return _Prefixes(*(part[index] for part in self))


class ConditionalStructure:
    """Exact sampler of q(T | C): the structure model, given the conditions and an end within ``t_max`` steps.

    The model is autoregressive, so that P(C | prefix) has no closed form. Samples are exact all the same. A tree of
    prefixes, the *envelope*, covers every derivation that meets the conditions: its heaviest leaves are expanded by
    exact q(prefix), and branches with no end that meets the conditions are cut off. A try samples a leaf in proportion
    to its mass and continues from there by q; it is rejected as soon as `Reachability` excludes an end that meets the
    conditions, and another leaf is sampled. It is accepted with probability P(C) / ``bound``.

    Where the decisive choice comes early in a derivation, nothing is rejected: "car == 10" leaves one prefix for each
    choice before the list ``Cars -> car Cars | ε``, however rare ten cars are. Where it comes after many other choices,
    the envelope covers the likely ones, and tries are rejected for the rest.

    Args:
        structure: The structure model; its probabilities are cached, so its weights must not change.
        conditions: The conditions; with none, this samples the model itself.
        max_prefixes: Maximum number of prefixes in the envelope; with more, fewer tries are rejected.
        max_tries: Maximum number of consecutive rejections; after more, an error says that the conditions are too rare.

    Attributes:
        bound: Mass of the envelope, an upper bound of the probability that a sample of q meets the conditions and ends
            in time.

    Raises:
        ConditionError: If no scene of the model meets the conditions.
    """

    @torch.no_grad()
    def __init__(
        self,
        structure: StructureModel,
        conditions: Sequence[Condition],
        max_prefixes: int = 4096,
        max_tries: int = 100_000,
    ) -> None:
        self.structure, self.conditions, self.max_tries, self.bound = structure, list(conditions), max_tries, 1.0
        if not self.conditions:
            return
        max_lengths = structure.max_lengths.tolist()
        device = structure.latents.device
        self._reachability = build_reachability(structure.grammar, conditions, structure.t_max, max_lengths, device)
        if bool((self._initial_state(1).good > structure.t_max).all()):
            raise ConditionError(_impossible(structure, self.conditions))
        self._envelope = self._refined(max_prefixes)
        self.bound = float(self._envelope.mass.sum())
        if not self.bound:
            raise ConditionError(_impossible(structure, self.conditions))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Derivations:
        """Sample n independent derivations that meet the conditions.

        Their ``rejections`` are the rejected tries before each.

        Raises:
            SamplingError: If too many tries in a row are rejected.
        """
        if not self.conditions or not n:
            return self.structure.sample(n, generator)
        end = self.structure.grammar.num_rules

        def too_rare(accepted: int, tries: int) -> str:
            at_most = self.bound * (accepted + 3) / tries  # with 95 % confidence where none was accepted
            return (
                f"{_joined(self.conditions)} is too rare: {accepted or 'none'} of {tries} tries met it, so that its "
                f"probability is at most about {at_most:.1g}. Ask for less."
            )

        return _collected(lambda size: self._try(size, generator), n, self.max_tries, too_rare, end)

    def _initial_state(self, n: int) -> ReachabilityState:
        return _joint(group.initial_state(n) for group in self._reachability)

    def _advance(self, state: Int[Tensor, "n g 2"], rule: Int[Tensor, " n"]) -> ReachabilityState:
        parts = zip(self._reachability, state.unbind(1), strict=True)
        return _joint(group.advance(part, rule) for group, part in parts)

    def _refined(self, max_prefixes: int) -> _Prefixes:
        """Build the envelope: expand the heaviest leaves that may violate the conditions, up to ``max_prefixes``."""
        model = self.structure
        num, device = len(model.latents), model.latents.device
        branches = max(len(model.grammar.rules_of(symbol)) for symbol in model.grammar.nonterminals)
        state, _, bad = self._initial_state(num)
        tree = _Prefixes(
            rules=torch.full((num, model.t_max), model.grammar.num_rules, device=device),
            latent=torch.arange(num, device=device),
            mass=torch.full((num,), 1 / num, dtype=torch.double, device=device),
            state=state,
            settled=bad > model.t_max,
        )
        while len(tree.mass) < max_prefixes:
            unsettled = tree.mass.masked_fill(tree.settled, 0.0)
            if float(unsettled.sum()) <= MAX_REJECTED_FRACTION * float(tree.mass.sum()):
                break
            room = max(1, (max_prefixes - len(tree.mass)) // max(1, branches - 1))
            heaviest = unsettled.topk(min(room, MAX_EXPANSIONS, int((unsettled > 0).sum()))).indices
            others = torch.ones_like(tree.settled).index_fill(0, heaviest, False)
            parts = zip(tree.select(others), self._children(tree.select(heaviest)), strict=True)
            tree = _Prefixes(*(torch.cat(part) for part in parts))
        return tree

    def _children(self, parents: _Prefixes) -> _Prefixes:
        """Extend prefixes by every rule after which the conditions can still be met."""
        model = self.structure
        length = lengths(model.grammar, parents.rules)
        probability = model.rule_probabilities(parents.rules[:, : int(length.max())], parents.latent).double()
        row, rule = (probability > MIN_STEP_PROBABILITY).nonzero(as_tuple=True)
        state, good, bad = self._advance(parents.state[row], rule)
        left = model.t_max - 1 - length[row]
        rules = parents.rules[row].scatter(1, length[row][:, None], rule[:, None])
        mass = parents.mass[row] * probability[row, rule]
        return _Prefixes(rules, parents.latent[row], mass, state, bad > left).select(good <= left)

    def _try(self, n: int, generator: torch.Generator) -> tuple[Int[Tensor, "n t"], Bool[Tensor, " n"]]:
        """Make n tries; return them, and which are accepted."""
        model, tree = self.structure, self._envelope
        end = model.grammar.num_rules
        numbers = torch.rand(n, model.t_max + 1, generator=generator, device=tree.mass.device, dtype=torch.double)
        *uniform, chosen = numbers.unbind(1)
        total = tree.mass.cumsum(0)
        leaf = torch.searchsorted(total, chosen * total[-1], right=True)
        prefix = tree.rules[leaf]
        derivation, state = model.begin(tree.latent[leaf]), self._initial_state(n).state
        drawn = torch.full_like(prefix, end)
        accepted = torch.ones(n, dtype=torch.bool, device=leaf.device)
        index = torch.arange(n, device=leaf.device)  # of the tries that are continued
        for step in range(model.t_max):
            rule = torch.where(
                prefix[index, step] < end, prefix[index, step], derivation.sample_rule(uniform[step][index])
            )
            derivation.advance(rule)
            drawn[index, step] = rule
            # rejected tries are continued until they are removed below, without being tracked
            state, good, _ = self._advance(state, torch.where(accepted[index], rule, end))
            accepted[index] &= good <= model.t_max - 1 - step
            open_ = (accepted[index] & ~derivation.finished).nonzero()[:, 0]
            if not len(open_):
                break
            if 2 * len(open_) < len(index):
                derivation, state, index = derivation[open_], state[open_], index[open_]
        return drawn, accepted


def sample_conditional(
    structure: StructureModel, conditions: Sequence[Condition], n: int, generator: torch.Generator
) -> Derivations:
    """Sample n derivations from q(T | C); build `ConditionalStructure` once to sample several batches.

    Raises:
        ConditionError: If no scene of the model meets the conditions.
        SamplingError: If they are too rare.
    """
    return ConditionalStructure(structure, conditions).sample(n, generator)


def sample_prior_conditional(
    prior: StructurePrior,
    grammar: Grammar,
    conditions: Sequence[Condition],
    n: int,
    generator: torch.Generator,
    max_tries: int = 100_000,
) -> Derivations:
    """Sample n derivations of a prior that meet the conditions, by rejection.

    Their ``rejections`` are the rejected samples before each.

    Raises:
        SamplingError: If ``max_tries`` samples in a row don't meet the conditions.
    """
    if not conditions or not n:
        rules = prior.sample(grammar, n, generator)
        return Derivations(rules, rules.new_zeros(n))
    seen: dict[tuple[str, ...], set[int]] = {condition.classes: set() for condition in conditions}

    def attempt(size: int) -> tuple[Int[Tensor, "b t"], Bool[Tensor, " b"]]:
        rules = prior.sample(grammar, size, generator)
        for classes, numbers in seen.items():
            numbers.update(emitted_counts(grammar, classes).to(rules.device)[rules].sum(1).unique().tolist())
        return rules, satisfies(grammar, rules, conditions)

    def too_rare(accepted: int, tries: int) -> str:
        found = "; ".join(f"{' + '.join(classes)} was {_runs(sorted(numbers))}" for classes, numbers in seen.items())
        return (
            f"{_joined(conditions)} is too rare for the prior {type(prior).__name__}: {accepted or 'none'} of {tries} "
            f"draws met it. In them, {found}. Ask for less, or draw from a learned model: name the folder of a run."
        )

    return _collected(attempt, n, max_tries, too_rare, grammar.num_rules)


def _collected(
    attempt: Callable[[int], tuple[Int[Tensor, "b t"], Bool[Tensor, " b"]]],
    n: int,
    max_tries: int,
    too_rare: Callable[[int, int], str],
    padding: int,
) -> Derivations:
    """Collect the first n accepted of a sequence of tries, made in batches.

    A batch is completed before any of its tries is accepted: accepting those that finish first would favour short
    derivations.
    """
    rows: list[Tensor] = []
    positions: list[Tensor] = []  # of the accepted tries in the sequence
    accepted = tries = 0
    last = -1
    while accepted < n:
        if tries - last > max_tries:
            raise SamplingError(too_rare(accepted, tries))
        size = min(MAX_BATCH_SIZE, -(-(n - accepted) * max(tries, 1) // max(accepted, 1)))
        rules, met = attempt(size)
        rows.append(rules[met])
        positions.append(met.nonzero()[:, 0] + tries)
        tries += size
        if len(positions[-1]):
            accepted, last = accepted + len(positions[-1]), int(positions[-1][-1])
    width = max(part.shape[1] for part in rows)
    rules = torch.cat([F.pad(part, (0, width - part.shape[1]), value=padding) for part in rows])[:n]
    position = torch.cat(positions)[:n]
    return Derivations(rules, position.diff(prepend=position.new_tensor([-1])) - 1)


def _joint(parts: Iterable[ReachabilityState]) -> ReachabilityState:
    """Combine the states of groups of conditions: a good end meets those of every group, a bad one does not."""
    states, good, bad = zip(*parts, strict=True)
    return ReachabilityState(torch.stack(states, 1), torch.stack(good).amax(0), torch.stack(bad).amin(0))


# -- error messages -----------------------------------------------------------------------------------------


def _impossible(structure: StructureModel, conditions: Sequence[Condition]) -> str:
    """Explain why no scene of the model meets the conditions: each by itself first, then all together."""
    ranges = {}
    for condition in conditions:
        classes = condition.classes
        counts = possible_counts(structure.grammar, classes, structure.t_max, structure.max_lengths.tolist())
        ranges[classes] = f"{' + '.join(classes)} can be {_runs(counts)}"
        if not bool(condition.is_met(torch.tensor(counts)).any()):
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
    """Format sorted numbers with ranges: "0, 2, 4 to 9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    words = [" to ".join(map(str, run)) for run in runs]
    return ", ".join(words if len(words) <= 6 else [*words[:4], "...", words[-1]])
