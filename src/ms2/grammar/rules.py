"""Rules of context-free grammars: parsing them from text, and normalising their weights."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError

EMPTY_STRING = "ε"


class GrammarError(UserError):
    """A grammar can't be parsed, or is invalid."""


class Rule(NamedTuple):
    """One numbered rule of a grammar: ``lhs -> rhs``."""

    lhs: str
    rhs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.lhs} -> {' '.join(self.rhs) or EMPTY_STRING}"


def parse_rules(text: str) -> Iterator[Rule]:
    """Parse a grammar's text; yield its rules in the order of their numbers.

    Raises:
        GrammarError: If the text is not a grammar, with the line at fault.
    """
    lhs, seen = None, set()
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        where = f"line {number} of the grammar, {line!r}"
        head, arrow, body = re.sub("→", "->", line).partition("->")
        if not arrow and line.startswith("|") and lhs is not None:
            body = line[1:]
        elif not arrow:
            raise GrammarError(f"{where}, has no '->'; write for example 'Digits -> Digit Digits | {EMPTY_STRING}'")
        elif len(head.split()) != 1 or "|" in head or head.strip() == EMPTY_STRING:
            raise GrammarError(f"{where}, must have exactly one symbol before '->'")
        else:
            lhs = head.strip()
        for alternative in body.split("|"):
            rule = Rule(str(lhs), _right_hand_side(alternative, where))
            if rule in seen:
                raise GrammarError(f"{where}, repeats the rule {rule}")
            seen.add(rule)
            yield rule
    if not seen:
        raise GrammarError(
            f"the grammar is empty; write for example 'Scene -> Digits' and 'Digits -> digit Digits | {EMPTY_STRING}'"
        )


def _right_hand_side(text: str, where: str) -> tuple[str, ...]:
    """Parse the symbols of one alternative."""
    symbols = text.split()
    if not symbols or (EMPTY_STRING in symbols and len(symbols) > 1) or "->" in text:
        raise GrammarError(f"{where}: the alternative {text.strip()!r} is not symbols or a lone {EMPTY_STRING}")
    return tuple(symbol for symbol in symbols if symbol != EMPTY_STRING)


def normalise_weights(values: Sequence[float], name: str, size: int | None = None) -> Float[Tensor, " k"]:
    """Normalise weights to probabilities.

    Args:
        values: The weights.
        name: What error messages call them.
        size: How many there must be.

    Raises:
        GrammarError: If they are not ``size`` numbers, or negative, or all zero.
    """
    weights = torch.tensor([float(v) for v in values])
    if size is not None and len(weights) != size:
        raise GrammarError(f"the {name} must be {size} numbers, one per rule, not {len(weights)}")
    if not len(weights) or bool((weights < 0).any()) or not 0 < float(weights.sum()) < torch.inf:
        raise GrammarError(f"the {name} must be non-negative and not all zero, not {list(values)}")
    return weights / weights.sum()
