"""Images that are rendered once: each once in every pass, in an order of its own, also where training goes on."""

import pytest
import torch
from helpers import EXPECTED, abacus
from torch import Tensor

from ms2.core.distributed import Processes
from ms2.learning.drawn_ahead import DrawnAhead, used_entries
from ms2.learning.rendered_ahead import RenderedAhead
from ms2.learning.rendered_once import RenderedOnce

pytestmark = EXPECTED
CPU = torch.device("cpu")
WORLD = abacus(5)
BOTH = [Processes(), Processes(0, 2), Processes(1, 2)]


def rendered() -> RenderedAhead:
    return RenderedAhead(WORLD.renderer, DrawnAhead(WORLD.sample_prior, used_entries, 4, 20, (0, "test")))


def kept() -> RenderedOnce:
    return RenderedOnce(rendered(), 20, (0, "test"))


def pixels(images: RenderedOnce, number: int, processes: Processes = BOTH[0]) -> Tensor:
    """The images of a pass of five steps."""
    return torch.cat([images.step(5 * number + place, CPU, processes)[0].image for place in range(5)])


@pytest.mark.parametrize("processes", BOTH, ids=str)
def test_the_first_steps_have_the_rendered_images(processes: Processes) -> None:
    images, source = kept(), rendered()
    for step in range(5):
        labels, scenes = images.step(step, CPU, processes)
        expected, shown = source.step(step, CPU, processes)
        torch.testing.assert_close(labels.image, expected.image, atol=0.51 / 255, rtol=0)
        assert torch.equal(labels.boxes, expected.boxes) and torch.equal(labels.visibility, expected.visibility)
        assert torch.equal(scenes.classes, shown.classes) and len(scenes) == 4 // processes.world_size


@pytest.mark.parametrize("processes", BOTH, ids=str)
def test_each_pass_has_every_image_once_in_another_order(processes: Processes) -> None:
    images = kept()
    passes = [pixels(images, number, processes) for number in range(3)]
    first = {image.numpy().tobytes() for image in passes[0]}
    assert len(first) > 1
    assert all(sorted(i.numpy().tobytes() for i in passes[0]) == sorted(i.numpy().tobytes() for i in p) for p in passes)
    assert not torch.equal(passes[0], passes[1]) and not torch.equal(passes[1], passes[2])


def test_labels_follow_their_images() -> None:
    images = kept()
    known = {}
    for step in range(15):
        labels, scenes = images.step(step, CPU)
        for i, image in enumerate(labels.image):
            used = labels.classes[i] >= 0
            found = labels.classes[i][used].tolist(), labels.boxes[i][used].tolist(), scenes.classes[i][used].tolist()
            assert known.setdefault(image.numpy().tobytes(), found) == found


def test_training_goes_on_with_the_same_images() -> None:
    whole = kept()
    passes = [pixels(whole, number) for number in range(3)]
    assert torch.equal(pixels(kept(), 2), passes[2])
    late = kept()
    assert torch.equal(late.step(3, CPU)[0].image, passes[0][12:16])
    assert torch.equal(pixels(late, 1), passes[1])


def test_images_are_freed() -> None:
    images = kept()
    pixels(images, 1)
    images.clear()
    assert images._all is None and not images._parts
