"""Sampling parameters of streets, and rendering with labels at 416 x 128, for the simple prior and the mixture."""

import pytest
from measuring import Place, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.core.seeding import generator
from ms2.priors.structure import MixturePrior, StructurePrior
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import Rural, SimpleStreets, Suburban, Urban
from ms2.worlds.driving3d.renderer import StreetView

LAID_OUT, DRAWN = 256, 16
PRIORS = {"simple": SimpleStreets(), "mixture": MixturePrior([Rural(), Suburban(), Urban()])}
every_prior = pytest.mark.parametrize("name", PRIORS)


@pytest.mark.benchmark(group="driving")
@every_prior
def test_laying_out_streets(name: str, benchmark: BenchmarkFixture) -> None:
    grammar, layout, draw = Driving(), StreetLayout(), generator("benchmark", "driving", device=Place.device)
    scenes = scenes_from_derivations(grammar, PRIORS[name].sample(grammar, LAID_OUT, draw))
    objects = float(scenes.mask.sum(1).float().mean())
    title = f"laying out {LAID_OUT} streets of {objects:.0f} objects, {name} prior"
    measure(benchmark, lambda: layout.sample(scenes, draw), title, LAID_OUT, "scenes")


@pytest.mark.benchmark(group="driving")
@every_prior
def test_drawing_streets(name: str, benchmark: BenchmarkFixture) -> None:
    """Measure the way from derivations to labelled images."""
    grammar, layout, view = Driving(), StreetLayout(), StreetView((128, 416))
    prior: StructurePrior = PRIORS[name]
    draw = generator("benchmark", "driving", device=Place.device)
    rules = prior.sample(grammar, DRAWN, draw)

    def task() -> object:
        return view.render_labelled(layout.sample(scenes_from_derivations(grammar, rules), draw))

    title = f"{DRAWN} streets from derivations to labelled images, {name} prior"
    measure(benchmark, task, title, DRAWN, "scenes", rounds=8)
