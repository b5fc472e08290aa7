"""Tables of objects: numbers among siblings, order, selection, and parents that contradict each other."""

import pytest
import torch

from ms2.core.seeding import generator
from ms2.learning.induction.object_table import InductionError, ObjectTable, running_index
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import UniformTraffic


def aerial(n: int = 50) -> ObjectTable:
    grammar = Aerial2D()
    rules = UniformTraffic(3, 3).sample(grammar, n, generator(0, "table"))
    return ObjectTable.from_scenes(scenes_from_derivations(grammar, rules), grammar.classes)


def made(scene: list[int], label: list[int], parent: list[int]) -> ObjectTable:
    return ObjectTable(("a", "b"), 3, torch.tensor(scene), torch.tensor(label), torch.tensor(parent))


def test_scenes_become_rows_with_their_parents() -> None:
    table = aerial()
    cars = table.label == 1
    assert bool((table.label[table.parent[cars]] == 0).all())
    assert bool((table.parent[~cars] == -1).all())


def test_ranks_count_the_siblings_of_a_class() -> None:
    table = made([0, 0, 0, 0, 2], [0, 0, 1, 1, 0], [-1, -1, 0, 1, -1])
    assert table.rank.tolist() == [0, 1, 0, 0, 0]


def test_a_running_index_counts_equal_keys() -> None:
    assert running_index(torch.tensor([5, 3, 5, 5, 3])).tolist() == [0, 0, 1, 2, 1]
    assert running_index(torch.tensor([], dtype=torch.long)).tolist() == []


def test_sorting_keeps_scenes_and_parents() -> None:
    table = aerial()
    turned = table.in_order(-torch.arange(len(table)).double())
    assert torch.equal(turned.scene, table.scene)
    cars = turned.label == 1
    assert bool((turned.label[turned.parent[cars]] == 0).all())
    again = turned.in_order(-torch.arange(len(table)).double())
    assert torch.equal(again.parent, table.parent) and torch.equal(again.label, table.label)


def test_selected_scenes_are_numbered_anew() -> None:
    table = aerial()
    some = table.select(torch.tensor([7, 3]))
    assert some.num_scenes == 2
    assert some.label.tolist() == [*table.label[table.scene == 7].tolist(), *table.label[table.scene == 3].tolist()]
    cars = some.label == 1
    assert bool((some.label[some.parent[cars]] == 0).all())


def test_a_parent_in_another_scene_is_an_error() -> None:
    with pytest.raises(InductionError, match="an object of scene 1 has a parent in another scene"):
        made([0, 1], [0, 1], [-1, 0])


@pytest.mark.parametrize("parent", [[0], [1, 0], [1, 2, 0]])
def test_objects_above_themselves_are_an_error(parent: list[int]) -> None:
    with pytest.raises(InductionError, match="each other's parents, such as a 'a'"):
        made([0] * len(parent), [0] * len(parent), parent)
