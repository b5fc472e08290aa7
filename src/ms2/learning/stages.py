"""Run stages before learning, cached by settings: each is one Lightning fit."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

import ms2
from ms2.core.files import write_tensors
from ms2.core.settings import fingerprint, source_fingerprint
from ms2.core.typed_json import decode, encode
from ms2.learning.autoencoding import Autoencoding
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.pretraining import Pretraining
from ms2.learning.stage import Stage
from ms2.metrics.results import StageRecord

STAGES: tuple[type[Stage], ...] = (ExtractorTraining, Pretraining, Autoencoding)
"""The stages that ``ms2 fit`` runs before learning, in order."""

say = rank_zero_only(print)
"""Print on the first process only."""


def run_stage(stage: Stage, make_trainer: Callable[[Stage], Trainer], cache: Path) -> StageRecord:
    """Train a stage's module in place, or load its weights from the cache.

    Args:
        stage: The stage.
        make_trainer: Makes the stage's trainer; called only if the result is not in the cache.
        cache: Folder of finished stages; a file is named after the stage and a hash of its settings and code.
    """
    path = cache / f"{type(stage).__name__}-{fingerprint(ms2.__version__, source_fingerprint(stage), stage)}.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location="cpu")
        stage.trained_module.load_state_dict(saved["weights"])
        say(f"{type(stage).__name__}: done before, taken from {path}")
        record: StageRecord = decode(StageRecord, saved["record"], path)
        return replace(record, reused=True)
    start = time.monotonic()
    trainer = make_trainer(stage)
    trainer.fit(stage)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    record = StageRecord(time.monotonic() - start, False, metrics, stage.findings)
    if trainer.is_global_zero:
        weights = {name: tensor.cpu() for name, tensor in stage.trained_module.state_dict().items()}
        write_tensors(path, {"weights": weights, "record": encode(record)})
    trainer.strategy.barrier()
    return record
