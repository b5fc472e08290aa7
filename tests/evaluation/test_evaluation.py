"""What is measured of a scene model: structure, attributes, hidden objects, and validations in several processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, Abacus, Beads, abacus, images, learner, on_two_ranks, structure, trainer
from pytorch_lightning import Callback
from torch.nn.functional import one_hot

from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.evaluation.callbacks import Validation
from ms2.evaluation.evaluation import Evaluation
from ms2.evaluation.sampling import sample_derivations, structure_scenes
from ms2.metrics.accumulated import AttributeWasserstein, TotalVariation
from ms2.metrics.attribute_distances import AttributeSample, attribute_w1
from ms2.metrics.attributes import AttributeValue
from ms2.metrics.histograms import distribution, total_variation
from ms2.metrics.results import Results
from ms2.metrics.statistics import ObjectCount
from ms2.models.scene_model import SceneModel
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import LinePlacement, RandomDigits, UniformDigits, UniformPlacement

pytestmark = EXPECTED
CPU = torch.device("cpu")


class OnlyFirstVisible(Abacus):
    """An abacus on which the first bead alone is visible."""

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        visibility = torch.zeros(scenes.classes.shape)
        visibility[:, :1] = 0.5
        return replace(super().render_labelled(scenes), visibility=visibility)


class PlacementWithLamps(UniformPlacement):
    """A class of scenery, which no grammar makes."""

    scenery = ("lamp",)


class Annotated(Synthetic):
    """Images whose truth is annotated."""

    annotated = True


def hidden_world() -> World:
    return World(MultiMNIST(), UniformDigits(3), UniformPlacement(), OnlyFirstVisible())


def target(kind: type[Synthetic] = Synthetic, world: World | None = None) -> Synthetic:
    return kind(world or abacus(), RandomDigits(1, 3), LinePlacement(), num_images=60)


# --- results ---


def measured(**settings: Any) -> Results:
    model = SceneModel(abacus(), structure())
    return Evaluation(**{"num_scenes": 80, **settings}).measure(model, target()).results


def test_every_row_is_measured_with_an_interval() -> None:
    found = measured(attribute_statistics=[AttributeValue("x", "x"), AttributeValue("y", "y")])
    assert list(found.structure) == ["count", "class"] and list(found.attributes) == ["x", "y"]
    rows = found.structure["count"].distances["tv"]
    assert list(rows) == ["prior", "learned", "best_pcfg", "noise_floor"]
    assert all(rows[row].interval is not None for row in ("prior", "learned", "best_pcfg"))
    assert rows["noise_floor"].interval is None and rows["noise_floor"].value > 0
    assert set(found.structure["count"].means) == {"prior", "learned", "best_pcfg", "target"}
    assert found.structure["class"].means == {}
    assert list(found.attributes["x"].distances["w1"]) == ["prior", "learned", "noise_floor"]
    assert found.measured_with.num_scenes == 80 and found.measured_with.target == "Synthetic"
    assert found.images is None


def test_the_same_seed_gives_the_same_results_and_another_one_others() -> None:
    one, again, other = (measured(seed=seed) for seed in (1, 1, 2))
    assert one == again and one.structure != other.structure


def test_the_prior_is_as_far_from_the_target_as_its_distribution_says() -> None:
    """Uniform numbers of digits against those of the hidden prior."""
    world, truth = abacus(), target().truth
    found = Evaluation([ObjectCount()], num_scenes=20_000).measure(SceneModel(world, structure()), target())
    counts = torch.bincount(truth.mask.sum(1), minlength=4) / len(truth)
    exact = (counts - 1 / 4).abs().sum() / 2
    assert found.results.summary["count_tv_prior"] == pytest.approx(float(exact), abs=0.02)
    shares = {one.name: one.shares for one in found.histograms}["count"]
    assert shares["target"][:4] == pytest.approx(counts.tolist(), abs=1e-5) and not any(shares["target"][4:])


def test_an_attribute_without_values_has_no_histogram_and_the_others_keep_their_names() -> None:
    statistics = [AttributeValue("x", "none"), AttributeValue("y", "some")]
    samples = {"none": sample(), "some": sample(1, 2, 9)}
    every = {name: dict.fromkeys(("prior", "learned", "target"), one) for name, one in samples.items()}
    found = Evaluation(attribute_statistics=statistics).histograms(SceneModel(abacus(), structure()), every)
    assert [(one.name, one.title) for one in found] == [("some", "y of objects")]


def test_statistics_need_names_of_their_own() -> None:
    with pytest.raises(UserError, match="several statistics are called x"):
        Evaluation(attribute_statistics=[AttributeValue("x", "x"), AttributeValue("y", "x")])
    with pytest.raises(UserError, match="Evaluation: num_scenes must be at least 2, not 1"):
        Evaluation(num_scenes=1)


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (Evaluation([ObjectCount("car")]), "measures the class 'car', but there is no such class"),
        (Evaluation(attribute_statistics=[AttributeValue("z", "z")]), "'z'"),
    ],
)
def test_what_a_world_lacks_is_named_before_training(evaluation: Evaluation, message: str) -> None:
    world = World(MultiMNIST(), UniformDigits(3), PlacementWithLamps(), Abacus())
    Evaluation(attribute_statistics=[AttributeValue("x", "x", classes=["lamp"])]).check_statistics(world)
    with pytest.raises(UserError, match=message):
        evaluation.check_statistics(world)


def test_structure_has_no_scenery() -> None:
    """Bins are those of the grammar's classes; the first validation refuses a statistic of scenery."""
    world = World(MultiMNIST(), UniformDigits(3), PlacementWithLamps(), Abacus())
    model, known = SceneModel(world), Synthetic(world, UniformDigits(3), num_images=20)
    attributes = [AttributeValue("x", "x", classes=["0", "lamp"])]
    found = Evaluation(num_scenes=20, attribute_statistics=attributes).measure(model, known)
    assert [one.name for one in found.histograms] == ["count", "class", "x"]
    for one in found.histograms:
        assert all(len(shares) == len(one.bins) for shares in one.shares.values()), one.name
    assert found.histograms[1].bins == list(world.grammar.classes)
    with pytest.raises(UserError, match="the class 'lamp', but there is no such class"):
        Evaluation([ObjectCount("lamp", name="lamps")]).validate(model, known)


# --- annotated targets ---


@pytest.mark.parametrize(("kind", "most"), [(Synthetic, 3), (Annotated, 1)])
def test_what_is_hidden_does_not_count_where_the_truth_is_annotated(kind: type[Synthetic], most: int) -> None:
    world = hidden_world()
    model, known = SceneModel(world, structure()), kind(world, UniformDigits(3), num_images=20)
    rules = sample_derivations(model, 90, 0, CPU, known)
    evaluation = Evaluation(num_scenes=90, num_images=60, evaluate_labels=True)
    tables = evaluation._structure_samples(model, rules, known)
    for row in ("prior", "learned"):
        scenes = structure_scenes(model, rules[row], known.annotated, 60, 0)
        counts = scenes.mask.sum(1)
        assert len(scenes) == (60 if most == 1 else 90)
        assert int(counts.max()) == most or (row == "learned" and most > 1)
        assert torch.equal(tables["count"][row], one_hot(counts))
        assert torch.equal(tables["class"][row].sum(1), counts)
    assert torch.equal(tables["class"]["target"], known.truth.counts(10))
    found = evaluation.measure(model, known).results
    assert found.measured_with.num_images == (60 if kind.annotated else None)


def test_labels_of_real_images_are_not_evaluated_unless_asked_for() -> None:
    """Prior and learned model are counted as for a target without labels, and nothing is compared."""
    model, known = SceneModel(abacus(), structure()), target(Annotated)
    place = AttributeValue("y", "y")
    found = Evaluation(attribute_statistics=[place], num_scenes=40).measure(model, known, features=Beads())
    assert found.results.structure == {} == found.results.attributes and found.results.readings is not None
    assert not any("tv" in key or "w1" in key or "pcfg" in key for key in found.results.summary)
    count = found.histograms[0]
    assert count.name == "count" and list(count.shares) == ["prior", "learned"]
    assert Evaluation(num_scenes=40).validate(model, known) == {}
    assert Evaluation(num_scenes=40, evaluate_labels=True).truth(known) is known.truth
    assert Evaluation().truth(target()) is not None, "the truth of rendered images is no label"
    known.__dict__["truth"] = None
    with pytest.raises(UserError, match=r"but the target's images \(Annotated\) have no labels: leave it out"):
        Evaluation(evaluate_labels=True).truth(known)


@pytest.mark.parametrize("annotated", [False, True])
def test_processes_share_the_scenes(annotated: bool) -> None:
    """The scenes of both together are those of one process."""
    model = SceneModel(hidden_world(), structure())
    rules = sample_derivations(model, 130, 0, CPU)["prior"]
    whole = structure_scenes(model, rules, annotated, 120, 0).counts(10)
    parts = [structure_scenes(model, rules, annotated, 120, 0, Processes(rank, 2)).counts(10) for rank in (0, 1)]
    assert sum(map(len, parts)) == len(whole) and min(map(len, parts)) > 0
    assert sorted(torch.cat(parts).tolist()) == sorted(whole.tolist())


# --- metrics that accumulate ---


def test_total_variation_accumulates_tables_of_different_widths() -> None:
    truth, parts = torch.eye(3).long(), [torch.eye(2).long(), torch.zeros(0, 1).long(), torch.eye(5).long()]
    metric = TotalVariation(truth)
    for part in parts:
        metric.update(part)
    padded = torch.cat([torch.nn.functional.pad(part, (0, 5 - part.shape[1])) for part in parts])
    exact = total_variation(distribution(padded), torch.nn.functional.pad(distribution(truth), (0, 2)))
    assert float(metric.compute()) == pytest.approx(float(exact))
    metric.reset()
    metric.update(truth)
    assert float(metric.compute()) == 0


def sample(*values: float) -> AttributeSample:
    return AttributeSample(torch.tensor(values, dtype=torch.double), torch.arange(len(values)), len(values))


@pytest.mark.parametrize("period", [None, 10.0])
def test_wasserstein_accumulates_values(period: float | None) -> None:
    truth, parts = sample(1, 2, 9), [sample(3, 4), sample(), sample(8)]
    metric = AttributeWasserstein(truth.values, period)
    for part in parts:
        metric.update(part)
    exact = attribute_w1(torch.cat([part.values for part in parts]), truth.values, period)
    assert float(metric.compute()) == pytest.approx(exact)


# --- validation ---


class Note(Callback):
    """Keeps what validations logged."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self.found.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")})


def validations(folder: Path, kind: type[Synthetic], devices: int) -> list[dict[str, float]]:
    """Validate an untrained model; with a rate of zero all processes keep the same one."""
    attributes = [AttributeValue("y", "y")]
    evaluation = Evaluation(attribute_statistics=attributes, num_scenes=101, num_images=101, evaluate_labels=True)
    note, world = Note(), hidden_world()
    model, data = learner(world), images(world, batch_size=8)
    data.target = target(kind, world)
    more: dict[str, Any] = {"strategy": "ddp"} if devices > 1 else {}
    run = trainer(folder, 0, devices=devices, callbacks=[Validation(evaluation), note], limit_val_batches=1, **more)
    run.validate(model, datamodule=data, verbose=False)
    return note.found


@pytest.mark.parametrize("kind", [Synthetic, Annotated])
def test_validations_in_two_processes_agree_with_one(tmp_path: Path, kind: type[Synthetic]) -> None:
    expected = validations(tmp_path, kind, 1)
    assert len(expected) == 1 and set(expected[0]) == {"val/count_tv", "val/class_tv", "val/y_w1"}
    assert min(expected[0].values()) > 0
    for found in on_two_ranks(validations, tmp_path, tmp_path, kind, 2):
        assert [one.keys() for one in found] == [one.keys() for one in expected]
        for one, known in zip(found, expected, strict=True):
            assert one == pytest.approx(known, rel=1e-5)


def test_an_unknown_target_is_not_validated() -> None:
    unknown = target()
    unknown.__dict__["truth"] = None  # in place of the cached property
    assert Evaluation().validate(SceneModel(abacus(), structure()), unknown) == {}
