"""Training that diverges ends with an error that names stage, step and learning rate, and nothing of it is kept."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import EXPECTED, Beads, abacus, images, learner, stage_trainer, structure, trainer
from torch import Tensor, nn

from ms2.core.divergence import FiniteTraining, TrainedWeights, explained_divergence, max_abs
from ms2.core.errors import UserError
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.pretraining import Pretraining
from ms2.learning.stage import Stage
from ms2.learning.stages import run_stage

pytestmark = EXPECTED

STAGES = {
    "pretraining": lambda: Pretraining(abacus(), structure(), max_steps=3, batch_size=8, lr=1e30, num_validation=10),
    "extractor": lambda: ExtractorTraining(abacus(), Beads(14.0), max_steps=2, batch_size=8, lr=1e30),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_diverges_is_named_and_not_cached(name: str, tmp_path: Path) -> None:
    def make_trainer(stage: Stage) -> object:
        return stage_trainer(tmp_path, stage)

    said = rf"^stage '{name}' diverged: at step \d weights .*\. Nothing of it is kept; lower {name}\.lr, now 1e\+30$"
    with pytest.raises(UserError, match=said):
        run_stage(STAGES[name](), make_trainer, tmp_path / "cache")
    assert not list(tmp_path.rglob("*.pt"))


def test_learning_that_diverges_leaves_no_checkpoint(tmp_path: Path) -> None:
    model = learner(abacus(), lr=1e30)
    run = trainer(tmp_path, 4)
    said = r"^learning diverged: at step \d weights .*lower model\.structure_learner\.lr, now 1e\+30$"
    with pytest.raises(UserError, match=said), explained_divergence(model):
        run.fit(model, images(model.world, batch_size=8))
    with pytest.raises(UserError, match=r"^learning diverged"):
        run.save_checkpoint(tmp_path / "a.ckpt")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_it_is_seen_when_values_are_logged(tmp_path: Path) -> None:
    stage = ExtractorTraining(abacus(), Beads(14.0), max_steps=30, batch_size=8)
    steps, original = [], stage.training_step

    def spoiled(batch: int, batch_idx: int) -> Tensor:
        steps.append(batch)
        return original(batch, batch_idx) * (math.nan if batch == 3 else 1)

    stage.training_step = spoiled  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"^stage 'extractor' diverged: at step 5 weights are not finite\. "):
        trainer(tmp_path, 30, log_every_n_steps=5).fit(stage)
    assert steps == [0, 1, 2, 3, 4]


# -- the check itself --------------------------------------------------------------------------------------


class Part(FiniteTraining):
    trained_part = "the part"

    def __init__(self, *weights: float, loss: float = 1.0) -> None:
        self.weights, self._last_loss = torch.tensor(weights), torch.tensor(loss)
        self.trainer = SimpleNamespace(global_step=7)

    def trained_weights(self) -> list[TrainedWeights]:
        return [TrainedWeights("a.lr", 0.5, [self.weights]), TrainedWeights("b.lr", 2.0, [torch.ones(2)])]


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (Part(1.0, math.nan), "weights are not finite. Nothing of it is kept; lower a.lr, now 0.5"),
        (Part(-math.inf), "weights are not finite. Nothing of it is kept; lower a.lr, now 0.5"),
        (Part(-2e7), "weights are as large as 2e+07. Nothing of it is kept; lower a.lr, now 0.5"),
        (
            Part(1.0, loss=math.nan),
            "the loss is not finite. Nothing of it is kept; lower a.lr, now 0.5 and b.lr, now 2",
        ),
    ],
)
def test_what_diverged_is_said(part: Part, what: str) -> None:
    assert part.divergence() == f"the part diverged: at step 7 {what}"
    with pytest.raises(UserError, match=r"^the part diverged"):
        part.check_finite()
    with pytest.raises(UserError, match=r"^the part diverged"), explained_divergence(part):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")


def test_other_errors_and_finite_weights_pass() -> None:
    part = Part(0.0, -999.0)
    part.check_finite()
    with pytest.raises(RuntimeError, match="out of memory"), explained_divergence(part):
        raise RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"), explained_divergence(nn.Linear(1, 1)):
        raise RuntimeError("out of memory")
    assert max_abs([]) == 0 and max_abs([torch.zeros(0), torch.tensor([-3.0, 2.0])]) == 3
