"""`MetaSim2` in a trainer: in plain Python, what stays frozen, what is never read, and which images a step compares."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, Beads, abacus, images, learner, rng, trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ms2.gradients.advantages import Normalised
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.structure_learner import StructureLearner
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.objectives.kde import KDE
from ms2.priors.structure import ListLengthPrior
from ms2.targets.synthetic import Synthetic
from ms2.worlds.multimnist.priors import RandomDigits

pytestmark = EXPECTED


plain_trainer = pytest.mark.filterwarnings(  # Lightning's own `Trainer` with its defaults
    "ignore:Starting from v1.9.0",  # without TensorBoard, it logs to CSV files ...
    "ignore:The number of training batches",  # ... and less often than there are batches here
)


@plain_trainer
@pytest.mark.parametrize("logger", [False, True])
def test_a_trainer_learns_structure_without_the_command_line(tmp_path: Path, logger: bool) -> None:
    world, features = abacus(), Beads()
    structure = StructureModel(world.grammar, t_max=12, network=LSTM(8))
    before = [weight.clone() for weight in structure.parameters()]
    model = MetaSim2(world, structure, features, StructureLearner(KDE(bandwidth=0.1), Normalised()))
    target = TargetImages(Synthetic(world, RandomDigits(seed=13, max_digits=3), num_images=100), batch_size=16)
    run = Trainer(max_steps=4, logger=logger, accelerator="cpu", devices=1, default_root_dir=tmp_path)
    run.fit(model, target)
    assert run.global_step == 4
    assert not any(torch.equal(a, b) for a, b in zip(before, structure.parameters(), strict=True) if a.numel() > 8)
    assert {"train/score", "train/lr", "train/entropy", "train/rejection_rate"} <= run.callback_metrics.keys()
    drawn = torch.cat(run.predict(model, target))  # as many images as there are in the target
    assert drawn.shape == (100, 10, 1, 1)


@plain_trainer
def test_a_checkpoint_holds_tensors_and_plain_values_alone(tmp_path: Path) -> None:
    model = MetaSim2(abacus(), StructureModel(abacus().grammar, 12), Beads(), StructureLearner(KDE(0.1), Normalised()))
    target = TargetImages(Synthetic(abacus(), RandomDigits(1, 3), num_images=20), batch_size=8)
    run = Trainer(max_steps=1, logger=False, accelerator="cpu", devices=1, default_root_dir=tmp_path)
    run.fit(model, target)
    run.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert saved["grammar"]["fingerprint"] == model.world.grammar.fingerprint
    assert {name.split(".")[0] for name in saved["state_dict"]} == {"structure", "features"}


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
