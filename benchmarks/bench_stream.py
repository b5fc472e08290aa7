"""Labelled samples made while training, against reading the same ones from PNG files, and against rendering."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from measuring import Place, Reference, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.datasets.blocks import BLOCK_SIZE
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.stream import LabelledStream
from ms2.models.opening import open_model

SIZES = {"multimnist": 2048, "driving3d": 128}
"""Samples: so many that checking the first block pixel by pixel, once a stream, is no more than 2 percent of it."""


@pytest.mark.benchmark(group="stream")
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("against", ["files", "renderer"])
def test_streaming(name: str, against: str, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Measure streamed samples in one process, without further workers on either side."""
    source, number = open_model(name), SIZES[name]
    stream, world = LabelledStream(source, device=Place.device), source.model.world

    def read() -> None:
        for _ in iter(GeneratedSet(tmp_path)):
            pass

    def render() -> None:
        for block in range(number // BLOCK_SIZE):
            draw = generator("benchmark", block, device=Place.device)
            world.renderer.render_labelled(world.sample_prior(BLOCK_SIZE, draw))

    def make() -> None:
        assert sum(1 for _ in islice(stream, number)) == number

    if against == "files":
        generate(Job(source, Plan(number), tmp_path, Place.device), progress=False)
    texts: dict[str, tuple[Callable[[], None], str]] = {
        "files": (read, "{} × reading PNG files and records"),
        "renderer": (render, "{} × the renderer's own speed with labels"),
    }
    task, text = texts[against]
    title = f"{number} streamed samples, {name}"
    measure(benchmark, make, title, number, "samples", rounds=5, to=Reference(task, text, True))
