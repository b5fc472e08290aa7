"""Checkpoints of runs and of the stages before them: written atomically, and enough to resume to the same result."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from ms2.core.files import write_tensors
from ms2.models.checkpoints import read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, and reads them with errors that say what is wrong."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint to a temporary file, then rename it."""
        write_tensors(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            CheckpointError: If it is none.
        """
        found = read_checkpoint(Path(path), map_location or "cpu")
        version = pytorch_lightning.__version__  # type: ignore[attr-defined]  # it has one, but does not export it
        found.setdefault("pytorch-lightning_version", version)  # which Lightning asks for
        return found


class RandomState(Callback):
    """Keeps the state of torch's global random generators in checkpoints, for networks with dropout."""

    def __init__(self) -> None:
        self._restored: dict[str, torch.Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generators."""
        found = {"cpu": torch.get_rng_state()}
        return found | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state of the interrupted run."""
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore it, now that nothing more is drawn before the next step."""
        if "cpu" in self._restored:
            torch.set_rng_state(self._restored["cpu"].cpu())
        if "cuda" in self._restored and pl_module.device.type == "cuda":
            torch.cuda.set_rng_state(self._restored["cuda"].cpu())
        self._restored = {}


class StageCheckpoint(Checkpoint):
    """Saves a stage every few steps in one file, with the seconds and the metrics so far.

    After a step with a validation it saves at the end of that, which may stop the training.

    Args:
        path: The file.
        every: Steps between checkpoints.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self._start = time.monotonic()
        self._seconds_before = 0.0
        self._metrics: dict[str, float] = {}
        self._due = False

    @property
    def seconds(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self._seconds_before + time.monotonic() - self._start

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        """Return what was logged last under each name, before an interruption too."""
        return self._metrics | {name: float(value) for name, value in trainer.callback_metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return seconds and metrics."""
        return {"seconds": self.seconds, "metrics": self._metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore seconds and metrics of the interrupted training."""
        self._seconds_before, self._metrics = state_dict["seconds"], dict(state_dict["metrics"])

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save after a step, unless it was the last."""
        self._due = trainer.global_step % self.every == 0 and trainer.global_step < trainer.max_steps
        if self._due and not _validates(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Save after a validation, if one is due."""
        if self._due and not trainer.sanity_checking and not trainer.should_stop:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._due, self._metrics = False, self.metrics(trainer)
        trainer.save_checkpoint(self.path, weights_only=False)  # with the optimiser's state


def _validates(trainer: Trainer) -> bool:
    """Whether a validation follows this step."""
    interval = trainer.val_check_batch
    return trainer.enable_validation and isinstance(interval, int) and trainer.global_step % interval == 0
