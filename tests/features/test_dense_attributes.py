"""`DenseAttributes`: its blocks against sums over objects by hand, its training targets, and a trained extractor."""

import itertools
import math
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.features.dense import DenseCounts
from ms2.features.dense_attributes import DenseAttributes
from ms2.features.gaps import soft_bins
from ms2.grammar.grammar import Grammar
from ms2.priors.structure import ListLengthPrior
from ms2.render.base import Rendering
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.multimnist.priors import UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

ROAD, CAR, TREE = range(3)
CLASSES = ("road", "car", "tree")
SIZE = Attribute("size", 2, 6)
ANGLE = Attribute("angle", -math.pi, math.pi, periodic=True)
OFFSET = Attribute("offset", -1, 1, relative=True)
LIGHT = Attribute("light", 0.5, 1.5)
SUN = Attribute("sun", -math.pi, math.pi, periodic=True)
ROWS, COLUMNS = 3, 4
BINS, HARMONICS = 6, 2
SMALL: dict[str, Any] = {"widths": (4, 6, 8), "bins": BINS, "harmonics": HARMONICS}


def make(attribute_blocks: dict[str, list[str]] | None = None, **settings: Any) -> DenseAttributes:
    """A small one, whose cells are squares of four pixels."""
    return DenseAttributes(1, CLASSES, (SIZE, ANGLE, OFFSET), attribute_blocks=attribute_blocks, **(SMALL | settings))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=rng(seed))


# --- blocks ---


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, {}),
        ({"attribute_blocks": {"where": ["column"]}}, {"where": 6}),
        ({"attribute_blocks": {"size": ["size"], "turn": ["angle"]}}, {"size": 6, "turn": 4}),
        (
            {"attribute_blocks": {"size": ["size"], "turn": ["angle"]}, "bins": 9, "harmonics": 3},
            {"size": 9, "turn": 6},
        ),
        ({"attribute_blocks": {"both": ["size", "angle"], "place": ["row", "column"]}}, {"both": 24, "place": 36}),
        ({"attribute_blocks": {"turn": ["angle"]}, "block_classes": {"turn": ["car", "tree"]}}, {"turn": 4}),
        (
            {"attribute_blocks": {"turn": ["angle"]}, "per_slot": ["turn"], "parents_per_class": {"car": 2}},
            {"turn_road": 4, "turn_car_1": 4, "turn_car_2": 4, "turn_tree": 4},
        ),
        (
            {
                "attribute_blocks": {"spots": ["column", "offset"], "turn": ["angle"]},
                "block_classes": {"spots": ["car"]},
                "per_slot": ["spots"],
                "parents_per_class": {"car": 3},
            },
            {"spots_car_1": 36, "spots_car_2": 36, "spots_car_3": 36, "turn": 4},
        ),
        ({"environment": (LIGHT, SUN)}, {"environment": 3}),
        (
            {"attribute_blocks": {"turn": ["angle"]}, "environment": (LIGHT,), "harmonics": 3},
            {"turn": 6, "environment": 1},
        ),
        ({"gap_blocks": {"gaps": ["column"], "size": ["row", "size"]}, "bins": 9}, {"gaps": 9, "size": 9}),
        (
            {
                "gap_blocks": {"gaps": ["row", "offset"]},
                "block_classes": {"gaps": ["car"]},
                "per_slot": ["gaps"],
                "parents_per_class": {"car": 2},
            },
            {"gaps_car_1": 6, "gaps_car_2": 6},
        ),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1, 12, 16), (3, 1, 17, 22)])
def test_blocks_have_declared_names_and_sizes(
    settings: dict[str, Any], sizes: dict[str, int], shape: tuple[int, ...]
) -> None:
    blocks = make(max_count=5, **settings)(noise(*shape))
    assert {name: tuple(block.shape) for name, block in blocks.items()} == {
        name: (shape[0], size) for name, size in {"classes": 3, "count": 6, **sizes}.items()
    }
    assert all(block.isfinite().all() for block in blocks.values())


def test_counts_are_those_of_an_extractor_that_reads_nothing_else() -> None:
    layout = make({"turn": ["angle"]}, environment=(LIGHT,))
    counts = DenseCounts(1, CLASSES, SMALL["widths"])
    counts.load_state_dict(
        {name: values for name, values in layout.state_dict().items() if name in counts.state_dict()}
    )
    images = noise(2, 1, 16, 16)
    found, expected = layout(images), counts(images)
    assert set(found) - set(expected) == {"turn", "environment"}
    assert all(torch.equal(found[name], block) for name, block in expected.items())


# --- the basis ---


def steps(share: float, bins: int = BINS) -> list[float]:
    """How far each of the steps along an axis is above a place on it."""
    return [1 / (1 + math.exp(-2 * bins * ((k + 0.5) / bins - share))) for k in range(bins)]


@pytest.mark.parametrize("bins", [1, 6, 25])
def test_the_basis_of_a_place_is_a_row_of_soft_steps(bins: int) -> None:
    shares = [-0.3, 0.0, 0.013, 0.25, 0.5, 0.77, 1.0, 1.4]
    found = make(bins=bins).encoding.basis(SIZE, torch.tensor(shares))
    torch.testing.assert_close(found, torch.tensor([steps(share, bins) for share in shares]))


@pytest.mark.parametrize("moved", [0.01, 0.1, 0.3, 0.6])
def test_a_place_is_as_far_from_another_as_it_has_to_be_moved(moved: float) -> None:
    """However far: the distance doesn't level off, as that of bumps would."""
    here, there = make(bins=20).encoding.basis(SIZE, torch.tensor([0.2, 0.2 + moved]))
    assert float((here - there).abs().sum()) / 20 == pytest.approx(moved, rel=0.01)
    assert bool((here >= there).all()), "more steps lie beyond what is further left"


def test_the_basis_of_an_angle_is_what_is_said_of_it() -> None:
    said = noise(2, 3, 4, 4)
    assert torch.equal(make().encoding.basis(ANGLE, said), said)


# --- sums over objects ---


class Thing(NamedTuple):
    """An object in one cell, with the share of it that lies there."""

    slot: int
    row: int
    column: int
    mass: float
    size: float
    angle: float


SCENES = [
    [
        Thing(ROAD, 0, 0, 1.0, 2.5, 0.4),
        Thing(CAR, 0, 3, 0.7, 5.9, -2.0),
        Thing(CAR, 2, 1, 1.0, 4.0, 3.0),
        Thing(TREE, 1, 2, 0.2, 3.3, 1.5),
    ],
    [Thing(TREE, 2, 0, 0.9, 2.0, -0.7), Thing(CAR, 1, 1, 0.5, 4.4, 0.0)],
    [],
]


class Said(nn.Module):
    """Says the same of everything."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, maps: Tensor) -> Tensor:
        return self.answer


def telling(extractor: DenseAttributes, scenes: list[list[Thing]]) -> DenseAttributes:
    """An extractor that sees these objects, and nothing sensible elsewhere."""
    mass = torch.zeros(len(scenes), len(extractor.slots), ROWS, COLUMNS)
    said = noise(len(scenes), 5, ROWS, COLUMNS, seed=3)
    for scene, things in enumerate(scenes):
        for thing in things:
            mass[scene, thing.slot, thing.row, thing.column] = thing.mass
            of_size = [2 * (thing.size - 2) / 4 - 1]
            of_angle = [f(k * thing.angle) for k in (1, 2) for f in (math.cos, math.sin)]
            numbers = {"size": of_size, "angle": of_angle}
            told = [x for attribute in extractor.predicted for x in numbers[attribute.name]]
            said[scene, : len(told), thing.row, thing.column] = torch.tensor(told)
    numbers = sum({"size": 1, "angle": 4}[attribute.name] for attribute in extractor.predicted)
    extractor.tell = Said(said[:, :numbers])
    extractor.densities = lambda logits: mass
    return extractor


BASES: dict[str, Callable[[Thing], list[float]]] = {
    "column": lambda thing: steps((thing.column + 0.5) / COLUMNS),
    "row": lambda thing: steps((thing.row + 0.5) / ROWS),
    "size": lambda thing: steps((thing.size - 2) / 4),
    "angle": lambda thing: [
        math.cos(thing.angle), math.sin(thing.angle), math.cos(2 * thing.angle), math.sin(2 * thing.angle)
    ],
}  # fmt: skip


def added(things: list[Thing], names: tuple[str, ...]) -> list[float]:
    """The block of some objects, one by one."""
    sizes = [4 if name == "angle" else BINS for name in names]
    total = [0.0] * math.prod(sizes)
    for thing in things:
        if len(names) == 1:
            products = BASES[names[0]](thing)
        else:
            products = [a * b for a in BASES[names[0]](thing) for b in BASES[names[1]](thing)]
        total = [t + thing.mass * p for t, p in zip(total, products, strict=True)]
    return total


IMAGES = torch.zeros(len(SCENES), 1, 4 * ROWS, 4 * COLUMNS)
every_reading = pytest.mark.parametrize("names", [*((name,) for name in BASES), *permutations(BASES, 2)], ids="-".join)


@every_reading
def test_a_block_adds_up_the_products_of_objects_bases(names: tuple[str, ...]) -> None:
    extractor = telling(make({"block": list(names)}), SCENES)
    expected = torch.tensor([added(things, names) for things in SCENES])
    torch.testing.assert_close(extractor(IMAGES)["block"], expected, atol=1e-5, rtol=1e-5)
    assert expected[0].abs().max() > 0.5 and not expected[2].any()


@every_reading
def test_a_block_of_some_classes_adds_up_theirs(names: tuple[str, ...]) -> None:
    reads = {"all": list(names), "some": list(names), "apart": list(names)}
    extractor = telling(make(reads, block_classes={"some": ["car", "tree"]}, per_slot=["apart"]), SCENES)
    blocks = extractor(IMAGES)
    for name, slots in {
        "some": (CAR, TREE), "apart_road": (ROAD,), "apart_car": (CAR,), "apart_tree": (TREE,)
    }.items():  # fmt: skip
        chosen = [[thing for thing in things if thing.slot in slots] for things in SCENES]
        expected = torch.tensor([added(things, names) for things in chosen])
        torch.testing.assert_close(blocks[name], expected, atol=1e-5, rtol=1e-5)
    parts = blocks["apart_road"] + blocks["apart_car"] + blocks["apart_tree"]
    torch.testing.assert_close(parts, blocks["all"])


def test_cars_of_different_roads_are_read_apart() -> None:
    extractor = make(
        {"turn": ["angle"]}, block_classes={"turn": ["car"]}, per_slot=["turn"], parents_per_class={"car": 2}
    )
    assert extractor.slots.names == ["road", "car_1", "car_2", "tree"]
    things = [Thing(1, 0, 1, 1.0, 2, 0.3), Thing(2, 1, 1, 0.5, 2, 1.3), Thing(3, 2, 2, 1.0, 2, 2.0)]
    blocks = telling(extractor, [things])(IMAGES[:1])
    for name, thing in (("turn_car_1", things[0]), ("turn_car_2", things[1])):
        torch.testing.assert_close(blocks[name][0], torch.tensor(added([thing], ("angle",))))


@every_reading
def test_sums_are_additive_over_objects(names: tuple[str, ...]) -> None:
    """Whatever cells hold, also if objects share them."""
    one, other = noise(2, 3, ROWS, COLUMNS, seed=1), noise(2, 3, ROWS, COLUMNS, seed=2)
    extractor = telling(make({"block": list(names)}), SCENES[:2])
    found = []
    for mass in (one, other, one + other):
        extractor.densities = lambda logits, mass=mass: mass
        found.append(extractor(IMAGES[:2])["block"])
    torch.testing.assert_close(found[0] + found[1], found[2])
    assert not torch.allclose(found[0], found[1], atol=0.01)


# --- gaps ---


def larger(distance: float) -> list[float]:
    """How far each size of a gap is above this one: the same steps as those of a place."""
    return steps(distance)


def in_strips(share: float, number: int) -> list[float]:
    """How much of a place lies in each of so many strips: the differences of soft steps at their edges."""
    below = [0.0, *(1 / (1 + math.exp(-8 * number * (k / number - share))) for k in range(1, number)), 1.0]
    return [b - a for a, b in itertools.pairwise(below)]


SHARES: dict[str, Callable[[Thing], float]] = {
    "column": lambda thing: (thing.column + 0.5) / COLUMNS,
    "row": lambda thing: (thing.row + 0.5) / ROWS,
    "size": lambda thing: (thing.size - 2) / 4,
}


def gaps_of(things: list[Thing], names: tuple[str, ...], number: int) -> list[float]:
    """Row by row and gap by gap: at most one next object is counted, and shares are those of all gaps."""
    found, total = [0.0] * BINS, 0.0
    for slot in range(3):
        own = [thing for thing in things if thing.slot == slot]
        on = [in_strips(SHARES[names[1]](thing), number) if len(names) == 2 else [1.0] for thing in own]
        place = [SHARES[names[0]](thing) for thing in own]
        for strip in range(len(on[0]) if on else 0):
            for i, here in enumerate(place):
                ahead = [j for j, there in enumerate(place) if there > here + 1e-6]
                total += on[i][strip] * min(1.0, sum(on[j][strip] for j in ahead))
                for k in range(BINS):
                    within = sum(on[j][strip] * larger(place[j] - here)[k] for j in ahead)
                    found[k] += on[i][strip] * min(1.0, within)
    return [f / max(1.0, total) for f in found]


# two cells or more between those of a row, and of each class a row of its own
ROW = [
    [Thing(CAR, 0, 0, 1.0, 2.4, 0.0), Thing(CAR, 2, 2, 1.0, 2.6, 0.0), Thing(TREE, 0, 1, 1.0, 3.0, 0.0),
     Thing(TREE, 2, 3, 1.0, 5.0, 0.0)],
    [Thing(CAR, 0, 0, 1.0, 2.4, 0.0), Thing(CAR, 2, 3, 1.0, 5.6, 0.0)],
    [Thing(CAR, 1, 1, 1.0, 2.4, 0.0)],
    [],
]  # fmt: skip
every_row = pytest.mark.parametrize(
    ("names", "number"),
    [(("column",), 1), (("row",), 2), (("column", "row"), 2), (("row", "column"), 3), (("column", "size"), 2),
     (("row", "size"), 4)],
)  # fmt: skip


@every_row
def test_gaps_are_those_of_objects_one_by_one(names: tuple[str, ...], number: int) -> None:
    """As read off a map, and of the objects themselves; at cells' middles both are the same."""
    extractor = telling(make(gap_blocks={"gaps": list(names)}, lateral_bins=number), ROW)
    numbers, classes = torch.full((4, 4, 4), 0.5), torch.full((4, 4), -1)
    for scene, things in enumerate(ROW):
        for place, thing in enumerate(things):
            classes[scene, place] = thing.slot
            where = SHARES["column"](thing), SHARES["row"](thing)
            numbers[scene, place] = torch.tensor([*where, thing.size, thing.angle])
    scenes = SceneBatch(classes, torch.full_like(classes, -1), {"size": numbers[..., 2], "angle": numbers[..., 3]})
    expected = torch.tensor([gaps_of(things, names, number) for things in ROW])
    torch.testing.assert_close(extractor.ground_truth(scenes, numbers[..., :2])["gaps"], expected, atol=1e-5, rtol=1e-5)
    images = torch.zeros(len(ROW), 1, 4 * ROWS, 4 * COLUMNS)
    torch.testing.assert_close(extractor(images)["gaps"], expected, atol=1e-5, rtol=1e-5)
    assert not expected[2:].any()
    if names in {("column",), ("column", "size")}:
        assert expected[0].max() > 0.1, "the cars' gap is half of the way across"


def test_an_object_in_two_cells_is_not_its_own_neighbour() -> None:
    halves = [[Thing(CAR, 0, 0, 0.5, 2.4, 0.0), Thing(CAR, 0, 1, 0.5, 2.4, 0.0)]]
    extractor = telling(make(gap_blocks={"gaps": ["column"]}), halves)
    assert not extractor(IMAGES[:1])["gaps"].any()


def test_gaps_are_a_distribution_function() -> None:
    """Empirical, over random places; as many cars again on another lane change nothing."""
    generator, extractor = rng(3), make({}, gap_blocks={"gaps": ["column", "size"]}, bins=BINS)
    columns = torch.rand(1, 9, generator=generator).expand(2, -1)
    size = torch.tensor([[2.0] * 9, [6.0] * 9])
    scenes = SceneBatch(torch.full((1, 18), CAR), torch.full((1, 18), -1), {"size": size.reshape(1, 18)})
    lone = SceneBatch(torch.full((1, 9), CAR), torch.full((1, 9), -1), {"size": size[:1]})
    places = torch.stack([columns, torch.full_like(columns, 0.5)], -1)
    both, one = (
        extractor.ground_truth(scenes, places.reshape(1, 18, 2))["gaps"],
        extractor.ground_truth(lone, places[:1])["gaps"],
    )
    torch.testing.assert_close(both, one, atol=1e-3, rtol=0)
    gaps = columns[0].sort().values.diff()
    edges = (torch.arange(BINS) + 0.5) / BINS
    assert bool((one[0].diff() >= 0).all())
    # steps are soft, so it is the empirical one smoothed by about a bin
    assert float((one[0] - (gaps[:, None] < edges).float().mean(0)).abs().mean()) < 0.15


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_place_is_in_one_strip_or_between_two(number: int) -> None:
    shares = [-0.1, 0.0, 0.26, 0.5, 0.74, 1.0]
    found = soft_bins(torch.tensor(shares), number)
    torch.testing.assert_close(found, torch.tensor([in_strips(share, number) for share in shares]))
    torch.testing.assert_close(found.sum(-1), torch.ones(len(shares)))
    middles = (torch.arange(number) + 0.5) / number
    assert bool((soft_bins(middles, number).diagonal() > 0.95).all())


def test_gaps_of_different_roads_are_apart() -> None:
    extractor = make(
        gap_blocks={"gaps": ["column"]},
        block_classes={"gaps": ["car"]},
        per_slot=["gaps"],
        parents_per_class={"car": 2},
    )
    things = [Thing(1, 0, 0, 1.0, 2, 0.3), Thing(1, 1, 2, 1.0, 2, 1.3), Thing(2, 2, 3, 1.0, 2, 2.0)]
    blocks = telling(extractor, [things])(IMAGES[:1])
    torch.testing.assert_close(blocks["gaps_car_1"][0], torch.tensor(larger(0.5)))
    assert not blocks["gaps_car_2"].any()


def test_moving_all_of_a_row_changes_no_gap_and_moving_one_does() -> None:
    columns = torch.tensor([[0.1, 0.25, 0.6]], requires_grad=True)
    scenes = SceneBatch(torch.full((1, 3), CAR), torch.full((1, 3), -1))
    extractor = make(gap_blocks={"gaps": ["column"]})

    def gaps(columns: Tensor) -> Tensor:
        return extractor.ground_truth(scenes, torch.stack([columns, torch.full_like(columns, 0.5)], -1))["gaps"]

    torch.testing.assert_close(gaps(columns), gaps(columns + 0.2))
    assert not torch.allclose(gaps(columns), gaps(columns * torch.tensor([1.0, 1.4, 1.0])), atol=0.02)
    (gradient,) = torch.autograd.grad(gaps(columns).sum(), columns)
    assert gradient[0, 0] > 0 > gradient[0, 2], "fewer gaps are small if the outer ones move apart"


# --- the truth ---


@every_reading
@pytest.mark.parametrize("apart", [False, True])
def test_the_truth_is_the_same_sum_over_the_objects_themselves(names: tuple[str, ...], apart: bool) -> None:
    """Wherever they are, at places between cells too; those of other classes don't count."""
    things = [[thing for thing in things if thing.slot != ROAD] for things in SCENES[:2]]
    things = [[thing._replace(mass=1.0, column=thing.column + 0.3, row=thing.row - 0.4) for thing in t] for t in things]
    of = {"block": ["car", "tree"]}
    extractor = make({"block": list(names)}, block_classes=of, per_slot=["block"] if apart else [])
    numbers = torch.full((2, 4, 5), 0.5)
    classes = torch.full((2, 4), -1)
    for scene, row in enumerate(things):
        for place, thing in enumerate(row):
            classes[scene, place] = thing.slot
            where = (thing.column + 0.5) / COLUMNS, (thing.row + 0.5) / ROWS
            numbers[scene, place] = torch.tensor([*where, thing.size, thing.angle, 0.0])
    classes[0, 3] = ROAD
    scenes = SceneBatch(classes, torch.full_like(classes, -1), {"size": numbers[..., 2], "angle": numbers[..., 3]})
    found = extractor.ground_truth(scenes, numbers[..., :2])
    for name, slots in {"block_car": [CAR], "block_tree": [TREE]}.items() if apart else [("block", [CAR, TREE])]:
        expected = [added([thing for thing in row if thing.slot in slots], names) for row in things]
        torch.testing.assert_close(found.pop(name), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert not found
    known = extractor.ground_truth(scenes, None)
    assert bool(known) != bool({"column", "row"} & set(names)), "nobody knows where objects are"


def test_the_truth_of_the_scene_is_what_is_taught_of_it() -> None:
    scenes = SceneBatch(torch.tensor([[CAR], [CAR]]), torch.full((2, 1), -1))
    scenes = scenes.with_environment(light=torch.tensor([1.25, 0.5]), sun=torch.tensor([2.0, 0.0]))
    expected = torch.tensor([[0.5, math.cos(2.0), math.sin(2.0)], [-1.0, 1.0, 0.0]])
    found = make(environment=(LIGHT, SUN)).ground_truth(scenes, None)
    assert found.keys() == {"environment"}
    torch.testing.assert_close(found["environment"], expected)


def test_the_truth_of_relative_attributes_is_less_the_parents() -> None:
    """Of a car a whole unit beyond its road, and one a fifth before it, between bounds of -1 and 1."""
    scenes = SceneBatch(torch.tensor([[ROAD, CAR, CAR]]), torch.tensor([[-1, 0, 0]]))
    offset = torch.tensor([[40.0, 41.0, 39.8]], requires_grad=True)
    extractor = make({"spot": ["offset"]}, block_classes={"spot": ["car"]})
    found = extractor.ground_truth(scenes.with_attributes(offset=offset), None)["spot"]
    expected = [a + b for a, b in zip(steps(1.0), steps(0.4), strict=True)]
    torch.testing.assert_close(found, torch.tensor([expected]), atol=1e-4, rtol=0)
    found.sum().backward()
    assert offset.grad is not None and (offset.grad[0, 1:] < 0).all() and offset.grad[0, 0] > 0


def test_the_truth_does_not_look_where_nothing_is() -> None:
    """Whatever stands in unused places: not even a number, here."""
    scenes = SceneBatch(torch.tensor([[CAR, CAR, -1]]), torch.full((1, 3), -1))
    centres = torch.tensor([[[0.2, 0.5], [0.7, 0.5], [math.nan, math.nan]]], requires_grad=True)
    size = torch.tensor([[1.0, 1.2, math.nan]], requires_grad=True)
    extractor = make({"places": ["column"], "sizes": ["size"]}, gap_blocks={"gaps": ["column", "size"]})
    found = extractor.ground_truth(scenes.with_attributes(size=size), centres)
    short = SceneBatch(scenes.classes[:, :2], scenes.parents[:, :2]).with_attributes(size=size[:, :2])
    for name, block in extractor.ground_truth(short, centres[:, :2]).items():
        torch.testing.assert_close(found[name], block)
    sum(block.sum() for block in found.values()).backward()
    assert size.grad is not None and size.grad.isfinite().all() and centres.grad.isfinite().all()


# --- what it is taught ---


def labelled(
    classes: list[int], centres: list[tuple[float, float]], parents: list[int] | None = None, **attributes: list[float]
) -> tuple[Rendering, SceneBatch]:
    """One scene of 24 x 32 pixels, or 6 x 8 cells, with objects about these places in cells."""
    kinds = torch.tensor([classes])
    above = torch.tensor([parents or [-1] * len(classes)])
    middle = 4 * torch.tensor([centres]).view(1, -1, 2)
    boxes = torch.cat([middle - 2, middle + 2], 2)
    none, corners = torch.full((1, 24, 32), -1), torch.zeros(1, len(classes), 4, 2)
    seen = torch.ones(kinds.shape)
    labels = Rendering(torch.zeros(1, 1, 24, 32), kinds, above, boxes, corners, boxes, none, seen)
    return labels, SceneBatch(kinds, above, {name: torch.tensor([values]) for name, values in attributes.items()})


def cells_of(centre: tuple[float, float]) -> Iterator[tuple[int, int, float]]:
    """Row, column and bilinear share of the cells around a place in cells, from the left and from the top."""
    x, y = centre[0] - 0.5, centre[1] - 0.5
    for column in (math.floor(x), math.floor(x) + 1):
        for row in (math.floor(y), math.floor(y) + 1):
            share = (1 - abs(x - column)) * (1 - abs(y - row))
            if share > 0:
                yield row, column, share


CENTRES = [(1.75, 1.25), (5.5, 1.9), (2.1, 4.6), (6.3, 4.5)]


def said_at(centres: list[tuple[float, float]], numbers: list[list[float]]) -> Tensor:
    """An answer that is right where these objects are, and wild elsewhere."""
    said = 50 * noise(1, len(numbers[0]), 6, 8, seed=4)
    for centre, told in zip(centres, numbers, strict=True):
        for row, column, _ in cells_of(centre):
            said[0, :, row, column] = torch.tensor(told)
    return said


def error(extractor: DenseAttributes, said: Tensor, labels: Rendering, scenes: SceneBatch) -> float:
    extractor.tell = Said(said)
    return float(extractor._error(torch.zeros(1, 8, 6, 8), extractor._cells(labels, 6, 8), scenes))


def test_what_is_told_exactly_is_no_error() -> None:
    """Of a bounded attribute the place between its bounds, from -1 to 1; of an angle cosines and sines of multiples."""
    sizes, angles = [2.0, 6.0, 4.5, 3.0], [0.3, -2.5, 3.1, 1.0]
    labels, scenes = labelled([CAR, TREE, CAR, CAR], CENTRES, size=sizes, angle=angles)
    numbers = [
        [(size - 4) / 2, *(f(k * angle) for k in (1, 2, 3) for f in (math.cos, math.sin))]
        for size, angle in zip(sizes, angles, strict=True)
    ]
    extractor = make({"size": ["size"], "both": ["angle", "column"]}, harmonics=3)
    assert error(extractor, said_at(CENTRES, numbers), labels, scenes) == pytest.approx(0, abs=1e-10)
    for k in range(7):
        wrong = [[x + 0.5 * (i == k) for i, x in enumerate(row)] for row in numbers]
        assert error(extractor, said_at(CENTRES, wrong), labels, scenes) == pytest.approx(0.5**2 / 7, rel=1e-4)


def test_errors_weigh_as_much_as_the_object_has_of_the_cell() -> None:
    labels, scenes = labelled([CAR, TREE, CAR, CAR], CENTRES, size=[4.0] * 4)
    extractor, right = make({"size": ["size"]}), said_at(CENTRES, [[0.0]] * 4)
    shares = []
    for row, column, share in cells_of(CENTRES[0]):
        wrong = right.clone()
        wrong[0, 0, row, column] = 3
        assert error(extractor, wrong, labels, scenes) == pytest.approx(9 * share / 4, rel=1e-5)
        shares.append(share)
    assert sorted(shares) == [1 / 16, 3 / 16, 3 / 16, 9 / 16]


def test_relative_attributes_are_told_less_the_parents() -> None:
    """A car a little to the left of the middle of its road, wherever that is."""
    labels, scenes = labelled([ROAD, CAR, TREE, CAR], CENTRES, [-1, 0, -1, 2], offset=[40.0, 39.6, 7.0, 7.9])
    extractor = make({"spot": ["offset"]}, block_classes={"spot": ["car"]})
    cars = CENTRES[1::2]
    assert error(extractor, said_at(cars, [[-0.4], [0.9]]), labels, scenes) == pytest.approx(0, abs=1e-9)
    assert error(extractor, said_at(cars, [[39.6], [7.9]]), labels, scenes) == pytest.approx((40**2 + 7**2) / 2)


def test_only_objects_that_are_read_are_taught() -> None:
    """A road's own place, or a tree's, is far beyond the bounds of a car's distance from it."""
    labels, scenes = labelled(
        [ROAD, CAR, TREE, TREE], CENTRES, [-1, 0, -1, -1], offset=[40.0, 40.0, 7.0, 8.0], angle=[0.0, 1.0, 0.0, 0.0]
    )
    extractor = make(
        {"spot": ["offset"], "turn": ["angle"]}, block_classes={"spot": ["car"], "turn": ["car", "tree"]}, harmonics=1
    )
    right = [[0.0, math.cos(1.0), math.sin(1.0)], [99.0, 1.0, 0.0], [99.0, 1.0, 0.0]]
    assert error(extractor, said_at(CENTRES[1:], right), labels, scenes) == pytest.approx(0, abs=1e-10)
    right[0][0] = 3.0  # wrong by 3 of the only car: of two angles there are three, of offsets one
    assert error(extractor, said_at(CENTRES[1:], right), labels, scenes) == pytest.approx(9 / 3, rel=1e-5)
    right[0][:2] = 0.0, math.cos(1.0) + 3
    assert error(extractor, said_at(CENTRES[1:], right), labels, scenes) == pytest.approx(9 / 3 / 3, rel=1e-5)


def test_who_is_hidden_is_not_taught() -> None:
    labels, scenes = labelled([CAR, CAR], CENTRES[:2], size=[4.0, 6.0])
    labels.visibility[0, 1] = 0.05
    said = said_at(CENTRES[:2], [[0.0], [0.0]])
    assert error(make({"size": ["size"]}, min_visibility=0.1), said, labels, scenes) == 0
    assert error(make({"size": ["size"]}), said, labels, scenes) == pytest.approx(1 / 2)


def test_targets_and_errors_are_sums_over_objects_one_by_one() -> None:
    """Of three scenes with up to five objects: some hidden, beyond the edge, or on a second road."""
    draw = rng(1)
    classes = torch.tensor([[ROAD, CAR, CAR, ROAD, CAR], [ROAD, ROAD, CAR, TREE, -1], [-1] * 5])
    parents = torch.tensor([[-1, 0, 0, -1, 3], [-1, -1, 1, -1, -1], [-1] * 5])
    middle = torch.rand(3, 5, 2, generator=draw) * torch.tensor([36.0, 28.0]) - 2
    boxes = torch.where(classes[..., None] >= 0, torch.cat([middle - 3, middle + 3], 2), 0.0)
    boxes[0, 2] = 0.0  # not on the canvas
    visibility = torch.rand(3, 5, generator=draw)
    none, corners = torch.full((3, 24, 32), -1), torch.zeros(3, 5, 4, 2)
    labels = Rendering(torch.zeros(3, 1, 24, 32), classes, parents, boxes, corners, boxes, none, visibility)
    scenes = SceneBatch(classes, parents, {"size": torch.where(classes >= 0, 2 + 4 * visibility, torch.nan)})
    extractor = make(
        {"size": ["size"]}, block_classes={"size": ["car"]}, parents_per_class={"car": 2}, min_visibility=0.2
    )
    said = noise(3, 1, 6, 8, seed=2)
    slots = [[0, 1, 1, 0, 2], [0, 0, 2, 3, -1], [-1] * 5]
    density, total, weight = torch.zeros(3, 4, 6, 8), 0.0, 0.0
    for b, n in itertools.product(range(3), range(5)):
        if slots[b][n] < 0 or visibility[b, n] < 0.2 or not boxes[b, n].any():
            continue
        x, y = ((boxes[b, n, :2] + boxes[b, n, 2:]) / 2).tolist()
        for row, column, share in cells_of((x / 4, y / 4)):
            row, column = min(max(row, 0), 5), min(max(column, 0), 7)
            density[b, slots[b][n], row, column] += share
            if classes[b, n] == CAR:
                total += share * float(said[b, 0, row, column] - (2 * visibility[b, n] - 1)) ** 2
                weight += share
    density /= density.sum(1, keepdim=True).clamp(min=1)
    cells = extractor._cells(labels, 6, 8)
    found = extractor._cell_targets(cells, 6, 8)
    torch.testing.assert_close(found[:, :-1], density)
    torch.testing.assert_close(found.sum(1), torch.ones(3, 6, 8))
    assert weight > 1
    assert error(extractor, said, labels, scenes) == pytest.approx(total / weight)


def test_a_scene_without_objects_has_no_error() -> None:
    labels, scenes = labelled([-1], [(1.0, 1.0)], size=[math.nan])
    assert error(make({"size": ["size"]}), torch.ones(1, 1, 6, 8), labels, scenes) == 0


def test_the_loss_adds_up_counts_objects_and_the_scene() -> None:
    """Of the light it is told the place between its bounds, of the sun cosine and sine."""
    labels, scenes = labelled([CAR, TREE], CENTRES[:2], size=[4.0, 4.0])
    scenes = scenes.with_environment(light=torch.tensor([1.25]), sun=torch.tensor([2.0]))
    extractor = make({"size": ["size"]}, environment=(LIGHT, SUN))
    counts = DenseCounts.loss(extractor, labels.image, labels)
    extractor.tell = Said(said_at(CENTRES[:2], [[0.0], [0.0]]))
    extractor.judge = Said(torch.tensor([[0.5, math.cos(2.0), math.sin(2.0)]]))
    torch.testing.assert_close(extractor.loss(labels.image, labels, scenes), counts)
    extractor.judge = Said(torch.tensor([[0.5, math.cos(2.0), math.sin(2.0) + 0.6]]))
    torch.testing.assert_close(extractor.loss(labels.image, labels, scenes), counts + 0.36 / 3)
    extractor.tell = Said(said_at(CENTRES[:2], [[0.0], [1.0]]))
    torch.testing.assert_close(extractor.loss(labels.image, labels, scenes), counts + 0.36 / 3 + 1 / 2)
    assert torch.equal(extractor(labels.image)["environment"], extractor.judge.answer)


@pytest.mark.parametrize("settings", [{"attribute_blocks": {"turn": ["angle"]}}, {"environment": (LIGHT,)}])
def test_the_loss_needs_scenes_where_there_is_something_to_read(settings: dict[str, Any]) -> None:
    labels, _ = labelled([CAR], CENTRES[:1])
    with pytest.raises(UserError) as raised:
        make(**settings).loss(labels.image, labels)
    assert str(raised.value) == "DenseAttributes predicts parameters, so its loss needs the scenes that images show"


def test_places_on_the_image_need_no_scenes() -> None:
    labels, _ = labelled([CAR], CENTRES[:1])
    extractor = make({"place": ["column", "row"]})
    assert torch.equal(extractor.loss(labels.image, labels), DenseCounts.loss(extractor, labels.image, labels))


# --- errors ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"attribute_blocks": {"turn": ["angel"]}},
            "features.attribute_blocks: there is no attribute 'angel' to predict. Did you mean 'angle'? "
            "Available: angle, column, offset, row, size.",
        ),
        (
            {"attribute_blocks": {"turn": []}},
            "features.attribute_blocks: block 'turn' must name one or two attributes, not 0",
        ),
        (
            {"attribute_blocks": {"turn": ["angle"]}, "block_classes": {"turn": []}},
            "features.block_classes gives block 'turn' no class: name some, or leave it out for all of them",
        ),
        (
            {"attribute_blocks": {"turn": ["angle", "row", "size"]}},
            "features.attribute_blocks: block 'turn' must name one or two attributes, not 3",
        ),
        (
            {"attribute_blocks": {"turn": ["row", "row"]}},
            "features.attribute_blocks: block 'turn' names 'row' twice; name it once",
        ),
        (
            {"attribute_blocks": {"turn": ["angle"]}, "block_classes": {"turns": ["car"]}},
            "features.block_classes or per_slot names an unknown block 'turns'. Did you mean 'turn'? Available: turn.",
        ),
        (
            {"attribute_blocks": {"turn": ["angle"]}, "per_slot": ["spots"]},
            "features.block_classes or per_slot names an unknown block 'spots'. Available: turn.",
        ),
        (
            {"attribute_blocks": {"turn": ["angle"]}, "block_classes": {"turn": ["cars"]}},
            "features.block_classes names a class 'cars' that the world lacks. Did you mean 'car'? "
            "Available: car, road, tree.",
        ),
        (
            {"attribute_blocks": {"classes": ["angle"]}},
            "features.attribute_blocks makes a second block 'classes'; call 'classes' something else",
        ),
        (
            {"attribute_blocks": {"count": ["angle"]}, "per_slot": ["count"], "max_count": {"car": 3}},
            "features.attribute_blocks makes a second block 'count_car'; call 'count' something else",
        ),
        ({"bins": 0}, "DenseAttributes: bins must be at least 1, not 0"),
        ({"harmonics": 0}, "DenseAttributes: harmonics must be at least 1, not 0"),
        ({"lateral_bins": 0}, "DenseAttributes: lateral_bins must be at least 1, not 0"),
        (
            {"gap_blocks": {"gaps": ["size", "row"]}},
            "features.gap_blocks: gaps of block 'gaps' can be along column or row, not 'size'",
        ),
        (
            {"gap_blocks": {"gaps": ["row", "angle"]}},
            "features.gap_blocks: block 'gaps' names the angle 'angle', which can't be binned",
        ),
        (
            {"gap_blocks": {"gaps": ["colum"]}},
            "features.gap_blocks: there is no attribute 'colum' to predict. Did you mean 'column'? "
            "Available: angle, column, offset, row, size.",
        ),
        ({"gap_blocks": {"gaps": []}}, "features.gap_blocks: block 'gaps' must name one or two attributes, not 0"),
        (
            {"attribute_blocks": {"turn": ["angle"]}, "gap_blocks": {"turn": ["row"]}},
            "features.gap_blocks makes a second block 'turn'; call 'turn' something else",
        ),
    ],
)
def test_wrong_settings_say_what_is_possible(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        make(**settings)
    assert str(raised.value) == message


# --- gradients ---

EVERYTHING: dict[str, Any] = {
    "attribute_blocks": {
        "size": ["size"],
        "turn": ["angle"],
        "place": ["column", "row"],
        "spots": ["column", "offset"],
    },
    "gap_blocks": {"gaps": ["column", "size"], "rows": ["row", "column"]},
    "block_classes": {"spots": ["car"]},
    "per_slot": ["spots"],
    "parents_per_class": {"car": 2},
    "environment": (LIGHT, SUN),
    "max_count": 60,  # who has learned nothing yet expects an object in nearly every cell
}
BLOCKS = ("classes", "count", "size", "turn", "place", "spots_car_1", "spots_car_2", "gaps", "rows", "environment")


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_reach_images_from_each_block(block: str) -> None:
    images = noise(2, 1, 24, 32).requires_grad_()
    blocks = make(**EVERYTHING)(images)
    assert set(blocks) == set(BLOCKS)
    blocks[block].square().sum().backward()
    assert images.grad is not None and images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().sum(1) > 1e-6).all()


@pytest.mark.parametrize(
    ("block", "reached"), [("size", True), ("turn", True), ("spots_car_2", True), ("place", False)]
)
def test_gradients_reach_images_through_what_is_said_of_cells(block: str, reached: bool) -> None:
    """Not only through how much of an object there is; places of cells are what they are."""
    extractor, images = make(**EVERYTHING), noise(2, 1, 24, 32).requires_grad_()
    extractor.densities = lambda logits: torch.ones_like(logits[:, :-1]) + 0 * logits[:, :-1]
    extractor(images)[block].square().sum().backward()
    assert images.grad is not None
    assert ((images.grad.flatten(1).abs().sum(1) > 1e-6) == reached).all()


def test_the_loss_reaches_every_weight() -> None:
    labels, scenes = labelled(
        [ROAD, CAR, TREE, CAR], CENTRES, [-1, 0, -1, 0], size=[3.0] * 4, angle=[1.0] * 4, offset=[0.0, 0.5, 0.0, 0.2]
    )
    scenes = scenes.with_environment(light=torch.tensor([1.25]), sun=torch.tensor([2.0]))
    extractor = make(**EVERYTHING)
    extractor.loss(noise(1, 1, 24, 32), labels, scenes).backward()
    weights = dict(extractor.named_parameters())
    assert {name.split(".")[0] for name in weights} == {"trunk", "scan", "head", "tell", "judge"}
    assert [name for name, w in weights.items() if w.grad is None or not w.grad.abs().sum() > 0] == []


def test_there_are_no_weights_for_what_is_not_read() -> None:
    """They would have no gradient, which training on several devices takes for an error."""
    assert {name.split(".")[0] for name, _ in make({"place": ["row"]}).named_parameters()} == {"trunk", "head"}


# --- a turned digit ---

STEPS = 150


@pytest.fixture(scope="module")
def sevens() -> World:
    """One 7 in each scene, anywhere, turned anyhow."""
    grammar = Grammar("Scene -> 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9")
    prior = ListLengthPrior(weights={"Scene": [0.0] * 7 + [1.0] + [0.0] * 2})
    return World(grammar, prior, UniformPlacement(180), DigitCanvas(32, 14, rotation=True))


@pytest.fixture(scope="module")
def trained(sevens: World) -> DenseAttributes:
    torch.manual_seed(0)
    reads = {"turn": ["angle"], "columns": ["column"]}
    extractor = DenseAttributes(
        1, sevens.classes, sevens.mutable_attributes, attribute_blocks=reads, widths=(8, 16, 32)
    )
    optimizer = torch.optim.AdamW(extractor.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
    draw = rng(1)
    for _ in range(STEPS):
        scenes = sevens.sample_prior(32, draw)
        labels = sevens.renderer.render_labelled(scenes)
        optimizer.zero_grad()
        extractor.loss(labels.image, labels, scenes).backward()
        nn.utils.clip_grad_norm_(extractor.parameters(), 0.5)
        optimizer.step()
        schedule.step()
    return extractor.eval().requires_grad_(False)


def test_the_angle_of_a_digit_is_read(sevens: World, trained: DenseAttributes) -> None:
    """The mean cosine of the error is 0 for who guesses, and 1 for who knows."""
    scenes = sevens.sample_prior(300, rng(2))
    turn = trained(sevens.renderer.render(scenes))["turn"]
    true = scenes.attributes["angle"][:, 0]
    assert float((torch.atan2(turn[:, 1], turn[:, 0]) - true).cos().mean()) > 0.6
    assert float((torch.atan2(turn[:, 3], turn[:, 2]) - 2 * true).cos().mean()) > 0.6


def test_a_digit_that_is_moved_to_the_right_has_fewer_steps_beyond_it(sevens: World, trained: DenseAttributes) -> None:
    scenes = sevens.sample_prior(200, rng(3))
    totals, places = [], [0.1, 0.5, 0.9]
    for x in places:
        blocks = trained(sevens.renderer.render(scenes.with_attributes(x=torch.full_like(scenes.attributes["x"], x))))
        totals.append(blocks["columns"].sum(1))
        read = 1 - blocks["columns"].mean(1) / blocks["classes"].sum(1)
        assert float(read.mean()) == pytest.approx((7 + 18 * x) / 32, abs=0.06)
    assert float((totals[0] > totals[1]).float().mean()) > 0.9
    assert float((totals[1] > totals[2]).float().mean()) > 0.9


def test_the_gradient_of_the_columns_moves_digits_the_right_way(sevens: World, trained: DenseAttributes) -> None:
    """Through the image: 16 steps are passed on 32 pixels, and x = 1 is 18 pixels from x = 0, so -9 would be right."""
    scenes = sevens.sample_prior(600, rng(4))
    x = scenes.attributes["x"].clone().requires_grad_()
    trained(sevens.renderer.render(scenes.with_attributes(x=x)))["columns"].sum().backward()
    assert x.grad is not None
    assert -14 < float(x.grad.mean()) < -4  # of single images it is a guess: what is read jumps from pixel to pixel
