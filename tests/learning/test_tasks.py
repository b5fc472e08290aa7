"""The stages of a run: REINFORCE's gradient, the embedded target, pretraining, the extractor, and what is kept."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, Abacus, Beads, abacus, fit, images, learner, rng, stage_trainer, structure, trainer
from jaxtyping import Float
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ms2.core.errors import UserError
from ms2.evaluation.evaluation import Evaluation
from ms2.features.base import Blocks, FeatureExtractor
from ms2.gradients.advantages import Advantage, LeaveOneOut, MovingAverage, Normalised
from ms2.grammar.derivations import Derivations
from ms2.grammar.rules import GrammarError
from ms2.learning.data import TargetImages
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.pretraining import Pretraining
from ms2.learning.probe import probe
from ms2.learning.stages import run_stage
from ms2.learning.structure_learner import Samples
from ms2.metrics.results import ProbeResult
from ms2.objectives.base import Objective
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import MMDWitness
from ms2.priors.structure import ListLengthPrior
from ms2.render.base import Renderer, Rendering
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits, UniformDigits, UniformPlacement

pytestmark = EXPECTED

# --- structure learning ---


def gradient(loss: Tensor, model: torch.nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def by_hand(advantage: Advantage, score: Tensor) -> Tensor:
    """Advantages of a first batch."""
    if isinstance(advantage, LeaveOneOut):
        return torch.stack([s - torch.cat([score[:j], score[j + 1 :]]).mean() for j, s in enumerate(score)])
    centred = score - score.sum() / len(score)
    return centred / (centred**2).mean().sqrt() if isinstance(advantage, Normalised) else centred


@pytest.mark.parametrize("advantage", [LeaveOneOut, Normalised, MovingAverage])
@pytest.mark.parametrize("objective", [KDE, MMDWitness])
def test_the_loss_has_the_gradient_of_reinforce(objective: type[Objective], advantage: type[Advantage]) -> None:
    """mean_j advantage_j * grad log q(T_j), with one backward pass for each scene."""
    n, weight = 10, 0.3
    model = learner(abacus(), objective(0.5), advantage(), reject_weight=weight, correct_rejection=False)
    how = model.structure_learner
    rules = model.world.structure_prior.sample(model.world.grammar, n, rng())
    features = model.features(model.world.images(rules, rng()))
    features = {name: block.detach() for name, block in features.items()}
    real = {name: block.roll(1, 0) + 0.3 for name, block in features.items()}
    rejections = torch.arange(n) % 4
    score = torch.cat(
        [
            how.objective({k: f[j : j + 1] for k, f in features.items()}, features, torch.tensor([j]), real)[0]
            for j in range(n)
        ]
    )
    score = score + torch.tensor([weight if r > 1 else 0.0 for r in rejections])
    assert score.std() > 0.05
    grads = [gradient(model.structure.log_prob(rules[j : j + 1])[0], model.structure) for j in range(n)]
    expected = (by_hand(how.advantages[0], score)[:, None] * torch.stack(grads)).mean(0)

    loss, _ = how.surrogate(model.structure, Samples(Derivations(rules, rejections), features), real)
    torch.testing.assert_close(gradient(loss, model.structure), expected, atol=1e-6, rtol=1e-4)
    assert how.last_score is not None
    torch.testing.assert_close(how.last_score, score)


def test_learning_moves_towards_the_target(tmp_path: Path) -> None:
    """Every scene of the target has two digits; the model, untrained, ends half of its scenes after none."""
    world = abacus()
    two = ListLengthPrior(lengths={"Digits": [0, 0, 1.0]})
    model = learner(world, KDE(0.2, blocks=["count"]), lr=2e-2)
    rules = two.sample(world.grammar, 100, rng())
    before = model.structure.log_prob(rules).mean()
    data = TargetImages(Synthetic(world, two, num_images=50), batch_size=50)
    trainer(tmp_path, 15).fit(model, datamodule=data)
    assert model.structure.log_prob(rules).mean() > before + 0.5


class Watch(Callback):
    """Looks at the extractor while structure is learned."""

    def __init__(self) -> None:
        self.seen = 0

    def on_before_zero_grad(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
        self.seen += 1
        assert model.structure.training
        assert not any(module.training for module in model.features.modules())
        assert not any(p.requires_grad or p.grad is not None for p in model.features.parameters())


@pytest.mark.parametrize("validate", [False, True])
def test_the_extractor_is_frozen_while_structure_is_learned(tmp_path: Path, validate: bool) -> None:
    model, watch = learner(abacus()), Watch()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    every = {"limit_val_batches": 1, "val_check_interval": 2, "check_val_every_n_epoch": None} if validate else {}
    trainer(tmp_path, 5, callbacks=[watch], **every).fit(model, datamodule=images(model.world, batch_size=8))
    assert watch.seen == 5
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("structure.") for name in changed)


class Sealed(Synthetic):
    """Images whose truth must not be looked at."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.pixels = super().__getitems__(range(len(self)))
        self.opened = True

    def __getitems__(self, indices: Any) -> list[Tensor]:
        return [self.pixels[i] for i in indices]

    def __getattribute__(self, name: str) -> Any:
        if name == "truth" and "opened" in vars(self):
            raise AssertionError("learning looked at the truth")
        return super().__getattribute__(name)


def test_learning_never_looks_at_the_truth(tmp_path: Path) -> None:
    world = abacus()
    data = TargetImages(Sealed(world, RandomDigits(1, 3), num_images=20), batch_size=8)
    with pytest.raises(AssertionError, match="looked at"):
        assert data.target.truth
    trainer(tmp_path, 3).fit(learner(world), datamodule=data)


# --- credit ---


CREDIT = {"count": ["Digits"], "classes": ["Digit"]}


def credited_gradient(credit: dict[str, list[str]] | None, blocks: list[str] | None) -> dict[str, Tensor]:
    """Gradient of one step on the same samples."""
    world = abacus()
    model = learner(world, KDE(0.2, blocks=blocks), credit_assignment=credit)
    samples = model.structure_learner.sample(model.scene_model, model.features, 40, rng())
    real = model.features.requires_grad_(False)(
        world.images(RandomDigits(3, 3).sample(world.grammar, 40, rng(1)), rng(1))
    )
    model.structure_learner.surrogate(model.structure, samples, real)[0].backward()
    return {name: p.grad.clone() for name, p in model.structure.named_parameters() if p.grad is not None}


def test_credit_for_everything_is_no_credit() -> None:
    every = {block: list(MultiMNIST().nonterminals) for block in CREDIT}
    plain = credited_gradient(None, ["count", "classes"])
    for name, gradient in credited_gradient(every, ["count", "classes"]).items():
        torch.testing.assert_close(gradient, plain[name], msg=name)


def test_each_block_weighs_the_steps_of_its_symbols_alone() -> None:
    """The head's rows belong to rules, and each step moves those of its own symbol."""
    grammar = MultiMNIST()
    split = credited_gradient(CREDIT, ["count", "classes"])["head.bias"]
    for block, (symbol,) in CREDIT.items():
        alone = credited_gradient(None, [block])["head.bias"]
        rows = list(grammar.rules_of(symbol))
        torch.testing.assert_close(split[rows], alone[rows])
        assert split[rows].any()


@pytest.mark.parametrize(
    ("credit", "said"),
    [({"count": ["Digit5"]}, "expands no such symbol. Did you mean 'Digit'"), ({"cuont": ["Digits"]}, "'count'")],
)
def test_credit_that_makes_no_sense(credit: dict[str, list[str]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        credited_gradient(credit, None)


def test_each_group_of_symbols_has_a_baseline_of_its_own() -> None:
    world = abacus()
    model = learner(world, KDE(0.2), MovingAverage(), credit_assignment=CREDIT)
    samples = model.structure_learner.sample(model.scene_model, model.features, 40, rng())
    model.features.requires_grad_(False)
    real = model.features(world.images(RandomDigits(3, 3).sample(world.grammar, 40, rng(1)), rng(1)))
    model.structure_learner.surrogate(model.structure, samples, real)
    baselines = {float(value) for name, value in model.state_dict().items() if name.endswith("baseline")}
    assert len(baselines) == len(model.structure_learner.advantages) == 3 and not any(map(math.isnan, baselines))


def test_credit_finds_the_target(tmp_path: Path) -> None:
    """Exact features, and two groups of symbols."""
    world = abacus()
    model = learner(world, KDE(0.2), Normalised(), credit_assignment=CREDIT, lr=3e-2)
    data = TargetImages(Synthetic(world, RandomDigits(1, 3), num_images=500), batch_size=64)
    trainer(tmp_path, 150).fit(model, datamodule=data)
    found = Evaluation(num_scenes=4000).measure(model.scene_model, data.target).results.summary
    assert found["count_tv"] < 0.08 < found["count_tv_prior"]


class FirstAlone(Abacus):
    """An abacus on which nobody sees more than the first bead."""

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        visibility = torch.zeros(scenes.classes.shape)
        visibility[:, :1] = 0.5
        return replace(super().render_labelled(scenes), visibility=visibility)


class Batches(Callback):
    """Keeps which target images each step compared with."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def on_train_batch_start(self, trainer: Trainer, model: LightningModule, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(tuple(batch.tolist()))


@pytest.mark.parametrize("extent", [{"max_steps": 10}, {"max_steps": -1, "max_epochs": 2}], ids=["steps", "epochs"])
def test_each_step_compares_with_target_images_of_its_own(tmp_path: Path, extent: dict[str, int]) -> None:
    """40 images in batches of 8 make five steps an epoch."""
    batches = Batches()
    trainer(tmp_path, callbacks=[batches], **extent).fit(
        learner(abacus()), datamodule=images(abacus(), 40, batch_size=8)
    )
    assert len(batches.seen) == len(set(batches.seen)) == 10


# --- pretraining ---


def test_pretraining_refuses_a_prior_that_the_model_cant_express(tmp_path: Path) -> None:
    world = World(MultiMNIST(), UniformDigits(10), UniformPlacement(), Abacus())
    with pytest.raises(GrammarError, match=r"of 22 steps.* at most t_max = 12: raise model\.structure\.t_max"):
        trainer(tmp_path, 1).fit(Pretraining(world, structure(t_max=12)))


def test_pretraining_comes_close_to_the_entropy_of_the_prior(tmp_path: Path) -> None:
    """None or one of ten digits: ln 2 + ln 10 / 2."""
    stage = Pretraining(abacus(1), structure(), max_steps=120, batch_size=128, lr=3e-2, validate_every=60)
    run = stage_trainer(tmp_path, stage)
    run.fit(stage)
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    entropy = found["pretraining/prior_entropy"]
    assert entropy == pytest.approx(math.log(2) + math.log(10) / 2, abs=0.1)  # of 2000 derivations
    assert -0.01 < found["pretraining/val_nll"] - entropy < 0.03


def test_pretraining_on_another_prior_than_the_worlds(tmp_path: Path) -> None:
    model = structure()
    stage = Pretraining(abacus(3), model, max_steps=60, batch_size=64, lr=3e-2, structure_prior=UniformDigits(0))
    stage_trainer(tmp_path, stage).fit(stage)
    empty = scenes_from_derivations(MultiMNIST(), model.sample(200, rng()).rules)
    assert int(empty.mask.sum()) < 5, "the other prior has no digits at all"


def test_pretraining_leaves_out_what_is_longer_than_the_model_may_make(tmp_path: Path) -> None:
    """Of 0 to 10 digits, given that there are no more than 5."""
    world = World(MultiMNIST(), UniformDigits(10), UniformPlacement(), Abacus())
    model = structure(22, max_length={"Digits": 5})
    stage = Pretraining(world, model, max_steps=120, batch_size=128, lr=3e-2)
    stage_trainer(tmp_path, stage).fit(stage)
    numbers = scenes_from_derivations(MultiMNIST(), model.sample(4000, rng()).rules).mask.sum(1).bincount() / 4000
    assert len(numbers) == 6
    torch.testing.assert_close(numbers, torch.full((6,), 1 / 6), atol=0.06, rtol=0)
    with pytest.raises(GrammarError, match=r"longer lists than model\.structure\.max_length allows"):
        trainer(tmp_path, 1).fit(Pretraining(world, structure(22, max_length={"Digits": 2})))


def test_pretraining_stops_at_a_plateau(tmp_path: Path) -> None:
    stage = Pretraining(abacus(1), structure(), 100, 8, lr=0.0, validate_every=5, stop_after=3, num_validation=20)
    run = stage_trainer(tmp_path, stage)
    run.fit(stage)
    assert run.global_step == 20  # the first validation, and three that were no better


# --- the extractor ---


class Plain(FeatureExtractor):
    """Mean and deviation of an image, with nothing to train."""

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        return {"look": torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], 1)}


def test_the_extractor_is_trained(tmp_path: Path) -> None:
    features = Beads(scale=14.0)
    stage = ExtractorTraining(abacus(), features, max_steps=60, batch_size=32, lr=0.5)
    assert stage.needed
    stage_trainer(tmp_path, stage).fit(stage)
    assert features.scale.item() == pytest.approx(15, abs=0.1)
    assert stage.findings["prior"].scores["count_accuracy"] == 1


def test_an_extractor_that_isnt_trainable_is_left_alone(tmp_path: Path) -> None:
    assert not ExtractorTraining(abacus(), Plain()).needed
    settings = {"model__features": "Plain", "model__structure_learner__init_args__objective__init_args__bandwidth": 1.0}
    fit(tmp_path, "plain", **settings, without=["model.features.init_args.widths"])
    kept = {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert kept == {"Pretraining", "TargetFeatures"}


def probed(features: Beads) -> ProbeResult:
    return probe(features, abacus(), {"prior": UniformPlacement()}, num_images=300)["prior"]


def test_probing_a_perfect_extractor() -> None:
    found = probed(Beads())
    assert found.scores == pytest.approx({"presence_accuracy": 1, "class_error": 0, "count_accuracy": 1}, abs=1e-5)
    assert found.count_error == pytest.approx(dict.fromkeys(range(4), 0), abs=1e-5)
    assert found.slot_errors == {}


def test_probing_one_that_counts_one_too_many() -> None:
    said = r"parameter prior 'prior': objects by \+1\.00 where there are \d and 3 more"
    with pytest.warns(UserWarning, match=said):
        found = probed(Beads(too_many=1))
    assert found.scores["count_accuracy"] == 0 and found.scores["class_error"] == pytest.approx(0, abs=1e-5)
    assert found.count_error == pytest.approx(dict.fromkeys(range(4), 1))


def test_probing_one_that_sees_half_of_each_object() -> None:
    """Half an object is not present; of two, the half is one too few, and of three, 1.5 too few."""
    with pytest.warns(UserWarning, match=r"objects by -1\.80 where there are 3 and 2 more"):
        found = probed(Beads(scale=6.0))
    counts = abacus().sample_prior(300, probe_generator()).counts(10)
    assert found.scores["class_error"] == pytest.approx(0.6 * counts.float().mean().item())
    assert found.scores["presence_accuracy"] == pytest.approx(((counts > 1) == (counts > 0)).float().mean().item())
    assert found.scores["count_accuracy"] == pytest.approx((counts.sum(1) == 0).float().mean().item())


class Seen(Beads):
    """Reads the first bead alone, as it was not told of any that is hidden."""

    least_visible = 0.1

    def forward(self, images: Tensor) -> Blocks:
        counts = super().forward(images)["classes"]
        some = counts.sum(1, keepdim=True)
        return {"classes": counts / some.clamp(min=1), "count": some.clamp(max=1)}


def test_what_an_extractor_is_not_told_of_is_no_mistake() -> None:
    world = World(MultiMNIST(), UniformDigits(3), UniformPlacement(), FirstAlone())
    found = probe(Seen(), world, {"prior": UniformPlacement()}, num_images=300)["prior"]
    assert found.count_error == pytest.approx({0: 0, 1: 0}, abs=1e-5)
    assert found.scores["count_accuracy"] == 1


def probe_generator() -> torch.Generator:
    from ms2.core.seeding import generator

    return generator(0, "probe", "prior")


# --- stages that are done already ---


def small(lr: float = 1e-2, renderer: Renderer | None = None) -> Pretraining:
    world = World(MultiMNIST(), UniformDigits(2), UniformPlacement(), renderer or Abacus())
    return Pretraining(world, structure(), max_steps=2, batch_size=8, lr=lr, num_validation=10)


class Makes:
    """Makes trainers, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def __call__(self, stage: Any) -> Trainer:
        self.made += 1
        return stage_trainer(self.folder, stage)


def test_a_stage_is_trained_once_for_its_settings(tmp_path: Path) -> None:
    make, cache = Makes(tmp_path), tmp_path / "cache"
    first, again, other = small(), small(), small(lr=2e-2)
    with torch.no_grad():
        again.structure.head.bias += 1
    result = run_stage(first, make, cache)
    assert not result.reused and make.made == 1 and result.seconds > 0
    reused = run_stage(again, make, cache)
    assert reused.reused and make.made == 1
    assert (reused.seconds, reused.metrics) == (result.seconds, result.metrics)
    for ours, theirs in zip(first.structure.parameters(), again.structure.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not run_stage(other, make, cache).reused and make.made == 2
    assert len(list(cache.iterdir())) == 2


def test_a_disk_that_fills_up_leaves_no_half_of_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, cache = Makes(tmp_path), tmp_path / "cache"

    def full(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no space"):
            run_stage(small(), make, cache)
    assert list(cache.iterdir()) == []
    assert not run_stage(small(), make, cache).reused and make.made == 2


def test_a_stage_appears_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is written, nothing has the name under which it will be looked for."""
    cache, save = tmp_path / "cache", torch.save

    def watched(content: Any, path: Path) -> None:
        save(content, path)
        assert not list(cache.glob("*.pt"))

    monkeypatch.setattr(torch, "save", watched)
    run_stage(small(), Makes(tmp_path), cache)
    assert len(list(cache.glob("*.pt"))) == len(list(cache.iterdir())) == 1
