"""Scoring 256 generated images against 256 target images, on the feature blocks of the quick configuration."""

import pytest
import torch
from measuring import Place, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.cli.fit import CLI
from ms2.core.seeding import generator
from ms2.objectives.base import Objective
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import BatchMMD, MMDWitness


@pytest.mark.benchmark(group="score")
@pytest.mark.parametrize("objective", [KDE, MMDWitness, BatchMMD], ids=lambda cls: cls.__name__)
def test_score(objective: type[Objective], quick: CLI, benchmark: BenchmarkFixture) -> None:
    size = quick.datamodule.batch_size
    generated = quick.model.structure_learner.sample(
        quick.model.scene_model, quick.model.features, size, generator("benchmark", "score", device=Place.device)
    ).features
    real = {name: block[:size] for name, block in quick.model.target_features.items()}
    score = objective(quick.model.structure_learner.objective.bandwidth)
    own = torch.arange(size, device=Place.device)
    title = f"{objective.__name__} of {size} images against {size}"
    measure(benchmark, lambda: score(generated, generated, own, real), title, size, "images", rounds=50)
