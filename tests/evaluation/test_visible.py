"""What can be seen in images: distances beside those of structure, in results, picture, table and report."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers import EXPECTED, Abacus, abacus, structure

from ms2.core.distributed import Processes, T
from ms2.core.errors import UserError
from ms2.evaluation.evaluation import Evaluation, Measurements
from ms2.evaluation.plots import summary_figure
from ms2.evaluation.sampling import sample_derivations
from ms2.evaluation.visible import seen_classes, visible_scenes, without_unseen
from ms2.evaluation.writers import result_lines
from ms2.metrics.results import in_pairs, load_results, save_results
from ms2.metrics.statistics import ChildCount, ClassFrequency, ObjectCount
from ms2.models.scene_model import SceneModel
from ms2.render.base import Rendering
from ms2.report.results import results_section
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import LinePlacement, RandomDigits, UniformDigits, UniformPlacement

pytestmark = EXPECTED
CPU = torch.device("cpu")
SINGLE = [ObjectCount("3", "threes"), ObjectCount("4", "fours")]


class Beads(Abacus):
    """An abacus with labels: the first beads of a scene alone are visible, and each is lower than the one before it."""

    min_height = 0.0

    def __init__(self, num_visible: int) -> None:
        self.num_visible = num_visible

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        place = torch.arange(scenes.classes.shape[1]).expand(scenes.classes.shape)
        boxes = torch.zeros(*scenes.classes.shape, 4)
        boxes[..., 1], boxes[..., 3] = 1, 10.5 - place
        visibility = torch.where(place < self.num_visible, 0.1, 0.09)
        return replace(super().render_labelled(scenes), visibility=visibility, boxes=boxes)


class LowBeads(Beads):
    """Only the first two beads are high enough."""

    min_height = 8


def world(renderer: Abacus) -> World:
    return World(MultiMNIST(), UniformDigits(3), UniformPlacement(), renderer)


def target(of: World, kind: type[Synthetic] = Synthetic, num_images: int = 60) -> Synthetic:
    return kind(of, RandomDigits(1, 3), LinePlacement(), num_images=num_images)


def measured(renderer: Abacus, **settings: Any) -> Measurements:
    own = world(renderer)
    evaluation = Evaluation(**{"num_scenes": 80, "num_visible": 80} | settings)
    return evaluation.measure(SceneModel(own, structure()), target(own))


@pytest.mark.parametrize(("renderer", "most"), [(Beads(9), 4), (Beads(1), 1), (LowBeads(9), 2), (LowBeads(1), 1)])
def test_an_object_is_seen_if_it_is_visible_and_high_enough(renderer: Beads, most: int) -> None:
    classes = torch.tensor([[5, 0, 7, 3, -1, -1]])
    scenes = SceneBatch(classes, torch.full_like(classes, -1))
    assert renderer.seen(renderer.render_labelled(scenes)).tolist() == [[i < most for i in range(6)]]


def test_scenery_is_not_seen() -> None:
    classes = torch.tensor([[5, 9, 10, -1]])
    scenes = SceneBatch(classes, torch.full_like(classes, -1))
    [found] = seen_classes(Beads(9), [scenes], 10)
    assert found.tolist() == [[5, 9, -1, -1]]


def test_where_everything_is_visible_both_spaces_have_the_same_distances() -> None:
    found = measured(Beads(9), statistics=[ObjectCount(), *SINGLE, ClassFrequency()]).results
    assert list(found.visible) == ["visible_count", "visible_threes", "visible_fours", "visible_class"]
    for name, one in found.structure.items():
        seen = found.visible[f"visible_{name}"]
        assert seen.means == {row: mean for row, mean in one.means.items() if row != "best_pcfg"}
        for distance, rows in one.distances.items():
            assert list(seen.distances[distance]) == ["prior", "learned", "noise_floor"]
            for row in ("prior", "learned"):
                assert seen.distances[distance][row].value == rows[row].value
        assert seen.distances["tv"]["noise_floor"].value == pytest.approx(
            one.distances["tv"]["noise_floor"].value, rel=0.2
        )


@pytest.mark.parametrize("renderer", [Beads(2), LowBeads(9)])
def test_what_is_hidden_or_low_does_not_count(renderer: Beads) -> None:
    """Recomputed: of each scene the first two beads count."""
    own = world(renderer)
    model, known = SceneModel(own, structure()), target(own)
    found = Evaluation([ObjectCount()], num_scenes=80, num_visible=80).measure(model, known).results
    rules = sample_derivations(model, 80, 0, CPU)
    scenes = {row: scenes_from_derivations(own.grammar, some) for row, some in rules.items()} | {"target": known.truth}
    numbers = {row: some.mask.sum(1).clamp(max=2) for row, some in scenes.items()}
    shares = {row: torch.bincount(some, minlength=3) / len(some) for row, some in numbers.items()}
    for row in ("prior", "learned"):
        tv = float((shares[row] - shares["target"]).abs().sum() / 2)
        assert found.visible["visible_count"].distances["tv"][row].value == pytest.approx(tv, abs=1e-6)
        assert found.visible["visible_count"].means[row] == pytest.approx(float(numbers[row].double().mean()))
    assert found.structure["count"].means["target"] > found.visible["visible_count"].means["target"]


def test_the_summary_has_the_mean_over_classes_of_each_space(tmp_path: Path) -> None:
    statistics = [ObjectCount(), *SINGLE, ClassFrequency()]
    found = measured(Beads(1), statistics=statistics).results
    for space, begin in (("structure", ""), ("visible", "visible_")):
        for row in ("", "_prior", "_noise_floor"):
            both = [found.summary[f"{begin}{name}_tv{row}"] for name in ("threes", "fours")]
            assert found.summary[f"{space}_mean_tv{row}"] == pytest.approx(sum(both) / 2)
    assert "structure_mean_tv_best_pcfg" in found.summary and "visible_mean_tv_best_pcfg" not in found.summary
    assert found.measured_with.num_visible == 80
    save_results(tmp_path / "metrics.json", found)
    assert load_results(tmp_path / "metrics.json") == found
    assert not any("mean_tv" in key for key in measured(Beads(1), statistics=statistics[1:2]).results.summary)


def test_fewer_scenes_may_be_rendered_than_there_are() -> None:
    own = world(Beads(9))
    found = visible_scenes(SceneModel(own), target(own), 25, 0, CPU)
    assert {row: len(scenes) for row, scenes in found.items()} == {"prior": 25, "learned": 25, "target": 25}
    assert torch.equal(found["target"].counts(10), target(own).truth[:25].counts(10))


class Annotated(Synthetic, selectable=False):
    """Images whose truth is annotated."""

    annotated = True


def test_nothing_is_rendered_that_is_not_asked_for_or_seen_already() -> None:
    own = world(Beads(9))
    model = SceneModel(own, structure())
    assert visible_scenes(model, target(own), 0, 0, CPU) == {}
    assert visible_scenes(model, target(own, Annotated), 80, 0, CPU) == {}
    assert measured(Beads(9), num_visible=0).results.visible == {}


@dataclass(frozen=True)
class Recorded(Processes):
    """Two processes, of which the other one's objects are known."""

    others: ClassVar[list[Any]] = []

    def gather_objects(self, value: T) -> list[T]:
        if self.rank == 0:
            self.others.append(value)
            return [value]
        return [self.others.pop(0), value]


def test_processes_share_the_images() -> None:
    own = world(Beads(2))
    model, known = SceneModel(own, structure()), target(own, num_images=130)
    whole = visible_scenes(model, known, 130, 0, CPU)
    halves = visible_scenes(model, known, 130, 0, CPU, Recorded(0, 2))
    both = visible_scenes(model, known, 130, 0, CPU, Recorded(1, 2))
    for row in ("prior", "learned", "target"):
        assert len(halves[row]) == 80 and torch.equal(both[row].classes, whole[row].classes)
    assert len(without_unseen([])) == 0


def test_picture_table_and_report_show_both_spaces() -> None:
    measurements = measured(Beads(1), statistics=[*SINGLE, ChildCount("3", "3", [1], "nested"), ClassFrequency()])
    results = measurements.results
    pairs = ["threes", "visible_threes", "fours", "visible_fours", "class", "visible_class"]
    assert list(results.statistics) == [*pairs, "nested"] == [one.name for one in measurements.histograms]
    assert [one.title for one in measurements.histograms][:2] == ["3s per scene", "visible 3s per image"]
    grids = {"target": torch.rand(4, 1, 9, 9)}
    assert len(summary_figure("run", measurements.histograms, grids)) == 550 + 2 * 320  # two rows: four side by side
    spaces, rows, *table, others = result_lines(results)
    assert spaces.split("  ")[-1].strip() == "TV of what can be seen" and rows.split()[:2] == ["learned", "prior"]
    assert [line.split("  ")[0] for line in table] == ["threes", "fours", "class", "mean of classes"]
    keys = ("", "_prior", "_noise_floor")
    shown = [results.summary[f"{begin}threes_tv{key}"] for begin in ("", "visible_") for key in keys]
    assert table[0].split()[1:] == [f"{tv:.3f}" for tv in shown]
    assert others.startswith("nested_tv ")
    section = results_section(results)
    assert [one.title for one in section.metrics][:2] == ["3s per scene", "visible 3s per image"]
    assert "They were counted in up to 80 rendered images each" in section.explanation


def test_pairs_precede_others() -> None:
    assert in_pairs(["a", "b", "c", "visible_c", "visible_a", "x"]) == ["a", "visible_a", "c", "visible_c", "b", "x"]


def test_a_name_is_not_taken_twice() -> None:
    taken = [ObjectCount(), ObjectCount("3", "visible_count")]
    Evaluation(taken)
    with pytest.raises(UserError, match="several statistics are called visible_count"):
        Evaluation(taken, num_visible=2)


def test_an_abacus_without_labels_shows_nothing() -> None:
    own = abacus()
    found = Evaluation(num_scenes=20, num_visible=20).measure(SceneModel(own, structure()), target(own, num_images=20))
    assert found.results.summary["visible_count_tv"] == 0 == found.results.summary["visible_class_tv"]
