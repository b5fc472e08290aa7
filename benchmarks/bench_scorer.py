"""Scoring 512 derivations at once, gradients included, against one scene at a time."""

import pytest
import reference
from measuring import Place, Reference, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.grammar.derivations import lengths
from ms2.models.structure import StructureModel

SCENES = 512


@pytest.mark.benchmark(group="scorer")
def test_scoring_with_gradients(structure: StructureModel, benchmark: BenchmarkFixture) -> None:
    rules = structure.sample(SCENES, generator("benchmark", "scoring", device=Place.device)).rules
    rows = [row[:n] for row, n in zip(rules.tolist(), lengths(structure.grammar, rules).tolist(), strict=True)]

    def at_once() -> None:
        structure.zero_grad()
        structure.log_prob(rules).mean().backward()

    def one_by_one() -> None:
        structure.zero_grad()
        for row in rows:
            (reference.score(structure, row) / SCENES).backward()

    measure(
        benchmark,
        at_once,
        f"scoring {SCENES} scene structures, with gradients",
        SCENES,
        "scenes",
        rounds=8,
        to=Reference(one_by_one, "{} × as fast as one scene at a time", faster=True),
    )
