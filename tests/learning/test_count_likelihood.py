"""Numbers of objects are learned from what an extractor reads, without images of what is generated."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, Beads, abacus, images, rng, structure, trainer
from torch import Tensor

from ms2.core.errors import UserError
from ms2.features.base import CountPrediction, CountSlots
from ms2.features.channel import ReadingChannel
from ms2.gradients.advantages import Normalised
from ms2.learning.count_likelihood import CountLikelihood, StepsDone
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.probe import measure_channel, probe
from ms2.learning.structure_learner import StructureLearner
from ms2.metrics.histograms import total_variation
from ms2.models.scene_model import SceneModel
from ms2.objectives.kde import KDE
from ms2.scene.batch import scenes_from_derivations

pytestmark = EXPECTED
WORLD = abacus(3)
CLASSES = list(WORLD.classes)
NOTHING = StepsDone(0, 0)


class Counting(Beads):
    """Reads an abacus, with a channel for the total and for the first class; blurred by a fixed amount if asked to.

    Args:
        noise: Deviation of the total's reading.
    """

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.slots, self.noise = CountSlots(CLASSES), noise
        self.channel = ReadingChannel({"count": list(range(len(CLASSES))), "count_0": [0]}, largest=4)

    def predict_counts(self, images: Tensor) -> CountPrediction:
        counts = self(images)["classes"]
        # not of the total alone, as its reading is the sum of those of classes
        slots = counts + self.noise * torch.randn(len(counts), 1, generator=rng(len(counts))) / len(CLASSES)
        return CountPrediction(counts > 0.5, counts, counts.sum(1), slots)


def measured(noise: float = 0.0) -> Counting:
    features = Counting(noise)
    measure_channel(features, WORLD, WORLD.sample_prior, 4000, (0, "test"))
    return features


def model(features: Beads, steps: int = 0, **more: Any) -> MetaSim2:
    how = StructureLearner(None, Normalised(), lr=2e-2, likelihood=CountLikelihood(**more))
    return MetaSim2(WORLD, structure(), features, how)


def totals(rules: Tensor) -> Tensor:
    numbers = scenes_from_derivations(WORLD.grammar, rules).counts(10).sum(1)
    return torch.nn.functional.one_hot(numbers.clamp(max=4), 5)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_targets_numbers_are_learned_through_the_channel(noise: float, tmp_path: Path) -> None:
    """Though readings are blurred by half an object, the distribution that is learned is not."""
    data = images(WORLD, 2000, batch_size=256)
    assert data.target.truth is not None
    true = torch.nn.functional.one_hot(data.target.truth.counts(10).sum(1), 5)
    learned = model(measured(noise), blocks=["count"])
    trainer(tmp_path, 120).fit(learned, datamodule=data)
    found = totals(learned.structure.sample(4000, rng()).rules)
    before = totals(structure().sample(4000, rng()).rules)
    distance = total_variation(found.float().mean(0), true.float().mean(0))
    assert distance < (0.04 if noise == 0 else 0.08) < total_variation(before.float().mean(0), true.float().mean(0)) / 3


def test_no_image_of_a_generated_scene_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = model(measured())
    likelihood = learned.structure_learner.likelihood
    assert likelihood is not None
    likelihood.prepare(learned.scene_model, learned.features, torch.ones(100, 2), NOTHING, 0)
    monkeypatch.setattr(type(WORLD.renderer), "render", None)
    loss, log = learned.structure_learner.loss(learned.scene_model, learned.features, {"x": torch.zeros(64, 1)}, rng())
    assert loss.isfinite() and log["likelihood/divergence"] > 0 and log["likelihood/held_out"] > 0


def test_what_is_not_read_keeps_the_priors_numbers() -> None:
    """Readings of noise: the optimum is the prior's distribution of numbers, whatever the target's readings are."""
    features = Counting()
    noise = torch.rand(4000, 2, generator=rng())
    numbers = torch.randint(4, (4000, 2), generator=rng(1))
    features.channel.measure(noise, numbers, numbers, rng(2))
    likelihood, scene_model = CountLikelihood(blocks=["count"]), SceneModel(WORLD, structure())
    with pytest.warns(UserWarning, match="not read, so the prior's numbers are kept: count"):
        likelihood.prepare(scene_model, features, torch.zeros(100, 2), NOTHING, 0)
    prior = likelihood.numbers(scene_model, WORLD.structure_prior.sample(WORLD.grammar, 20_000, rng()))
    scores, log = likelihood.scores(prior, torch.arange(len(prior)))
    assert scores["count"].abs().max() < 0.1 and log["likelihood/divergence"] < 1e-3


def test_readings_beyond_those_measured_are_warned_of() -> None:
    likelihood, scene_model = CountLikelihood(), SceneModel(WORLD, structure())
    features = measured()
    highest = float(features.channel.highest[0])
    readings = torch.full((100, 2), 0.0)
    readings[:3, 0] = highest + 1
    with pytest.warns(UserWarning, match="more is read .* count in 3%"):
        likelihood.prepare(scene_model, features, readings, NOTHING, 0)
    readings[:3, 0] = highest
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CountLikelihood().prepare(scene_model, features, readings, NOTHING, 0)


def test_a_target_that_holds_more_than_can_be_counted_is_warned_of_without_an_objective() -> None:
    features = measured()
    features.overflow_fraction = lambda images: {"count": 0.3}  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="30% of the target images hold more than block 'count'"):
        model(features).embed(images(WORLD))


def test_the_channel_is_measured_again_when_parameters_have_been_learned() -> None:
    features, likelihood = measured(), CountLikelihood(num_images=500)
    scene_model = SceneModel(WORLD, structure())
    readings = torch.ones(100, 2)
    likelihood.prepare(scene_model, features, readings, NOTHING, 0)
    first, judged = features.channel.joint.clone(), features.channel.fractions.clone()
    assert first.sum() == 2 * 4000
    likelihood.prepare(scene_model, features, readings, StepsDone(0, 3), 0)
    assert features.channel.joint.sum() == 2 * 500
    assert not features.channel.fractions.equal(judged)  # light changes what can be read
    state = likelihood.state_dict()
    again = CountLikelihood(num_images=7)  # as after a checkpoint
    again.load_state_dict(state)
    again.prepare(scene_model, features, readings, StepsDone(0, 3), 0)
    assert features.channel.joint.sum() == 2 * 500


def test_the_channel_is_measured_on_scenes_of_the_model() -> None:
    """Three quarters of them, so that numbers which it does not draw are known as well."""
    features, likelihood = measured(), CountLikelihood(redraw_every=10, num_images=2000)
    model = structure()
    scene_model, readings = SceneModel(WORLD, model), torch.ones(100, 2)
    judged = features.channel.fractions.clone()
    likelihood.prepare(scene_model, features, readings, NOTHING, 0)
    likelihood.prepare(scene_model, features, readings, StepsDone(9, 0), 0)
    assert features.channel.joint.sum() == 2 * 4000
    likelihood.prepare(scene_model, features, readings, StepsDone(10, 0), 0)
    found = features.channel.joint[0].sum((1, 2)) / 2000
    learned = totals(model.sample(4000, rng()).rules).float().mean(0)
    prior = totals(WORLD.structure_prior.sample(WORLD.grammar, 4000, rng())).float().mean(0)
    assert total_variation(found, 0.75 * learned + 0.25 * prior) < 0.04 < total_variation(learned, prior)
    assert judged.equal(features.channel.fractions)  # however little the model's numbers vary
    likelihood.prepare(scene_model, features, readings, StepsDone(19, 0), 0)
    assert likelihood.measured_after.tolist() == [10, 0]


@pytest.mark.parametrize(
    ("redraw_every", "steps", "expected"),
    [
        (None, [(0, 5), (1, 5), (2, 6)], [True, False, True]),  # whenever parameters have been learned
        (10, [(0, 5), (5, 5), (10, 5)], [True, False, True]),  # parameters first: once before any step of structure
        (10, [(1, 1), (2, 2), (5, 5), (6, 6), (10, 9)], [False, False, True, False, False]),  # turns alternate
    ],
)
def test_the_channel_is_measured_no_more_often_than_asked(
    redraw_every: int | None, steps: list[tuple[int, int]], expected: list[bool]
) -> None:
    features, likelihood = measured(), CountLikelihood(redraw_every=redraw_every, num_images=60)
    scene_model, readings = SceneModel(WORLD, structure()), torch.ones(100, 2)
    found = []
    for done in steps:
        likelihood.prepare(scene_model, features, readings, StepsDone(*done), 0)
        found.append(likelihood.measured_after.tolist() == list(done))
    assert found == expected


def test_the_probe_measures_the_channel() -> None:
    features = Counting(0.3)
    found = probe(features, WORLD, {"prior": WORLD.parameter_prior, "other": WORLD.parameter_prior}, 1000)
    assert features.channel.is_measured and not found["other"].readings
    accuracy = found["prior"].readings["count"]
    assert accuracy.deviation == pytest.approx(0.3, abs=0.03) and accuracy.bias == pytest.approx(0, abs=0.03)
    assert accuracy.quality == "read" and 0.95 < accuracy.correlation < 1
    assert accuracy.information < accuracy.entropy == pytest.approx(accuracy.structure_entropy)


def test_errors_say_what_to_do() -> None:
    scene_model, ones = SceneModel(WORLD, structure()), torch.ones(4, 2)
    with pytest.raises(UserError, match="Beads reads no expected numbers"):
        CountLikelihood().prepare(scene_model, Beads(), ones, NOTHING, 0)
    with pytest.raises(UserError, match=r"'count_O'.*count_0"):
        CountLikelihood(blocks=["count_O"]).prepare(scene_model, measured(), ones, NOTHING, 0)
    with pytest.raises(UserError, match="was not measured: train it in stage 'extractor'"):
        CountLikelihood().prepare(scene_model, Counting(), ones, NOTHING, 0)
    with pytest.raises(UserError, match="names a number twice"):
        CountLikelihood(blocks=["count", "count"])
    with pytest.raises(UserError, match="blocks is empty: name numbers"):
        CountLikelihood(blocks=[])
    with pytest.raises(UserError, match="held_out must be less than 1"):
        CountLikelihood(held_out=1.0)
    both = StructureLearner(KDE(blocks=["classes"]), Normalised(), likelihood=CountLikelihood())
    with pytest.raises(UserError, match="Beads reads no expected numbers"):  # rather than that a block is missing
        both.check_features(scene_model, Beads(), WORLD.sample_prior(4, rng()))
    with pytest.raises(UserError, match="neither an objective nor a likelihood"):
        StructureLearner(None, Normalised())
