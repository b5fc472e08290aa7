"""Train a run's stages and then its model, with logging, checkpoints and evaluation."""

import contextlib
import inspect
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, WandbLogger

import ms2
from ms2.cli.run_folder import Identity, RunFolder
from ms2.cli.run_logger import RunLogger
from ms2.core.divergence import explained_divergence
from ms2.core.errors import UserError
from ms2.core.settings import Configured, fingerprint, source_fingerprint
from ms2.evaluation.callbacks import StageProgressBar, Validation, WriteResults
from ms2.evaluation.evaluation import Evaluation
from ms2.learning.checkpoints import AtomicCheckpointIO, RandomState
from ms2.learning.stage import Stage
from ms2.learning.stages import run_stage, say

PROCESS_START_TIME = time.monotonic()
"""About when the command started: when it imported this module."""

SHARED_TRAINER_ARGUMENTS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "deterministic",
    "log_every_n_steps",
    "fast_dev_run",
)
"""Arguments of the trainer that all stages share."""


PLACE_AND_DISPLAY = frozenset(
    (
        *("accelerator", "devices", "num_nodes", "strategy", "plugins", "benchmark", "use_distributed_sampler"),
        *("logger", "log_every_n_steps", "callbacks", "profiler", "barebones", "default_root_dir", "model_registry"),
        *("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "detect_anomaly", "inference_mode"),
        *("num_sanity_val_steps", "val_check_interval", "check_val_every_n_epoch"),
        *("limit_val_batches", "limit_test_batches", "limit_predict_batches"),
        *("max_time", "fast_dev_run", "enable_autolog_hparams"),
    )
)
"""Arguments of the trainer that are no part of a run's identity.

They say where it runs, what is shown and measured meanwhile, and when to stop early. All others, also those of later
versions, determine what is learned.
"""

HOW_IMAGES_ARE_LOADED = ("num_workers", "num_predict_images", "keep_mib")
"""Settings of the data that are no part of a run's identity."""


def run_identity(
    trainer: Mapping[str, Any], model: Configured, data: Configured, stages: Iterable[Configured]
) -> Identity:
    """Return the fingerprints of the settings and the code that determine what is learned.

    Args:
        trainer: Arguments of Lightning's Trainer.
        model: The model.
        data: The target images.
        stages: All stages, also those without anything to train (`Stage.needed`).
    """
    stages = list(stages)
    parameters = inspect.signature(Trainer.__init__).parameters.values()
    every = {one.name: one.default for one in parameters if one.name != "self"} | dict(trainer)
    extent = {key: str(value) for key, value in every.items() if key not in PLACE_AND_DISPLAY}
    images = {key: value for key, value in data.settings.items() if key not in HOW_IMAGES_ARE_LOADED}
    settings = fingerprint(ms2.__version__, extent, model, type(data).__qualname__, images, *stages)
    return Identity(settings, source_fingerprint(model, data, *stages))


class Run:
    """Trains stages and a model in the folder of a run, and resumes what was interrupted.

    Args:
        folder: The run's folder.
        trainer_arguments: Arguments of Lightning's Trainer.
        loggers: Loggers of all stages.
        evaluation: What is measured during and after training.
        checkpoint_every: Steps between checkpoints.
        start_time: When the command, or the call of `ms2.fit`, started (``time.monotonic``).

    Attributes:
        trainer: The trainer of the model.
        results: The callback that measures the trained model and writes its results.
    """

    def __init__(
        self,
        folder: RunFolder,
        trainer_arguments: Mapping[str, Any],
        loggers: list[Logger],
        evaluation: Evaluation | None = None,
        checkpoint_every: int = 50,
        start_time: float = PROCESS_START_TIME,
    ) -> None:
        self.folder, self.trainer_arguments, self.checkpoint_every = folder, trainer_arguments, checkpoint_every
        self.progress_bar = trainer_arguments.get("enable_progress_bar") is not False
        evaluation = evaluation or Evaluation()
        self.results = WriteResults(evaluation, folder.path, folder.path.name, start_time)
        checkpoints = ModelCheckpoint(
            folder.checkpoints,
            "step{step}",
            every_n_train_steps=checkpoint_every,
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        bar = [StageProgressBar()] if self.progress_bar else []
        own = {
            "logger": trainer_arguments.get("logger") or loggers,
            "callbacks": [
                *_listed(trainer_arguments.get("callbacks")),
                *bar,
                Validation(evaluation),
                self.results,
                RandomState(),
                checkpoints,
            ],
            "plugins": [*_listed(trainer_arguments.get("plugins")), AtomicCheckpointIO()],
            "default_root_dir": str(folder.path),
            "use_distributed_sampler": False,
        }
        self.trainer = make_trainer(dict(trainer_arguments) | own)

    def fit(
        self,
        model: LightningModule,
        data: LightningDataModule,
        stages: Iterable[Stage[Any]] = (),
        checkpoint: str | Path | None = None,
        resume: bool = True,
    ) -> None:
        """Train stages that have not been trained with the same settings, then the model.

        Args:
            model: The model.
            data: The target images.
            stages: Stages before it, in order; those without anything to train (`Stage.needed`) are left out.
            checkpoint: File to resume from; the run's last checkpoint by default, if there is one.
            resume: Whether to resume from the run's last checkpoint.
        """
        data.setup("fit")  # errors of the target before anything is trained
        self.train_stages(stages)
        if checkpoint is None and resume and self.folder.last_checkpoint.exists():
            say(f"resuming from {self.folder.last_checkpoint}")
            checkpoint = self.folder.last_checkpoint
        with interruptible(), explained_divergence(model):
            self.trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        self.trainer.save_checkpoint(self.folder.last_checkpoint, weights_only=False)  # with the optimiser's state
        if not reached_end(self.trainer):
            step, last = self.trainer.global_step, self.trainer.max_steps
            say(
                f"stopped after step {step}{f' of {last}' if last > 0 else ''}, as trainer.max_time or a callback "
                "asked for: this run is not finished. The same command without that goes on"
            )
        elif self.trainer.is_global_zero:
            self.folder.finish()
            for logger in self.trainer.loggers:
                if isinstance(logger, RunLogger) and logger.online:
                    logger.log_model()
        self.finish_logging()

    def finish_logging(self) -> None:
        """End the run in Weights & Biases: all of it is on disk when the command ends, also within a longer program."""
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger) and self.trainer.is_global_zero:
                logger.experiment.finish()

    def train_stages(self, stages: Iterable[Stage[Any]]) -> None:
        """Train stages that have not been trained with the same settings."""
        for stage in stages:
            if stage.needed:
                with interruptible():
                    record = run_stage(stage, self.stage_trainer, self.folder.cache, self.checkpoint_every)
                self.results.stages[stage.name] = record

    def stage_trainer(self, stage: Stage[Any]) -> Trainer:
        """A trainer for a stage before learning, on the same devices and with the same loggers."""
        interval = stage.val_check_interval and min(stage.val_check_interval, stage.max_steps)
        shared = {key: value for key, value in self.trainer_arguments.items() if key in SHARED_TRAINER_ARGUMENTS}
        own = {
            "max_steps": stage.max_steps,
            "val_check_interval": interval,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "logger": self.trainer.loggers,
            "callbacks": [StageProgressBar(stage.title)] if self.progress_bar else [],
            "enable_progress_bar": self.progress_bar,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "default_root_dir": str(self.folder.path),
        }
        return make_trainer(shared | own)


def reached_end(trainer: Trainer) -> bool:
    """Whether a trainer has trained all of its steps or epochs, rather than been stopped before."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    return 0 <= steps <= trainer.global_step or (epochs is not None and 0 <= epochs <= trainer.current_epoch)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at Ctrl-C, where Lightning ends the whole program and ignores further ones."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def make_trainer(arguments: Mapping[str, Any]) -> Trainer:
    """Make a trainer.

    Raises:
        UserError: If its arguments are wrong, or name devices that are not there.
    """
    try:
        return Trainer(**arguments)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"the trainer can't be made with these settings of 'trainer': {error}") from error


def _listed(things: Any) -> list[Any]:
    if things is None:
        return []
    return list(things) if isinstance(things, (list, tuple)) else [things]
