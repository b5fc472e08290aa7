"""Code lengths in nats: how many nats it takes to tell counts, choices and places, with the tables they are told by.

All are adaptive codes: a table is never sent, but learned while its data are, with half an observation of each value
before the first (Krichevsky and Trofimov 1981). The sum over the data is exact, and grows by half of log n for each
parameter, so that lengths of different models can be compared as they are.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

PRIOR = 0.5
"""Observations of each value before the first, after Krichevsky and Trofimov."""
MAX_CONSTANT = 8
"""Largest number of objects that a rule names one by one."""
GEOMETRIC_TAIL = 1e-7
"""Probability beyond the end of a geometric distribution's table."""

Family = Literal["constant", "geometric", "free"]
"""What is known of a list's length: it is always the same; it continues with one probability; any distribution."""


def integer_code(n: int) -> float:
    """Compute the universal code length of a whole number n >= 0, log*(n + 1) (Rissanen 1983)."""
    bits, rest = math.log2(2.865064), math.log2(n + 1)
    while rest > 0:
        bits, rest = bits + rest, math.log2(rest)
    return bits * math.log(2)


def choice_code(counts: Float[Tensor, "*b k"] | Int[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
    """Compute the code length of a sequence of choices among k values, from how often each was chosen."""
    counts = counts.double()
    k = counts.shape[-1]
    one = torch.tensor(PRIOR, dtype=torch.double)
    return (
        torch.lgamma(counts.sum(-1) + k * PRIOR)
        - torch.lgamma(k * one)
        - (torch.lgamma(counts + PRIOR) - torch.lgamma(one)).sum(-1)
    )


@dataclass(frozen=True)
class LengthTable:
    """The distribution of a list's length, as it was learned from observed lengths.

    Attributes:
        family: What is known of the length.
        code: Nats that tell the observed lengths and this table.
        weights: Probabilities of lengths 0, 1, 2, ...; a free table goes on beyond the longest list that was seen.
        num_lists: Number of observed lists.
    """

    family: Family
    code: float
    weights: tuple[float, ...]
    num_lists: int

    @property
    def mean(self) -> float:
        """Mean length."""
        return sum(n * p for n, p in enumerate(self.weights))

    def log_prob(self, lengths: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Compute the log-probability of lengths; minus infinity beyond the table."""
        table = torch.tensor([*self.weights, 0.0], dtype=torch.double).log()
        return table[lengths.clamp(max=len(self.weights))]


def fit_lengths(lengths: Int[Tensor, " n"]) -> LengthTable:
    """Fit the family with the shortest code to observed lengths of a list.

    Which of the three families it is takes log 3 nats. The code of a free table tells the longest length first, then
    which lengths occur, and those of the lists by an adaptive code. The table itself gives half an observation to all
    lengths up to the longest, and another half to longer ones, halved with each.
    """
    n = len(lengths)
    if not n:
        return LengthTable("geometric", math.log(3), _geometric(PRIOR / (2 * PRIOR)), 0)
    counts = lengths.bincount().double()
    longest, total = len(counts) - 1, int(lengths.sum())
    seen = counts[counts > 0]
    free = integer_code(longest) + _subset_code(longest + 1, len(seen)) + float(choice_code(seen))
    geometric = float(choice_code(torch.tensor([total, n])))
    codes: dict[Family, float] = {"geometric": geometric, "free": free}
    if longest <= MAX_CONSTANT and int(counts[-1]) == n:
        codes["constant"] = integer_code(longest)
    family = min(codes, key=lambda name: codes[name])
    if family == "constant":
        weights = (*[0.0] * longest, 1.0)
    elif family == "geometric":
        weights = _geometric((total + PRIOR) / (total + n + 2 * PRIOR))
    else:
        weights = _free(counts)
    return LengthTable(family, codes[family] + math.log(3), weights, n)


def _subset_code(n: int, k: int) -> float:
    """Compute the nats that tell k of n things, and k, which is at least 1."""
    return math.log(n) + math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _geometric(going_on: float) -> tuple[float, ...]:
    size = math.ceil(math.log(GEOMETRIC_TAIL) / math.log(going_on)) + 1
    weights = [(1 - going_on) * going_on**n for n in range(size)]
    return tuple(weight / sum(weights) for weight in weights)


def _free(counts: Float[Tensor, " k"]) -> tuple[float, ...]:
    seen = [float(count) + PRIOR for count in counts]
    beyond = [PRIOR * 0.5 ** (i + 1) for i in range(len(seen) + MAX_CONSTANT)]
    total = sum(seen) + sum(beyond)
    return tuple(weight / total for weight in seen + beyond)


def choice_probabilities(counts: Float[Tensor, " k"] | Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Compute the probabilities that choices have after those that were seen."""
    weights = counts.double() + PRIOR
    return weights / weights.sum()
