"""Checkpoints leave out pretrained weights that nothing trains, and resume with the same ones alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, abacus, images, learner, rng, stage_trainer, trainer
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torchvision import models

from ms2.features.backbone import Backbone, WeightsError
from ms2.features.base import Blocks, FeatureExtractor
from ms2.features.pretrained import PretrainedCounts
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.stages import run_stage, stage_files
from ms2.models.checkpoints import CheckpointError
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch

pytestmark = EXPECTED


def as_photograph(images: Tensor) -> Tensor:
    """The first channels of an abacus as a small colour image."""
    return images[:, :3].expand(-1, -1, 32, 32) if images.shape[2] == 1 else images


class Glance(Backbone, selectable=False):
    """A pretrained network's view of an abacus."""

    def __init__(self, weights: str | None) -> None:
        super().__init__("squeezenet1_1", "features.9", weights)

    def forward(self, images: Tensor) -> Blocks:
        return super().forward(as_photograph(images))


class Counts(PretrainedCounts, selectable=False):
    """Counts an abacus with a head on a pretrained network."""

    def __init__(self, weights: str | None) -> None:
        layers = ("features.3", "features.9")
        super().__init__(3, abacus().classes, layers=layers, weights=weights, width=8)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return super().feature_maps(as_photograph(images))

    def loss(self, images: Tensor, labels: Rendering, scenes: SceneBatch | None = None) -> Tensor:
        return super().loss(as_photograph(images), labels, scenes)


def save_network(path: Path, seed: int = 2) -> str:
    torch.manual_seed(seed)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    return str(path)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of the pretrained network's weights."""
    return save_network(tmp_path / "net.pt")


class SaveHalf(Callback):
    """Saves after the second step."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "half.ckpt", weights_only=False)


def train(model: MetaSim2, folder: Path, resumed: Path | None = None) -> Path:
    """Train four steps; the checkpoint after two."""
    run = trainer(folder, 4, callbacks=[SaveHalf()])
    run.fit(model, images(model.world, batch_size=8), ckpt_path=resumed, weights_only=True)
    run.save_checkpoint(folder / "whole.ckpt", weights_only=False)
    return folder / "half.ckpt"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def bytes_of(weights: dict[str, Tensor]) -> int:
    return sum(value.nbytes for value in weights.values())


@pytest.mark.parametrize("make", [Glance, Counts])
def test_a_checkpoint_leaves_out_what_is_pretrained_and_resumes_to_the_same(
    make: Callable[[str], FeatureExtractor], tmp_path: Path, weights: str
) -> None:
    whole = learner(abacus(), features=make(weights))
    half = train(whole, tmp_path)
    saved = read(half)
    assert list(saved["pretrained"]) == ["features.network"]
    assert not any(name.startswith("features.network.") for name in saved["state_dict"])
    own = {name for name in whole.features.state_dict() if not name.startswith("network.")}
    assert {name.removeprefix("features.") for name in saved["state_dict"] if name.startswith("features.")} == own
    network = bytes_of(whole.features.state_dict())
    assert network > 600_000 and half.stat().st_size < 260_000  # of which the channel takes a half
    resumed = learner(abacus(), features=make(weights))
    train(resumed, tmp_path, half)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_changed_network_is_named(tmp_path: Path, weights: str) -> None:
    half = train(learner(abacus(), features=Glance(weights)), tmp_path)
    other = save_network(tmp_path / "other.pt", seed=1)
    said = (
        r"'features.network' .*trained with.* up to 'features.9' from .*net.pt \(sha256 .*other.pt.* Put the file back"
    )
    with pytest.raises(CheckpointError, match=said):
        train(learner(abacus(), features=Glance(other)), tmp_path, half)
    with pytest.raises(CheckpointError, match=r"these are random \(sha256"):
        train(learner(abacus(), features=Glance(None)), tmp_path, half)
    with pytest.raises(CheckpointError, match=r"'features.network' is unknown to this model"):
        train(learner(abacus()), tmp_path, half)
    save_network(Path(weights), seed=1)  # the file itself was replaced
    with pytest.raises(CheckpointError, match=r"net.pt \(sha256 (\w+)\), and these are .*net.pt \(sha256 (?!\1)"):
        train(learner(abacus(), features=Glance(weights)), tmp_path, half)
    Path(weights).unlink()
    with pytest.raises(WeightsError, match=r"there are no weights .*net.pt"):
        Glance(weights)


def test_a_checkpoint_that_holds_the_network_loads(tmp_path: Path, weights: str) -> None:
    """As earlier versions wrote them, with weights that need not be those of the file."""
    half = train(learner(abacus(), features=Glance(weights)), tmp_path)
    saved, other = read(half), Glance(save_network(tmp_path / "other.pt", seed=1))
    del saved["pretrained"]
    saved["state_dict"] |= {f"features.{name}": value for name, value in other.state_dict().items()}
    torch.save(saved, tmp_path / "old.ckpt")
    model = learner(abacus(), features=Glance(weights))
    train(model, tmp_path, tmp_path / "old.ckpt")
    again = read(tmp_path / "whole.ckpt")
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.features.state_dict()[name])
        assert torch.equal(value, again["state_dict"][f"features.{name}"]), "they are no longer those of the file"


def test_random_weights_and_changed_ones_stay(tmp_path: Path, weights: str) -> None:
    changed = Glance(weights)
    with torch.no_grad():
        next(changed.network.parameters()).add_(1e-3)
    for features in (Glance(None), changed):
        saved = read(train(learner(abacus(), features=features), tmp_path))
        assert not saved["pretrained"]
        assert {f"features.{name}" for name in features.state_dict()} <= saved["state_dict"].keys()


def test_a_stage_leaves_them_out_and_goes_on(tmp_path: Path, weights: str) -> None:
    def stage(weights: str = weights) -> ExtractorTraining:
        torch.manual_seed(0)
        return ExtractorTraining(abacus(), Counts(weights), max_steps=4, batch_size=8, num_probe_images=8)

    def make(one: Any) -> Any:
        return stage_trainer(tmp_path, one)

    whole, interrupted, resumed, reused = (stage() for _ in range(4))
    run_stage(whole, make, tmp_path / "whole")
    interrupted.on_train_batch_start = lambda batch, index: 1 / 0 if index == 3 else None  # type: ignore[method-assign]
    cache = tmp_path / "cache"
    with pytest.raises(ZeroDivisionError):
        run_stage(interrupted, make, cache, 2)
    files = stage_files(resumed, cache)
    assert not any(".network." in name for name in read(files.checkpoint)["state_dict"])
    run_stage(resumed, make, cache, 2)
    assert not any(name.startswith("network.") for name in read(files.result)["weights"])
    assert run_stage(reused, make, cache).reused
    for name, value in whole.features.state_dict().items():
        assert torch.equal(value, resumed.features.state_dict()[name]), name
        assert torch.equal(value, reused.features.state_dict()[name]), name
    head = whole.features.head.state_dict()
    assert not any(torch.equal(value, stage().features.head.state_dict()[name]) for name, value in head.items())
    save_network(Path(weights), seed=1)
    with pytest.warns(UserWarning, match=r"'network' are not those .*it is made anew"):
        assert not run_stage(stage(), make, cache).reused
    images = abacus().renderer.render(abacus().sample_prior(4, rng()))
    assert all(block.isfinite().all() for block in reused.features(images).values())
