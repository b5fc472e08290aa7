"""From images: places are read off a target, and what follows from perfect readings is the truth."""

from typing import Any

import pytest
from helpers import rng
from torch import Tensor

from ms2.features.dense import DenseCounts
from ms2.features.resnet import ResNet
from ms2.learning.induction.fit_settings import fit_settings
from ms2.learning.induction.induce import Induced, induce
from ms2.learning.induction.object_table import InductionError
from ms2.learning.induction.placement import Given
from ms2.learning.induction.readings import Measures, measure_classes, read_target
from ms2.priors.histogram_placement import HistogramPlacement
from ms2.scene.batch import scenes_from_derivations
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.aerial2d import Aerial2D, AerialView, BusyFirstRoad, ScatteredCars, SpacedCars, UniformTraffic
from ms2.worlds.aerial2d.declaration import ROAD_WIDTH
from ms2.worlds.multimnist import DigitCanvas, MultiMNIST, UniformDigits, UniformPlacement

WORLD = World(Aerial2D(), UniformTraffic(3, 4), ScatteredCars(max_houses=0, max_trees=0), AerialView(64))
"""Its scenery never occurs, so that the renderer's classes are those of the grammar and two more."""
TARGET = Synthetic(WORLD, BusyFirstRoad(), SpacedCars(max_houses=0, max_trees=0), num_images=300)


class PerfectReader(DenseCounts, selectable=False):
    """Knows the true densities of the target's images, which it is shown one after the other."""

    def __init__(self, target: Synthetic) -> None:
        super().__init__(3, target.world.classes, widths=(4, 4, 4), strides=(1, 1, 1))
        labels = target.world.renderer.render_labelled(target.scenes)
        self.true, self.shown = self._cell_targets(self._cells(labels, 64, 64), 64, 64)[:, :-1], 0

    def expected_counts(self, images: Tensor) -> Tensor:
        return self.true[self.shown : self.shown + len(images)].sum((2, 3))

    def density_maps(self, images: Tensor) -> Tensor:
        self.shown += len(images)
        return self.true[self.shown - len(images) : self.shown]


@pytest.fixture(scope="module")
def measures() -> Measures:
    return measure_classes(WORLD)


@pytest.fixture(scope="module")
def induced(measures: Measures) -> Induced:
    table = read_target(PerfectReader(TARGET), TARGET, WORLD, measures)
    table = table.rows((table.label < 2).nonzero()[:, 0])
    ranges = {"Road": {"x": (32.0, 32.0), "y": (4.0, 60.0)}, "car": {"x": (0.0, 64.0), "y": (0.0, 64.0)}}
    return induce(table, given=Given(ranges, measures.scales, {"sun": (0.0, 1.0)}))


def test_boxes_and_positions_are_measured(measures: Measures) -> None:
    assert measures.sizes[0].tolist() == pytest.approx([1, ROAD_WIDTH / 64], abs=0.02)
    assert measures.scales["Road"].start[0] == pytest.approx(32) and measures.scales["Road"].width[0] == 0
    assert measures.scales["car"].start == pytest.approx((0, 0), abs=1e-3)
    assert measures.scales["car"].width == pytest.approx((64, 64), rel=1e-4)


def test_positions_of_digits_begin_half_a_digit_from_the_edge() -> None:
    found = measure_classes(World(MultiMNIST(), UniformDigits(), UniformPlacement(), DigitCanvas(40, 10)))
    # the centre is 5 + 30 x of 40 pixels
    assert found.scales["3"].start == pytest.approx((-1 / 6, -1 / 6)) and found.scales["3"].width == pytest.approx(
        (4 / 3, 4 / 3)
    )


def test_perfect_readings_tell_rules_parents_and_numbers(induced: Induced) -> None:
    assert induced.written.rules == [
        "Scene -> Roads",
        "Roads -> Road Roads | ε",
        "Road -> Cars",
        "Cars -> car Cars | ε",
    ]
    first, others = (table.mean for table in induced.hypothesis.inside[0].lists[0].tables)
    assert first == pytest.approx(9, abs=0.6) and others == pytest.approx(3, abs=0.3)


def test_cars_are_placed_on_both_lanes_of_their_road(induced: Induced) -> None:
    prior = HistogramPlacement(**_as_tuples(induced.placement["init_args"]))
    assert prior.ascending == {"Road": "y"} and prior.apart == [("Road", "Road")], (
        "cars are read as squares, which overlap"
    )
    grammar = induced.written.grammar
    rules = induced.written.prior.sample(grammar, 200, rng())
    scenes = prior.sample(scenes_from_derivations(grammar, rules), rng())
    y, car = scenes.attributes["y"], scenes.classes == 1
    lateral = (y - scenes.parent_values(y))[car].abs()
    on_lanes = ((lateral > 1) & (lateral < 2.7)).float().mean()
    assert on_lanes > 0.85, "lanes are 1.8 m from the middle; on the whole road it would be 0.41"
    roads = [row[one == 0] for row, one in zip(y, scenes.classes, strict=True)]
    assert all((some.diff() > 0).all() for some in roads)


def test_the_extractor_of_the_next_run_counts_by_road(induced: Induced) -> None:
    base = {
        "world": {"renderer": {"class_path": "AerialView"}},
        "stage": "extractor",
        "model": {
            "structure": {"class_path": "StructureModel", "init_args": {"t_max": 5}},
            "features": {"class_path": "DenseCounts", "init_args": {"widths": [4, 4, 4], "max_count": {"Road": 9}}},
            "structure_learner": {"init_args": {"objective": {"class_path": "KDE", "init_args": {"bandwidth": 1.0}}}},
        },
    }
    found = fit_settings(base, {"grammar": "G"}, induced.hypothesis, induced.written)
    features = found["model"]["features"]["init_args"]
    assert found["stage"] == "all" and found["world"] == {"renderer": base["world"]["renderer"], "grammar": "G"}
    assert features["widths"] == [4, 4, 4] and features["parents_per_class"] == {"car": 5}
    assert set(features["max_count"]) == {"Road", "car"} and features["max_count"]["Road"] == 5
    lengths = found["extractor"]["structure_prior"]["init_args"]["lengths"]
    assert {name: len(some) - 1 for name, some in lengths.items()} == {"Roads": 5, "Cars": features["max_count"]["car"]}
    assert found["model"]["structure"]["init_args"]["t_max"] > 40
    objective = found["model"]["structure_learner"]["init_args"]["objective"]["init_args"]
    assert set(objective["blocks"]) == {"count_Road", *(f"count_car_{k}" for k in range(1, 5))}
    assert objective["bandwidth"] == 1.0
    assert base["stage"] == "extractor", "the run's own settings stay as they are"


def test_extractors_without_places_are_refused(measures: Measures) -> None:
    for features in (ResNet(3, WORLD.classes), DenseCounts(3, WORLD.classes, parents_per_class={"car": 2})):
        with pytest.raises(InductionError, match="tells no places of objects: the run's features must be DenseCounts"):
            read_target(features, TARGET, WORLD, measures)


def _as_tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a configuration's parser gives them."""

    def pairs(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: pairs(one) for key, one in value.items()}
        return tuple(value) if isinstance(value, list) and len(value) == 2 else value

    plain = {key: pairs(value) for key, value in settings.items()}
    plain["apart"] = [tuple(pair) for pair in settings["apart"]]
    plain["histograms"] = settings["histograms"]
    return plain
