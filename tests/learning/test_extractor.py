"""Training of the extractor."""

from pathlib import Path

import pytest
import torch
from helpers import EXPECTED, Beads, abacus, bar_counts, bars, fit, on_two_ranks, rng, stage_trainer, trainer
from jaxtyping import Float
from torch import Tensor

from ms2.features.base import Blocks, CountError, FeatureExtractor
from ms2.features.dense import DenseCounts
from ms2.features.resnet import ResNet
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.stages import run_stage
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

pytestmark = EXPECTED


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


def test_the_trained_extractor_is_calibrated_with_images_of_training(tmp_path: Path) -> None:
    """Three steps leave running moments that are far from those of the final weights."""
    world = World(MultiMNIST(), RandomDigits(1, 5), UniformPlacement(), DigitCanvas(canvas_size=24, digit_size=8))
    features = ResNet(1, list("0123456789"), widths=(8, 8, 16), pool="mean")
    stage = ExtractorTraining(world, features, max_steps=3, batch_size=4, lr=1e-2, num_probe_images=300)
    stage_trainer(tmp_path, stage).fit(stage)
    images = world.renderer.render(world.sample_prior(1000, rng()))
    variance = features(images)["embedding"].var(0)
    varying = variance > 0
    assert varying.sum() > 4
    torch.testing.assert_close(variance[varying], torch.ones_like(variance[varying]), atol=0.3, rtol=0)


@pytest.mark.parametrize("side", [12, 120])
def test_visible_objects_alone_are_checked(side: int) -> None:
    """Digits as large as the canvas hide each other, and those that are hidden need no places."""
    prior, renderer = RandomDigits(1, 5), DigitCanvas(canvas_size=side, digit_size=12)
    world = World(MultiMNIST(), prior, UniformPlacement(), renderer)
    features = DenseCounts(1, list("0123456789"), max_count=3, min_visibility=0.9, widths=(4, 4, 4))
    stage = ExtractorTraining(world, features, max_steps=4, batch_size=16)
    if side == 12:
        stage.images.step(0, stage.device)
    else:
        with pytest.raises(CountError, match="but the extractor counts only to 3"):
            stage.images.step(0, stage.device)


def test_an_extractor_that_isnt_trainable_is_left_alone(tmp_path: Path) -> None:
    assert not ExtractorTraining(abacus(), Plain()).needed
    settings = {
        "model__features": "Plain",
        "model__structure_learner__init_args__objective__init_args__blocks": "[look]",
    }
    fit(tmp_path, "plain", **settings, without=["model.features.init_args.widths"])
    kept = {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert kept == {"Pretraining", "TargetFeatures"}


# --- extractors that count, and are not trained ---


def test_an_extractor_that_counts_untrained_is_measured_without_a_step(tmp_path: Path) -> None:
    features = bar_counts("012", blind_to=2)
    stage = ExtractorTraining(bars(), features, batch_size=8, num_images=12, num_probe_images=400)
    assert stage.needed and stage.max_steps == 0, "no images to train on are asked for"
    stage.check()
    record = run_stage(stage, lambda stage: stage_trainer(tmp_path, stage), tmp_path)
    assert features.channel.is_measured and not record.reused and record.metrics == {}
    read = record.probes["prior"].readings
    assert list(read) == [f"count_{i}" for i in range(10)], "all classes, counted or not"
    assert read["count_0"].bias == 0 == read["count_1"].deviation and read["count_0"].correlation == pytest.approx(1)
    assert read["count_2"].bias < -0.1 and read["count_2"].quality == "not read"
    assert record.probes["prior"].scores.keys() == {"class_error"}
    again = bar_counts("012", blind_to=2)
    other = ExtractorTraining(bars(), again, batch_size=8, num_images=12, num_probe_images=400)
    assert run_stage(other, lambda stage: stage_trainer(tmp_path, stage), tmp_path).reused
    assert torch.equal(again.channel.joint, features.channel.joint)


def test_more_objects_than_an_untrained_extractor_counts_are_found(tmp_path: Path) -> None:
    stage = ExtractorTraining(bars(), bar_counts(max_count=1, min_visibility=0.0))
    with pytest.raises(CountError, match="but the extractor counts only to 1"):
        stage.draw_samples(100, torch.Generator().manual_seed(0))


def measured_on_a_rank(folder: Path) -> Tensor:
    features = bar_counts("01")
    stage = ExtractorTraining(bars(), features, num_probe_images=200)
    run_stage(stage, lambda stage: trainer(folder, stage.max_steps, strategy="ddp", devices=2), folder / "cache")
    return features.channel.joint


def test_an_untrained_extractor_is_measured_by_several_processes(tmp_path: Path) -> None:
    first, second = on_two_ranks(measured_on_a_rank, tmp_path, tmp_path)
    assert torch.equal(first, second) and first.any()
