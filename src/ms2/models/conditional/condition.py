"""Conditions on object counts: parsing them, and checking finished derivations."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.grammar.grammar import Grammar

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


MAX_VALUE = 2**31 - 1


class ConditionError(UserError):
    """A condition can't be parsed, or no scene can meet it."""


@dataclass(frozen=True)
class Condition:
    """A bound on the number of a scene's objects of one class, or of several classes added up.

    Attributes:
        classes: The classes whose objects are counted.
        operator: One of ``OPERATORS``.
        value: The number that the count is compared with.
    """

    classes: tuple[str, ...]
    operator: str
    value: int

    def __str__(self) -> str:
        return f"{' + '.join(self.classes)} {self.operator} {self.value}"

    @classmethod
    def parse(cls, text: str, grammar: Grammar) -> "Condition":
        """Parse ``car == 5`` or ``car + truck <= 4``.

        Raises:
            ConditionError: If it is no condition, or the grammar has no such class. Classes of scenery, which the
                parameter prior adds, are not in the grammar.
        """
        found = re.fullmatch(rf"\s*(\S.*?)\s*({'|'.join(OPERATORS)})\s*(\d+)\s*", text)
        if found is None:
            raise ConditionError(
                f"{text!r} is no condition. Write a class, an operator and a whole number, for example "
                f"'{next(iter(grammar.classes), 'car')} == 5'; the operators are {', '.join(OPERATORS)}."
            )
        counted, comparison, value = found.groups()
        classes = [counted] if counted in grammar.classes else [term.strip() for term in counted.split("+")]
        for name in classes:
            if name not in grammar.classes:
                raise ConditionError(
                    f"{text!r} names {name!r}, which is no class of the grammar. {suggest(name, grammar.classes)}"
                )
        if int(value) > MAX_VALUE:
            raise ConditionError(f"{text!r} asks for a number that no scene has: at most {MAX_VALUE}")
        return cls(tuple(classes), comparison, int(value))

    def is_met(self, count: Int[Tensor, "*b"]) -> Bool[Tensor, "*b"]:
        """Return whether counts meet the condition."""
        met: Tensor = OPERATORS[self.operator](count, self.value)
        return met

    @property
    def saturation_count(self) -> int:
        """Smallest count from which on the condition is always met, or never."""
        return self.value + (self.operator not in (">=", "<"))


def satisfies(grammar: Grammar, rules: Int[Tensor, "b t"], conditions: Sequence[Condition]) -> Bool[Tensor, " b"]:
    """Return which derivations meet all conditions."""
    met = torch.ones(len(rules), dtype=torch.bool, device=rules.device)
    for condition in conditions:
        met &= condition.is_met(emitted_counts(grammar, condition.classes).to(rules.device)[rules].sum(1))
    return met


def emitted_counts(grammar: Grammar, classes: Sequence[str]) -> Int[Tensor, " k1"]:
    """Count the objects of given classes that each rule emits; 0 for the padding rule."""
    emit = grammar.tensors().emit
    return sum(
        ((emit == grammar.class_index(name)).sum(1) for name in classes), torch.zeros(len(emit), dtype=torch.long)
    )
