"""Generating labelled data sets, against rendering their images and labels alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from measuring import Place, Reference, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.datasets.blocks import BLOCK_SIZE
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.models.opening import open_model

SIZES = {"multimnist": 1024, "driving3d": 256}


@pytest.mark.benchmark(group="datasets")
@pytest.mark.parametrize("name", SIZES)
def test_generating_a_data_set(name: str, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Measure images, masks and COCO file against sampling and rendering with labels; one process."""
    source, number = open_model(name), SIZES[name]
    world = source.model.world

    def write() -> None:
        shutil.rmtree(tmp_path, ignore_errors=True)
        generate(Job(source, Plan(num_scenes=number), tmp_path, Place.device), progress=False)

    def render() -> None:
        for block in range(number // BLOCK_SIZE):
            world.renderer.render_labelled(
                world.sample_prior(BLOCK_SIZE, generator("benchmark", block, device=Place.device))
            )

    reference: Callable[[], None] = render
    title = f"a COCO data set of {number} images, {name}"
    measure(
        benchmark,
        write,
        title,
        number,
        "images",
        rounds=5,
        to=Reference(reference, "{} × the renderer's own speed", True),
    )
