"""Samples that are drawn ahead in blocks: what a step gets, in however many processes, and what is held meanwhile."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import EXPECTED, Beads, abacus, stage_trainer
from jaxtyping import Int
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ms2.core.distributed import Processes
from ms2.learning import drawn_ahead, rendered_ahead
from ms2.learning.drawn_ahead import DrawnAhead, used_entries
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.rendered_ahead import RenderedAhead
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.worlds.multimnist.renderer import DigitCanvas

pytestmark = EXPECTED
CPU = torch.device("cpu")
WORLD = abacus(5)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps of six scenes to a block of at most 25."""
    monkeypatch.setattr(drawn_ahead, "BLOCK_SIZE", 25)


def scenes(num_steps: int = 11, batch_size: int = 6, seed: int = 0) -> DrawnAhead[SceneBatch]:
    return DrawnAhead(WORLD.sample_prior, used_entries, batch_size, num_steps, (seed, "test"))


def same(ours: SceneBatch, theirs: SceneBatch) -> bool:
    pairs = [(ours.classes, theirs.classes), (ours.parents, theirs.parents)]
    pairs += [(ours.attributes[name], theirs.attributes[name]) for name in ours.attributes]
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_steps_scenes_depend_on_seed_and_step_alone() -> None:
    """Not on the steps before, on the number of steps, or on a break inside of a block."""
    whole = scenes()
    steps = [whole.step(step, CPU) for step in range(11)]
    assert whole.steps_per_block == 4
    for step in (9, 2, 7, 4, 3):
        assert same(scenes(num_steps=100).step(step, CPU), steps[step])
    assert not same(scenes(seed=1).step(2, CPU), steps[2])


def test_no_scene_is_drawn_twice() -> None:
    ahead = scenes(num_steps=11)
    drawn = torch.cat([ahead.step(step, CPU).attributes["x"][:, 0] for step in range(11)])
    assert len(drawn.unique()) == 11 * 6


def test_short_training_draws_no_more_than_it_needs() -> None:
    drawn = []

    def draw(n: int, generator: Generator) -> Tensor:
        drawn.append(n)
        return torch.ones(n, 3, dtype=torch.long)

    ahead = DrawnAhead(draw, lambda rules: rules.sum(1), 6, 3, (0,))
    for step in range(3):
        ahead.step(step, CPU)
    assert drawn == [18]


@pytest.mark.parametrize("batch_size", [6, 7, 40])
def test_the_processes_share_a_block(batch_size: int) -> None:
    """What two of them get is together what one gets; what can't be shared evenly is left out."""
    one = scenes(batch_size=batch_size)
    two = [(scenes(batch_size=batch_size), Processes(rank, 2)) for rank in range(2)]
    for step in range(5):
        parts = [ahead.step(step, CPU, processes) for ahead, processes in two]
        assert [len(part) for part in parts] == [batch_size // 2] * 2
        whole = one.step(step, CPU)[: batch_size // 2 * 2]
        assert torch.equal(torch.cat([part.classes for part in parts]), whole.classes)
        assert torch.equal(torch.cat([part.attributes["x"] for part in parts]), whole.attributes["x"])


def test_a_steps_scenes_are_as_wide_as_its_largest() -> None:
    ahead = scenes(batch_size=2)
    steps = [ahead.step(step, CPU) for step in range(4)]
    assert all(step.classes.shape[1] == max(1, int(step.mask.sum(1).max())) for step in steps)
    assert len({step.classes.shape[1] for step in steps}) > 1


def test_one_block_is_held_at_a_time() -> None:
    blocks: list[weakref.ref[Any]] = []

    def draw(n: int, generator: Generator) -> Int[Tensor, "n 2"]:
        assert all(block() is None for block in blocks), "the block before is freed first"
        memory = np.ones((n, 2), dtype=np.int64)
        blocks.append(weakref.ref(memory))  # which lives as long as a tensor needs it
        return torch.from_numpy(memory)

    ahead = DrawnAhead(draw, lambda rules: rules[:, 0], 6, 100, (0,))
    for step in range(13):
        ahead.step(step, CPU)
        assert sum(block() is not None for block in blocks) == 1
    ahead.clear()
    assert len(blocks) == 4 and all(block() is None for block in blocks)


def test_between_blocks_nothing_is_computed() -> None:
    class Refuses(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            raise AssertionError(f"{func} was called")

    ahead = scenes()
    ahead.step(4, CPU)
    with Refuses():
        for step in (5, 6, 7):
            ahead.step(step, CPU)


def test_stages_train_on_what_is_drawn_ahead(tmp_path: Path) -> None:
    """Each step gets new samples; afterwards nothing is held."""
    seen: list[SceneBatch] = []

    class Watched(ExtractorTraining):
        def _loss(self, labels: Rendering, scenes: SceneBatch) -> Tensor:
            seen.append(scenes)
            return super()._loss(labels, scenes)

    stage = Watched(WORLD, Beads(scale=14.0), max_steps=6, batch_size=6, num_probe_images=20)
    stage_trainer(tmp_path, stage).fit(stage)
    assert len(torch.cat([one.attributes["x"][:, 0] for one in seen]).unique()) == 36
    assert stage.ahead._held is stage.images._held is None


@pytest.mark.parametrize("processes", [Processes(), Processes(1, 2)])
def test_images_of_several_steps_are_rendered_at_once(monkeypatch: pytest.MonkeyPatch, processes: Processes) -> None:
    """As those of each step by itself, also at the end of a block, and of training."""
    renderer = DigitCanvas(canvas_size=24, digit_size=8)
    rendered: list[int] = []

    def render(scenes: SceneBatch) -> Rendering:
        rendered.append(len(scenes))
        return DigitCanvas.render_labelled(renderer, scenes)

    monkeypatch.setattr(renderer, "render_labelled", render)
    local = 6 // processes.world_size
    monkeypatch.setattr(rendered_ahead, "MAX_BYTES_ON_CPU", 3 * local * 24 * 24 * 4)
    images = RenderedAhead(renderer, scenes(num_steps=10))
    for step in range(10):
        labels, shown = images.step(step, CPU, processes)
        alone = scenes().step(step, CPU, processes)
        expected, width = DigitCanvas.render_labelled(renderer, alone), alone.classes.shape[1]
        assert torch.equal(labels.image, expected.image) and torch.equal(labels.instances, expected.instances)
        assert torch.equal(labels.boxes[:, :width], expected.boxes) and not labels.boxes[:, width:].any()
        assert torch.equal(shown.classes, labels.classes) and torch.equal(shown.classes[:, :width], alone.classes)
        assert torch.equal(shown.attributes["x"][:, :width], alone.attributes["x"])
    assert rendered == [3 * local, local, 3 * local, local, 2 * local]
    resumed, _ = RenderedAhead(renderer, scenes(num_steps=10)).step(5, CPU, processes)
    assert torch.equal(resumed.image, images.step(5, CPU, processes)[0].image)
