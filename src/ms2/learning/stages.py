"""Run stages before learning, cached by settings: each is one Lightning fit, which resumes after an interruption."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

import ms2
from ms2.core.divergence import explained_divergence
from ms2.core.files import read_cached, write_tensors
from ms2.core.settings import fingerprint, source_fingerprint
from ms2.core.typed_json import decode, encode
from ms2.learning.autoencoding import Autoencoding
from ms2.learning.checkpoints import AtomicCheckpointIO, RandomState, StageCheckpoint
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.pretraining import Pretraining
from ms2.learning.probe import describe_readings
from ms2.learning.stage import Stage
from ms2.metrics.results import StageRecord
from ms2.models.checkpoints import difference
from ms2.models.pretrained_weights import LEFT_OUT, fill_in, leave_out

STAGES: tuple[type[Stage[Any]], ...] = (ExtractorTraining, Pretraining, Autoencoding)
"""The stages that ``ms2 fit`` runs before learning, in order."""

say = rank_zero_only(print)
"""Print on the first process only."""


class StageFiles(NamedTuple):
    """Files of a stage in a cache, named after the stage and a hash of its settings and code.

    Attributes:
        result: Weights and record of the finished stage.
        checkpoint: Checkpoint of an interrupted one, until it is finished.
    """

    result: Path
    checkpoint: Path


def stage_files(stage: Stage[Any], cache: Path) -> StageFiles:
    """Return the files of a stage in a cache."""
    name = f"{type(stage).__name__}-{fingerprint(ms2.__version__, source_fingerprint(stage), stage)}"
    return StageFiles(cache / f"{name}.pt", cache / f"{name}.ckpt")


def load_stage(stage: Stage[Any], cache: Path) -> StageRecord | None:
    """Load the weights of a finished stage into its module; return None if they are not in the cache."""
    path = stage_files(stage, cache).result
    found = read_cached(path, lambda saved: _parse(stage, saved, path))
    if found is None:
        return None
    weights, record = found
    stage.trained_module.load_state_dict(weights)
    return record


def run_stage(
    stage: Stage[Any], make_trainer: Callable[[Stage[Any]], Trainer], cache: Path, checkpoint_every: int = 50
) -> StageRecord:
    """Train a stage's module in place, or load its weights from the cache.

    Args:
        stage: The stage.
        make_trainer: Makes the stage's trainer; called only if the result is not in the cache.
        cache: Folder of finished stages, and of checkpoints of interrupted ones; see `StageFiles`.
        checkpoint_every: Steps between checkpoints.
    """
    files = stage_files(stage, cache)
    record = load_stage(stage, cache)
    if record is not None:
        say(f"{type(stage).__name__}: done before, taken from {files.result}")
        return replace(record, reused=True)
    trainer, checkpoints = make_trainer(stage), StageCheckpoint(files.checkpoint, checkpoint_every)
    trainer.callbacks += [RandomState(), checkpoints]  # type: ignore[attr-defined]
    trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    step = read_cached(files.checkpoint, lambda saved: _resumable(stage, saved))
    if step is not None:
        say(f"{type(stage).__name__}: resuming after step {step}, from {files.checkpoint}")
    with explained_divergence(stage):
        if stage.max_steps:
            trainer.fit(stage, ckpt_path=None if step is None else files.checkpoint, weights_only=True)
        else:  # Lightning fits no module without weights
            stage.measure(trainer.strategy.root_device)
    for accuracy in stage.findings.values():
        if accuracy.readings:
            say(describe_readings(accuracy.readings))
    record = StageRecord(checkpoints.seconds, False, checkpoints.metrics(trainer), stage.findings)
    if trainer.is_global_zero:
        weights = {name: tensor.cpu() for name, tensor in stage.trained_module.state_dict().items()}
        left_out = leave_out(weights, stage.trained_module)
        write_tensors(files.result, {"weights": weights, LEFT_OUT: left_out, "record": encode(record)})
        files.checkpoint.unlink(missing_ok=True)
    trainer.strategy.barrier()
    return record


def _parse(stage: Stage[Any], saved: Any, path: Path) -> tuple[dict[str, torch.Tensor], StageRecord]:
    """Return weights and record of a finished stage; raise an error if they are not this stage's."""
    fill_in(saved["weights"], saved.get(LEFT_OUT), stage.trained_module)
    problem = difference(saved["weights"], stage.trained_module)
    if problem is not None:
        raise ValueError(problem)
    return saved["weights"], decode(StageRecord, saved["record"], path)


def _resumable(stage: Stage[Any], saved: Any) -> int:
    """Return the number of steps of a checkpoint; raise an error if a stage can't be resumed from it."""
    fill_in(saved["state_dict"], saved.get(LEFT_OUT), stage)
    problem = difference(saved["state_dict"], stage)
    needed = ("optimizer_states", "lr_schedulers", "loops", "callbacks")
    lacking = [key for key in needed if not saved.get(key)]
    if problem is not None or lacking:
        raise ValueError(problem or f"it lacks {', '.join(lacking)}")
    step: int = saved["global_step"]
    return step
