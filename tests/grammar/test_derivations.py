"""Leftmost derivations: the batched stack against plain lists, and the tree."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import TRICKY, grammars, samples

from ms2.grammar.derivations import Derivations, contexts, is_valid, lengths, pad
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import GrammarError
from ms2.grammar.stack import DerivationStack
from ms2.grammar.trees import DerivationTree, from_tree, to_tree


class Stack:
    """The stack of one scene, in plain Python: a list of (symbol, parent, position, item)."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.items: list[tuple[str, str | None, int, int]] = [(grammar.start, None, 0, 0)]

    def expand(self, number: int) -> None:
        if number == self.grammar.num_rules:
            return
        symbol, parent, position, item = self.items.pop()
        is_list = any(r.lhs == symbol and symbol in r.rhs for r in self.grammar.rules)
        for s in reversed(self.grammar.rules[number].rhs):
            if s in self.grammar.nonterminals:
                again = (s, parent, position + 1, item)
                self.items.append(again if s == symbol else (s, symbol, 0, position if is_list else item))


def shown(batched: DerivationStack, grammar: Grammar) -> list[tuple[str, str | None, int, int] | None]:
    """The top of every scene's stack, as the last item of a `Stack`; None for an empty one."""
    names = [*grammar.nonterminals, None]
    columns = (values.tolist() for values in batched.context)
    return [None if names[s] is None else (names[s], names[p], *rest) for s, p, *rest in zip(*columns, strict=True)]  # type: ignore[misc]


@given(samples())
def test_the_batched_stack_is_a_stack_for_each_scene(sample: tuple[Grammar, list[list[int]]]):
    """With scenes of different lengths in a batch."""
    grammar, batch = sample
    rules = pad(grammar, batch)
    batched, stacks = DerivationStack(grammar, len(batch), rules.shape[1]), [Stack(grammar) for _ in batch]
    for step, rule in enumerate([*rules.unbind(1), torch.full((len(batch),), grammar.num_rules)]):
        assert shown(batched, grammar) == [stack.items[-1] if stack.items else None for stack in stacks]
        assert batched.finished.tolist() == [not stack.items for stack in stacks]
        assert batched.depth.tolist() == [len(stack.items) for stack in stacks]
        if step == rules.shape[1]:
            break
        batched.expand(rule)
        for i, stack in enumerate(stacks):
            stack.expand(int(rule[i]))
    assert bool(batched.finished.all())


@given(st.sampled_from(TRICKY) | grammars(), st.integers(1, 12), st.data())
def test_the_stack_has_room_for_derivations_that_do_not_end_in_time(grammar: Grammar, t_max: int, data: st.DataObject):
    """As in sampling, where a scene may grow up to the last step."""
    batched, stack = DerivationStack(grammar, 1, t_max), Stack(grammar)
    for _ in range(t_max):
        if not stack.items:
            break
        choices = grammar.rules_of(stack.items[-1][0])
        number = max(choices, key=lambda k: len(grammar.rules[k].rhs)) if data.draw(st.booleans()) else choices[0]
        batched.expand(torch.tensor([number]))
        stack.expand(number)
    assert int(batched.depth[0]) == len(stack.items)
    assert shown(batched, grammar) == [stack.items[-1] if stack.items else None]


@given(samples())
def test_what_is_expanded_at_each_step(sample: tuple[Grammar, list[list[int]]]):
    grammar, batch = sample
    rules = pad(grammar, batch)
    found = contexts(grammar, rules)
    assert all(column.shape == rules.shape for column in found)
    for row, symbol, *places in zip(batch, *(column.tolist() for column in found), strict=True):
        stack = Stack(grammar)
        for number, i, parent, *where in zip(row, symbol, *places, strict=False):
            above = [*grammar.nonterminals, None][parent]
            assert (grammar.nonterminals[i], above, *where) == stack.items[-1]
            stack.expand(number)
        assert set(symbol[len(row) :]) <= {len(grammar.nonterminals)}


def test_index_in_a_list_counts_from_zero_in_every_list(aerial: Grammar):
    """One road with two cars, one with one."""
    found = contexts(aerial, torch.tensor([[0, 1, 3, 4, 4, 5, 1, 3, 4, 5, 2]]))
    assert found.position.tolist() == [[0, 0, 0, 0, 1, 2, 1, 0, 0, 1, 2]]
    names = [*aerial.nonterminals, None]
    assert [names[i] for i in found.parent[0]] == [
        *(None, "Scene", "Roads", *["Road"] * 3, "Scene", "Roads", *["Road"] * 2, "Scene")
    ]
    assert found.item.tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0]]


# -- batches of rule numbers -------------------------------------------------------------------------------


def test_pad_and_lengths(digits: Grammar):
    rules = pad(digits, [[0, 2], [0, 1, 3, 2], (0, 1, 4, 1, 3, 2)])
    assert rules.tolist() == [[0, 2, 5, 5, 5, 5], [0, 1, 3, 2, 5, 5], [0, 1, 4, 1, 3, 2]]
    assert rules.dtype == torch.long
    assert lengths(digits, rules).tolist() == [2, 4, 6]


def test_pad_takes_an_empty_batch(digits: Grammar):
    assert pad(digits, []).shape == (0, 0)


def test_valid_tells_what_is_finished_and_padded(digits: Grammar):
    rules = [
        [0, 2, 5, 5],  # no digit
        [0, 1, 4, 2],  # one
        [0, 1, 4, 1],  # unfinished
        [0, 1, 2, 3],  # leftmost first
        [0, 5, 2, 5],  # padding inside
        [5, 5, 5, 5],  # nothing
        [0, 2, 2, 5],  # rules after the end
        [0, 2, 5, 6],  # no such rule
        [0, 2, -1, 5],
        [-1, 0, 2, 5],
    ]
    assert is_valid(digits, torch.tensor(rules)).tolist() == [True, True] + [False] * 8


def test_valid_takes_batches_of_no_rows_and_of_no_steps(digits: Grammar):
    assert is_valid(digits, torch.zeros(0, 3, dtype=torch.long)).tolist() == []
    assert is_valid(digits, torch.zeros(2, 0, dtype=torch.long)).tolist() == [False, False]


def test_derivations_have_a_length():
    assert len(Derivations(torch.zeros(3, 5, dtype=torch.long), torch.zeros(3, dtype=torch.long))) == 3


# -- trees -------------------------------------------------------------------------------------------------


def rewrite(grammar: Grammar, rules: list[int]) -> list[str]:
    """The terminal string of a derivation, by rewriting the sentential form."""
    form = [grammar.start]
    for number in rules:
        place = next(i for i, s in enumerate(form) if s in grammar.nonterminals)
        form[place : place + 1] = grammar.rules[number].rhs
    return form


@given(samples())
def test_a_tree_and_its_leftmost_derivation_convert_both_ways(sample: tuple[Grammar, list[list[int]]]):
    grammar, batch = sample
    for rules, padded in zip(batch, pad(grammar, batch).tolist(), strict=True):
        tree = to_tree(grammar, rules)
        assert from_tree(tree) == rules
        assert to_tree(grammar, padded) == tree
        assert list(tree.terminals()) == rewrite(grammar, rules)


def test_the_tree_of_a_scene_with_a_digit(digits: Grammar):
    tree = to_tree(digits, [0, 1, 4, 2])
    one = DerivationTree("Digit", 4, [DerivationTree("one")])
    assert tree == DerivationTree(
        "Scene", 0, [DerivationTree("bg"), DerivationTree("Digits", 1, [one, DerivationTree("Digits", 2)])]
    )
    assert str(tree) == "(Scene bg (Digits (Digit one) (Digits ε)))"
    assert list(tree.terminals()) == ["bg", "one"]


def test_rules_may_come_as_a_tensor(digits: Grammar):
    assert from_tree(to_tree(digits, torch.tensor([0, 1, 4, 2, 5, 5]).tolist())) == [0, 1, 4, 2]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([0, 2, 2], "the derivation ends before step 2, yet rule 2 follows"),
        ([0, 3], "step 1 must expand 'Digits', which rule 3 does not"),
        ([0, -1], "step 1 must expand 'Digits', which rule -1 does not"),
        ([0, 99], "step 1 must expand 'Digits', which rule 99 does not"),
        ([0, 1], "unfinished after 2 steps: Digit, Digits remain"),
        ([5, 5], "unfinished after 0 steps: Scene remain"),
    ],
)
def test_what_is_no_derivation_has_no_tree(digits: Grammar, rules: list[int], message: str):
    with pytest.raises(GrammarError) as error:
        to_tree(digits, rules)
    assert str(error.value) == message
