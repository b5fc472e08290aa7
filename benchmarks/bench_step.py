"""A whole training step of the quick configuration, against the extractor's forward pass. Goal: at most 1.5 times."""

import pytest
import torch
from measuring import Reference, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.cli import CLI
from ms2.seeding import generator


@pytest.mark.benchmark(group="step")
@pytest.mark.filterwarnings("ignore:the kernel of block")  # the extractor is untrained, which costs the same time
def test_training_step(quick: CLI, benchmark: BenchmarkFixture) -> None:
    model, size = quick.model, quick.datamodule.batch_size
    draw = generator("benchmark", "step")
    optimizer = torch.optim.Adam(model.structure.parameters(), model.lr)
    images = model.world.images(model.structure.sample(size, draw).rules, draw)

    @torch.no_grad()
    def forward() -> None:
        model.features(images)

    def step() -> None:
        batch = torch.randint(len(quick.datamodule.target), (size,), generator=draw)
        real = {name: block[batch] for name, block in model.target_features.items()}
        loss = model.loss(model.draw(size, draw), real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    title = f"training step, {size} images of {' × '.join(map(str, model.world.renderer.size))} pixels"
    to = Reference(forward, "{} × the time of the extractor's forward pass", faster=False)
    measure(benchmark, step, title, size, "images", rounds=20, to=to)
