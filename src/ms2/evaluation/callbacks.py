"""Callbacks: what a run shows while it learns, and what it leaves behind."""

import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.loggers import Logger, WandbLogger

import ms2
from ms2.core.files import write_json, write_tensors, write_text
from ms2.core.images import image_grid, to_pixels
from ms2.evaluation import measures as evaluation
from ms2.evaluation.measures import Example
from ms2.evaluation.rule_changes import Move, as_table, moves, picture, to_csv
from ms2.learning.measured import MeasuredMetaSim2 as MetaSim2
from ms2.learning.stages import StageResult, say


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints so that a kill, or a full disk, leaves the old one or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the file, then rename."""
        write_tensors(Path(path), checkpoint)


class StageBar(TQDMProgressBar):
    """A progress bar over steps, named after what is being done.

    Args:
        title: What is being done.
    """

    def __init__(self, title: str = "learning structure") -> None:
        super().__init__()
        self.title = title

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Name the bar."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(self.title)

    def init_validation_tqdm(self) -> Tqdm:
        """No bar: validations are short."""
        return Tqdm(disable=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Without the version number of the logger."""
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}


class Gallery(Callback):
    """Shows images and histograms of prior, learned and target scenes in Weights & Biases.

    Other loggers get numbers only, so a run with any logger works.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log images and histograms as they are now."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not loggers or trainer.sanity_checking or not isinstance(pl_module, MetaSim2) or not trainer.is_global_zero:
            return
        import wandb

        target = trainer.datamodule.target  # type: ignore[attr-defined]
        media: dict[str, Any] = {
            f"images/{who}": wandb.Image(image_grid(images))
            for who, images in evaluation.sample_images(pl_module, target).items()
        }
        structures = evaluation.sample_structures(pl_module)
        tables = evaluation.structure_tables(pl_module, structures, target)
        for histogram in evaluation.histograms(pl_module, tables, {}):
            for who, share in histogram.shares.items():
                edges = np.arange(len(share) + 1) - 0.5
                media[f"histograms/{histogram.title}/{who}"] = wandb.Histogram(np_histogram=(share.numpy(), edges))
        score = pl_module.structure_learner.last_score
        if score is not None:
            media["train/score_histogram"] = wandb.Histogram(score.tolist())
        for logger in loggers:
            logger.experiment.log({**media, "trainer/global_step": trainer.global_step})


class Results(Callback):
    """Leaves what a run has found in its folder.

    That is ``metrics.json``, ``histograms.json``, ``summary.png``, what moved (``moved.png``, ``moved.csv``), and
    ``examples/``: images of prior, learned model and target, with boxes in ``examples.json``.

    Args:
        folder: The run's folder.
        name: The run's name.
        started: When the command started, on the clock of ``time.monotonic``.
    """

    def __init__(self, folder: Path, name: str, started: float) -> None:
        self.folder, self.name, self.started = folder, name, started
        self.stages: dict[str, StageResult] = {}
        self.learning = 0.0  # seconds, those before an interruption included
        self._since = started
        self._before = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far, so that a resumed run reports all of them."""
        now = time.monotonic()
        return {"learning": self.learning + now - self._since, "total": self._before + now - self.started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the seconds of the interrupted part."""
        self.learning, self._before = state_dict["learning"], state_dict["total"]

    def on_train_start(self, *_: Any) -> None:
        """Start the clock of learning."""
        self._since = time.monotonic()

    def on_train_end(self, *_: Any) -> None:
        """Stop it."""
        self.learning += time.monotonic() - self._since

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the results of a finished run."""
        pl_module.to(trainer.strategy.root_device)  # which Lightning has taken it off by now
        times = {
            **{f"seconds_{name}": stage.seconds for name, stage in self.stages.items()},
            "seconds_training": self.learning,
            "seconds_total": self._before + time.monotonic() - self.started,
            "reused_stages": [name for name, stage in self.stages.items() if stage.reused],
        }
        found = {key: value for stage in self.stages.values() for key, value in stage.metrics.items()}
        self._write(trainer, pl_module, times | {"stages": found})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the results of a checkpoint that was tested, beside what its training took."""
        path = self.folder / "metrics.json"
        self._write(trainer, pl_module, json.loads(path.read_text()) if path.exists() else {})

    def _write(self, trainer: Trainer, model: LightningModule, more: dict[str, Any]) -> None:
        if not isinstance(model, MetaSim2):
            return
        realism = evaluation.realism(model, trainer.datamodule)  # type: ignore[attr-defined] # by all processes
        if not trainer.is_global_zero:
            return
        target = trainer.datamodule.target  # type: ignore[attr-defined]
        structures = evaluation.sample_structures(model, target)
        tables = evaluation.structure_tables(model, structures, target)
        values = evaluation.attribute_values(model, target)
        metrics = evaluation.structure_metrics(model, tables) | evaluation.attribute_metrics(model, target, values)
        moved = moves(model.world.grammar, structures["prior"].cpu(), structures["learned"].cpu())
        histograms = evaluation.histograms(model, tables, metrics)
        histograms += evaluation.attribute_histograms(model, values, metrics)
        pictures = {
            "summary": evaluation.summary_picture(self.name, model, target, histograms),
            "moved": picture(moved, f"{self.name}: what moved"),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(self.folder / f"{name}.png")
        write_text(self.folder / "moved.csv", to_csv(moved))
        write_json(self.folder / "histograms.json", evaluation.histogram_table(histograms))
        save_examples(self.folder / "examples", evaluation.examples(model, target))
        about = {
            "steps": trainer.global_step,
            "seed": model.seed,
            "eval_scenes": model.eval_scenes,
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": {"ms2": ms2.__version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        write_json(self.folder / "metrics.json", more | metrics | realism | about)
        numbers = {f"final/{key}": value for key, value in metrics.items()}
        numbers |= {f"realism/{key}": value for key, value in realism.items()}
        for logger in trainer.loggers:
            self._log(logger, numbers, pictures, moved)
        distances = [(k, v) for k, v in metrics.items() if k.endswith(("_tv", "_w1"))]
        learned = [f"{k} {v:.3g} (prior {metrics[f'{k}_prior']:.3g})" for k, v in distances]
        say(", ".join(learned) or "the structure of the target is not known, so there is nothing to compare with")
        if realism:
            say(
                ", ".join(f"{k.upper()} {realism[k]:.4g} (prior {realism[f'{k}_prior']:.4g})" for k in ("kid", "fid"))
                + f" by {realism['realism_features']}"
            )
        say(f"results: {', '.join(str(self.folder / n) for n in ('metrics.json', 'summary.png', 'moved.png'))}")

    def _log(self, logger: Logger, numbers: dict[str, Any], pictures: dict[str, Any], moved: list[Move]) -> None:
        logger.log_metrics({key: value for key, value in numbers.items() if isinstance(value, float)})
        if isinstance(logger, WandbLogger):
            for name, pixels in pictures.items():
                logger.log_image(name, [pixels])
            rows = as_table(moved)
            if rows:
                logger.log_table("what moved", list(rows[0]), [list(row.values()) for row in rows])


class SaveImages(Callback):
    """Writes predicted images as PNG files, numbered in order.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Write one batch."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, image in zip(batch.tolist(), outputs, strict=True):
            Image.fromarray(to_pixels(image)).save(self.folder / f"{number:06d}.png")


def save_examples(folder: Path, examples: Mapping[str, Sequence[Example]]) -> None:
    """Write images as PNG, and what there is to be seen in each as ``examples.json``."""
    folder.mkdir(exist_ok=True)
    index: dict[str, list[dict[str, Any]]] = {}
    for who, some in examples.items():
        names = [f"{who}_{i:02d}.png" for i in range(len(some))]
        for name, example in zip(names, some, strict=True):
            Image.fromarray(to_pixels(example.image)).save(folder / name)
        index[who] = [{"file": name, "labels": example.labels} for name, example in zip(names, some, strict=True)]
    write_json(folder / "examples.json", index)
