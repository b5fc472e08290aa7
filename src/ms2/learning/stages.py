"""Stages before learning: each an ordinary Lightning fit, run once for its settings and reused afterwards."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

import ms2
from ms2.core.files import save_atomically
from ms2.core.settings import code, fingerprint
from ms2.learning.autoencoding import Autoencoding
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.pretraining import Pretraining

Stage = ExtractorTraining | Pretraining | Autoencoding


say = rank_zero_only(print)
"""Print once, however many processes there are."""


@dataclass(frozen=True)
class StageResult:
    """What a finished stage leaves beside its weights.

    Attributes:
        seconds: Wall-clock time that the training took, when it was done.
        reused: Whether it had been done before.
        metrics: What it logged last.
    """

    seconds: float
    reused: bool
    metrics: Mapping[str, float]


def run_stage(stage: Stage, make_trainer: Callable[[Stage], Trainer], cache: Path) -> StageResult:
    """Train what the stage trains, or load it if the same settings were trained before.

    Args:
        stage: The stage, whose product is trained in place.
        make_trainer: Called only if there is something to train.
        cache: Folder of finished stages; a file there is named after the stage and a hash of its settings and code.
    """
    path = cache / f"{type(stage).__name__}-{fingerprint(ms2.__version__, code(stage), stage)}.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location="cpu")
        stage.product.load_state_dict(saved["weights"])
        say(f"{type(stage).__name__}: done before, taken from {path}")
        return StageResult(saved["seconds"], True, saved["metrics"])
    start = time.monotonic()
    trainer = make_trainer(stage)
    trainer.fit(stage)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()} | stage.findings
    result = StageResult(time.monotonic() - start, False, metrics)
    if trainer.is_global_zero:
        weights = {name: tensor.cpu() for name, tensor in stage.product.state_dict().items()}
        save_atomically(path, {"weights": weights, "seconds": result.seconds, "metrics": dict(metrics)})
    trainer.strategy.barrier()
    return result
