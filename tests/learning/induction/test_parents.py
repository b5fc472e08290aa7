"""Parents are found from places alone, where there are any."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ms2.learning.induction.list_search import Budget
from ms2.learning.induction.object_table import ObjectTable
from ms2.learning.induction.parents import ORDERS, find_parents, match_parents
from ms2.learning.induction.search import search_structure
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.aerial2d.declaration import WORLD_CLASSES
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import BusyFirstRoad, ScatteredCars

EXTENT = 64.0


def aerial_boxes(seed: int, n: int = 1000) -> tuple[ObjectTable, Tensor, Tensor]:
    """Roads and cars with boxes and without parents; the true parents; and log p of each true structure."""
    grammar, prior, generator = Aerial2D(), BusyFirstRoad(), torch.Generator().manual_seed(seed)
    rules = prior.sample(grammar, n, generator)
    scenes = ScatteredCars().sample(scenes_from_derivations(grammar, rules), generator)
    every = ObjectTable.from_scenes(scenes, WORLD_CLASSES)
    x, y, w, h = (scenes.attributes[k][scenes.mask].double() / EXTENT for k in ("x", "y", "length", "width"))
    boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    table = replace(every, boxes=boxes).rows((every.label < 2).nonzero()[:, 0])  # without houses and trees
    hidden = replace(table, parents_known=False, parent=torch.full_like(table.parent, -1))
    return hidden, table.parent, prior.log_prob(grammar, rules)


@pytest.mark.parametrize("seed", range(3))
def test_cars_are_found_on_their_roads_and_the_first_road_differs(seed: int) -> None:
    hidden, _, _ = aerial_boxes(seed)
    found = find_parents(hidden, Budget(60))
    assert [(one.child, one.parent) for one in found.kept] == [(1, 0)]
    assert found.order == "top to bottom"
    hypothesis = search_structure(found.table, Budget(60))
    assert [rule.leading for rule in hypothesis.inside[0].rules] == [1]
    held_out, true_parents, log_p = aerial_boxes(seed + 100, 2000)
    loss = float((log_p - hypothesis.log_prob(held_out.with_parents(true_parents))).sum()) / len(held_out)
    assert abs(loss) < 0.05


def boxes_at(centre: Tensor, size: float | Tensor) -> Tensor:
    half = torch.as_tensor(size).expand_as(centre) / 2
    return torch.cat([centre - half, centre + half], 1)


def test_objects_that_lie_anywhere_have_no_parents() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        scene = torch.arange(300).repeat_interleave(8)
        label = torch.rand(len(scene), generator=generator).gt(0.4).long()
        size = torch.where(label == 0, 0.3, 0.05)[:, None]
        boxes = boxes_at(torch.rand(len(scene), 2, generator=generator, dtype=torch.double), size)
        table = ObjectTable(("big", "small"), 300, scene, label, torch.full_like(scene, -1), boxes)
        assert find_parents(table, Budget(60)).kept == ()


def test_what_stands_on_the_ground_of_others_is_found() -> None:
    generator = torch.Generator().manual_seed(1)
    n = 200
    tables = 0.2 + 0.6 * torch.rand(n, 2, 2, generator=generator, dtype=torch.double)  # two in each scene
    cups = tables[:, :1].repeat(1, 3, 1)  # three on the first
    cups[..., 0] += 0.15 * (torch.rand(n, 3, generator=generator, dtype=torch.double) - 0.5)
    cups[..., 1] -= 0.05 + 0.02  # half of either height above the middle
    boxes = torch.cat([boxes_at(tables.flatten(0, 1), torch.tensor([0.2, 0.1])), boxes_at(cups.flatten(0, 1), 0.04)])
    scene = torch.cat([torch.arange(n).repeat_interleave(2), torch.arange(n).repeat_interleave(3)])
    label = torch.cat([torch.zeros(2 * n), torch.ones(3 * n)]).long()
    order = scene.argsort(stable=True)
    table = ObjectTable(("table", "cup"), n, scene[order], label[order], torch.full_like(scene, -1), boxes[order])
    found = find_parents(table, Budget(60))
    assert [(one.child, one.parent, one.relation) for one in found.kept] == [(1, 0, "on")]
    assert bool((found.table.label[found.table.parent[found.table.label == 1]] == 0).all())


def test_the_smallest_box_around_an_object_is_its_parent() -> None:
    boxes = torch.tensor([[0, 0, 1, 1], [0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0.2, 0.2, 0.3, 0.3]])
    scene, label = torch.zeros(4, dtype=torch.long), torch.tensor([0, 0, 0, 1])
    table = ObjectTable(("box", "dot"), 1, scene, label, torch.full((4,), -1), boxes.double())
    assert match_parents(table, 1, 0, "inside").parent.tolist() == [1]


def test_known_parents_are_kept() -> None:
    hidden, parents, _ = aerial_boxes(0, 100)
    known = replace(hidden.with_parents(parents), parents_known=True)
    found = find_parents(known, Budget(60))
    assert torch.equal(found.table.parent, parents) and found.order == ORDERS[3]


def test_without_time_nothing_is_nested() -> None:
    hidden, _, _ = aerial_boxes(0, 100)
    assert find_parents(hidden, Budget(0.0)).kept == ()
