"""Sampling 512 derivations at once, against one scene at a time (goal: 60 times as fast), and blocks of the priors'."""

import pytest
import reference
from measuring import Place, Reference, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.grammar.grammar import Grammar
from ms2.models.structure import StructureModel
from ms2.priors.structure import MixturePrior, StructurePrior
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import UniformTraffic
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.priors import Rural, Suburban, Urban
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits

SCENES, BLOCK = 512, 4096
PRIORS: dict[str, tuple[Grammar, StructurePrior]] = {
    "multimnist": (MultiMNIST(), UniformDigits()),
    "aerial2d": (Aerial2D(), UniformTraffic()),
    "streets, mixture": (Driving(), MixturePrior([Rural(), Suburban(), Urban()])),
}


@pytest.mark.benchmark(group="sampler")
def test_sampling(structure: StructureModel, benchmark: BenchmarkFixture) -> None:
    draw = generator("benchmark", "sampling", device=Place.device)

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


@pytest.mark.benchmark(group="sampler")
@pytest.mark.parametrize("name", PRIORS)
def test_sampling_a_prior(name: str, benchmark: BenchmarkFixture) -> None:
    """Measure a block of scenes without their parameters, as learning draws them ahead."""
    (grammar, prior), draw = PRIORS[name], generator("benchmark", "prior")

    def task() -> object:
        return scenes_from_derivations(grammar, prior.sample(grammar, BLOCK, draw))

    measure(benchmark, task, f"{BLOCK} scene structures of the prior, {name}", BLOCK, "scenes", rounds=8)
