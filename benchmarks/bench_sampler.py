"""Sampling 512 derivations at once, against one scene at a time. Goal: at least 20 times as fast."""

import pytest
import reference
from conftest import Measure, Reference

from ms2.seeding import generator
from ms2.structure import StructureModel

SCENES = 512


@pytest.mark.benchmark(group="sampler")
def test_sampling(structure: StructureModel, measure: Measure) -> None:
    draw = generator("benchmark", "sampling")

    def one_by_one() -> None:
        for _ in range(SCENES):
            reference.sample(structure, draw)

    measure(
        lambda: structure.sample(SCENES, draw),
        f"sampling {SCENES} scene structures",
        SCENES,
        "scenes",
        rounds=8,
        to=Reference(one_by_one, "{} × as fast as one scene at a time", faster=True),
    )
