"""`MetaSim2` in plain Python, without the command line and its stages."""

from pathlib import Path

import pytest
import torch
from helpers import EXPECTED, Beads, abacus
from pytorch_lightning import Trainer

from ms2.gradients.advantages import Normalised
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.structure_learner import StructureLearner
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.objectives.kde import KDE
from ms2.targets.synthetic import Synthetic
from ms2.worlds.multimnist.priors import RandomDigits

pytestmark = [
    *EXPECTED,
    pytest.mark.filterwarnings("ignore:Starting from v1.9.0"),  # without TensorBoard, Lightning logs to CSV files
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # ... of which there are few here
]


@pytest.mark.parametrize("logger", [False, True])
def test_a_trainer_learns_structure_without_the_command_line(tmp_path: Path, logger: bool) -> None:
    world, features = abacus(), Beads()
    structure = StructureModel(world.grammar, t_max=12, network=LSTM(8))
    before = [weight.clone() for weight in structure.parameters()]
    model = MetaSim2(world, structure, features, StructureLearner(KDE(bandwidth=0.1), Normalised()))
    target = TargetImages(Synthetic(world, RandomDigits(seed=13, max_digits=3), num_images=100), batch_size=16)
    trainer = Trainer(max_steps=4, logger=logger, accelerator="cpu", devices=1, default_root_dir=tmp_path)
    trainer.fit(model, target)
    assert trainer.global_step == 4
    assert not any(torch.equal(a, b) for a, b in zip(before, structure.parameters(), strict=True) if a.numel() > 8)
    assert {"train/score", "train/lr", "train/entropy", "train/rejection_rate"} <= trainer.callback_metrics.keys()
    drawn = torch.cat(trainer.predict(model, target))  # as many images as there are in the target
    assert drawn.shape == (100, 10, 1, 1)


def test_a_checkpoint_holds_tensors_and_plain_values_alone(tmp_path: Path) -> None:
    model = MetaSim2(abacus(), StructureModel(abacus().grammar, 12), Beads(), StructureLearner(KDE(0.1), Normalised()))
    target = TargetImages(Synthetic(abacus(), RandomDigits(1, 3), num_images=20), batch_size=8)
    trainer = Trainer(max_steps=1, logger=False, accelerator="cpu", devices=1, default_root_dir=tmp_path)
    trainer.fit(model, target)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert saved["grammar"]["fingerprint"] == model.world.grammar.fingerprint
    assert {name.split(".")[0] for name in saved["state_dict"]} == {"structure", "features"}
