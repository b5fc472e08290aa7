"""Generating labelled data sets, against rendering their images and labels alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from measuring import Place, Reference, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.datasets.blocks import BLOCK_SIZE, sample_block
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.maps import segment_ids
from ms2.datasets.plan import Plan
from ms2.models.opening import open_model
from ms2.render.scene3d.renderer import Renderer3D

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


@pytest.mark.benchmark(group="datasets")
def test_writing_ground_truth(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Measure semantic and panoptic maps, amodal masks and depth of streets against the same unwritten; one process."""
    number, source = 64, open_model("driving3d")
    plan = Plan(number, formats=("coco", "cityscapes", "panoptic"), maps=("amodal",), depth=True)
    renderer, samplers = source.model.world.renderer, [source.model.sampler()]
    assert isinstance(renderer, Renderer3D)

    def write() -> None:
        shutil.rmtree(tmp_path, ignore_errors=True)
        generate(Job(source, plan, tmp_path, Place.device), progress=False)

    write()
    labelled = [[label.object for label in record.labels] for record in Job(source, plan, tmp_path).records()]

    def render() -> None:
        for block in range(number // BLOCK_SIZE):
            scenes = sample_block(source.model, samplers, plan.seed, block, Place.device).scenes
            segment_ids(renderer.render_labelled(scenes), len(renderer.surfaces))
            wanted = torch.zeros_like(scenes.mask)
            for i, objects in enumerate(labelled[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE]):
                wanted[i, objects] = True
            for _ in renderer.amodal_depths(scenes, wanted):
                pass

    title = f"ground truth of {number} streets: semantic, panoptic, amodal, depth"
    measure(benchmark, write, title, number, "images", rounds=5, to=Reference(render, "{} × the speed unwritten", True))
