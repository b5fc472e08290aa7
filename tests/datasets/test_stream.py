"""Samples made while training: those of a written set, whoever makes them."""

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_datasets import small
from torch.utils.data import DataLoader

import ms2
from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.datasets.formats.native import GeneratedSet, label_annotations
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.labelled_set import Example, collate, stack_annotations
from ms2.datasets.labels import LabelArrays, LabelError, LabelFilter, categories_of, image_labels
from ms2.datasets.plan import Plan
from ms2.datasets.stream import LabelledStream, block_annotations
from ms2.models.opened_mixture import Opened, open_models
from ms2.models.scene_model import SceneModel

SETTINGS = ["--world.renderer.canvas_size=24", "--world.renderer.digit_size=9"]
NUMBER, SEED = 70, 5
"""Samples of more than two blocks."""


@pytest.fixture(scope="module")
def opened() -> Opened:
    return open_models(["multimnist"], arguments=SETTINGS)


@pytest.fixture(scope="module")
def written(opened: Opened, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    assert generate(Job(opened, Plan(NUMBER, SEED, conditions=("3 <= 2",)), folder), progress=False)
    return folder


def stream_of(opened: Opened, **settings: object) -> LabelledStream:
    given = {"seed": SEED, "num_samples": NUMBER, "conditions": ["3 <= 2"]} | settings
    return LabelledStream(opened, **given)  # type: ignore[arg-type]


def numbers(samples: Sequence[Example]) -> list[int]:
    return [int(annotations["image_id"]) for _, annotations in samples]


def assert_equal(one: Example, other: Example) -> None:
    """Compare images and all annotations but the number, which files do not have."""
    assert torch.equal(one[0], other[0])
    assert one[1].keys() - {"image_id"} == other[1].keys() - {"image_id"}
    for name in other[1].keys() - {"image_id"}:
        assert torch.equal(one[1][name], other[1][name]), name


@pytest.mark.parametrize("settings", [{}, {"masks": True, "amodal": True}])
def test_samples_are_those_of_a_written_set(opened: Opened, written: Path, settings: dict[str, bool]) -> None:
    samples, files = list(stream_of(opened, **settings)), GeneratedSet(written, **settings)
    assert numbers(samples) == list(range(NUMBER))
    for sample, file in zip(samples, files, strict=True):
        assert_equal(sample, file)


@pytest.mark.parametrize("context", ["fork", "pickled"])
def test_workers_share_the_samples(opened: Opened, context: str) -> None:
    """Of two workers, one makes the first and the third block, the other the second; pickled as for a new process."""
    alone, stream = list(stream_of(opened)), stream_of(opened)
    if context == "pickled":
        stream = pickle.loads(pickle.dumps(stream))
        assert stream.source is not opened
    loader = DataLoader(stream, 8, collate_fn=collate, num_workers=2, multiprocessing_context="fork")
    samples = [(image, found) for images, rows in loader for image, found in zip(images, rows, strict=True)]
    assert sorted(numbers(samples)) == list(range(NUMBER))
    assert numbers(samples)[:16] == [*range(8), *range(32, 40)]
    for sample in samples:
        assert_equal(sample, alone[int(sample[1]["image_id"])])


def test_processes_share_the_samples(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in range(3):
        monkeypatch.setitem(os.environ, "RANK", str(rank))
        monkeypatch.setitem(os.environ, "WORLD_SIZE", "3")
        found.append(numbers(list(stream_of(opened))))
    assert found == [list(range(32)), list(range(32, 64)), list(range(64, NUMBER))]


def test_a_stream_has_no_end_by_default_and_can_be_taken_up_in_the_middle(opened: Opened) -> None:
    alone = list(stream_of(opened))
    later = stream_of(opened, num_samples=None, start=40)
    samples = [sample for _, sample in zip(range(NUMBER), later, strict=False)]
    assert numbers(samples) == list(range(40, 40 + NUMBER))
    assert_equal(samples[0], alone[40])
    assert numbers(list(stream_of(opened, num_samples=3, start=31))) == [31, 32, 33]


def test_worlds_models_and_names_are_streamed(opened: Opened) -> None:
    first = next(iter(stream_of(opened, conditions=[])))
    for source in (opened.model.world, SceneModel(opened.model.world), opened.model):
        assert_equal(next(iter(ms2.stream(source, seed=SEED, device="cpu"))), first)
    named = ms2.stream("multimnist", classes=["7", "1"], conditions="7 >= 1", device="cpu")
    assert named.categories == ("1", "7")  # in the world's order
    image, annotations = next(iter(named))
    assert image.shape == (3, 128, 128) and 2 in annotations["labels"]


def test_annotations_of_a_block_are_those_of_each_image() -> None:
    """Streets have hidden and truncated objects, and objects of several classes."""
    world = small("driving3d").model.world
    rendering = world.renderer.render_labelled(world.sample_prior(6, generator(0, "block")))
    label_filter = LabelFilter(categories_of(world, ["car", "tree"]), 0.3, 20)
    for masks, amodal in ((False, True), (True, False)):
        found = block_annotations(rendering, world.classes, label_filter, masks, amodal, check_all=True)
        size = world.renderer.size if masks else None
        for i, (image, annotations) in enumerate(zip(rendering.image, found, strict=True)):
            labels, hidden = image_labels(LabelArrays.from_rendering(rendering), i, world.classes, label_filter)
            expected = label_annotations(labels, hidden, label_filter.categories, amodal, size)
            pixels = (image * 255).to(torch.uint8)
            assert_equal((pixels, annotations), (pixels, stack_annotations(pixels, expected, masks)))
    assert sum(len(one["regions"]) for one in found) > 0 < sum(len(one["boxes"]) for one in found)


FAULTS: dict[str, Callable[[Any], object]] = {
    "a pixel of no object": lambda labels: labels.instances[1, 0, :1].fill_(labels.classes.shape[1]),
    "a pixel of an unused entry": lambda labels: labels.classes[1].fill_(-1),
    "a box of an invisible object": lambda labels: labels.instances[1].fill_(-1),
    "a box that is too small": lambda labels: labels.visible_boxes[1, :, 2].copy_(labels.visible_boxes[1, :, 0]),
    "a whole object smaller than its part": lambda labels: labels.boxes[1, :, 2].copy_(labels.boxes[1, :, 0]),
    "no number": lambda labels: labels.visibility[1].fill_(torch.nan),
    "more than all is visible": lambda labels: labels.visibility[1].fill_(1.5),
    "pixels of what cannot be seen": lambda labels: labels.visibility[1].fill_(0),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_labels_that_contradict_pixels_are_refused(opened: Opened, fault: Callable[[Any], object]) -> None:
    """Also where not all images are checked pixel by pixel, as `image_labels` does."""
    world = opened.model.world
    rendering = world.renderer.render_labelled(world.sample_prior(4, generator(3, "faults")))
    label_filter = LabelFilter(categories_of(world), 0.1, 8)
    block_annotations(rendering, world.classes, label_filter)
    fault(rendering)
    with pytest.raises(LabelError, match=r"of image 1 of its batch: .* The renderer's labels are at fault"):
        block_annotations(rendering, world.classes, label_filter)


def test_what_does_not_fit_is_explained(opened: Opened) -> None:
    with pytest.raises(UserError, match="this world has no class '70'"):
        ms2.stream(opened.model.world, classes=["70"])
    with pytest.raises(UserError, match="there is no device 'gpu' here"):
        ms2.stream(opened.model.world, device="gpu")
    with pytest.raises(UserError, match="num_samples must be at least 1, not 0"):
        stream_of(opened, num_samples=0)
    elsewhere = stream_of(opened, device="meta")
    with pytest.raises(UserError, match="samples on meta are made in the process that trains"):
        next(iter(DataLoader(elsewhere, None, num_workers=1, multiprocessing_context="fork")))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_samples_on_a_gpu_stay_there(opened: Opened) -> None:
    image, annotations = next(iter(ms2.stream(opened.model.world, seed=SEED)))
    assert image.is_cuda and all(values.is_cuda for values in annotations.values())
