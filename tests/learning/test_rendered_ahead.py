"""Scenes and images of several steps at once: those of each step by itself, up to entries that are not used."""

import pytest
import torch
from helpers import EXPECTED, abacus
from torch import Generator

from ms2.core.distributed import Processes
from ms2.learning import drawn_ahead, rendered_ahead
from ms2.learning.drawn_ahead import DrawnAhead, used_entries
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


def scenes(num_steps: int = 10, batch_size: int = 6) -> DrawnAhead[SceneBatch]:
    return DrawnAhead(WORLD.sample_prior, used_entries, batch_size, num_steps, (0, "test"))


def test_groups_end_where_a_block_or_the_training_ends() -> None:
    ahead = scenes()
    groups = list(dict.fromkeys(ahead.group(step, 3) for step in range(10)))
    assert groups == [range(3), range(3, 4), range(4, 7), range(7, 8), range(8, 10)]
    assert all(step in ahead.group(step, 3) for step in range(10))


@pytest.mark.parametrize("processes", [Processes(), Processes(0, 2), Processes(1, 2)], ids=str)
@pytest.mark.parametrize("batch_size", [2, 6])
def test_scenes_of_several_steps_are_those_of_each(processes: Processes, batch_size: int) -> None:
    """In order, as wide as the widest of them needs, in however many processes, and wherever training goes on."""
    ahead, single = scenes(batch_size=batch_size), scenes(batch_size=batch_size)
    local = batch_size // processes.world_size
    for steps in dict.fromkeys(ahead.group(step, 3) for step in range(10)):
        whole = ahead.steps(steps.start, 3, CPU, processes)
        alone = [single.step(step, CPU, processes) for step in steps]
        assert len(whole) == len(steps) * local
        assert whole.classes.shape[1] == max(some.classes.shape[1] for some in alone)
        for i, expected in enumerate(alone):
            found, width = whole[i * local : (i + 1) * local], expected.classes.shape[1]
            assert torch.equal(found.classes[:, :width], expected.classes) and (found.classes[:, width:] == -1).all()
            assert torch.equal(found.parents[:, :width], expected.parents)
            assert torch.equal(found.attributes["x"][:, :width], expected.attributes["x"])
        resumed = scenes(batch_size=batch_size).steps(steps.start, 3, CPU, processes)
        assert torch.equal(resumed.attributes["x"], whole.attributes["x"])


def test_unused_entries_have_values_that_a_prior_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renderer that divides by a length would find none where entries are filled up with zeros."""
    widths: list[int] = []

    class Divides(DigitCanvas):
        def render_labelled(self, scenes: SceneBatch) -> Rendering:
            assert (scenes.attributes["length"] >= 0.5).all()
            widths.append(scenes.classes.shape[1])
            return super().render_labelled(scenes)

    def draw(n: int, generator: Generator) -> SceneBatch:
        drawn = WORLD.sample_prior(n, generator)
        return drawn.with_attributes(length=0.5 + torch.rand(drawn.classes.shape, generator=generator))

    renderer = Divides(canvas_size=24, digit_size=8)
    monkeypatch.setattr(rendered_ahead, "MAX_BYTES_ON_CPU", 4 * 2 * 24 * 24 * 4)
    ahead = DrawnAhead(draw, used_entries, 2, 4, (0, "test"))
    single = {ahead.step(step, CPU).classes.shape[1] for step in range(4)}
    RenderedAhead(renderer, ahead).step(0, CPU)
    assert widths == [max(single)] and len(single) > 1
