"""Scenes and scene graphs, against plain walks of the derivation tree."""

from collections.abc import Sequence
from itertools import islice

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import TRICKY, grammars, samples

from ms2.grammar.derivations import pad
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import GrammarError
from ms2.grammar.trees import DerivationTree, to_tree
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.scene.graph import SceneGraph, derivation_from_graph, scene_graph


def objects(grammar: Grammar, rules: Sequence[int]) -> list[tuple[int, int]]:
    """Class and parent of each object in order of creation: a node's own, then its rule's terminals, then below."""
    made: list[tuple[int, int]] = []

    def expand(node: DerivationTree, parent: int) -> None:
        if node.symbol in grammar.classes:
            made.append((grammar.classes.index(node.symbol), parent))
            parent = len(made) - 1
        made.extend(
            (grammar.classes.index(child.symbol), parent)
            for child in node.children
            if child.rule is None and child.symbol in grammar.classes
        )
        for child in node.children:
            if child.rule is not None:
                expand(child, parent)

    expand(to_tree(grammar, rules), -1)
    return made


def check_scenes(grammar: Grammar, batch: list[list[int]]) -> None:
    scenes = scenes_from_derivations(grammar, pad(grammar, batch))
    expected = [objects(grammar, rules) for rules in batch]
    assert scenes.classes.shape == scenes.parents.shape == (len(batch), max(1, *map(len, expected)))
    for row, made in enumerate(expected):
        found = list(zip(scenes.classes[row].tolist(), scenes.parents[row].tolist(), strict=True))
        assert found == made + [(-1, -1)] * (scenes.classes.shape[1] - len(made))
        assert scenes.mask[row].sum() == len(made)


@given(samples())
def test_scenes_of_a_batch(sample: tuple[Grammar, list[list[int]]]):
    check_scenes(*sample)


def test_scenes_of_all_small_derivations(digits: Grammar, aerial: Grammar):
    for grammar, t_max in ((digits, 10), (aerial, 13)):
        check_scenes(grammar, [list(rules) for rules in grammar.enumerate_derivations(t_max)])


def test_a_scene_written_down(aerial: Grammar):
    """A road with two cars, an empty road, a road with one car; and a scene with nothing."""
    rules = pad(aerial, [[0, 1, 3, 4, 4, 5, 1, 3, 5, 1, 3, 4, 5, 2], [0, 2]])
    scenes = scenes_from_derivations(aerial, rules)
    assert len(scenes) == 2
    assert scenes.classes.tolist() == [[0, 1, 1, 0, 0, 1], [-1] * 6]
    assert scenes.parents.tolist() == [[-1, 0, 0, -1, -1, 4], [-1] * 6]
    assert scenes.counts(2).tolist() == [[3, 3], [0, 0]]


@given(samples())
def test_a_parent_comes_before_its_children_and_lists_its_class(sample: tuple[Grammar, list[list[int]]]):
    grammar, batch = sample
    scenes = scenes_from_derivations(grammar, pad(grammar, batch))
    place = torch.arange(scenes.classes.shape[1])
    assert bool((scenes.parents < place).all())
    owners = scenes.classes.gather(1, scenes.parents.clamp(min=0))[scenes.parents >= 0]
    assert all(grammar.classes[c] in grammar.nonterminals for c in owners.tolist())


@given(samples(), st.integers(0, 3))
def test_padding_changes_no_scene(sample: tuple[Grammar, list[list[int]]], more: int):
    grammar, batch = sample
    rules = pad(grammar, batch)
    wider = torch.nn.functional.pad(rules, (0, more), value=grammar.num_rules)
    narrow_scenes, wide_scenes = scenes_from_derivations(grammar, rules), scenes_from_derivations(grammar, wider)
    assert wide_scenes.classes.equal(narrow_scenes.classes)
    assert wide_scenes.parents.equal(narrow_scenes.parents)


@given(samples())
def test_counts_are_those_of_the_graph(sample: tuple[Grammar, list[list[int]]]):
    grammar, batch = sample
    counts = scenes_from_derivations(grammar, pad(grammar, batch)).counts(len(grammar.classes))
    assert counts.shape == (len(batch), len(grammar.classes))
    for row, rules in zip(counts.tolist(), batch, strict=True):
        names = symbols(plain_graph(grammar, rules))[1:]
        assert row == [names.count(name) for name in grammar.classes]


def symbols(graph: SceneGraph) -> list[str]:
    return [graph.symbol] + [s for child in graph.children for s in symbols(child)]


def test_no_scenes_at_all(digits: Grammar):
    scenes = scenes_from_derivations(digits, torch.zeros(0, 4, dtype=torch.long))
    assert len(scenes) == 0
    assert scenes.counts(3).shape == (0, 3)


def test_attributes_are_added_and_replaced():
    places = torch.zeros(1, 2, dtype=torch.long)
    scenes = SceneBatch(places, places - 1, {"x": torch.zeros(1, 2)})
    more = scenes.with_attributes(y=torch.ones(1, 2)).with_attributes(x=torch.full((1, 2), 2.0))
    assert {name: value.tolist() for name, value in more.attributes.items()} == {"x": [[2.0, 2.0]], "y": [[1.0, 1.0]]}
    assert list(scenes.attributes) == ["x"]
    assert more.classes is scenes.classes


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([2, 0]), torch.tensor([True, False, True])], ids=str)
def test_some_scenes_of_a_batch(aerial: Grammar, index: slice | torch.Tensor):
    rules = pad(aerial, [[0, 1, 3, 4, 5, 2], [0, 2], [0, 1, 3, 5, 2]])
    scenes = scenes_from_derivations(aerial, rules).with_attributes(
        x=torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
    )
    some = scenes[index]
    assert some.classes.equal(scenes.classes[index])
    assert some.parents.equal(scenes.parents[index])
    assert some.attributes["x"].equal(scenes.attributes["x"][index])
    assert len(some) == 2


# -- graphs ------------------------------------------------------------------------------------------------


def plain_graph(grammar: Grammar, rules: Sequence[int]) -> SceneGraph:
    """What is left of the tree when the nodes that are not renderable are cut out, by a stack of open parents."""
    root = SceneGraph(grammar.start)
    todo = [(to_tree(grammar, rules), root)]
    while todo:
        current, above = todo.pop()
        if current.symbol in grammar.classes:
            above.children.append(SceneGraph(current.symbol))
            above = above.children[-1]
        todo += [(child, above) for child in reversed(current.children)]
    return root


@given(samples())
def test_graph_is_the_tree_without_what_is_not_renderable(sample: tuple[Grammar, list[list[int]]]):
    grammar, batch = sample
    for rules in batch:
        assert scene_graph(grammar, rules) == plain_graph(grammar, rules)


def test_a_graph_as_text(aerial: Grammar):
    graph = scene_graph(aerial, [0, 1, 3, 4, 4, 5, 1, 3, 5, 2])
    assert str(graph) == "Scene\n  Road\n    car\n    car\n  Road"


def test_derivations_and_graphs_convert_both_ways(digits: Grammar, aerial: Grammar):
    """On all small scenes of the paper's grammars, where a graph has one derivation."""
    for grammar, t_max, least in ((digits, 12, 63), (aerial, 14, 40)):
        found = [list(rules) for rules in grammar.enumerate_derivations(t_max)]
        assert len(found) >= least
        for rules in found:
            assert derivation_from_graph(grammar, scene_graph(grammar, rules)) == rules


@given(samples(max_size=3))
def test_a_graph_gets_a_derivation_no_longer_than_the_one_it_came_from(sample: tuple[Grammar, list[list[int]]]):
    grammar, batch = sample
    for rules in batch:
        graph = scene_graph(grammar, rules)
        again = derivation_from_graph(grammar, graph)
        assert scene_graph(grammar, again) == graph
        assert len(again) <= len(rules)


@settings(max_examples=50)
@given(st.sampled_from(TRICKY) | grammars())
def test_the_derivation_of_a_graph_is_the_shortest(grammar: Grammar):
    """Of all those of up to 6 steps; where the grammar is ambiguous, several have the same graph."""
    found = list(islice(grammar.enumerate_derivations(6), 101))
    assume(len(found) <= 100)
    shortest: dict[str, int] = {}
    graphs = [plain_graph(grammar, rules) for rules in found]
    for rules, graph in zip(found, graphs, strict=True):
        shortest[str(graph)] = min(len(rules), shortest.get(str(graph), len(rules)))
    for graph in graphs[:30]:
        assert len(derivation_from_graph(grammar, graph)) == shortest[str(graph)]


def test_effort_stays_polynomial_in_the_number_of_objects(monkeypatch: pytest.MonkeyPatch):
    """Counted in look-ups of a symbol's rules, on a grammar whose symbols all need one another at the same place."""
    grammar = Grammar("S -> ε | B | B A A | S b\nA -> ε | S\nB -> ε | S")
    look_up, calls = grammar.rules_of, 0

    def counting(symbol: str) -> list[int]:
        nonlocal calls
        calls += 1
        assert calls < 5000, "effort explodes"
        return look_up(symbol)

    monkeypatch.setattr(grammar, "rules_of", counting)
    graph = SceneGraph("S", [SceneGraph("b")] * 8)
    assert derivation_from_graph(grammar, graph) == [3] * 8 + [0]


@pytest.mark.parametrize(
    ("children", "text"),
    [
        ([], "Scene"),  # bg is missing
        ([SceneGraph("bg"), SceneGraph("two")], "Scene\n  bg\n  two"),
        ([SceneGraph("one"), SceneGraph("bg")], "Scene\n  one\n  bg"),
        ([SceneGraph("bg", [SceneGraph("one")])], "Scene\n  bg\n    one"),
        ([SceneGraph("bg"), SceneGraph("bg")], "Scene\n  bg\n  bg"),
    ],
)
def test_a_scene_that_the_grammar_does_not_derive(digits: Grammar, children: list[SceneGraph], text: str):
    with pytest.raises(GrammarError) as error:
        derivation_from_graph(digits, SceneGraph("Scene", children))
    assert str(error.value) == f"the grammar derives no scene\n{text}"


def test_children_must_match_their_parent(aerial: Grammar):
    car, road = SceneGraph("car"), SceneGraph("Road")
    with pytest.raises(GrammarError, match="the grammar derives no scene"):
        derivation_from_graph(aerial, SceneGraph("Scene", [car]))
    with pytest.raises(GrammarError, match="the grammar derives no scene"):
        derivation_from_graph(aerial, SceneGraph("Scene", [SceneGraph("Road", [road])]))
    with pytest.raises(GrammarError, match="the grammar derives no scene"):
        derivation_from_graph(aerial, SceneGraph("Scene", [SceneGraph("Road", [SceneGraph("car", [car])])]))


def test_what_is_no_derivation_has_no_graph(digits: Grammar):
    with pytest.raises(GrammarError, match="unfinished after 1 steps: Digits remain"):
        scene_graph(digits, [0])


def test_a_start_symbol_that_is_renderable_is_an_object():
    grammar = Grammar("S -> a S | ε", ["S", "a"])
    rules = [0, 0, 1]
    graph = scene_graph(grammar, rules)
    assert str(graph) == "S\n  S\n    a\n    S\n      a\n      S"
    assert derivation_from_graph(grammar, graph) == rules
    assert scenes_from_derivations(grammar, pad(grammar, [rules])).parents.tolist() == [[-1, 0, 0, 2, 2]]


def test_large_scenes_convert(digits: Grammar):
    """300 objects in a list, more than Python allows nested calls for."""
    rules = [0] + [1, 3] * 300 + [2]
    graph = SceneGraph("Scene", [SceneGraph("bg")] + [SceneGraph("zero")] * 300)
    assert derivation_from_graph(digits, graph) == rules
    assert scene_graph(digits, rules) == graph


def test_packing_moves_objects_up_with_their_parents_and_attributes():
    scenes = SceneBatch(
        classes=torch.tensor([[-1, 0, -1, 1, 1], [-1, -1, -1, -1, -1]]),
        parents=torch.tensor([[-1, -1, -1, 1, 1], [-1, -1, -1, -1, -1]]),
        attributes={"x": torch.tensor([[9.0, 1, 9, 2, 3], [9, 9, 9, 9, 9]])},
        environment={"sun": torch.tensor([1.0, 2.0])},
    )
    packed = scenes.compact()
    assert packed.classes.tolist() == [[0, 1, 1], [-1, -1, -1]]
    assert packed.parents.tolist() == [[-1, 0, 0], [-1, -1, -1]]
    assert packed.attributes["x"][0].tolist() == [1, 2, 3] and packed.environment["sun"].tolist() == [1, 2]
    assert packed.compact().classes.equal(packed.classes)
