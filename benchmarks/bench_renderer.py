"""Rendering digits onto canvases of 64 pixels, alone and with labels. Goal: at least 20,000 digits per second."""

import pytest
from measuring import Place, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

SCENES = 512


@pytest.mark.benchmark(group="renderer")
@pytest.mark.parametrize("labelled", [False, True], ids=["images", "labelled"])
@pytest.mark.parametrize("digit", [12, 28])
def test_rendering(digit: int, labelled: bool, benchmark: BenchmarkFixture) -> None:
    renderer = DigitCanvas(canvas_size=64, digit_size=digit)
    world = World(MultiMNIST(), UniformDigits(), UniformPlacement(), renderer)
    scenes = world.sample_prior(SCENES, generator("benchmark", "rendering", device=Place.device))
    render = renderer.render_labelled if labelled else renderer.render
    title = f"rendering {SCENES} scenes, digits of {digit} pixels{', with labels' * labelled}"
    measure(benchmark, lambda: render(scenes), title, int(scenes.mask.sum()), "digits")
