"""Two processes learn as one does: the same gradients from halves of a batch, features in order, files written once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, Beads, abacus, command, images, learner, on_two_ranks, trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ms2.core.distributed import Processes
from ms2.features.base import FeatureExtractor
from ms2.gradients.advantages import LeaveOneOut, MovingAverage, Normalised
from ms2.grammar.derivations import Derivations
from ms2.learning.structure_learner import Samples, StructureLearner
from ms2.models.scene_model import SceneModel
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import BatchMMD, MMDWitness

pytestmark = EXPECTED
PARTS = {
    "KDE": (KDE, Normalised),
    "KDE with self": (lambda h: KDE(h, leave_one_out=False), LeaveOneOut),
    "MMDWitness": (MMDWitness, MovingAverage),
    "BatchMMD": (BatchMMD, MovingAverage),
}


class Gradient(Callback):
    """Keeps the gradients of each step, those of several processes already averaged."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
        self.steps.append(torch.cat([p.grad.flatten() for p in model.structure.parameters()]))


class Half(StructureLearner):
    """Draws its process's part of scenes that are the same however many processes there are."""

    step = 0

    def sample(self, model: SceneModel, features: FeatureExtractor, n: int, generator: torch.Generator) -> Samples:
        here = Processes.current()
        size = n * here.world_size
        whole = super().sample(model, features, size, torch.Generator().manual_seed(self.step))
        self.step += 1
        mine = slice(here.rank * n, (here.rank + 1) * n)
        rejections = (torch.arange(size) % 3)[mine]
        derivations = Derivations(whole.derivations.rules[mine], rejections)
        return Samples(derivations, {name: block[mine] for name, block in whole.features.items()})


def gradients(folder: Path, parts: str, processes: int) -> dict[str, Any]:
    """Gradients of three steps, and what the baseline remembers."""
    objective, advantage = PARTS[parts]
    model, keep = learner(abacus(), objective(0.5), advantage(), reject_weight=0.2, lr=0.05), Gradient()
    model.structure_learner.__class__ = Half
    strategy = "ddp" if processes == 2 else "auto"
    run = trainer(folder, 3, devices=processes, strategy=strategy, callbacks=[keep])
    run.fit(model, datamodule=images(model.world, 20, batch_size=12))
    return {"gradients": torch.stack(keep.steps), **model.structure_learner.advantages[0].state_dict()}


@pytest.mark.parametrize("parts", PARTS)
def test_half_a_batch_in_each_of_two_processes_gives_the_gradient_of_the_whole(tmp_path: Path, parts: str) -> None:
    whole = gradients(tmp_path, parts, 1)
    assert whole["gradients"].abs().max() > 1e-3
    for rank in on_two_ranks(gradients, tmp_path, tmp_path, parts, 2):
        torch.testing.assert_close(rank, whole, atol=1e-5, rtol=1e-4)


def embedded(folder: Path, num_images: int) -> dict[str, Tensor]:
    model = learner(abacus())
    run = trainer(folder, 1, devices=2, strategy="ddp")
    run.fit(model, datamodule=images(model.world, num_images, embedding_batch_size=3, batch_size=4))
    return model.target_features


def test_an_odd_number_of_images_is_embedded_in_order_by_two_processes(tmp_path: Path) -> None:
    data = images(abacus(), 15)
    expected = data.embedded(Beads())
    assert len(expected["classes"]) == 15
    for rank in on_two_ranks(embedded, tmp_path, tmp_path, 15):
        torch.testing.assert_close(rank, expected)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run as typed, whose second process Lightning starts itself: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("runs")
    words = command(folder, name="two", trainer__devices=2, trainer__strategy="ddp")
    alone = {key: value for key, value in os.environ.items() if key != "LOCAL_RANK"} | {"OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "ms2", *words]
    done = subprocess.run(program, env=alone, capture_output=True, text=True, timeout=300, check=False)
    return folder / "two", done


def test_two_processes_run_all_stages_and_write_results_once(
    two: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, done = two
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((run / "metrics.json").read_text())["measured_with"]["steps"] == 4
    assert json.loads((run / "run.json").read_text())["finished"]
    assert done.stdout.count("results: ") == 1
    assert [path.name for path in (run / "csv").iterdir()] == ["version_0"]
    stages = sorted(path.name.split("-")[0] for path in (run.parent / "cache").iterdir())
    assert stages == ["ExtractorTraining", "Pretraining", "TargetFeatures"]


def test_two_processes_log_what_both_have_computed(two: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Else Lightning warns, once for each number."""
    assert "sync_dist" not in two[1].stderr
