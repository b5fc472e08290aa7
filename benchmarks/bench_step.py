"""Whole training steps: of structure against the extractor's forward pass, of parameters against those of structure.

Goals: at most 1.5 and 2.5 times.
"""

from collections.abc import Callable

import pytest
import torch
from conftest import program
from measuring import Place, Reference, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.cli.fit import CLI
from ms2.core.seeding import generator
from ms2.learning.learner import Learner
from ms2.learning.metasim2 import MetaSim2


def step_of(model: MetaSim2, learner: Learner, number: int, draw: torch.Generator) -> Callable[[], None]:
    """Return a training step: sample target images, compute the loss and update the weights."""
    optimizer = model.configure_optimizers()
    population = len(next(iter(model.target_features.values())))

    def step() -> None:
        batch = torch.randint(population, (number,), generator=draw, device=Place.device)
        real = {name: block[batch] for name, block in model.target_features.items()}
        loss, _ = learner.loss(model.scene_model, model.features, real, draw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@pytest.mark.benchmark(group="step")
@pytest.mark.filterwarnings("ignore:the kernel of block")  # the extractor is untrained, which costs the same time
def test_training_step(quick: CLI, benchmark: BenchmarkFixture) -> None:
    model, size = quick.model, quick.datamodule.batch_size
    draw = generator("benchmark", "step", device=Place.device)
    images = model.world.images(model.structure.sample(size, draw).rules, draw)

    @torch.no_grad()
    def forward() -> None:
        model.features(images)

    step = step_of(model, model.structure_learner, size, draw)
    title = f"training step, {size} images of {' × '.join(map(str, model.world.renderer.size))} pixels"
    to = Reference(forward, "{} × the time of the extractor's forward pass", faster=False)
    measure(benchmark, step, title, size, "images", rounds=20, to=to)


@pytest.mark.benchmark(group="step")
@pytest.mark.filterwarnings("ignore:the kernel of block", "ignore:the score's deviation")
@pytest.mark.parametrize("config", ["multimnist_parameters", "aerial2d_parameters"])
def test_parameter_step(config: str, benchmark: BenchmarkFixture) -> None:
    cli = program(config)
    model, size = cli.model, cli.datamodule.batch_size
    draw = generator("benchmark", "parameters", device=Place.device)
    structure = step_of(model, model.structure_learner, size, draw)
    parameters = step_of(model, model.parameter_learner, size, draw)
    title = f"parameter step of {config}, {size} images"
    to = Reference(structure, "{} × the time of a structure step", faster=False)
    measure(benchmark, parameters, title, size, "images", rounds=6, to=to)
