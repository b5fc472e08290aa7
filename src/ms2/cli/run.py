"""Train a run's stages and then its model, with logging, checkpoints and evaluation."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, WandbLogger

import ms2
from ms2.cli.run_folder import RunFolder
from ms2.core.settings import Configured, fingerprint
from ms2.evaluation.callbacks import AtomicCheckpointIO, StageProgressBar, Validation, WriteResults
from ms2.evaluation.evaluation import Evaluation
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
)
"""Arguments of the trainer that all stages share."""


def run_fingerprint(
    trainer: Mapping[str, Any], model: Configured, data: Configured, stages: Iterable[Configured]
) -> str:
    """Return the fingerprint of the settings that determine what is learned.

    Args:
        trainer: Arguments of Lightning's Trainer.
        model: The model.
        data: The target images.
        stages: All stages, also those without anything to train (`Stage.needed`).
    """
    extent = [str(trainer.get(key)) for key in ("max_steps", "max_epochs", "devices", "num_nodes", "precision")]
    return fingerprint(ms2.__version__, extent, model, data, *stages)


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
        self.folder, self.trainer_arguments = folder, trainer_arguments
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
                checkpoints,
            ],
            "plugins": [*_listed(trainer_arguments.get("plugins")), AtomicCheckpointIO()],
            "default_root_dir": str(folder.path),
            "use_distributed_sampler": False,
        }
        self.trainer = Trainer(**(dict(trainer_arguments) | own))

    def fit(
        self,
        model: LightningModule,
        data: LightningDataModule,
        stages: Iterable[Stage] = (),
        checkpoint: str | Path | None = None,
        fingerprint: str = "",
    ) -> None:
        """Train stages that have not been trained with the same settings, then the model.

        Args:
            model: The model.
            data: The target images.
            stages: Stages before it, in order; those without anything to train (`Stage.needed`) are left out.
            checkpoint: File to resume from; the run's last checkpoint by default, if there is one.
            fingerprint: Fingerprint of the settings that determine what is learned.
        """
        data.setup("fit")  # errors of the target before anything is trained
        self.train_stages(stages)
        if checkpoint is None and self.folder.last_checkpoint.exists():
            say(f"resuming from {self.folder.last_checkpoint}")
            checkpoint = self.folder.last_checkpoint
        self.trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        self.trainer.save_checkpoint(self.folder.last_checkpoint, weights_only=False)  # with the optimiser's state
        if self.trainer.is_global_zero:
            self.folder.write_status(fingerprint, finished=True)
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger) and self.trainer.is_global_zero:
                logger.experiment.finish()  # all of it is on disk when the command ends, also within a longer program

    def train_stages(self, stages: Iterable[Stage]) -> None:
        """Train stages that have not been trained with the same settings."""
        for stage in stages:
            if stage.needed:
                self.results.stages[stage.name] = run_stage(stage, self.stage_trainer, self.folder.cache)

    def stage_trainer(self, stage: Stage) -> Trainer:
        """A trainer for a stage before learning, on the same devices and with the same loggers."""
        interval = stage.val_check_interval and min(stage.val_check_interval, stage.max_steps)
        return Trainer(
            **{key: value for key, value in self.trainer_arguments.items() if key in SHARED_TRAINER_ARGUMENTS},
            max_steps=stage.max_steps,
            val_check_interval=interval,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=self.trainer.loggers,
            callbacks=[StageProgressBar(stage.title)] if self.progress_bar else [],
            enable_progress_bar=self.progress_bar,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=str(self.folder.path),
        )


def _listed(things: Any) -> list[Any]:
    if things is None:
        return []
    return list(things) if isinstance(things, (list, tuple)) else [things]
