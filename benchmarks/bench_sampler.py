"""Sampling 512 derivations at once, against one scene at a time. Goal: at least 20 times as fast."""

import pytest
import reference
from measuring import Reference, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.models.structure import StructureModel

SCENES = 512


@pytest.mark.benchmark(group="sampler")
def test_sampling(structure: StructureModel, benchmark: BenchmarkFixture) -> None:
    draw = generator("benchmark", "sampling")

    def one_by_one() -> None:
        for _ in range(SCENES):
            reference.sample(structure, draw)

    measure(
        benchmark,
        lambda: structure.sample(SCENES, draw),
        f"sampling {SCENES} scene structures",
        SCENES,
        "scenes",
        rounds=8,
        to=Reference(one_by_one, "{} × as fast as one scene at a time", faster=True),
    )
