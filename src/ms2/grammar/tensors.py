"""A grammar as tensors, for batched expansion."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ms2.grammar.rules import Rule

ITEM_BITS = 17
"""Bits of an item or a position in a packed `Context`."""
SYMBOL_BITS = 14
"""Bits of a symbol."""
FIELD_SHIFTS = (2 * ITEM_BITS + SYMBOL_BITS, 2 * ITEM_BITS, ITEM_BITS, 0)
"""Place of each field of a `Context` in a packed one: symbol, parent, position, item."""
FIELD_MASKS = (2**SYMBOL_BITS - 1, 2**SYMBOL_BITS - 1, 2**ITEM_BITS - 1, 2**ITEM_BITS - 1)
"""Largest value of each field."""


def packed(symbol: int, parent: int, position: int = 0) -> int:
    """Pack a `Context` whose item is 0 into one integer."""
    return sum(value << shift for value, shift in zip((symbol, parent, position), FIELD_SHIFTS, strict=False))


class GrammarTensors(NamedTuple):
    """Tensors of a grammar: N non-terminals, K rules with at most R non-terminals and E renderable symbols each.

    Row N of ``allowed`` and ``lists`` stands for an empty stack; row K of the others for the padding rule, which
    expands nothing.

    Attributes:
        allowed: Which rules expand each non-terminal.
        lhs: Non-terminal of each rule's left-hand side.
        push: Non-terminals of each rule's right-hand side in the order in which a LIFO stack takes them, last symbol
            first; N after the last.
        grow: Change of the stack's depth by each rule.
        repeats: Which of ``push`` equal the left-hand side.
        lists: Which non-terminals are lists: some rule's right-hand side has the left-hand side in it.
        emit: Classes of the objects that each rule adds to the scene; -1 after the last.
        owns: Which rules' left-hand sides are renderable.
        children: What each rule does to a stack of packed contexts: the change of its depth, then shifts, masks and
            bases of R non-terminals each, which become ``(top >> shift & mask) + base``.
        fields: Shift and mask of each field of a packed context.
    """

    allowed: Bool[Tensor, "n1 k"]
    lhs: Int[Tensor, " k1"]
    push: Int[Tensor, "k1 r"]
    grow: Int[Tensor, " k1"]
    repeats: Bool[Tensor, "k1 r"]
    lists: Bool[Tensor, " n1"]
    emit: Int[Tensor, "k1 e"]
    owns: Bool[Tensor, " k1"]
    children: Int[Tensor, "k1 w"]
    fields: Int[Tensor, "2 4"]


def grammar_tensors(rules: Sequence[Rule], nonterminals: Sequence[str], classes: Sequence[str]) -> GrammarTensors:
    """Build the tensors of a grammar on the CPU.

    Args:
        rules: The rules.
        nonterminals: Symbols with rules, in the order of their numbers.
        classes: Renderable symbols, in the order of their numbers.
    """
    number = {s: i for i, s in enumerate(nonterminals)}
    class_index = {s: i for i, s in enumerate(classes)}
    empty = len(number)
    pushed = [[s for s in reversed(rule.rhs) if s in number] for rule in rules] + [[]]
    # a rule adds its own left-hand side first, then its terminals; other non-terminals are added by their own rules
    emitted = [
        [s for s in (rule.lhs,) if s in class_index] + [s for s in rule.rhs if s in class_index and s not in number]
        for rule in rules
    ] + [[]]
    width, objects = max(1, *map(len, pushed)), max(1, *map(len, emitted))
    allowed = torch.zeros(empty + 1, len(rules), dtype=torch.bool)
    for k, rule in enumerate(rules):
        allowed[number[rule.lhs], k] = True
    heads = [rule.lhs for rule in rules] + [""]
    repeats = [[s == head for s in row] for head, row in zip(heads, pushed, strict=True)]
    recursive = {rule.lhs for rule in rules if rule.lhs in rule.rhs}
    # the padding rule leaves an empty stack empty, hence its 0 where other rules pop one symbol
    grow = [len(row) - 1 for row in pushed[:-1]] + [0]
    children = []
    for head, row, change in zip(heads, pushed, grow, strict=True):
        made = [_child(number[s], number[head], s == head, head in recursive) for s in row]
        made += [(0, 0, packed(empty, empty))] * (width - len(row))
        children.append([change, *(value for column in zip(*made, strict=True) for value in column)])
    return GrammarTensors(
        allowed=allowed,
        lhs=torch.tensor([number.get(s, empty) for s in heads]),
        push=torch.tensor([_padded([number[s] for s in row], width, empty) for row in pushed]),
        grow=torch.tensor(grow),
        repeats=torch.tensor([_padded(row, width, False) for row in repeats]),
        lists=torch.tensor([*(s in recursive for s in number), False]),
        emit=torch.tensor([_padded([class_index[s] for s in row], objects, -1) for row in emitted]),
        owns=torch.tensor([s in class_index for s in heads]),
        children=torch.tensor(children),
        fields=torch.tensor([FIELD_SHIFTS, FIELD_MASKS]),
    )


def _child(symbol: int, head: int, repeats: bool, is_list: bool) -> tuple[int, int, int]:
    """Return shift, mask and base that make the context of a rule's non-terminal from that of its left-hand side.

    The next step of a list keeps its context, at the next position. Others have the left-hand side as their parent, and
    as item its position if it is a list, or else its item.
    """
    if repeats:
        return 0, -1, packed(0, 0, 1)
    return ITEM_BITS * is_list, FIELD_MASKS[-1], packed(symbol, head)


def _padded(row: Sequence[int], width: int, value: int) -> list[int]:
    """Fill a row up to a width."""
    return [*row] + [value] * (width - len(row))
