"""Rules of small worlds are found again from their scenes; probabilities of scenes are sums over derivations."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_worlds import canonical, drawn, flat, shape

from ms2.grammar.derivations import pad
from ms2.grammar.grammar import Grammar
from ms2.learning.induction.hypothesis import Hypothesis
from ms2.learning.induction.list_search import Budget
from ms2.learning.induction.object_table import ObjectTable
from ms2.learning.induction.search import search_structure
from ms2.learning.induction.writing import write_grammar
from ms2.priors.structure import ListLengthPrior, MixturePrior
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import BusyFirstRoad
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
EITHER = [0, 2, 0, 0, 1]
"""Weights of lengths that neither a geometric nor a binomial distribution resembles: one or four."""


def found(table: ObjectTable, seconds: float = 60) -> Hypothesis:
    return search_structure(table, Budget(seconds))


# -- rules are found ---------------------------------------------------------------------------------------------


@st.composite
def groupings(draw: st.DrawFn) -> list[tuple[str, ...]]:
    """Classes in one to three lists."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(1, 5))]
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(names) - 1)), max_size=2)))
    return [part for a, b in zip([0, *cuts], [*cuts, len(names)], strict=True) if (part := tuple(names[a:b]))]


@settings(max_examples=15, deadline=None)
@given(groups=groupings(), nested=st.booleans(), first=st.booleans(), seed=st.integers(0, 2**31))
def test_lists_choices_and_nesting_are_found_again(
    groups: list[tuple[str, ...]], nested: bool, first: bool, seed: int
) -> None:
    lines = [f"Scene -> {' '.join(f'L{i}' for i in range(len(groups)))} {'Nests' if nested else ''}"]
    for i, group in enumerate(groups):
        lines += [f"L{i} -> I{i} L{i} | ε", f"I{i} -> {' | '.join(group)}"]
    lengths: dict[str, Any] = {f"L{i}": EITHER for i in range(len(groups))}
    if nested:
        lines += ["Nests -> nest Nests | ε", "nest -> Eggs", "Eggs -> egg Eggs | ε"]
        lengths |= {"Nests": [0, 1, 1, 1], "Eggs": [[0, 0, 0, 1, 1], [1, 1]] if first else [1, 0, 1]}
    renderable = [name for group in groups for name in group] + ["nest", "egg"] * nested
    grammar = Grammar("\n".join(lines), renderable)
    table = drawn(grammar, ListLengthPrior(lengths), 1500, seed)
    kinds, inside = shape(found(table))
    assert kinds == [{flat(*group) for group in groups} | ({flat("nest")} if nested else set())]
    assert inside == ({"nest": {flat("egg", leading=int(first))}} if nested else {})


def test_a_set_without_structure_gets_a_flat_list_and_no_more() -> None:
    grammar = Grammar(f"Scene -> L\nL -> I L | ε\nI -> {' | '.join(NAMES)}")
    for seed in range(5):
        table = drawn(grammar, ListLengthPrior({"L": [1.0] * 9}, {"I": [6, 5, 4, 3, 2, 1]}), 400, seed)
        assert shape(found(table)) == ([{flat(*NAMES)}], {})


def test_objects_that_always_come_together_are_one_item() -> None:
    grammar = Grammar("Scene -> L\nL -> table chair chair L | ε")
    table = drawn(grammar, ListLengthPrior({"L": EITHER}), 200)
    written = write_grammar(found(table))
    assert written.rules == [
        "Scene -> TableAndChairs", "TableAndChairs -> TableAndChair TableAndChairs | ε",
        "TableAndChair -> table chair chair",
    ]  # fmt: skip


def test_what_is_always_there_needs_no_list() -> None:
    grammar = Grammar("Scene -> sun eye eye Birds\nBirds -> bird Birds | ε")
    table = drawn(grammar, ListLengthPrior({"Birds": EITHER}), 200)
    rules = write_grammar(found(table)).rules
    assert sorted(rules[0].removeprefix("Scene -> ").split()) == ["Birds", "eye", "eye", "sun"]
    assert rules[1:] == ["Birds -> bird Birds | ε"]


def test_kinds_of_scenes_are_found() -> None:
    grammar = Grammar("Scene -> As Bs\nAs -> a As | ε\nBs -> b Bs | ε")
    town, country = (
        ListLengthPrior({"As": [0, 1, 1], "Bs": [0, 0, 0, 1, 1]}),
        ListLengthPrior({"As": [1, 1], "Bs": [1]}),
    )
    hypothesis = found(drawn(grammar, MixturePrior([town, country], [1, 3]), 800))
    assert len(hypothesis.kinds) == 2
    assert sorted(hypothesis.kind_probabilities.tolist()) == pytest.approx([0.25, 0.75], abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_multimnist_is_a_flat_list(seed: int) -> None:
    grammar, prior = MultiMNIST(), RandomDigits(seed)
    hypothesis = found(drawn(grammar, prior, 500, seed))
    assert shape(hypothesis) == ([{flat(*grammar.classes)}], {})
    truth = prior.probability(grammar, torch.device("cpu")).double()
    lengths = torch.tensor(hypothesis.kinds[0].lists[0].tables[0].weights)
    numbers = torch.tensor(prior.lengths["Digits"], dtype=torch.double)
    numbers /= numbers.sum()
    digits = truth[grammar.nonterminals.index("Digit"), 0, 0, grammar.rules_of("Digit")]
    mean = float((numbers * torch.arange(11)).sum())
    loss = divergence(numbers, lengths) / mean + divergence(digits, hypothesis.kinds[0].lists[0].choice)
    assert 0 < loss < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_aerials_first_road_differs(seed: int) -> None:
    grammar, prior = Aerial2D(), BusyFirstRoad()
    hypothesis = found(drawn(grammar, prior, 1000, seed))
    assert shape(hypothesis) == ([{flat("Road")}], {"Road": {flat("car", leading=1)}})
    held_out = drawn(grammar, prior, 2000, seed + 100)
    rules = prior.sample(grammar, 2000, torch.Generator().manual_seed(seed + 100))
    loss = float((prior.log_prob(grammar, rules) - hypothesis.log_prob(held_out)).sum()) / len(held_out)
    assert abs(loss) < 0.01


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q), where q may be longer."""
    some = p > 0
    return float((p[some] * (p[some] / q[: len(p)][some]).log()).sum())


# -- probabilities -----------------------------------------------------------------------------------------------


WORLDS = [
    ("Scene -> As Bs\nAs -> a As | ε\nBs -> b Bs | ε", {"As": EITHER, "Bs": [1, 2, 1]}, None),
    ("Scene -> L\nL -> I L | ε\nI -> a | b", {"L": EITHER}, None),
    ("Scene -> Ps\nPs -> p Ps | ε\np -> Qs\nQs -> q Qs | ε", {"Ps": [0, 1, 1], "Qs": [[0, 1], [1, 0, 3]]}, ["p", "q"]),
    ("Scene -> L\nL -> a b b L | ε", {"L": [1, 2, 1]}, None),
    ("Scene -> one L\nL -> I L | ε\nI -> a | b", {"L": [1, 1]}, None),
    ("Scene -> K1 | K2\nK1 -> a a a a b\nK2 -> Cs\nCs -> c Cs | ε", {"Cs": [1, 1, 1]}, None),
]


@pytest.mark.parametrize(("rules", "lengths", "renderable"), WORLDS)
def test_probabilities_are_sums_over_derivations(
    rules: str, lengths: dict[str, Any], renderable: list[str] | None
) -> None:
    grammar = Grammar(rules, renderable)
    hypothesis = found(drawn(grammar, ListLengthPrior(lengths), 300))
    written = write_grammar(hypothesis)
    learned = written.grammar
    every = pad(learned, list(learned.enumerate_derivations(10)))
    scenes = ObjectTable.from_scenes(scenes_from_derivations(learned, every), learned.classes)
    scenes = renamed(scenes, grammar.classes)
    probability = written.prior.log_prob(learned, every).double().exp()
    total: dict[Any, float] = defaultdict(float)
    keys = [canonical(scenes, i) for i in range(scenes.num_scenes)]
    for key, p in zip(keys, probability.tolist(), strict=True):
        total[key] += p
    own = hypothesis.log_prob(scenes).exp().tolist()
    assert len(total) > 3
    for key, p in zip(keys, own, strict=True):
        assert p == pytest.approx(total[key], rel=2e-4, abs=1e-9), key


def renamed(table: ObjectTable, classes: tuple[str, ...]) -> ObjectTable:
    """The same objects with class indices of another tuple of names."""
    index = torch.tensor([classes.index(name) for name in table.classes])
    return ObjectTable(classes, table.num_scenes, table.scene, index[table.label], table.parent)


def test_what_was_never_seen_has_no_probability() -> None:
    grammar = Grammar("Scene -> As Bs\nAs -> a As | ε\nBs -> b Bs | ε")
    hypothesis = found(drawn(grammar, ListLengthPrior({"As": [1, 1], "Bs": [1]}), 50))
    with_b = drawn(grammar, ListLengthPrior({"As": [1], "Bs": [0, 1]}), 3)
    assert hypothesis.log_prob(with_b).tolist() == [-torch.inf] * 3


def test_a_search_without_time_gives_the_start() -> None:
    grammar, prior = MultiMNIST(), RandomDigits(0)
    hypothesis = found(drawn(grammar, prior, 100), 0.0)
    assert len(hypothesis.kinds) == 1 and hypothesis.code > 0
    assert bool(hypothesis.log_prob(drawn(grammar, prior, 10, 1)).isfinite().all())
