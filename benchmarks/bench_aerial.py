"""Rendering Aerial 2D scenes of 128 pixels, alone and with labels. Goal: at least 300 full scenes per second."""

import math

import pytest
import torch
from measuring import Place, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.scene.batch import SceneBatch
from ms2.worlds.aerial2d.renderer import AerialView

SCENES = 64
CLASSES = torch.tensor([0] * 4 + [1] * 24 + [2] * 6 + [3] * 12)
"""Four roads with six cars each, six houses, twelve trees."""
SIZES = torch.tensor([[64, 7], [4.5, 1.9], [12, 9], [6, 6]])


def full_scenes(extent: float) -> SceneBatch:
    """Sample scenes of all `CLASSES`: cars on their roads, other objects at uniform positions."""
    rng = generator("benchmark", "aerial")

    def draw(number: int) -> torch.Tensor:
        return torch.rand(SCENES, number, generator=rng)

    parents = torch.where(CLASSES == 1, (torch.arange(len(CLASSES)) - 4) // 6, -1).expand(SCENES, -1)
    number = len(CLASSES)
    x, y, angle = draw(number) * extent, draw(number) * extent, (draw(number) * 2 - 1) * math.pi
    road, cars = parents[:, 4:28], slice(4, 28)
    along = (draw(24) - 0.5) * extent
    angle[:, cars] = angle.gather(1, road)
    x[:, cars] = (x.gather(1, road) + along * angle[:, cars].cos()).clamp(0, extent)
    y[:, cars] = (y.gather(1, road) - along * angle[:, cars].sin()).clamp(0, extent)
    length, width = SIZES[CLASSES].expand(SCENES, -1, -1).unbind(2)
    names = ("x", "y", "angle", "length", "width", "model", "colour")
    values = (x, y, angle, length, width, draw(number), draw(number))
    ground = {name: draw(1)[:, 0] for name in ("ground", "ground_x", "ground_y")}
    light = {"sun": (draw(1)[:, 0] * 2 - 1) * math.pi, "light": 0.7 + 0.4 * draw(1)[:, 0]}
    classes = CLASSES.expand(SCENES, -1)
    return SceneBatch(classes, parents, dict(zip(names, values, strict=True)), ground | light)


@pytest.mark.benchmark(group="renderer")
@pytest.mark.parametrize("labelled", [False, True], ids=["images", "labelled"])
def test_rendering_aerial(labelled: bool, benchmark: BenchmarkFixture) -> None:
    renderer = AerialView()
    scenes = full_scenes(renderer.extent).to(Place.device)
    render = renderer.render_labelled if labelled else renderer.render
    title = f"rendering {SCENES} aerial scenes of {len(CLASSES)} objects{', with labels' * labelled}"
    measure(benchmark, lambda: render(scenes), title, SCENES, "scenes")
