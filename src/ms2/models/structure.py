"""The structure model q(T): an autoregressive network that samples and scores derivations (section 3.2)."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.core.errors import UserError, suggest
from ms2.core.settings import Configured
from ms2.grammar.derivations import Context, Derivations, Frontier, contexts, lengths
from ms2.grammar.grammar import Grammar, GrammarError, Tables, rule_weights


class SamplingError(UserError):
    """Too many derivations were rejected: they did not end in time, or not as they were asked to."""


class Score(NamedTuple):
    """What one teacher-forced pass says of given derivations.

    Attributes:
        log_prob: log q(T), marginal over the latents, before rejection.
        entropy: Sum over steps of the entropy of the rule's distribution; its mean over samples of q
            estimates the entropy of q (exactly so for one latent).
        parts: log q(T) again for each group of symbols, with the gradient of the steps alone that expand one of them.
            Together these are the gradient of log q(T).
    """

    log_prob: Float[Tensor, " b"]
    entropy: Float[Tensor, " b"]
    parts: Float[Tensor, "b g"]


class StructureModel(Configured, nn.Module):
    """A recurrent network over rules, constrained to a grammar.

    At each step the rules of the popped non-terminal are allowed, one is sampled from the softmax of their
    logits, and fed back, which is what makes the choice depend on the context. q(T|z) is the product of the
    rules' probabilities (the paper prints a sum), and q(T) the mean of q(T|z) over a finite set of latents.

    The paper feeds back the sampled rule alone, so that the network has to count by itself how many items a list
    already has; it is slow to learn to, and the number of objects is what has to be learned. With ``context`` it is
    told which non-terminal it is about to expand, how often in a row that has come back, and which item of a longer
    list it is part of: the fourth car on the second road.

    Args:
        grammar: The grammar of the scenes.
        t_max: Most steps of a derivation; longer ones are rejected and drawn again.
        cell: The recurrent cell.
        hidden: Width of the recurrent state and of the rules' embedding.
        context: Whether the network sees what it expands: the popped non-terminal with its `Context`.
        num_latents: Size of the set Z of latents; the paper found 1 enough.
        latent_dim: Dimension of a latent.
        max_tries: Draws after which a scene that never ends in time is an error.
        fixed_rule_weights: Weights of the rules of symbols whose choice is given rather than learned, by symbol:
            ``{"Scene": [1, 1, 1]}`` mixes three scenarios evenly, whatever the target.
        max_length: Most items of lists, by the symbol that spells the list: with ``{"Cars": 15}``, ``Cars -> car Cars |
            ε`` must end after the fifteenth car. The paper has ``t_max`` alone, which is one bound for all, and rejects
            what exceeds it; this is exact and rejects nothing. It stops lists that grow without end where pictures
            can't tell, as forty trees look like fifty.
        seed: Seed of the latents, which are drawn from a standard normal once and stay fixed.

    Raises:
        GrammarError: If the grammar has symbols that never terminate, or needs more than ``t_max`` steps, or if
            ``fixed_rule_weights`` names a symbol that it lacks or gives another number of weights than there are rules,
            or if ``max_length`` names one that spells no list, or a negative number.
    """

    latents: Tensor
    longest: Tensor
    goes_on: Tensor
    is_fixed: Tensor
    fixed_logits: Tensor

    def __init__(
        self,
        grammar: Grammar,
        t_max: int = 64,
        cell: Literal["lstm", "gru"] = "lstm",
        hidden: int = 64,
        context: bool = True,
        num_latents: int = 1,
        latent_dim: int = 16,
        max_tries: int = 100,
        fixed_rule_weights: dict[str, list[float]] | None = None,
        max_length: dict[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        grammar.check(t_max)
        self.grammar, self.t_max, self.hidden, self.max_tries = grammar, t_max, hidden, max_tries
        self.embedding = nn.Embedding(grammar.num_rules + 1, hidden)  # the padding rule doubles as the start
        symbols = len(grammar.nonterminals) + 1
        sizes = (symbols, symbols, t_max, t_max) if context else ()  # of `Context`
        self.context_embeddings = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes)
        self.recurrence = (nn.LSTM if cell == "lstm" else nn.GRU)(hidden, hidden, batch_first=True)
        self.condition = nn.Linear(latent_dim, hidden)
        self.head = nn.Linear(hidden, grammar.num_rules)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("latents", torch.randn(num_latents, latent_dim, generator=generator))
        is_fixed, logits = _fixed(grammar, fixed_rule_weights or {})
        self.register_buffer("is_fixed", is_fixed, persistent=False)
        self.register_buffer("fixed_logits", logits, persistent=False)
        self.bounded = bool(max_length)
        self.register_buffer("longest", _longest(grammar, max_length or {}), persistent=False)
        self.register_buffer("goes_on", grammar.tables("cpu").repeats[:-1].any(1), persistent=False)

    # -- sampling --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Derivations:
        """Draw n finished derivations, drawing again those that do not end within ``t_max`` steps.

        Rejection changes the law from q(T) to q(T) / P(a draw ends in time), which the paper ignores.

        Raises:
            SamplingError: If some scene does not end in ``max_tries`` draws.
        """
        device = self.latents.device
        rules = torch.full((n, self.t_max), self.grammar.num_rules, device=device)
        rejections = torch.zeros(n, dtype=torch.long, device=device)
        pending = torch.arange(n, device=device)
        for _ in range(self.max_tries):
            drawn, finished = self._draw(len(pending), generator)
            rules[pending[finished], : drawn.shape[1]] = drawn[finished]
            pending = pending[~finished]
            if not len(pending):
                return Derivations(rules, rejections)
            rejections[pending] += 1
        raise SamplingError(
            f"{len(pending)} of {n} scenes did not end within t_max = {self.t_max} steps in {self.max_tries} draws. "
            "Raise t_max, lower the learning rate, or weigh rejections more (reject_weight)."
        )

    def _draw(self, n: int, generator: torch.Generator) -> tuple[Int[Tensor, "n t"], Bool[Tensor, " n"]]:
        """One try for each of n scenes, step by step."""
        device = self.latents.device
        walk = Walk(self, torch.randint(len(self.latents), (n,), generator=generator, device=device))
        steps = []
        for step in range(self.t_max):
            steps.append(walk.draw(generator))
            walk.step(steps[-1])
            # asking whether all are done waits for the device, so it is asked only now and then
            if step % 8 == 7 and bool(walk.finished.all()):
                break
        return torch.stack(steps, 1), walk.finished

    def next_probabilities(self, prefixes: Int[Tensor, "b t"], latents: Int[Tensor, " b"]) -> Float[Tensor, "b k"]:
        """Probability of each rule to follow unfinished derivations, in one teacher-forced pass.

        Args:
            prefixes: The rules so far, padded to the same number of steps.
            latents: Index of the latent of each.
        """
        end = self.grammar.num_rules
        # what the padding does to the stack of an unfinished derivation comes after the step that is asked for
        context = contexts(self.grammar, F.pad(prefixes, (0, 1), value=end))
        inputs = self._embed(F.pad(prefixes, (1, 0), value=end), context)
        output, _ = self.recurrence(inputs, self._initial_state(self.latents[latents]))
        rows, last = torch.arange(len(prefixes), device=prefixes.device), lengths(self.grammar, prefixes)
        return self._next(output[rows, last], Context(*(part[rows, last] for part in context))).softmax(-1)

    def _next(self, output: Float[Tensor, "b h"], context: Context) -> Float[Tensor, "b k"]:
        """Logits of the rules that may come next, minus infinity for all others."""
        allowed = self._allowed(self.grammar.tables(output.device), context)
        return self._logits(output, context.symbol).masked_fill(~allowed, -math.inf)

    def _embed(self, rule: Int[Tensor, "*b"], context: Context) -> Float[Tensor, "*b h"]:
        """Input of a step: the previous rule, and what is to be expanded next."""
        embedded = self.embedding(rule)
        for table, part in zip(self.context_embeddings, context, strict=False):
            assert isinstance(table, nn.Embedding)
            embedded = embedded + table(part.clamp(max=table.num_embeddings - 1))
        return embedded

    def _allowed(self, tables: Tables, context: Context) -> Bool[Tensor, "*b k"]:
        """Rules of the symbol that is expanded, less those that go on with a list that is as long as may be."""
        return tables.allowed[context.symbol] & ~(self._full(context)[..., None] & self.goes_on)

    def _full(self, context: Context) -> Bool[Tensor, "*b"]:
        return context.position >= self.longest[context.symbol]

    def _logits(self, output: Float[Tensor, "*b h"], symbol: Int[Tensor, "..."]) -> Float[Tensor, "*b k"]:
        """Logits of all rules where a symbol is expanded: the network's, or those that are given."""
        logits: Tensor = self.head(output)
        return torch.where(self.is_fixed[symbol][..., None], self.fixed_logits[symbol], logits)

    def _initial_state(self, latents: Float[Tensor, "n z"]) -> Tensor | tuple[Tensor, Tensor]:
        state = self.condition(latents)[None]
        return (state, torch.zeros_like(state)) if isinstance(self.recurrence, nn.LSTM) else state

    # -- scoring ---------------------------------------------------------------------------------------

    def score(self, rules: Int[Tensor, "b t"], groups: Int[Tensor, " n1"] | None = None) -> Score:
        """Log-probability and entropy of derivations, in one teacher-forced pass, with gradients.

        Padding steps count nothing. The marginal over Z is exact: each derivation is scored under every
        latent, and the mean taken by logsumexp.

        Args:
            rules: The derivations.
            groups: Number of the group that each symbol belongs to; by default there is one group.
        """
        k, num = self.grammar.num_rules, len(self.latents)
        number = 1 if groups is None else int(groups.max()) + 1
        if not len(rules):
            none = self.head.weight.new_zeros(0)
            return Score(none, none, none.reshape(0, number))
        rules = rules[:, : max(1, int(lengths(self.grammar, rules).max()))]
        real = rules != k
        inputs = torch.cat([torch.full_like(rules[:, :1], k), rules[:, :-1]], 1)
        context = contexts(self.grammar, rules)
        state = self._initial_state(self.latents.repeat_interleave(len(rules), 0))
        output, _ = self.recurrence(self._embed(inputs, context).repeat(num, 1, 1), state)
        allowed = self._allowed(self.grammar.tables(rules.device), context) | ~real[..., None]
        output = output.unflatten(0, (num, len(rules)))
        logits = self._logits(output, context.symbol).masked_fill(~allowed, -math.inf)
        log_p = logits.log_softmax(-1)
        taken = log_p.gather(-1, rules.clamp(max=k - 1)[None, ..., None].expand(num, -1, -1, -1))[..., 0]
        steps = torch.where(real, taken, 0.0)
        log_prob = steps.sum(-1).logsumexp(0) - math.log(num)
        parts = log_prob[:, None]
        if groups is not None:
            of_group = F.one_hot(groups[context.symbol], number).to(steps.dtype)
            per_group = torch.einsum("zbt,btg->zbg", steps, of_group)
            others = (per_group.sum(-1, keepdim=True) - per_group).detach()
            parts = (per_group + others).logsumexp(0) - math.log(num)
        # 0 log 0 = 0 for rules that are not allowed
        entropy = torch.where(real, -(log_p.exp() * log_p.masked_fill(~allowed, 0.0)).sum(-1), 0.0).sum(-1)
        return Score(log_prob, entropy.mean(0), parts)

    def makes(self, rules: Int[Tensor, "b t"]) -> Bool[Tensor, " b"]:
        """Which derivations have no longer list than the model may make; the others have probability 0."""
        if not self.bounded:
            return torch.ones(len(rules), dtype=torch.bool, device=rules.device)
        context = contexts(self.grammar, rules)
        goes_on = F.pad(self.goes_on, (0, 1))[rules]  # padding goes on with nothing
        return ~(goes_on & self._full(context)).any(1)

    def log_prob(self, rules: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """log q(T), see `score`."""
        return self.score(rules).log_prob


class Walk:
    """Derivations under way: the network's state, and what each of them has left to expand.

    Args:
        model: The network that chooses.
        latents: Index of the latent of each derivation.
    """

    def __init__(self, model: StructureModel, latents: Int[Tensor, " n"]) -> None:
        self._model = model
        self._frontier = Frontier(model.grammar, len(latents), model.t_max, latents.device)
        self._state = self._following = model._initial_state(model.latents[latents])
        self._rule = torch.full_like(latents, model.grammar.num_rules)

    def __getitem__(self, index: Tensor) -> "Walk":
        """Some of the derivations, to go on by themselves."""
        some = copy.copy(self)
        some._frontier, some._rule = self._frontier[index], self._rule[index]
        state = self._state
        some._state = state[:, index] if isinstance(state, Tensor) else (state[0][:, index], state[1][:, index])
        return some

    @property
    def finished(self) -> Bool[Tensor, " n"]:
        """Which have nothing left to expand."""
        return self._frontier.finished

    def probabilities(self) -> Float[Tensor, "n k"]:
        """Probability of each rule to come next; any distribution where a derivation is finished."""
        context = self._frontier.top
        embedded = self._model._embed(self._rule, context)
        output, self._following = self._model.recurrence(embedded[:, None], self._state)
        logits = self._model._next(output[:, 0], context)
        return torch.where(self.finished[:, None], 0.0, logits).softmax(-1)

    def draw(self, generator: torch.Generator) -> Int[Tensor, " n"]:
        """A rule to come next for each, the padding rule where a derivation is finished."""
        drawn = torch.multinomial(self.probabilities(), 1, generator=generator)[:, 0]
        return torch.where(self.finished, self._model.grammar.num_rules, drawn)

    def step(self, rule: Int[Tensor, " n"]) -> None:
        """Go on by one rule each, after `probabilities` or `draw`."""
        self._state, self._rule = self._following, rule
        self._frontier.expand(rule)


def _fixed(
    grammar: Grammar, weights: Mapping[str, Sequence[float]]
) -> tuple[Bool[Tensor, " n1"], Float[Tensor, "n1 k"]]:
    """Which symbols' rules have given probabilities, and their logarithms; the empty stack, N, has none."""
    is_fixed = torch.zeros(len(grammar.nonterminals) + 1, dtype=torch.bool)
    logits = torch.zeros(len(is_fixed), grammar.num_rules)
    for symbol, given in weights.items():
        numbers = grammar.expansions(symbol)
        row = grammar.nonterminals.index(symbol)
        is_fixed[row] = True
        logits[row, numbers] = rule_weights(given, f"fixed weights of {symbol}", len(numbers)).clamp(min=1e-30).log()
    return is_fixed, logits


def _longest(grammar: Grammar, most: Mapping[str, int]) -> Int[Tensor, " n1"]:
    """Most items of the list that each symbol spells."""
    longest = torch.full((len(grammar.nonterminals) + 1,), torch.iinfo(torch.long).max)
    lists = [
        symbol
        for symbol in grammar.nonterminals
        if {symbol in grammar.rules[k].rhs for k in grammar.expansions(symbol)} == {True, False}
    ]
    for symbol, number in most.items():
        if symbol not in lists:
            raise GrammarError(f"most names {symbol!r}, which spells no list. {suggest(symbol, lists)}")
        if number < 0:
            raise GrammarError(f"a list can't have {number} items at most, as most says of {symbol!r}")
        longest[grammar.nonterminals.index(symbol)] = number
    return longest
