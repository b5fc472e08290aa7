"""The structure model q(T): an autoregressive distribution over derivations of a grammar (section 3.2)."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.core.bounds import Count, Dimension, NonNegativeFloat, PositiveInt, Seed
from ms2.core.errors import DivergenceError, UserError, suggest
from ms2.core.settings import Configured
from ms2.grammar.derivations import Context, Derivations, contexts, lengths
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import GrammarError, normalise_weights
from ms2.grammar.stack import DerivationStack
from ms2.models.derivation_state import DerivationState, StepTables, extend_to_end
from ms2.models.networks.base import SequenceNetwork
from ms2.models.networks.recurrent import LSTM
from ms2.models.replay import Replay

MIN_PROBABILITY = 1e-30
"""Probability of a rule whose fixed weight is zero: finite logits keep gradients finite."""


class SamplingError(UserError):
    """Too many derivations were rejected: longer than ``t_max``, or not meeting conditions."""


class EndlessScenesError(SamplingError, DivergenceError):
    """Too many derivations were longer than ``t_max``."""


class SequenceLogProb(NamedTuple):
    """Log-probability and entropy of b derivations, from one teacher-forced pass.

    Attributes:
        log_prob: log q(T), marginal over the latents, before rejection.
        entropy: Sum over steps of the entropy of the rule's distribution; its mean over samples of q
            estimates the entropy of q (exactly so for one latent).
        group_log_prob: For each of g groups of symbols log q(T), with the gradient of only those steps that expand one
            of the group's symbols. These gradients add up to the gradient of log q(T).
    """

    log_prob: Float[Tensor, " b"]
    entropy: Float[Tensor, " b"]
    group_log_prob: Float[Tensor, "b g"]


class StructureModel(Configured, nn.Module):
    """A sequence network over rules, masked to what the grammar allows.

    At each step the rules of the popped non-terminal are allowed, one is sampled from the softmax of their
    logits, and fed back, which is what makes the choice depend on the context. q(T|z) is the product of the
    rules' probabilities (the paper prints a sum), and q(T) the mean of q(T|z) over a finite set of latents.

    The paper feeds back the sampled rule alone, so that the network has to count by itself how many items a list
    already has. It is slow to learn that, and the number of objects is what has to be learned. With ``context`` the
    input includes which non-terminal is expanded, its position in its list, and which item of an enclosing list it
    belongs to: the fourth car on the second road.

    Args:
        grammar: The grammar of the scenes.
        t_max: Maximum number of steps of a derivation; longer samples are rejected and drawn again.
        network: The sequence network; by default an `LSTM` of its default width.
        context: Whether the network's input includes the `Context`: the non-terminal that is expanded, its parent, and
            the positions in its list and in the enclosing list.
        num_latents: Size of the set Z of latents; the paper found 1 enough.
        latent_dim: Dimension of a latent.
        max_tries: Maximum number of draws of a scene; an error if none ends within ``t_max`` steps.
        fixed_rule_weights: Weights of the rules of symbols whose rule is not learned, by symbol:
            ``{"Scene": [1, 1, 1]}`` mixes three scenarios evenly, whatever the target.
        max_length: Maximum length of lists, by the non-terminal of the list: with ``{"Cars": 15}``, ``Cars -> car Cars
            | ε`` must end after the fifteenth car. The paper has ``t_max`` alone, which is one bound for all, and
            rejects what exceeds it; this bound is exact and rejects nothing. It bounds lists whose length the features
            can't resolve, as forty trees look like fifty.
        seed: Seed of the latents, which are drawn from a standard normal once and stay fixed.

    Raises:
        GrammarError: If the grammar has symbols that never terminate, or needs more than ``t_max`` steps, or if
            ``fixed_rule_weights`` names a symbol that it lacks or gives another number of weights than there are rules,
            or if ``max_length`` names a symbol that is no list, or a negative number.

    Example:
        >>> structure = StructureModel(world.grammar, t_max=24)
        >>> rules = structure.sample(8, generator(0, "example")).rules
        >>> structure.log_prob(rules).shape
        torch.Size([8])
    """

    latents: Tensor
    max_lengths: Tensor
    first_input: Tensor
    extends_list: Tensor
    is_fixed: Tensor
    fixed_logits: Tensor

    def __init__(
        self,
        grammar: Grammar,
        t_max: Dimension = 64,
        network: SequenceNetwork | None = None,
        context: bool = True,
        num_latents: Dimension = 1,
        latent_dim: Dimension = 16,
        max_tries: PositiveInt = 100,
        fixed_rule_weights: dict[str, list[NonNegativeFloat]] | None = None,
        max_length: dict[str, Count] | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        grammar.check(t_max)
        self.grammar, self.t_max, self.max_tries = grammar, t_max, max_tries
        network = network or LSTM()
        hidden = network.hidden
        self.embedding = nn.Embedding(grammar.num_rules + 1, hidden)  # the padding rule also precedes the first rule
        symbols = len(grammar.nonterminals) + 1
        sizes = (symbols, symbols, t_max, t_max) if context else ()  # of `Context`
        self.context_embeddings = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes)
        network.reset_parameters()  # here, so that weights of a seed don't depend on when the network was made
        self.network = network
        self.condition = nn.Linear(latent_dim, hidden)
        self.head = nn.Linear(hidden, grammar.num_rules)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("latents", torch.randn(num_latents, latent_dim, generator=generator))
        is_fixed, logits = _fixed_rules(grammar, fixed_rule_weights or {})
        self.register_buffer("is_fixed", is_fixed, persistent=False)
        self.register_buffer("fixed_logits", logits, persistent=False)
        self._replay = Replay()
        self.fixes, self.bounded = bool(fixed_rule_weights), frozenset(max_length or {})
        self.register_buffer("max_lengths", _max_lengths(grammar, max_length or {}), persistent=False)
        first_input = torch.tensor([0, grammar.num_rules + 1, *sizes[:-1]][: 1 + len(sizes)]).cumsum(0)
        self.register_buffer("first_input", first_input, persistent=False)
        self.register_buffer("extends_list", grammar.tensors("cpu").repeats[:-1].any(1), persistent=False)

    # -- sampling --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Derivations:
        """Sample n derivations, rejecting those longer than ``t_max``.

        Rejection changes the distribution from q(T) to q(T) / P(a sample ends within ``t_max``), which the paper
        ignores. The device is waited for once, to see whether any is rejected, and again only if some are.

        Returns:
            The derivations, no wider than the longest.

        Raises:
            EndlessScenesError: If a scene does not end in time in ``max_tries`` draws.
        """
        rules, finished = self._draw(n, generator, self._replay)
        rejections = torch.zeros(n, dtype=torch.long, device=rules.device)
        used, rejected = torch.stack([self._used(rules), (~finished).sum()]).tolist()
        if not rejected:
            return Derivations(rules[:, :used].contiguous(), rejections)
        pending = (~finished).nonzero()[:, 0]
        for _ in range(self.max_tries - 1):
            rejections[pending] += 1
            drawn, finished = self._draw(len(pending), generator)
            rules[pending] = drawn
            pending = pending[~finished]
            if not len(pending):
                return Derivations(rules[:, : int(self._used(rules))].contiguous(), rejections)
        raise EndlessScenesError(
            f"{len(pending)} of {n} scenes did not end within t_max = {self.t_max} steps in {self.max_tries} draws. "
            "Raise t_max, bound lists (max_length), lower the learning rate, or weigh rejections more (reject_weight)."
        )

    def _used(self, rules: Int[Tensor, "n t"]) -> Int[Tensor, ""]:
        """Count the steps of the longest derivation."""
        return (rules != self.grammar.num_rules).any(0).sum()

    def _draw(
        self, n: int, generator: torch.Generator, replay: Replay | None = None
    ) -> tuple[Int[Tensor, "n t"], Bool[Tensor, " n"]]:
        """Sample n derivations of at most ``t_max`` steps; return also which are finished."""
        device = self.latents.device
        latents = torch.randint(len(self.latents), (n,), generator=generator, device=device)
        uniform = torch.rand(self.t_max, n, generator=generator, device=device, dtype=torch.double)
        if replay is None or not n:
            return self._expand(latents, uniform)
        read = [tensor.data_ptr() for tensor in (*self.parameters(), *self.buffers())]
        rules, finished = replay(self._expand, [latents, uniform], (self.training, *read))
        return rules, finished

    def _expand(
        self, latents: Int[Tensor, " n"], uniform: Float[Tensor, "t n"]
    ) -> tuple[Int[Tensor, "n t"], Bool[Tensor, " n"]]:
        """Sample derivations by given random numbers, in the weights' own precision."""
        with torch.autocast(uniform.device.type, enabled=False):
            return extend_to_end(self.begin(latents), uniform, leave=uniform.device.type == "cpu")

    def begin(self, latents: Int[Tensor, " n"]) -> DerivationState:
        """Begin n derivations, each with the latent of the given index."""
        stack = DerivationStack(self.grammar, len(latents), self.t_max, latents.device)
        state = self.network.initial_state(self.condition(self.latents[latents]))
        return DerivationState(stack, state, _step_tables(self))

    def rule_probabilities(self, prefixes: Int[Tensor, "b t"], latents: Int[Tensor, " b"]) -> Float[Tensor, "b k"]:
        """Compute the probability of each rule to follow given prefixes, in one teacher-forced pass.

        Args:
            prefixes: Rules of unfinished derivations, padded to the same number of steps.
            latents: Index of the latent of each.
        """
        end = self.grammar.num_rules
        # padding changes the stack of an unfinished derivation only after the step whose probabilities are returned
        context = contexts(self.grammar, F.pad(prefixes, (0, 1), value=end))
        inputs = self._embed(F.pad(prefixes, (1, 0), value=end), context)
        output = self.network(inputs, self.condition(self.latents[latents]))
        rows, last = torch.arange(len(prefixes), device=prefixes.device), lengths(self.grammar, prefixes)
        return self._masked_logits(output[rows, last], Context(*(part[rows, last] for part in context))).softmax(-1)

    # -- logits ----------------------------------------------------------------------------------------

    def _embed(self, previous: Int[Tensor, "*b"], context: Context) -> Float[Tensor, "*b h"]:
        """Compute the network's input: embeddings of the previous rule and of the context, added up."""
        embedded = self.embedding(previous)
        for table, part in zip(self.context_embeddings, context, strict=False):
            assert isinstance(table, nn.Embedding)
            embedded = embedded + table(part.clamp(max=table.num_embeddings - 1))
        return embedded

    def _masked_logits(self, output: Float[Tensor, "*b h"], context: Context) -> Float[Tensor, "*b k"]:
        """Compute the logits of the next rule, minus infinity for rules that are not allowed."""
        return self._logits(output, context.symbol).masked_fill(~self._allowed(context), -math.inf)

    def _logits(self, output: Float[Tensor, "*b h"], symbol: Int[Tensor, "..."]) -> Float[Tensor, "*b k"]:
        """Compute the logits of all rules: the network's, or those of ``fixed_rule_weights``."""
        logits: Tensor = self.head(output)
        return torch.where(self.is_fixed[symbol][..., None], self.fixed_logits[symbol], logits)

    def _allowed(self, context: Context) -> Bool[Tensor, "*b k"]:
        """Return which rules expand the symbol without exceeding the maximum length of its list."""
        by_symbol = self.grammar.tensors(context.symbol.device).allowed
        return by_symbol[context.symbol] & ~(self._at_max_length(context)[..., None] & self.extends_list)

    def _at_max_length(self, context: Context) -> Bool[Tensor, "*b"]:
        return context.position >= self.max_lengths[context.symbol]

    # -- scoring ---------------------------------------------------------------------------------------

    def log_prob(self, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """Compute log q(T), see `log_prob_and_entropy`."""
        return self.log_prob_and_entropy(rules).log_prob

    def log_prob_and_entropy(
        self, rules: Int[Tensor, "b t"], groups: Int[Tensor, " n1"] | None = None, num_groups: int | None = None
    ) -> SequenceLogProb:
        """Compute log-probability and entropy of derivations in one teacher-forced pass, with gradients.

        Padding steps count nothing, but take time. The marginal over Z is exact: each derivation is scored under every
        latent, and the mean taken by logsumexp.

        Args:
            rules: The derivations.
            groups: Index of the group that each symbol belongs to; by default there is one group.
            num_groups: Number of groups; read from ``groups``, which waits for the device, if it is not given.
        """
        k, num = self.grammar.num_rules, len(self.latents)
        if groups is None:
            num_groups = 1
        elif num_groups is None:
            num_groups = int(groups.max()) + 1
        if not len(rules):
            none = self.head.weight.new_zeros(0)
            return SequenceLogProb(none, none, none.reshape(0, num_groups))
        real = rules != k
        inputs = torch.cat([torch.full_like(rules[:, :1], k), rules[:, :-1]], 1)
        context = contexts(self.grammar, rules)
        condition = self.condition(self.latents.repeat_interleave(len(rules), 0))
        output = self.network(self._embed(inputs, context).repeat(num, 1, 1), condition)  # [z*b t h]
        allowed = self._allowed(context) | ~real[..., None]
        output = output.unflatten(0, (num, len(rules)))  # [z b t h]
        logits = self._logits(output, context.symbol).masked_fill(~allowed, -math.inf)
        log_p = logits.log_softmax(-1)  # [z b t k]
        taken = log_p.gather(-1, rules.clamp(max=k - 1)[None, ..., None].expand(num, -1, -1, -1))[..., 0]
        steps = torch.where(real, taken, 0.0)  # [z b t]
        log_prob = steps.sum(-1).logsumexp(0) - math.log(num)
        group_log_prob = log_prob[:, None]
        if groups is not None:
            of_group = groups[context.symbol][..., None] == torch.arange(num_groups, device=groups.device)
            per_group = torch.einsum("zbt,btg->zbg", steps, of_group.to(steps.dtype))
            others = (per_group.sum(-1, keepdim=True) - per_group).detach()
            group_log_prob = (per_group + others).logsumexp(0) - math.log(num)
        # 0 log 0 = 0 for rules that are not allowed
        entropy = torch.where(real, -(log_p.exp() * log_p.masked_fill(~allowed, 0.0)).sum(-1), 0.0).sum(-1)
        return SequenceLogProb(log_prob, entropy.mean(0), group_log_prob)

    def in_support(self, rules: Int[Tensor, "b t"]) -> Bool[Tensor, " b"]:
        """Return which derivations keep to ``max_length``; all others have probability 0."""
        if not self.bounded:
            return torch.ones(len(rules), dtype=torch.bool, device=rules.device)
        extends = F.pad(self.extends_list, (0, 1))[rules]  # the padding rule extends no list
        return ~(extends & self._at_max_length(contexts(self.grammar, rules))).any(1)


def _step_tables(model: StructureModel) -> StepTables:
    """Compute what steps of sampling need of the weights."""
    k, embeddings = model.grammar.num_rules, [model.embedding.weight, *model.context_embeddings.parameters()]
    inputs = model.network.project(torch.cat(embeddings))
    # the projection of a sum is the sum of projections, but for the constant, which stays with the first alone
    constant = model.network.project(torch.zeros_like(embeddings[0][:1]))
    inputs = torch.cat([inputs[: k + 1], inputs[k + 1 :] - constant])
    bias = torch.where(model.is_fixed[:, None], model.fixed_logits, model.head.bias)
    allowed = model.grammar.tensors(bias.device).allowed
    allowed = torch.cat([allowed, allowed & ~model.extends_list])
    offsets = F.pad(bias.repeat(2, 1).masked_fill(~allowed, -math.inf), (0, 1), value=-math.inf)
    offsets[len(model.is_fixed) - 1 :: len(model.is_fixed), k] = 0  # where nothing is left to expand
    return StepTables(
        model.network,
        inputs,
        model.first_input,
        F.pad(model.head.weight, (0, 0, 0, 1)),
        offsets,
        model.max_lengths if model.bounded else None,
        model.is_fixed if model.fixes else None,
    )


def _fixed_rules(
    grammar: Grammar, weights: Mapping[str, Sequence[float]]
) -> tuple[Bool[Tensor, " n1"], Float[Tensor, "n1 k"]]:
    """Compute which symbols' rules have given weights, and their log-probabilities; the empty stack, last, has none."""
    is_fixed = torch.zeros(len(grammar.nonterminals) + 1, dtype=torch.bool)
    logits = torch.zeros(len(is_fixed), grammar.num_rules)
    for symbol, given in weights.items():
        numbers = grammar.rules_of(symbol)
        row = grammar.nonterminals.index(symbol)
        is_fixed[row] = True
        probabilities = normalise_weights(given, f"fixed weights of {symbol}", len(numbers))
        logits[row, numbers] = probabilities.clamp(min=MIN_PROBABILITY).log()
    return is_fixed, logits


def _max_lengths(grammar: Grammar, max_length: Mapping[str, int]) -> Int[Tensor, " n1"]:
    """Compute the maximum length of each non-terminal's list; the largest integer where there is no bound."""
    bounds = torch.full((len(grammar.nonterminals) + 1,), torch.iinfo(torch.long).max)
    for symbol, number in max_length.items():
        if symbol not in grammar.lists:
            raise GrammarError(f"max_length names {symbol!r}, which is no list. {suggest(symbol, grammar.lists)}")
        bounds[grammar.nonterminals.index(symbol)] = number
    return bounds
