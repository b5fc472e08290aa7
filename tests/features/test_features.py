"""Tests of the trained extractors: blocks, independence of the batch, learning what they read, labels by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.registry import available
from ms2.features.base import CountError, CountSlots, TrainedExtractor, check_counts, class_counts
from ms2.features.dense import DenseCounts
from ms2.features.dense_attributes import DenseAttributes
from ms2.features.pretrained import PretrainedCounts
from ms2.features.resnet import Pooling, ResNet
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch

NARROW = (8, 16, 32)
C = 3
NAMES = ("0", "1", "2")
MAKE: dict[str, Callable[[], TrainedExtractor]] = {
    "ResNet": lambda: ResNet(1, NAMES, widths=NARROW),
    "ResNet, mean": lambda: ResNet(1, NAMES, widths=NARROW, pool="mean"),
    "ResNet, counts": lambda: ResNet(1, NAMES, widths=NARROW, pool="both", count_heads=True, max_count=4),
    "ResNet, counts alone": lambda: ResNet(
        1, NAMES, widths=NARROW, pool="both", presence_head=False, count_heads=True, max_count=4
    ),
    "DenseCounts": lambda: DenseCounts(1, NAMES, widths=NARROW, max_count=4),
    "DenseCounts, levels": lambda: DenseCounts(1, NAMES, widths=NARROW, max_count=4, pyramid_levels=2),
    "DenseCounts, strided": lambda: DenseCounts(
        1, NAMES, widths=(8, 16, 16), max_count=4, trunk="strided", total_weight=1.0
    ),
    "DenseAttributes": lambda: DenseAttributes(  # what needs no scenes; test_dense_attributes.py has the rest
        1,
        NAMES,
        attribute_blocks={"spots": ["row", "column"], "columns": ["column"]},
        bins=4,
        widths=NARROW,
        max_count=4,
    ),
    "PretrainedCounts": lambda: PretrainedCounts(
        1, NAMES, layers=["features.4", "features.7"], weights=None, width=32, max_count=4
    ),
}
BLOCKS = {
    "ResNet": {"embedding": 32},
    "ResNet, mean": {"embedding": 32},
    "ResNet, counts": {"embedding": 64, "count": 5, "count_0": 5, "count_1": 5, "count_2": 5},
    "ResNet, counts alone": {"embedding": 64, "count": 5, "count_0": 5, "count_1": 5, "count_2": 5},
    "DenseCounts": {"classes": 3, "count": 5},
    "DenseCounts, levels": {"classes": 3, "count": 5},
    "DenseCounts, strided": {"classes": 3, "count": 5},
    "DenseAttributes": {"classes": 3, "count": 5, "spots": 16, "columns": 4},
    "PretrainedCounts": {"classes": 3, "count": 5, "embedding": 256},
}
every_extractor = pytest.mark.parametrize("name", MAKE)


def make(name: str, seed: int = 0) -> TrainedExtractor:
    torch.manual_seed(seed)
    return MAKE[name]()


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def bare(image: Tensor, classes: Tensor, boxes: Tensor) -> Rendering:
    """Labels of classes and boxes alone."""
    none = torch.full((len(classes), *image.shape[2:]), -1)
    nobody, corners = torch.full_like(classes, -1), boxes.new_zeros(*classes.shape, 4, 2)
    return Rendering(image, classes, nobody, boxes, corners, boxes, none, (classes >= 0).float())


def shapes(rows: list[list[int]]) -> Rendering:
    """Scenes of squares, lying and standing bars (classes 0, 1 and 2), apart from one another."""
    classes = torch.tensor([[*row] + [-1] * (4 - len(row)) for row in rows])
    image, boxes = torch.zeros(len(rows), 1, 36, 36), torch.zeros(*classes.shape, 4)
    for i, row in enumerate(rows):
        for j, (x, y) in enumerate((2 + 8 * j, 3 + 8 * ((2 * i + 3 * j) % 4)) for j in range(len(row))):
            width, height = [(4, 4), (6, 2), (2, 6)][row[j]]
            image[i, 0, y : y + height, x : x + width] = 1
            boxes[i, j] = torch.tensor([x, y, x + width, y + height])
    return bare(image, classes, boxes)


def random_rows(n: int, seed: int) -> list[list[int]]:
    """Classes of up to four objects in each of n scenes."""
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(5, (n,), generator=draw).tolist()
    return [torch.randint(C, (size,), generator=draw).tolist() for size in sizes]


TINY = shapes([[0, 1, 2], [], [1, 1], [2], [0, 0, 0, 0], [2, 1]])


def labels_of(classes: list[list[int]], boxes: list[list[list[float]]] | None = None) -> Rendering:
    """Labels without pictures."""
    c = torch.tensor(classes)
    box = torch.zeros(*c.shape, 4) if boxes is None else torch.tensor(boxes).float()
    image = torch.zeros(len(c), 1, 16, 20)
    return bare(image, c, box)


# --- blocks ---


def test_every_trained_extractor_is_tried_here() -> None:
    ours = {n for n, cls in available("features").items() if issubclass(cls, TrainedExtractor) and "ms2." in str(cls)}
    assert ours - {"MixedCounts"} == {type(make(name)).__name__ for name in MAKE}, "test_mixed_counts.py has that one"


@every_extractor
@pytest.mark.parametrize("shape", [(1, 1, 36, 36), (5, 1, 36, 36), (2, 1, 17, 42)])
def test_blocks_have_declared_names_and_dimensions_for_any_batch(name: str, shape: tuple[int, ...]) -> None:
    blocks = make(name)(noise(*shape))
    assert {block: tuple(values.shape) for block, values in blocks.items()} == {
        block: (shape[0], dimension) for block, dimension in BLOCKS[name].items()
    }
    assert all(values.isfinite().all() for values in blocks.values())


@every_extractor
def test_extractors_take_colour(name: str) -> None:
    settings = {"weights": None, "width": 16} if name == "PretrainedCounts" else {"widths": NARROW}
    colour = type(MAKE[name]())(3, NAMES, **settings)
    first, second = noise(2, 3, 24, 24), noise(2, 3, 24, 24).flip(1)
    a, b = colour(first), colour(second)
    assert any(not torch.allclose(a[block], b[block], atol=1e-5) for block in a)


@every_extractor
def test_features_are_deterministic_and_the_same_in_training_and_evaluation(name: str) -> None:
    extractor, images = make(name), noise(3, 1, 36, 36)
    first = extractor.train()(images)
    for again in (extractor(images), extractor.eval()(images)):
        assert all(torch.equal(first[block], again[block]) for block in first)


@every_extractor
def test_features_of_an_image_do_not_depend_on_the_batch(name: str) -> None:
    extractor, images = make(name), TINY.image
    together = extractor(images)
    for i in range(len(images)):
        alone = extractor(images[i : i + 1])
        for block in together:
            torch.testing.assert_close(alone[block][0], together[block][i], atol=1e-4, rtol=1e-4)
    order = torch.randperm(len(images))
    reordered = extractor(images[order])
    for block in together:
        torch.testing.assert_close(reordered[block], together[block][order], atol=1e-5, rtol=1e-5)
    assert any((together[block][0] - together[block][4]).abs().max() > 1e-3 for block in together)


@pytest.mark.parametrize(
    ("pool", "expected"), [("mean", [2.5, 5.0]), ("max", [4.0, 8.0]), ("both", [2.5, 5.0, 4.0, 8.0])]
)
def test_maps_are_pooled_by_mean_and_maximum(pool: Literal["mean", "max", "both"], expected: list[float]) -> None:
    maps = torch.tensor([[[[1.0, 2], [3, 4]], [[2, 4], [6, 8]]]])
    assert Pooling(pool)(maps).tolist() == [expected]


@pytest.mark.parametrize(("strides", "cells"), [((2, 2, 1), 9), ((2, 2, 2), 5), ((1, 2, 1), 18)])
def test_strides_decide_how_wide_a_cell_is(strides: tuple[int, int, int], cells: int) -> None:
    trunk = ResNet(1, NAMES, widths=NARROW, strides=strides).embedding[0]
    assert trunk(noise(2, 1, 36, 36)).shape == (2, 32, cells, cells)


@pytest.mark.parametrize("name", ["ResNet", "ResNet, mean", "ResNet, counts"])
def test_embeddings_have_unit_variance_over_the_images_of_training(name: str) -> None:
    """By the running statistics of norms and embedding, as good as those of all images together."""
    extractor = make(name)
    training = [shapes(random_rows(16, seed)) for seed in range(60)]
    for labels in training:
        extractor.loss(labels.image, labels)
    embedding = extractor(torch.cat([labels.image for labels in training]))["embedding"].detach()
    constant = embedding.var(0) == 0
    assert constant.float().mean() < 0.3, "of units that are never active"
    torch.testing.assert_close(embedding.mean(0)[~constant], torch.zeros(int((~constant).sum())), atol=0.1, rtol=0)
    torch.testing.assert_close(embedding.var(0)[~constant], torch.ones(int((~constant).sum())), atol=0.25, rtol=0)
    extractor.calibrate(labels.image for labels in training)
    exact = extractor(torch.cat([labels.image for labels in training]))["embedding"].var(0)[~constant]
    torch.testing.assert_close(exact, torch.ones_like(exact), atol=1e-3, rtol=0)


def test_an_extractor_without_heads_is_refused() -> None:
    with pytest.raises(UserError, match=r"set features\.presence_head or features\.count_heads"):
        ResNet(1, NAMES, presence_head=False)


def test_the_paper_counts_without_presence() -> None:
    """As for Aerial 2D: the loss is that of counts alone, and classes without a head have no number."""
    both, counts = make("ResNet, counts"), make("ResNet, counts alone")
    assert both.heads[-1].out_features == counts.heads[-1].out_features + C
    assert counts.predict_counts(TINY.image).presence is None
    assert counts.loss(TINY.image, TINY).item() == pytest.approx(torch.tensor(5.0).log().item(), abs=0.15)
    some = ResNet(1, NAMES, NARROW, presence_head=False, count_heads=True, max_count={"1": 4})
    found = some.predict_counts(TINY.image).counts
    assert found is not None and found.isnan().all(0).tolist() == [True, False, True]


def test_count_blocks_of_the_resnet_are_probabilities() -> None:
    blocks = make("ResNet, counts")(TINY.image)
    for block in ("count", "count_0", "count_1", "count_2"):
        assert (blocks[block] > 0).all()
        torch.testing.assert_close(blocks[block].sum(1), torch.ones(6))


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_dense_blocks_are_expected_counts_and_their_bump(weight: float) -> None:
    extractor = DenseCounts(1, NAMES, widths=NARROW, background_weight=weight, max_count=4, count_kernel_std=0.7)
    images = noise(2, 1, 16, 20)
    probability = extractor._logits(images).softmax(1) / torch.tensor([1, 1, 1, weight]).view(-1, 1, 1)
    probability = probability / probability.sum(1, keepdim=True)
    assert probability.shape == (2, C + 1, 4, 5)  # cells of 4 x 4 pixels
    blocks = extractor(images)
    torch.testing.assert_close(blocks["classes"], probability[:, :C].sum((2, 3)))
    total = blocks["classes"].sum(1).clamp(max=4)
    for k in range(5):
        expected = torch.exp(-0.5 * ((total - k) / 0.7) ** 2)
        torch.testing.assert_close(blocks["count"][:, k], expected)


@pytest.mark.parametrize("weight", [0.05, 0.2, 1.0])
def test_expected_counts_are_unbiased_whatever_the_weight_of_empty_cells(weight: float) -> None:
    """An extractor that knows only how frequent classes are is at its optimum where it expects the true mean."""
    extractor = DenseCounts(1, NAMES, widths=NARROW, background_weight=weight, max_count=4)
    counts, cells = class_counts(TINY, C), 9 * 9
    frequency = counts.float().mean(0) / cells
    every = torch.cat([frequency, 1 - frequency.sum(0, keepdim=True)])
    with torch.no_grad():
        extractor.head.weight.zero_()
        extractor.head.bias.copy_((every * torch.tensor([1, 1, 1, weight])).log())
    extractor.loss(TINY.image, TINY).backward()
    torch.testing.assert_close(extractor.head.bias.grad, torch.zeros(C + 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(extractor.expected_counts(TINY.image).mean(0), counts.float().mean(0))


def test_near_counts_are_near_and_far_ones_equally_far() -> None:
    """The block 'count' of whole numbers of objects, made by an extractor that sees them by construction."""

    class Exact(DenseCounts, selectable=False):
        def expected_counts(self, images: Tensor) -> Tensor:
            return F.pad(images.flatten(1).sum(1, keepdim=True), (0, C - 1))

    count = Exact(1, NAMES, widths=NARROW, max_count=9)(torch.arange(10.0).view(-1, 1, 1, 1))["count"]
    torch.testing.assert_close(count, torch.eye(10), atol=0.05, rtol=0)
    distance = torch.cdist(count, count)
    assert distance[2, 3] < 0.99 * distance[2, 4]
    assert distance[1, 5].item() == pytest.approx(distance[2, 8].item(), rel=1e-3)


# --- learning ---


@every_extractor
def test_gradient_reaches_every_parameter(name: str) -> None:
    extractor = make(name)
    extractor.loss(TINY.image, TINY).backward()
    trained = [(n, p) for n, p in extractor.named_parameters() if p.requires_grad]
    missing = [n for n, p in trained if p.grad is None or not p.grad.abs().sum() > 1e-7]
    assert missing == []


@every_extractor
def test_features_have_gradients_of_images(name: str) -> None:
    """What learning of parameters through a differentiable renderer needs."""
    extractor, images = make(name), TINY.image.clone().requires_grad_()
    sum(block.square().sum() for block in extractor(images).values()).backward()
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()


def least_loss(extractor: TrainedExtractor) -> float:
    """What no extractor can go below: the weighted entropy of targets that are shared between cells."""
    if not isinstance(extractor, DenseCounts):
        return 0.0
    rows, columns = extractor._logits(TINY.image).shape[2:]
    target = extractor._cell_targets(extractor._cells(TINY, rows, columns), rows, columns)
    weighted = target * extractor.weights.view(1, -1, 1, 1)
    best = weighted / weighted.sum(1, keepdim=True)
    return float(-torch.xlogy(weighted, best).sum(1).mean())


@every_extractor
def test_a_tiny_batch_is_learned_by_heart_and_read_back(name: str) -> None:
    extractor = make(name)
    optimiser = torch.optim.Adam(extractor.parameters(), lr=1e-2)
    first = loss = extractor.loss(TINY.image, TINY)
    least = least_loss(extractor)
    for _ in range(300):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss = extractor.loss(TINY.image, TINY)
        if loss - least < 0.002 * first:
            break
    assert loss - least < 0.002 * first
    for _ in range(250):  # running statistics catch up
        extractor.loss(TINY.image, TINY)
    reading, counts = extractor.predict_counts(TINY.image), class_counts(TINY, C)
    assert reading.presence is None or torch.equal(reading.presence, counts > 0)
    assert (reading.presence is None) == (name == "ResNet, counts alone")
    if name in ("ResNet", "ResNet, mean"):
        assert reading.counts is None and reading.total is None
    else:
        torch.testing.assert_close(reading.counts, counts.float(), atol=0.6, rtol=0)
        torch.testing.assert_close(reading.total, counts.sum(1).float(), atol=0.6, rtol=0)


def test_the_untrained_loss_is_about_that_of_guessing() -> None:
    """Presence: log 2 per class. Counts: the logarithm of 5 numbers, for each class and for all."""
    presence = make("ResNet").loss(TINY.image, TINY).item()
    counts = make("ResNet, counts").loss(TINY.image, TINY).item()
    assert presence == pytest.approx(torch.tensor(2.0).log().item(), abs=0.1)
    assert counts == pytest.approx(torch.tensor(10.0).log().item(), abs=0.2)


def test_the_losses_are_cross_entropies_of_what_is_read() -> None:
    extractor, counts = make("ResNet, counts"), class_counts(TINY, C)
    for _ in range(500):  # afterwards the running statistics are those of this batch, up to Bessel's correction
        extractor.loss(TINY.image, TINY)
    n = len(TINY.image)
    extractor.embedding[2].variance.mul_((n - 1) / n)
    blocks = extractor(TINY.image)
    every = torch.cat([counts, counts.sum(1, keepdim=True)], 1)
    p = torch.stack([blocks[b] for b in ("count_0", "count_1", "count_2", "count")], 1)
    count_loss = -p.gather(2, every[..., None]).log().mean()
    logits = extractor.heads(blocks["embedding"])[:, :C]
    presence = torch.where(counts > 0, logits.sigmoid(), 1 - logits.sigmoid())
    torch.testing.assert_close(extractor.loss(TINY.image, TINY), count_loss - presence.log().mean(), atol=1e-3, rtol=0)


# --- labels ---


def cells_of(labels: Rendering, rows: int = 4, columns: int = 5, **settings: Any) -> Tensor:
    extractor = DenseCounts(1, NAMES, widths=NARROW, **settings)
    return extractor._cell_targets(extractor._cells(labels, rows, columns), rows, columns)


@pytest.mark.parametrize(("pyramid_levels", "sees"), [(0, False), (3, True)])
def test_coarser_levels_let_a_cell_see_what_is_far(pyramid_levels: int, sees: bool) -> None:
    """A cell of the plain trunk sees 17 pixels to either side."""
    extractor = DenseCounts(1, NAMES, widths=NARROW, pyramid_levels=pyramid_levels)
    images = torch.rand(1, 1, 96, 97, generator=torch.Generator().manual_seed(0), requires_grad=True)
    extractor._logits(images)[0, :, 12, 12].sum().backward()
    assert images.grad is not None
    far = images.grad[0, 0, 52, 80:]
    assert bool(far.any()) is sees
    assert bool(images.grad[0, 0, 52, 60].any())


def test_levels_are_not_fewer_than_none() -> None:
    with pytest.raises(UserError, match="pyramid_levels"):
        DenseCounts(1, NAMES, pyramid_levels=-1)


def test_an_object_in_the_middle_of_a_cell_is_in_that_cell_alone() -> None:
    cells = cells_of(labels_of([[1]], [[[8, 4, 12, 8]]]))  # centre (10, 6), the middle of row 1, column 2
    expected = torch.zeros(1, C + 1, 4, 5)
    expected[:, C] = 1
    expected[0, :, 1, 2] = torch.tensor([0.0, 1, 0, 0])
    assert torch.equal(cells, expected)


def test_an_object_between_cells_is_shared_bilinearly() -> None:
    cells = cells_of(labels_of([[2]], [[[8, 4, 14, 10]]]))  # centre (11, 7): a quarter of a cell right and down
    torch.testing.assert_close(cells[0, 2, 1:3, 2:4], torch.tensor([[9.0, 3.0], [3.0, 1.0]]) / 16)
    torch.testing.assert_close(cells.sum(1), torch.ones(1, 4, 5))


@given(st.tuples(st.floats(0, 20), st.floats(0, 16)), st.sampled_from([(2, 2, 1), (2, 1, 1), (2, 2, 2)]))
@settings(max_examples=50, deadline=None)
def test_a_lone_object_weighs_one_wherever_it_lies(centre: tuple[float, float], strides: tuple[int, int, int]) -> None:
    """Also at and over the edge of the canvas."""
    (x, y), cell = centre, strides[0] * strides[1] * strides[2]
    cells = cells_of(
        labels_of([[1]], [[[x - 2, y - 3, x + 2, y + 3]]]), -(-16 // cell), -(-20 // cell), strides=strides
    )
    torch.testing.assert_close(cells.sum((2, 3))[0, :C], torch.tensor([0.0, 1.0, 0.0]))


def test_a_cell_holds_no_more_than_one_object() -> None:
    box = [4.0, 4.0, 8.0, 8.0]
    cells = cells_of(labels_of([[0, 1, 1]], [[box, box, box]]))
    torch.testing.assert_close(cells[0, :, 1, 1], torch.tensor([1.0, 2.0, 0.0, 0.0]) / 3)


def test_objects_without_a_pixel_on_the_canvas_have_no_cell() -> None:
    """Their box is all zeros, which is no place."""
    cells = cells_of(labels_of([[1, 2]], [[[0, 0, 0, 0], [8, 8, 12, 12]]]))
    assert cells[0, :C].sum() == cells[0, 2, 2, 2] == 1


@given(st.lists(st.lists(st.integers(-1, 4), min_size=6, max_size=6), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_class_counts_are_those_of_the_scenes(rows: list[list[int]]) -> None:
    classes = torch.tensor(rows)
    counts = class_counts(labels_of(rows), 5)
    assert torch.equal(counts, SceneBatch(classes, classes).counts(5))
    assert counts.tolist() == [[row.count(c) for c in range(5)] for row in rows]


@pytest.mark.parametrize("name", ["ResNet, counts", "DenseCounts"])
def test_more_objects_than_places_say_what_to_raise(name: str) -> None:
    labels = labels_of([[0, 1, 2, 0, 1, 2], [0, -1, -1, -1, -1, -1]])
    message = (
        "an image of the prior holds 6 objects, but the extractor counts only to 4: "
        "raise features.max_count to at least 6"
    )
    with pytest.raises(CountError) as error:
        make(name).check_numbers(labels.classes, labels.parents, labels.classes >= 0)
    assert str(error.value) == message


def test_as_many_objects_as_places_are_right() -> None:
    check_counts(torch.tensor([[4, 0]]), 4, "objects")
    check_counts(torch.zeros(0, 3, dtype=torch.long), 4, "objects")
    with pytest.raises(CountError, match=r"holds 5 cars, but the extractor counts only to 4: .* to at least 5"):
        check_counts(torch.tensor([[1, 5]]), 4, "cars")


# --- slots: whose an object is ---

OWNED = (
    torch.tensor([[0, 1, 1, 0, 1, 2], [0, 0, 1, 2, -1, -1]]),
    torch.tensor([[-1, 0, 0, -1, 3, -1], [-1, -1, 1, -1, -1, -1]]),
)
"""Classes and parents: roads (0), their cars (1), and houses (2)."""


def test_slots_tell_whose_an_object_is() -> None:
    slots = CountSlots(["road", "car", "house"], {"car": 2})
    assert slots.names == ["road", "car_1", "car_2", "house"] and slots.class_ids == [0, 1, 1, 2]
    assert slots.assign(*OWNED).tolist() == [[0, 1, 1, 0, 2, 3], [0, 0, 2, 3, -1, -1]]
    assert slots.counts(*OWNED).tolist() == [[2, 2, 1, 1], [2, 0, 1, 1]]


def test_slots_without_parents_are_classes() -> None:
    slots = CountSlots(["road", "car", "house"])
    assert slots.names == ["road", "car", "house"]
    assert slots.assign(*OWNED).equal(OWNED[0])


@given(st.lists(st.lists(st.integers(-1, 2), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(0, 99))
def test_slots_agree_with_counting_one_by_one(rows: list[list[int]], seed: int) -> None:
    classes = torch.tensor(rows)
    generator = torch.Generator().manual_seed(seed)
    parents = torch.stack([torch.randint(-1, max(1, i), (len(rows),), generator=generator) for i in range(6)], 1)
    parents = torch.where(classes.gather(1, parents.clamp(min=0)) >= 0, parents, -1)
    slots = CountSlots(["a", "b", "c"], {"b": 6})
    found = slots.assign(classes, parents)
    for row, above, got in zip(rows, parents.tolist(), found.tolist(), strict=True):
        for i, kind in enumerate(row):
            rank = sum(row[j] == row[above[i]] for j in range(above[i])) if above[i] >= 0 else 0
            assert got[i] == {-1: -1, 0: 0, 1: 1 + rank, 2: 7}[kind]


def test_more_parents_than_are_told_apart() -> None:
    classes, parents = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[-1, -1, -1, 2]])
    with pytest.raises(
        CountError, match=r"class 'car' whose parent is number 3, but only 2 .* raise features\.parents_per_class"
    ):
        CountSlots(["road", "car"], {"car": 2}).check(classes, parents)
    CountSlots(["road", "car"], {"car": 2}).check(classes, parents, classes == 0)  # the car is hidden
    assert CountSlots(["road", "car"], {"car": 2}).assign(classes, parents).tolist() == [[0, 0, 0, -1]]


@pytest.mark.parametrize("what", ["parents_per_class", "max_count"])
def test_settings_for_a_class_that_is_not_there(what: str) -> None:
    with pytest.raises(
        UserError, match=rf"features\.{what} names a class 'cars' that the world lacks. Did you mean 'car'"
    ):
        DenseCounts(1, ["road", "car"], widths=NARROW, **{what: {"cars": 3}})
    if what == "max_count":
        with pytest.raises(UserError, match="Did you mean 'car'"):
            ResNet(1, ["road", "car"], widths=NARROW, count_heads=True, max_count={"cars": 3})


def test_counts_by_class_and_by_parent_are_blocks() -> None:
    extractor = DenseCounts(
        1, ["road", "car", "house"], NARROW, max_count={"road": 3, "car": 5}, parents_per_class={"car": 2}
    )
    blocks = extractor(noise(2, 1, 36, 36))
    assert {name: block.shape[1] for name, block in blocks.items()} == {
        "classes": 3, "count_road": 4, "count_car_1": 6, "count_car_2": 6
    }  # fmt: skip
    heads = ResNet(1, ["road", "car", "house"], NARROW, count_heads=True, max_count={"road": 3, "car": 5})
    assert {name: block.shape[1] for name, block in heads(noise(2, 1, 36, 36)).items()} == {
        "embedding": 32, "count_road": 4, "count_car": 6
    }  # fmt: skip


def test_an_extractor_says_what_lies_beyond_its_blocks() -> None:
    class Exact(DenseCounts, selectable=False):
        def expected_counts(self, images: Tensor) -> Tensor:
            return images.flatten(1)

    extractor = Exact(1, ["a", "b"], widths=NARROW, max_count={"a": 2, "b": 9})
    counts = torch.tensor([[1.0, 1], [2.4, 1], [2.6, 1], [3, 9]]).view(4, 1, 1, 2)
    assert extractor.overflow_fraction(counts) == {"count_a": 0.5, "count_b": 0.0}
    assert make("ResNet").overflow_fraction(TINY.image) == {}


def stripes(n: int, seed: int) -> Rendering:
    """One or two bright bars across 40 x 40 pixels, each with up to three dots: class 0, and class 1 on it."""
    draw = torch.Generator().manual_seed(seed)
    image = 0.1 * torch.rand(n, 1, 40, 40, generator=draw)
    classes, parents = torch.full((n, 8), -1), torch.full((n, 8), -1)
    boxes = torch.zeros(n, 8, 4)
    for i in range(n):
        place = 0
        for top in torch.randperm(4, generator=draw)[: 1 + i % 2].sort().values.tolist():
            image[i, 0, 10 * top + 1 : 10 * top + 9] += 0.4
            bar, classes[i, place] = place, 0
            boxes[i, place] = torch.tensor([0, 10 * top + 1, 40, 10 * top + 9])
            columns = torch.randperm(5, generator=draw)[: int(torch.randint(4, (1,), generator=draw))]
            for x in columns.tolist():
                place += 1
                classes[i, place], parents[i, place] = 1, bar
                box = torch.tensor([8 * x + 2, 10 * top + 3, 8 * x + 6, 10 * top + 7])
                boxes[i, place] = box
                image[i, 0, box[1] : box[3], box[0] : box[2]] += 0.4
            place += 1
    labels = bare(image, classes, boxes)
    return replace(labels, parents=parents)


def test_low_doubts_add_up_to_nothing() -> None:
    """Of a class of which one has to be sure, and whole objects count as before, also where cells share them."""
    slots = {"max_count": 4, "parents_per_class": {"0": 2}}
    plain, model = DenseCounts(1, NAMES, **slots), DenseCounts(1, NAMES, **slots, count_threshold={"0": 0.5})
    mass = torch.zeros(3, 5, 8, 16)
    mass[0, :4] = 0.02  # a little everywhere: 2.6 objects
    mass[1, 0, 3, 4:6], mass[1, 0, 6, 12] = 0.499, 0.998  # two objects, one of them between two cells
    mass[2, 1, 2, 2], mass[2, 2, 6, 9] = 0.5, 0.5  # doubtful ones
    mass[:, 4] = 1 - mass[:, :4].sum(1)
    logits = mass.clamp(min=1e-30).log() + plain.weights.log()
    torch.testing.assert_close(plain.densities(logits), mass[:, :4])
    found, before = (extractor.densities(logits).sum((2, 3)) for extractor in (model, plain))
    assert model.slots.names == ["0_1", "0_2", "1", "2"]
    torch.testing.assert_close(found[:, 2:], before[:, 2:])
    assert before[0, 0] == pytest.approx(2.56) and (found[0, :2] < 0.15).all()
    assert found[1, 0] > 1.97 and found[2, 1] == pytest.approx(0.25)


def test_a_dense_extractor_learns_whose_an_object_is() -> None:
    """Which bar a dot is on shows in the rows above it, at any distance."""
    torch.manual_seed(0)
    extractor = DenseCounts(
        1, ["bar", "dot"], (8, 16, 16), max_count={"bar": 2, "dot": 5}, parents_per_class={"dot": 2}
    )
    optimizer = torch.optim.AdamW(extractor.parameters(), 6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=300)
    for step in range(300):
        labels = stripes(16, step)
        optimizer.zero_grad()
        extractor.loss(labels.image, labels).backward()
        optimizer.step()
        schedule.step()
    fresh = stripes(64, 1000)
    truth = extractor.slots.counts(fresh.classes, fresh.parents)
    with torch.no_grad():
        read = extractor.predict_counts(fresh.image).slots
    assert read is not None
    assert float((read - truth).abs().mean()) < 0.2


def test_the_error_of_the_number_of_objects_adds_to_the_loss_what_its_weight_says() -> None:
    images = torch.rand(2, 1, 16, 16)
    boxes = torch.tensor([[[2.0, 2, 6, 6], [9, 9, 13, 13]], [[4, 4, 8, 8], [0, 0, 0, 0]]])
    labels = bare(images, torch.tensor([[0, 1], [2, -1]]), boxes)
    torch.manual_seed(0)
    model = DenseCounts(1, NAMES, widths=NARROW)
    plain = model.loss(images, labels)
    model.total_weight = 3.0
    error = (model.expected_counts(images).sum(1) - torch.tensor([2.0, 1.0])).abs()
    expected = torch.where(error < 1, 0.5 * error**2, error - 0.5).mean() * 3 / 16
    assert torch.allclose(model.loss(images, labels) - plain, expected, atol=1e-5)


def test_counts_are_averaged_over_the_image_and_its_shift_by_half_a_cell() -> None:
    torch.manual_seed(0)
    images, model = torch.rand(2, 1, 16, 16), DenseCounts(1, NAMES, widths=NARROW)
    plain, moved = model.expected_counts(images), model.expected_counts(torch.nn.functional.pad(images, (2, 0, 2, 0)))
    model.half_cell_shift = True
    assert torch.allclose(model.expected_counts(images), (plain + moved) / 2)
