"""Parameters are learned in turns with structure, by any gradient, and go wherever a run's scenes go."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers import CONFIGS, EXPECTED, command, ms2, on_two_ranks, results_of, rng, trainer
from jaxtyping import Float
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ms2.core.errors import UserError
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import render_record
from ms2.evaluation.callbacks import Validation
from ms2.evaluation.detectors.compared_run import open_run
from ms2.evaluation.evaluation import Evaluation
from ms2.features.base import Blocks, SceneFeatureExtractor
from ms2.features.dense import DenseCounts
from ms2.features.dense_attributes import DenseAttributes
from ms2.gradients.advantages import LeaveOneOut, Normalised
from ms2.gradients.base import Gradient
from ms2.gradients.finite_difference import FiniteDifference
from ms2.gradients.pathwise import Pathwise
from ms2.gradients.score_function import ScoreFunction
from ms2.gradients.straight_through import StraightThrough
from ms2.grammar.grammar import Grammar
from ms2.learning.autoencoding import Autoencoding
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.parameter_learner import ParameterLearner
from ms2.learning.stages import run_stage
from ms2.learning.structure_learner import StructureLearner
from ms2.learning.turns import Schedule, Turns
from ms2.metrics.attribute_distances import attribute_w1
from ms2.metrics.attributes import AttributeValue
from ms2.metrics.results import load_histograms
from ms2.models.networks.recurrent import LSTM
from ms2.models.opening import open_model
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import LEARNED, PRIOR
from ms2.models.structure import StructureModel
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import MMDWitness
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import ListLengthPrior
from ms2.render.base import Renderer, Rendering
from ms2.scene.attributes import EVERY, Attribute
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import LinePlacement, NormalPlacement, RandomDigits, UniformDigits
from ms2.worlds.multimnist.renderer import DigitCanvas

pytestmark = EXPECTED


class Dial(Renderer):
    """One pixel, as light as the hand of the scene's dial is far."""

    channels, size = 1, (1, 1)
    attributes = (Attribute("far", 0, 1),)
    differentiable = frozenset({"far"})

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 1 1 1"]:
        return scenes.attributes["far"][:, :1, None, None]

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        boxes, corners = torch.zeros(*scenes.classes.shape, 4), torch.zeros(*scenes.classes.shape, 4, 2)
        none = torch.full((len(scenes), 1, 1), -1)
        return Rendering(
            self.render(scenes), scenes.classes, scenes.parents, boxes, corners, boxes, none, boxes[..., 0]
        )


class Around(ParameterPrior):
    """Hands about a place.

    Args:
        place: Where.
        spread: How far about it.
    """

    mutable = {EVERY: (Attribute("far", 0, 1),)}  # noqa: RUF012

    def __init__(self, place: float = 0.3, spread: float = 0.1) -> None:
        self.place, self.spread = place, spread

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        draw = torch.rand(scenes.classes.shape, generator=generator)
        return scenes.with_attributes(far=self.place + self.spread * (2 * draw - 1))


class DialReader(SceneFeatureExtractor):
    """Reads the pixel, and knows that it is the hand's place."""

    def forward(self, images: Float[Tensor, "b 1 1 1"]) -> Blocks:
        return {"far": images.flatten(1)}

    def ground_truth(self, scenes: SceneBatch, centres: Tensor | None) -> Blocks:
        return {"far": scenes.attributes["far"][:, :1]}


def dial() -> World:
    return World(Grammar("Scene -> red | blue"), ListLengthPrior(), Around(), Dial())


def target(world: World) -> TargetImages:
    return TargetImages(Synthetic(world, ListLengthPrior(), Around(0.75, 0.05), num_images=400), batch_size=64)


class How(NamedTuple):
    """How parameters are learned, and when."""

    learner: ParameterLearner
    turns: Turns


def learning(
    gradient: Gradient | None = None,
    schedule: Schedule = "last",
    parameter_fraction: float = 1.0,
    ema_steps: int = 1,
    **settings: Any,
) -> How:
    learner = ParameterLearner(KDE(0.003), gradient or Pathwise(), **({"lr": 1e-2} | settings))
    return How(learner, Turns(schedule, parameter_fraction, ema_steps))


def learner(world: World, how: How, **settings: Any) -> MetaSim2:
    """Structure and parameters; further settings are those of the structure learner."""
    torch.manual_seed(0)
    model = ParameterModel(world, hidden=16, num_layers=1, num_heads=2)
    structure = StructureModel(world.grammar, 4, network=LSTM(8))
    structure_learner = StructureLearner(KDE(0.05), LeaveOneOut(), **settings)
    return MetaSim2(world, structure, DialReader(), structure_learner, model, how.learner, how.turns)


# --- turns ---


class Watch(Callback):
    """Which of the two models each step changes."""

    def __init__(self) -> None:
        self.steps = ""

    @staticmethod
    def weights(model: LightningModule) -> list[Tensor]:
        return [
            torch.cat([p.detach().flatten() for p in part.parameters()])
            for part in (model.structure, model.parameter_model)
        ]

    def on_train_batch_start(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
        self.before = self.weights(model)

    def on_train_batch_end(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
        changed = [not torch.equal(a, b) for a, b in zip(self.before, self.weights(model), strict=True)]
        self.steps += {(True, False): "s", (False, True): "p"}.get((changed[0], changed[1]), "?")


@pytest.mark.parametrize(
    ("schedule", "share", "expected"),
    [("last", 0.5, "sssppp"), ("first", 0.5, "pppsss"), ("alternating", 0.5, "spspsp"), ("last", 1.0, "pppppp")],
)
def test_structure_and_parameters_take_turns(tmp_path: Path, schedule: Schedule, share: float, expected: str) -> None:
    """What has been learned stays as it is while it is the other's turn, momentum or not."""
    world, watch = dial(), Watch()
    model = learner(world, learning(schedule=schedule, parameter_fraction=share, lr_decay=False), lr_decay=False)
    trainer(tmp_path, 6, callbacks=[watch]).fit(model, datamodule=target(world))
    assert watch.steps == expected


@pytest.mark.parametrize(("schedule", "expected"), [("last", "ppp"), ("first", "lll"), ("alternating", "pll")])
def test_structure_sees_the_priors_parameters_until_some_are_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: Schedule, expected: str
) -> None:
    """The prior's places end at 0.4; those of the parameter model, which nobody has trained, are about a half."""
    world, seen = dial(), list[str]()
    model = learner(world, learning(schedule=schedule, parameter_fraction=0.5, lr=1e-9))
    sample = model.structure_learner.sample

    def watched(*args: Any) -> Any:
        samples = sample(*args)
        seen.append("p" if float(samples.features["far"].max()) <= 0.4 else "l")
        return samples

    monkeypatch.setattr(model.structure_learner, "sample", watched)
    trainer(tmp_path, 6).fit(model, datamodule=target(world))
    assert "".join(seen) == expected


@pytest.mark.parametrize(("schedule", "expected"), [("last", "pll"), ("first", "lll"), ("alternating", "lll")])
def test_validations_measure_the_parameters_that_structure_sees(
    tmp_path: Path, schedule: Schedule, expected: str
) -> None:
    """After two, four and six steps, of which half learn parameters."""
    world, seen = dial(), list[str]()

    class Note(Callback):
        def on_validation_end(self, trainer: Trainer, model: LightningModule) -> None:
            seen.append("p" if float(trainer.callback_metrics["val/far_w1"]) > 0.4 else "l")

    validation = Validation(Evaluation(attribute_statistics=[AttributeValue("far", name="far")]))
    model = learner(world, learning(schedule=schedule, parameter_fraction=0.5, lr=1e-9))
    run = trainer(tmp_path, 6, callbacks=[validation, Note()], limit_val_batches=1, val_check_interval=2,
                  check_val_every_n_epoch=None)  # fmt: skip
    run.fit(model, datamodule=target(world))
    assert "".join(seen) == expected


def test_gradients_of_several_batches_are_refused(tmp_path: Path) -> None:
    """The scenes of both would be the same, and scores compare those of one batch."""
    world = dial()
    with pytest.raises(UserError, match=r"trainer.accumulate_grad_batches must be 1"):
        trainer(tmp_path, 2, accumulate_grad_batches=2).fit(learner(world, learning()), datamodule=target(world))


def test_a_frozen_encoder_stays(tmp_path: Path) -> None:
    world = dial()
    model = learner(world, learning(freeze_encoder=True))
    assert model.parameter_model is not None
    before = {name: value.clone() for name, value in model.parameter_model.state_dict().items()}
    trainer(tmp_path, 3).fit(model, datamodule=target(world))
    changed = {name.split(".")[0] for name, value in model.parameter_model.state_dict().items()
               if not torch.equal(value, before[name])}  # fmt: skip
    assert changed == {"decoder"}


@pytest.mark.parametrize("schedule", ["last", "first", "alternating"])
def test_the_last_step_of_parameters_ends_with_the_mean_of_their_weights(tmp_path: Path, schedule: Schedule) -> None:
    """An exponential one, of the first steps that of all; what comes before goes its own way."""

    def steps(average: int) -> list[Tensor]:
        world, found = dial(), list[Tensor]()

        class Note(Callback):
            def on_train_batch_end(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
                found.append(Watch.weights(model)[1])

        how = learning(schedule=schedule, parameter_fraction=0.5, ema_steps=average)
        trainer(tmp_path, 12, callbacks=[Note()]).fit(learner(world, how), datamodule=target(world))
        return found

    alone, averaged = steps(1), steps(3)
    last = {"last": 11, "first": 5, "alternating": 11}[schedule]
    theirs = {"last": range(6, 12), "first": range(6), "alternating": range(1, 12, 2)}[schedule]
    mean = alone[theirs[0]]
    for number, step in enumerate(theirs):
        mean = mean + (alone[step] - mean) * max(1 / (number + 1), 1 / 3)
    assert all(torch.equal(a, b) for a, b in zip(alone[:last], averaged[:last], strict=True))
    torch.testing.assert_close(averaged[last], mean)
    assert not torch.allclose(averaged[last], alone[last]) and torch.equal(averaged[-1], averaged[last])


def test_learning_rates_fall_in_their_own_steps(tmp_path: Path) -> None:
    world, rates = dial(), []

    class Note(Callback):
        def on_train_batch_end(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
            rates.append([group["lr"] for group in model.optimizers().param_groups])

    model = learner(world, learning(parameter_fraction=0.5, lr=0.8), lr=0.4)
    trainer(tmp_path, 8, callbacks=[Note()]).fit(model, datamodule=target(world))
    assert [row[0] for row in rates[:4]] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [row[1] for row in rates[4:]] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def two_ranks(folder: Path, frozen: bool) -> list[Tensor]:
    """Weights after some steps of both kinds."""
    world = dial()
    model = learner(
        world, learning(schedule="alternating", parameter_fraction=0.5, ema_steps=2, freeze_encoder=frozen), lr=0.05
    )
    trainer(folder, 4, devices=2, strategy="ddp").fit(model, datamodule=target(world))
    return Watch.weights(model)


@pytest.mark.parametrize("frozen", [False, True])
def test_two_processes_stay_together(tmp_path: Path, frozen: bool) -> None:
    """Also where each step leaves half of the weights without a gradient, or some never have one."""
    first, second = on_two_ranks(two_ranks, tmp_path, tmp_path, frozen)
    untrained = Watch.weights(learner(dial(), learning()))
    for a, b, c in zip(first, second, untrained, strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


# --- learning ---


@pytest.fixture(scope="module")
def autoencoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of the stage, which is the same for every gradient."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("gradient", "steps", "share_left"),
    [
        (Pathwise(), 120, 0.1),
        (StraightThrough(), 120, 0.1),
        (FiniteDifference(0.05), 120, 0.1),
        (ScoreFunction(Normalised()), 250, 0.25),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Gradient) else str(value),
)
def test_the_targets_distribution_is_learned(
    tmp_path: Path, autoencoders: Path, gradient: Gradient, steps: int, share_left: float
) -> None:
    """After the autoencoder is trained; a tenth of the prior's Wasserstein distance is what users are promised."""
    world = dial()
    model = learner(world, learning(gradient))
    stage = Autoencoding(world, model.parameter_model, max_steps=150, batch_size=64, lr=1e-2)
    run_stage(stage, lambda s: trainer(tmp_path, s.max_steps), autoencoders)
    data = target(world)
    trainer(tmp_path, steps).fit(model, datamodule=data)
    rules = world.structure_prior.sample(world.grammar, 2000, rng(3))
    far = {
        name: model.scene_model.scenes(rules, rng(4), row).attributes["far"][:, 0]
        for name, row in (("prior", PRIOR), ("learned", LEARNED))
    }
    true = data.target.scenes.attributes["far"][:, 0]  # type: ignore[attr-defined]
    assert attribute_w1(far["learned"], true, None) < share_left * attribute_w1(far["prior"], true, None)


def test_reading_is_exact_where_features_read_without_error() -> None:
    world, found = dial(), []
    real = {"far": torch.rand(32, 1, generator=rng(9))}
    for gradient in (Pathwise(), StraightThrough()):
        model = learner(world, learning(gradient))
        assert model.parameter_model is not None and model.parameter_learner is not None
        prior = world.sample_prior(32, rng())
        loss, *_ = model.parameter_learner.surrogate(model.scene_model, DialReader(), prior, real, rng(1))
        found.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameter_model.parameters()))])
        )
    assert found[0].abs().max() > 1e-4
    torch.testing.assert_close(found[0], found[1])


def test_truth_is_what_a_perfect_reader_reads() -> None:
    """Blocks of `DenseAttributes` as sums over objects, by a loop."""
    world = World(MultiMNIST(), UniformDigits(3), NormalPlacement((0.5, 0.2), (0.4, 0.2), (20.0, 40.0)), DigitCanvas(
        60, 12, rotation=True))  # fmt: skip
    reads = {"columns": ["column"], "turned": ["row", "angle"]}
    features = DenseAttributes(1, world.classes, world.mutable_attributes, attribute_blocks=reads, bins=5, harmonics=2)
    scenes = world.sample_prior(6, rng())
    truth = features.ground_truth(scenes, world.renderer.centres(scenes))

    def steps(place: float) -> Tensor:
        return torch.sigmoid(((torch.arange(5) + 0.5) / 5 - place) * 10)

    for b in range(6):
        columns, turned = torch.zeros(5), torch.zeros(5, 4)
        for n in range(scenes.classes.shape[1]):
            if scenes.classes[b, n] < 0:
                continue
            x, y, a = (float(scenes.attributes[name][b, n]) for name in ("x", "y", "angle"))
            columns += steps((6 + 48 * x) / 60)
            angle = torch.tensor([math.cos(a), math.sin(a), math.cos(2 * a), math.sin(2 * a)])
            turned += steps((6 + 48 * y) / 60)[:, None] * angle
        torch.testing.assert_close(truth["columns"][b], columns, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(truth["turned"][b], turned.flatten(), atol=1e-4, rtol=1e-4)
    assert "turned" not in features.ground_truth(scenes, None)


def test_structure_learns_from_scenes_with_learned_parameters() -> None:
    """q(V) = q(V | T) q(T): what structure is scored by has the learned parameters."""
    world = dial()
    model = learner(world, learning(parameter_fraction=0.5))
    assert model.parameter_model is not None
    with torch.no_grad():
        for weight in model.parameter_model.decoder.parameters():
            weight.zero_()
        model.parameter_model.decoder[-1].bias[0] = 20.0  # as far as it goes
    features = model.structure_learner.sample(model.scene_model, model.features, 8, rng()).features["far"]
    assert features.min() > 0.99


def test_what_can_not_be_learned_is_said() -> None:
    world = dial()
    parts = (
        world,
        StructureModel(world.grammar, 4, network=LSTM(8)),
        DialReader(),
        StructureLearner(KDE(), LeaveOneOut()),
    )
    parameters, how = ParameterModel(world, hidden=8), learning().learner
    for given, missing, some in (
        ("parameters", "parameter_learner", {"parameters": parameters}),
        ("parameter_learner", "parameters", {"parameter_learner": how}),
        ("turns", "parameters", {"turns": Turns()}),
    ):
        with pytest.raises(UserError, match=rf"model\.{given} is given without model\.{missing}"):
            MetaSim2(*parts, **some)
    with pytest.raises(UserError, match="parameter_fraction is 0, so no step"):
        MetaSim2(*parts, parameters, how, Turns(parameter_fraction=0))
    model = learner(world, learning(StraightThrough()))
    assert model.parameter_learner is not None
    plain = DenseCounts(1, world.classes)
    with pytest.raises(UserError, match="StraightThrough goes through what features read, and DenseCounts reads no"):
        model.parameter_learner.surrogate(model.scene_model, plain, world.sample_prior(4, rng()), {}, rng())


# --- a run with parameters ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of structure and parameters, with FID and KID."""
    folder = tmp_path_factory.mktemp("runs")
    random = {
        "class_path": "Backbone",
        "init_args": {"architecture": "squeezenet1_1", "layer": "features.2", "weights": None},
    }
    distances = {"features": random, "num_images": 12, "batch_size": 6}
    config = CONFIGS / "multimnist_parameters.yaml"
    ms2(command(folder, config, name="both", evaluation__image_distances=json.dumps(distances)))
    return folder / "both"


def test_results_have_a_row_for_each_part(run: Path) -> None:
    found = results_of(run)
    assert found.images is not None
    for row in ("prior", "learned_structure", "learned_parameters", "learned"):
        ends = found.attributes["x"].distances["w1"][row]
        assert ends.interval is not None and 0 <= ends.interval[0] <= ends.value <= ends.interval[1]
        assert {f"{key}_w1" if row == "learned" else f"{key}_w1_{row}" for key in "xy"} <= found.summary.keys()
        assert row in found.images.distances["kid"] and row in found.images.distances["fid"]
    assert found.attributes["x"].distances["w1"]["noise_floor"].value > 0
    assert {"prior_00.png", "learned_structure_00.png", "learned_00.png", "target_00.png"} <= {
        file.name for file in (run / "examples").iterdir()
    }
    assert {"x", "y"} <= {histogram.name for histogram in load_histograms(run / "histograms.json")}


def test_data_sets_have_learned_parameters_unless_asked_otherwise(run: Path, tmp_path: Path) -> None:
    learned, prior = open_model(str(run)), open_model(str(run), parameters="prior")
    assert learned.model.parameters is not None and prior.model.parameters is None
    assert learned.fingerprints()["parameter_prior"] != prior.fingerprints()["parameter_prior"]
    assert (
        learned.fingerprints() == learned.rebuild().fingerprints()
        and prior.fingerprints() == prior.rebuild().fingerprints()
    )
    plan = Plan(num_scenes=4, formats=("coco",), min_pixels=1, min_visibility=0.0)
    for name, source in (("learned", learned), ("prior", prior)):
        generate(Job(source, plan, tmp_path / name), workers=2 if name == "learned" else 1, progress=False)
        assert json.loads((tmp_path / name / "dataset.json").read_text())["parameters"] == name
    shown = next(i for i in range(4) if json.loads((tmp_path / f"prior/scenes/{i:06d}.json").read_text())["labels"])
    records = [json.loads((tmp_path / f"{name}/scenes/{shown:06d}.json").read_text()) for name in ("learned", "prior")]
    assert records[0]["derivation"] == records[1]["derivation"] and records[0]["scene"] != records[1]["scene"]
    assert render_record(tmp_path / "learned" / "scenes" / "000001.json")[2], "the record holds what was learned"


def test_what_was_not_learned_can_not_be_asked_for() -> None:
    with pytest.raises(UserError, match=r"multimnist has no trained parameter model"):
        open_model("multimnist", parameters="learned")


def test_comparisons_have_a_row_for_each_part(run: Path) -> None:
    rows = open_run(str(run)).rows
    assert {title: tuple(source.model.learned) for title, source in rows.items()} == {
        "prior": (False, False),
        "learned parameters": (False, True),  # Meta-Sim's
        "learned structure": (True, False),
        "learned structure and parameters": (True, True),
    }


def test_values_measured_are_those_of_the_target() -> None:
    """`AttributeValue` sees what the hidden layout has."""
    world = World(MultiMNIST(), RandomDigits(1, 3), LinePlacement(), DigitCanvas(40, 8))
    scenes = world.parameter_prior.sample(
        scenes_from_derivations(world.grammar, world.structure_prior.sample(world.grammar, 50, rng())), rng()
    )
    assert (AttributeValue("y", "y").measure(scenes, world.classes).values == 0.5).all()


def test_a_run_without_an_end_has_no_share(tmp_path: Path) -> None:
    world = dial()
    run = trainer(tmp_path, -1, max_epochs=1)
    with pytest.raises(UserError, match=r"give trainer\.max_steps"):
        run.fit(learner(world, learning()), datamodule=target(world))


def test_the_witness_learns_too(tmp_path: Path) -> None:
    world = dial()
    model = learner(world, learning()._replace(learner=ParameterLearner(MMDWitness(0.05), Pathwise(), lr=1e-2)))
    trainer(tmp_path, 3).fit(model, datamodule=target(world))
    assert Watch.weights(model)[1].isfinite().all()
