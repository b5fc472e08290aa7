"""Tests of the MultiMNIST world: digit sources, statistics of priors and target, layouts, labels pixel by pixel."""

import inspect
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest, chisquare, kstest
from torch import Tensor

from ms2.core.errors import UserError
from ms2.priors.parameters import ParameterPrior
from ms2.render.base import Rendering
from ms2.render.compositing.sprites import place_sprites
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.world import World
from ms2.worlds.multimnist.digits import load_digits
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import LinePlacement, RandomDigits, UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import INK_THRESHOLD, DigitCanvas

GRAMMAR = MultiMNIST()
SMALL = DigitCanvas(canvas_size=40, digit_size=12)
ROTATING = DigitCanvas(canvas_size=40, digit_size=12, rotation=True)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(rows: list[list[int]], **attributes: list[list[float]]) -> SceneBatch:
    """Scenes of digits in rows of equal length, -1 for an unused entry; what is not given stands in the middle."""
    classes = torch.tensor(rows).reshape(len(rows), -1)
    middle = {"x": 0.5, "y": 0.5, "angle": 0.0, "example": 0.0}
    filled = {name: torch.full(classes.shape, value) for name, value in middle.items()}
    given = {name: torch.tensor(values) for name, values in attributes.items()}
    return SceneBatch(classes, torch.full_like(classes, -1), filled | given)


def sample_prior(n: int, seed: int = 0, placement: ParameterPrior | None = None) -> SceneBatch:
    world = World(GRAMMAR, UniformDigits(6), placement or UniformPlacement(), SMALL)
    return world.sample_prior(n, rng(seed))


# --- images of digits ---


def test_sklearn_digits_are_sorted_by_class() -> None:
    from sklearn.datasets import load_digits as original

    digits, source = load_digits("sklearn", 8), original()
    assert digits.number.tolist() == torch.as_tensor(source.target).bincount().tolist()
    for digit in range(10):
        first, count = int(digits.first[digit]), int(digits.number[digit])
        expected = torch.as_tensor(source.images[source.target == digit], dtype=torch.float32) / 16
        torch.testing.assert_close(digits.images[first : first + count], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [6, 8, 28])
def test_resized_digits_keep_range_and_mean(side: int) -> None:
    small, original = load_digits("sklearn", side).images, load_digits("sklearn", 8).images
    assert small.shape == (1797, side, side)
    assert small.min() >= 0 and small.max() <= 1
    assert small.mean().item() == pytest.approx(original.mean().item(), rel=0.02)


@pytest.mark.parametrize("side", [3, 6, 20])
def test_digits_are_resized_as_pillow_does_it(side: int) -> None:
    """Bilinear, and without aliasing when they shrink."""
    small, original = load_digits("sklearn", side).images, load_digits("sklearn", 8).images
    for i in (0, 500, 1796):
        expected = Image.fromarray(original[i].numpy()).resize((side, side), Image.Resampling.BILINEAR)
        torch.testing.assert_close(small[i], torch.tensor(np.asarray(expected)), atol=1e-5, rtol=0)


def test_an_unknown_digit_source_suggests_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"no digit source 'sklern'. Did you mean 'sklearn'\? Available: mnist, sklearn"
    ):
        inspect.unwrap(load_digits)("sklern", 8)  # unwrapped, because type checks would refuse it first


def test_mnist_without_a_folder_says_what_to_give() -> None:
    with pytest.raises(UserError, match="set mnist_root"):
        DigitCanvas(source="mnist")


def test_missing_mnist_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        DigitCanvas(source="mnist", mnist_root=str(tmp_path))
    for part in (str(tmp_path / "MNIST" / "raw"), "train-images-idx3-ubyte", "download=True", "'sklearn'"):
        assert part in str(error.value)


def test_mnist_that_is_cut_or_missing_is_named_by_its_file(tmp_path: Path) -> None:
    labels = torch.arange(10)
    write_mnist(tmp_path, labels[:, None, None].expand(-1, 28, 28), labels)
    raw = tmp_path / "MNIST" / "raw"
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (raw / name).unlink()  # which are not used
    images, other = raw / "train-images-idx3-ubyte", raw / "train-labels-idx1-ubyte"
    assert load_digits("mnist", 8, str(tmp_path)).number.tolist() == [1] * 10
    whole, theirs = images.read_bytes(), other.read_bytes()

    def said(*patterns: str) -> None:
        load_digits.cache_clear()
        with pytest.raises(UserError) as error:
            load_digits("mnist", 8, str(tmp_path))
        assert all(re.search(pattern, str(error.value)) for pattern in patterns), error.value

    for content, pattern in (
        (
            whole[:-1],
            "images-idx3-ubyte is cut or damaged: it has 7855 bytes, where its head of 10 x 28 x 28 says 7856",
        ),
        (whole[:7], "images-idx3-ubyte is cut or damaged: it has 7 bytes"),
        (b"", "images-idx3-ubyte is no file of MNIST with 3 dimensions"),
        (theirs, "images-idx3-ubyte is no file of MNIST with 3 dimensions"),
        (whole + b"1", "it has 7857 bytes"),
        (whole[:7] + b"\t" + whole[8 : -28 * 28], "has 9 images, but 10 labels"),
    ):
        images.write_bytes(content)
        said(pattern)
    images.write_bytes(whole)
    other.write_bytes(theirs[:-1] + b"\x0b")
    said("labels-idx1-ubyte has a label 11")
    other.rename(other.with_name(f"{other.name}.gz"))
    said("lacks train-labels-idx1-ubyte; it has train-images-idx3-ubyte. Unpack train-labels-idx1-ubyte.gz with gunzip")


def write_mnist(root: Path, images: Tensor, labels: Tensor) -> None:
    """The two files that torchvision reads (both parts exist after a real download)."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    numbers = b"".join(n.to_bytes(4, "big") for n in images.shape)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + numbers + bytes(images.flatten().tolist()))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + numbers[:4] + bytes(labels.tolist()))


def test_mnist_is_read_from_mnist_root(tmp_path: Path) -> None:
    """A made-up MNIST in the real one's format: digit i is an image of intensity 10 i."""
    labels = torch.tensor([3, 1, 3, 0, 2, 4, 9, 8, 7, 6, 5])
    images = (10 * labels)[:, None, None].expand(-1, 28, 28)
    write_mnist(tmp_path, images, labels)
    canvas = DigitCanvas(canvas_size=32, digit_size=28, source="mnist", mnist_root=str(tmp_path))
    assert canvas.digits.number.tolist() == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    for digit in range(10):
        image = canvas.render(scenes([[digit]]))
        torch.testing.assert_close(image[0, 0, 2:30, 2:30], torch.full((28, 28), 10 * digit / 255), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 4, 5, 6, 7, 9], "has no image of the digits 3, 8, which MultiMNIST draws: give files with all ten"),
        ([5], "has no image of the digits 0, 1, 2, 3, 4, 6, 7, 8, 9, which"),
    ],
)
def test_digits_that_the_files_lack_are_named(tmp_path: Path, labels: list[int], message: str) -> None:
    """Never another digit under the label of one that is not there."""
    write_mnist(tmp_path, torch.zeros(len(labels), 28, 28, dtype=torch.long), torch.tensor(labels))
    with pytest.raises(UserError) as error:
        DigitCanvas(canvas_size=32, source="mnist", mnist_root=str(tmp_path))
    assert str(error.value).startswith(str(tmp_path / "MNIST" / "raw")) and message in str(error.value)


@pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA, the folder that holds MNIST/raw, is not set")
def test_real_mnist() -> None:
    digits = load_digits("mnist", 28, os.environ["MS2_DATA"])
    assert digits.images.shape == (60000, 28, 28)
    assert digits.number.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert digits.images.mean().item() == pytest.approx(0.1307, abs=1e-4)  # the mean that everyone normalises by


@pytest.mark.parametrize(
    ("digit", "message"),
    [
        (41, "a digit of 41 pixels does not fit onto a canvas of 40 pixels"),
        (0, "digit_size must be at least 1, not 0"),
        (-3, "digit_size must be at least 1, not -3"),
    ],
)
def test_a_digit_must_fit_onto_the_canvas(digit: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DigitCanvas(canvas_size=40, digit_size=digit)


def test_a_digit_may_fill_the_canvas() -> None:
    image = DigitCanvas(canvas_size=8, digit_size=8).render(scenes([[4]]))
    digits = load_digits("sklearn", 8)
    torch.testing.assert_close(image[0, 0], digits.images[digits.first[4]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("example", [0.0, 0.3, 0.999, 1.0])
def test_example_runs_through_the_images_of_the_class(example: float) -> None:
    canvas = DigitCanvas(canvas_size=8, digit_size=8)
    digits = canvas.digits
    for digit in (0, 7, 9):
        count = int(digits.number[digit])
        expected = digits.images[digits.first[digit] + min(int(example * count), count - 1)]
        image = canvas.render(scenes([[digit]], example=[[example]]))
        torch.testing.assert_close(image[0, 0], expected, atol=1e-5, rtol=0)


# --- statistics of prior and target ---


def counts_and_classes(prior: UniformDigits | RandomDigits, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """How often each number of digits occurs, and each class."""
    batch = scenes_from_derivations(GRAMMAR, prior.sample(GRAMMAR, n, rng(seed)))
    return batch.mask.sum(1).bincount(minlength=11), batch.counts(10).sum(0)


def expected_from(weights: Tensor, total: Tensor) -> Tensor:
    return weights.double() / weights.double().sum() * total.double()


def test_the_prior_is_uniform_in_numbers_and_classes() -> None:
    numbers, classes = counts_and_classes(UniformDigits(), 8000, seed=1)
    assert chisquare(numbers).pvalue > 1e-3
    assert chisquare(classes).pvalue > 1e-3


def drawn_weights(seed: int) -> tuple[Tensor, Tensor]:
    """What RandomDigits documents: squares of uniform draws for numbers, then uniform draws for classes."""
    generator = rng(seed)
    return torch.rand(11, generator=generator) ** 2, torch.rand(10, generator=generator)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_target_has_the_frequencies_of_its_weights(seed: int) -> None:
    numbers, classes = counts_and_classes(RandomDigits(seed), 8000, seed=2)
    number_weights, class_weights = drawn_weights(seed)
    assert chisquare(numbers, expected_from(number_weights, numbers.sum())).pvalue > 1e-3
    assert chisquare(classes, expected_from(class_weights, classes.sum())).pvalue > 1e-3


def test_the_target_knows_its_exact_probability() -> None:
    """p(T) = p(n) times the digits' class probabilities, and all scenes of at most 2 digits sum to p(n <= 2)."""
    prior = RandomDigits(seed=3)
    numbers, classes = (w / w.sum() for w in drawn_weights(3))
    rules = torch.tensor([d + (GRAMMAR.num_rules,) * (6 - len(d)) for d in GRAMMAR.enumerate_derivations(6)])
    assert len(rules) == 1 + 10 + 100
    batch = scenes_from_derivations(GRAMMAR, rules)
    expected = numbers[batch.mask.sum(1)] * torch.where(batch.mask, classes[batch.classes], 1).prod(1)
    torch.testing.assert_close(prior.log_prob(GRAMMAR, rules).exp(), expected, rtol=1e-4, atol=0)
    assert expected.sum().item() == pytest.approx(numbers[:3].sum().item(), rel=1e-4)


def test_target_seeds_reproduce_and_differ() -> None:
    tables = [(t.lengths, t.weights) for t in (RandomDigits(5), RandomDigits(5), RandomDigits(6))]
    assert tables[0] == tables[1] != tables[2]
    samples = [RandomDigits(5).sample(GRAMMAR, 50, rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(samples[0], samples[1])
    assert samples[0].shape != samples[2].shape or not torch.equal(samples[0], samples[2])


@pytest.mark.parametrize("most", [0, 1, 3])
def test_max_digits_bounds_the_number(most: int) -> None:
    for prior in (UniformDigits(most), RandomDigits(max_digits=most)):
        batch = scenes_from_derivations(GRAMMAR, prior.sample(GRAMMAR, 3000, rng()))
        assert batch.mask.sum(1).unique().tolist() == list(range(most + 1))


# --- layouts ---


def test_uniform_placement_is_uniform_and_upright() -> None:
    batch = sample_prior(600)
    for name in ("x", "y", "example"):
        assert kstest(batch.attributes[name][batch.mask].numpy(), "uniform").pvalue > 1e-3
    assert not batch.attributes["angle"].any()
    x, y = (batch.attributes[name][batch.mask] for name in "xy")
    assert abs(torch.corrcoef(torch.stack([x, y]))[0, 1].item()) < 5 / len(x) ** 0.5


def test_uniform_placement_turns_and_takes_a_range_of_images() -> None:
    batch = sample_prior(600, placement=UniformPlacement(max_angle=30, image_range=(0.25, 0.5)))
    angle, example = (batch.attributes[name][batch.mask].numpy() for name in ("angle", "example"))
    turn = torch.pi / 6
    assert kstest(angle, "uniform", args=(-turn, 2 * turn)).pvalue > 1e-3
    assert kstest(example, "uniform", args=(0.25, 0.25)).pvalue > 1e-3


def test_digits_at_the_bounds_touch_the_edges_from_inside() -> None:
    corners = scenes([[8]] * 4, x=[[0.0], [1.0], [0.0], [1.0]], y=[[0.0], [0.0], [1.0], [1.0]])
    image, middle = SMALL.render(corners)[:, 0], SMALL.render(scenes([[8]]))[0, 0, 14:26, 14:26]
    at = {0: (0, 0), 1: (28, 0), 2: (0, 28), 3: (28, 28)}
    for i, (left, top) in at.items():
        torch.testing.assert_close(image[i, top : top + 12, left : left + 12], middle, atol=1e-4, rtol=0)
        assert image[i].sum().item() == pytest.approx(middle.sum().item(), rel=1e-4)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_uniformly_placed_digits_lie_inside(seed: int) -> None:
    """None loses ink over the edge: each has as much as the image that it shows."""
    batch = sample_prior(4, seed)
    single = SceneBatch(batch.classes[batch.mask][:, None], batch.parents[batch.mask][:, None])
    single = single.with_attributes(**{k: v[batch.mask][:, None] for k, v in batch.attributes.items()})
    centred = single.with_attributes(x=torch.full((len(single), 1), 0.5), y=torch.full((len(single), 1), 0.5))
    ink, whole = SMALL.render(single).sum((1, 2, 3)), SMALL.render(centred).sum((1, 2, 3))
    torch.testing.assert_close(ink, whole, rtol=1e-3, atol=0)


@given(st.lists(st.integers(0, 10), min_size=1, max_size=6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_line_is_upright_evenly_spaced_and_in_the_middle(numbers: list[int], seed: int) -> None:
    rows = [[n % 10] * n + [-1] * (10 - n) for n in numbers]
    placed = LinePlacement(image_range=(0.2, 0.4)).sample(scenes(rows), rng(seed))
    for row, n in enumerate(numbers):
        x, y, angle, example = (placed.attributes[k][row, :n] for k in ("x", "y", "angle", "example"))
        assert ((x >= 0) & (x <= 1)).all()
        torch.testing.assert_close(x + x.flip(0), torch.ones(n))  # mirrored about the middle
        steps = x.diff()
        torch.testing.assert_close(steps, steps[:1].expand_as(steps))
        assert n < 2 or ((steps > 0).all() and x[0].item() == pytest.approx(steps[0].item() / 4, rel=1e-4))
        assert (y == 0.5).all() and (angle == 0).all()
        assert ((example >= 0.2) & (example < 0.4)).all()
    unused = placed.attributes["x"][~placed.mask]
    assert ((unused >= 0) & (unused <= 1)).all()


def test_the_line_is_seen_in_the_middle_of_the_image() -> None:
    """Three equal digits stand at the same height, equally far apart, the second in the middle."""
    canvas = DigitCanvas(canvas_size=62, digit_size=12)  # the free way is 50 = 2.5 steps of 20
    row = LinePlacement().sample(scenes([[0, 0, 0]]), rng())
    labels = canvas.render_labelled(row.with_attributes(example=torch.zeros(1, 3)))
    x0, y0, x1, y1 = labels.boxes[0].unbind(1)
    assert len(y0.unique()) == len(y1.unique()) == 1
    assert x0.diff().tolist() == x1.diff().tolist() == [20, 20]
    assert labels.image[0, 0, 25:37].sum().item() == pytest.approx(labels.image.sum().item(), rel=1e-5)
    assert ((x0 + x1) / 2)[1].item() == pytest.approx(31, abs=1)


def test_ten_digits_on_a_line_stand_side_by_side_on_a_canvas_as_wide_as_documented() -> None:
    canvas, digit = 256, 256 / 10.5
    x = LinePlacement().sample(scenes([[0] * 10]), rng()).attributes["x"][0]
    assert (x.diff() * (canvas - digit) >= digit - 1e-3).all()


# --- images and labels ---


def check_labels(canvas: DigitCanvas, batch: SceneBatch, labels: Rendering) -> None:
    """Compare labels with those from every digit drawn alone on a canvas."""
    for i in range(len(batch)):
        alone = {}
        for j in range(batch.classes.shape[1]):
            mask = torch.arange(batch.classes.shape[1]) == j
            one = SceneBatch(torch.where(mask, batch.classes[i], -1)[None], batch.parents[i][None])
            one = one.with_attributes(**{k: v[i][None] for k, v in batch.attributes.items()})
            if batch.classes[i, j] >= 0:
                alone[j] = canvas.render(one)[0, 0]
        check_scene(labels, i, alone)


def box_of(mask: Tensor) -> list[int]:
    rows, columns = mask.any(1).nonzero()[:, 0].tolist(), mask.any(0).nonzero()[:, 0].tolist()
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows else [0, 0, 0, 0]


def check_scene(labels: Rendering, i: int, alone: dict[int, Tensor]) -> None:
    """The labels of one scene against images of each of its digits."""
    instances, image = labels.instances[i], labels.image[i, 0]
    assert set(instances.unique().tolist()) <= {-1, *alone}
    assert ((instances >= 0) == (image >= INK_THRESHOLD)).all()
    for j, lone in alone.items():
        mask, seen = lone >= INK_THRESHOLD, instances == j
        assert (mask | ~seen).all()
        assert (lone[seen] == image[seen]).all()
        assert labels.boxes[i, j].tolist() == box_of(mask)
        assert labels.visible_boxes[i, j].tolist() == box_of(seen)
        assert labels.visibility[i, j].item() == pytest.approx(seen.sum().item() / mask.sum().item())
        if seen.any():
            (a0, b0, a1, b1), (x0, y0, x1, y1) = labels.visible_boxes[i, j].tolist(), labels.boxes[i, j].tolist()
            assert x0 <= a0 < a1 <= x1 and y0 <= b0 < b1 <= y1


@pytest.mark.parametrize("canvas", [SMALL, ROTATING], ids=["upright", "rotating"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=6, deadline=None)
def test_labels_match_digits_drawn_alone(canvas: DigitCanvas, seed: int) -> None:
    batch = sample_prior(5, seed, UniformPlacement(max_angle=180))
    labels = canvas.render_labelled(batch)
    check_labels(canvas, batch, labels)
    assert torch.equal(labels.classes, batch.classes)
    assert torch.equal(labels.image, canvas.render(batch))


def test_unused_entries_have_no_labels() -> None:
    batch = sample_prior(20, seed=3)
    labels = SMALL.render_labelled(batch)
    unused = ~batch.mask
    assert unused.any()
    assert not labels.boxes[unused].any() and not labels.visible_boxes[unused].any()
    assert not labels.visibility[unused].any()


def test_a_lone_digit_is_wholly_visible() -> None:
    batch = scenes([[d] for d in range(10)], x=[[d / 9] for d in range(10)])
    labels = SMALL.render_labelled(batch)
    assert labels.visibility.tolist() == [[1.0]] * 10
    assert torch.equal(labels.boxes, labels.visible_boxes)
    assert ((labels.boxes[..., 2:] - labels.boxes[..., :2]) > 2).all()


def test_of_two_identical_digits_at_one_place_only_one_is_seen() -> None:
    labels = SMALL.render_labelled(scenes([[3, -1, 3]]))
    hidden, seen = sorted((0, 2), key=lambda j: labels.visibility[0, j].item())
    assert labels.visibility[0, [hidden, seen]].tolist() == [0, 1]
    assert labels.visible_boxes[0, hidden].tolist() == [0, 0, 0, 0]
    assert torch.equal(labels.boxes[0, hidden], labels.boxes[0, seen])
    assert set(labels.instances.unique().tolist()) == {-1, seen}


def test_empty_scenes_give_black_images() -> None:
    for batch in (scenes([[-1, -1]] * 3), scenes([[-1]] * 3)):
        labels = SMALL.render_labelled(batch)
        assert labels.image.shape == (3, 1, 40, 40)
        assert not labels.image.any() and not SMALL.render(batch).any()
        assert (labels.instances == -1).all()


def test_a_batch_without_scenes_is_an_empty_batch() -> None:
    none = scenes([[5]])
    none = SceneBatch(none.classes[:0], none.parents[:0], {k: v[:0] for k, v in none.attributes.items()})
    assert SMALL.render(none).shape == (0, 1, 40, 40)
    assert SMALL.render_labelled(none).boxes.shape == (0, 1, 4)


def test_an_upright_canvas_does_not_read_the_angle() -> None:
    tilted = scenes([[4]], angle=[[0.7]])
    assert torch.equal(SMALL.render(tilted), SMALL.render(scenes([[4]])))
    assert not torch.allclose(ROTATING.render(tilted), ROTATING.render(scenes([[4]])), atol=0.1)
    assert [a.name for a in SMALL.attributes] == ["x", "y", "example"]
    assert [a.name for a in ROTATING.attributes] == ["x", "y", "angle", "example"]


def test_a_rotating_canvas_turns_counter_clockwise() -> None:
    upright, turned = (ROTATING.render(scenes([[4]], angle=[[a]]))[0, 0] for a in (0.0, torch.pi / 2))
    torch.testing.assert_close(turned, torch.rot90(upright), atol=1e-4, rtol=0)


def test_images_have_gradients_of_places() -> None:
    batch = scenes([[2, 6]], x=[[0.21, 0.83]], y=[[0.33, 0.64]], angle=[[0.3, -0.4]])
    inputs = {k: batch.attributes[k].clone().requires_grad_() for k in ("x", "y", "angle")}
    weight = torch.arange(40.0) * torch.arange(40.0)[:, None]
    (ROTATING.render(batch.with_attributes(**inputs)) * weight).sum().backward()
    assert all((value.grad.abs() > 1e-3).all() for value in inputs.values())


def test_digits_are_placed_where_attributes_say() -> None:
    """x and y run from the left and top edge; the digit's centre moves over canvas - digit pixels."""
    batch = scenes([[1, 5]], x=[[0.25, 0.9]], y=[[0.6, 0.1]], example=[[0.5, 0.0]])
    first, count = SMALL.digits.first[[1, 5]], SMALL.digits.number[[1, 5]]
    digits = SMALL.digits.images[first + torch.stack([count[0] // 2, torch.tensor(0)])]
    x, y = 6 + 28 * torch.tensor([0.25, 0.9]), 6 + 28 * torch.tensor([0.6, 0.1])
    sprites = place_sprites(digits, x, y, None, torch.tensor([0, 0]))
    expected = torch.zeros(40, 40)
    for values, left, top in zip(sprites.values, sprites.left, sprites.top, strict=True):
        window = expected[top : top + 13, left : left + 13]
        window.copy_(torch.maximum(window, values[: window.shape[0], : window.shape[1]]))
    torch.testing.assert_close(SMALL.render(batch)[0, 0], expected)


# --- rows of digits ---


def test_rows_have_even_gaps_and_reach_across_the_canvas():
    batch = sample_prior(400, placement=UniformPlacement(row_fraction=1.0))
    assert bool(((batch.attributes["x"] >= 0) & (batch.attributes["x"] <= 1)).all())
    across = 0
    for scene, number in enumerate(batch.mask.sum(1).tolist()):
        if number < 2:
            continue
        places = torch.stack([batch.attributes[name][scene, :number] for name in "xy"], 1)
        gaps = places.diff(dim=0)
        torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), atol=1e-5, rtol=0)
        span = (places[-1] - places[0]).abs()
        assert float(span.max()) > 0.4
        across += int(span[0] > span[1])
    assert 100 < across < 300


def test_as_many_scenes_have_rows_as_are_asked_for():
    plain, some = (sample_prior(3000, placement=UniformPlacement(row_fraction=share)) for share in (0.0, 0.25))
    moved = ((plain.attributes["x"] != some.attributes["x"]) & some.mask).any(1)
    there = some.mask.any(1)
    assert binomtest(int(moved.sum()), int(there.sum()), 0.25).pvalue > 1e-3
    with pytest.raises(UserError, match=r"row_fraction must be at most 1, not 1.5"):
        UniformPlacement(row_fraction=1.5)
