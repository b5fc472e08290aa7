"""The run in Weights & Biases: one for all stages and continuations of a run, with its settings and its files."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger

from ms2.cli.run_folder import RunFolder
from ms2.core.files import read_json

PROJECT = "ms2"
"""Project of runs in Weights & Biases, unless the environment variable WANDB_PROJECT names another one."""
MODEL_FILES = ("README.md", "config.yaml", "metrics.json", "summary.png", "checkpoints/last.ckpt")
"""Files of a run's folder that its artifact holds: with these, ``ms2 generate FOLDER`` works elsewhere."""


class RunLogger(WandbLogger):
    """Logs a run and its stages to one run of Weights & Biases, which goes on when the run is continued.

    Args:
        folder: The run's folder, which keeps the ID.
        settings: All settings, as a configuration has them.
        offline: Whether to write files alone, which ``wandb sync`` uploads.
        job: What is done: ``fit``; or ``test``, which gets a run of its own.
    """

    def __init__(self, folder: RunFolder, settings: Mapping[str, Any], offline: bool, job: str = "fit") -> None:
        name, project = folder.path.name, os.environ.get("WANDB_PROJECT", PROJECT)
        how: dict[str, Any] = {"config": dict(settings), "job_type": job}
        super().__init__(name, folder.path, offline=offline, project=project, **how)
        self.folder, self.job, self.online = folder, job, not offline

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, which starts when it is asked for: by then the run's folder is that of this run."""
        if self._experiment is not None:
            return self._experiment
        if self.job == "fit":
            self._wandb_init["id"] = self._id = self.folder.wandb_id(os.environ.get("WANDB_RUN_ID"))
        experiment = super().experiment
        experiment.define_metric("val/*", summary="min,last", step_metric="trainer/global_step", step_sync=True)
        return experiment

    def log_model(self) -> None:
        """Log the trained model as an artifact, with its settings, results and card."""
        log_artifact(self.experiment, self.folder.path, "model", f"model-{self.experiment.id}", MODEL_FILES)


def log_data_set(folder: Path, mode: Literal["online", "offline"] = "online") -> None:
    """Log the folder of a data set as an artifact, in a run of its own whose configuration describes the set.

    Args:
        folder: The folder, as ``ms2 generate`` leaves it; files of Weights & Biases go beside it.
        mode: Whether to upload it, or to write what ``wandb sync`` uploads.
    """
    import wandb

    description = read_json(folder / "dataset.json", "'ms2 generate' writes it")
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    how: dict[str, Any] = {"name": folder.name, "job_type": "generate", "config": description, "dir": folder.parent}
    with wandb.init(project=project, mode=mode, **how) as run:
        log_artifact(run, folder, "dataset", re.sub(r"[^\w.-]", "_", folder.name))


def log_artifact(run: Any, folder: Path, kind: str, name: str, files: tuple[str, ...] = ()) -> None:
    """Log files as an artifact.

    Args:
        run: The run of Weights & Biases.
        folder: Folder of the files.
        kind: Type of the artifact, ``model`` or ``dataset``.
        name: Its name.
        files: Files in the folder, those that are missing are left out; all by default.
    """
    import wandb

    artifact = wandb.Artifact(name, kind)
    for file in files:
        if (folder / file).is_file():
            artifact.add_file(str(folder / file), file)
    if not files:
        artifact.add_dir(str(folder))
    run.log_artifact(artifact)
