"""Lightning callbacks: validation, progress bars, checkpoints, images, and the files written at the end of a run."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.loggers import WandbLogger

from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.images import to_pixels
from ms2.evaluation.evaluation import Evaluation, with_run
from ms2.evaluation.examples import sample_examples
from ms2.evaluation.run_card import run_card
from ms2.evaluation.writers import draw_figures, log_results, preview_media, result_lines, score_histogram, write_files
from ms2.metrics.results import StageRecord, load_results
from ms2.models.scene_model import SceneModel
from ms2.targets.base import Target

SHOWN = ("/loss", "/nll", "/val_nll", "/score", "/reward")
"""Ends of the names of metrics that progress bars show, beside those of validations."""


class StageProgressBar(TQDMProgressBar):
    """A progress bar over steps, with the stage's title.

    Args:
        title: Title of the stage.
    """

    def __init__(self, title: str = "learning structure") -> None:
        super().__init__()
        self.title = title
        self._values: dict[str, float] = {}
        self._next_reading = 0.0

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Set the progress bar's title."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(self.title)

    def init_validation_tqdm(self) -> Tqdm:
        """Disable the validation progress bar."""
        return Tqdm(disable=True)

    def get_metrics(self, trainer: Trainer, *_: Any) -> dict[str, Any]:
        """Return the metrics shown in the bar: they are read at most once a second, as that waits for the device."""
        if time.monotonic() >= self._next_reading:
            every = trainer.callback_metrics.items()
            self._values = {k: float(value) for k, value in every if k.startswith("val/") or k.endswith(SHOWN)}
            self._next_reading = time.monotonic() + 1
        return self._values


class Validation(Callback):
    """Logs distances of the current model to the target at the end of each validation, as ``val/count_tv``.

    The module provides ``current_model()``, the `SceneModel` that is trained; its own validation step does nothing.
    Weights & Biases gets sample images and histograms as well.

    Args:
        evaluation: What is measured.

    Example:
        >>> trainer = Trainer(max_steps=200, callbacks=[Validation(Evaluation())])
        >>> trainer.fit(model, datamodule=TargetImages(target))
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that everything can be measured, now that the number of target images is known."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        self.evaluation.check(current_model(pl_module), data.num_images)
        replaced = self.evaluation.replaced_statistics
        if replaced and trainer.is_global_zero:
            measured = ", ".join(one.name for one in self.evaluation.statistics)
            lost = " and ".join(replaced)
            print(f"evaluation.statistics ({measured}) replaces the default {lost}: list these too to keep them")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the distances."""
        model, target = current_model(pl_module), target_of(trainer)
        found = self.evaluation.validate(model, target, pl_module.device, Processes.current())
        for name, value in found.items():
            pl_module.log(f"val/{name}", value, sync_dist=True)

    on_test_epoch_end = on_validation_epoch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log images and histograms of the current model to Weights & Biases."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not loggers or trainer.sanity_checking or not trainer.is_global_zero:
            return
        model, target = current_model(pl_module), target_of(trainer)
        examples = sample_examples(model, target, self.evaluation.seed, pl_module.device)
        media = preview_media(examples, self.evaluation.preview(model, target, pl_module.device))
        learner = getattr(pl_module, "structure_learner", None)
        if (score := getattr(learner, "last_score", None)) is not None:
            media |= score_histogram(score)
        for logger in loggers:
            logger.experiment.log({**media, "trainer/global_step": trainer.global_step})


class WriteResults(Callback):
    """Measures a trained or tested model once, and writes the results to the run's folder and the loggers.

    Files are ``metrics.json``, ``histograms.json``, ``summary.png``, ``rule_changes.png``, ``rule_changes.csv``,
    ``README.md``, the run's card, and ``examples/`` with images of prior, learned model and target, and their labels in
    ``examples.json``.

    Args:
        evaluation: What is measured.
        folder: The run's folder.
        name: The run's name.
        start_time: When the command, or the call of `ms2.fit`, started (``time.monotonic``).

    Attributes:
        stages: Records of the stages before learning; whoever trains them fills them in.
        output: Folder to write to, the run's by default.
    """

    def __init__(self, evaluation: Evaluation, folder: Path, name: str, start_time: float) -> None:
        self.evaluation, self.folder, self.name, self.start_time = evaluation, folder, name, start_time
        self.output = folder
        self.stages: dict[str, StageRecord] = {}
        self.training_seconds = 0.0  # those before an interruption included
        self._training_since = start_time
        self._seconds_before = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the elapsed seconds, so that a resumed run reports the total."""
        now = time.monotonic()
        training = self.training_seconds + now - self._training_since
        return {"training": training, "total": self._seconds_before + now - self.start_time}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the elapsed seconds of the interrupted run."""
        self.training_seconds, self._seconds_before = state_dict["training"], state_dict["total"]

    def on_train_start(self, *_: Any) -> None:
        """Start timing."""
        self._training_since = time.monotonic()

    def on_train_end(self, *_: Any) -> None:
        """Stop timing."""
        self.training_seconds += time.monotonic() - self._training_since

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, and write the results when training ends."""
        pl_module.to(trainer.strategy.root_device)  # from which Lightning has moved it by now
        total = self._seconds_before + time.monotonic() - self.start_time
        seconds = {"training": self.training_seconds, "total": total}
        learner = getattr(pl_module, "structure_learner", None)
        likelihood = getattr(learner, "likelihood", None)
        not_read = [] if likelihood is None else likelihood.not_read
        self._measure(trainer, pl_module, {"stages": self.stages, "seconds": seconds, "not_read": not_read})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure a checkpoint, and write the results, with the seconds and stages of its training if known."""
        try:
            before = load_results(self.folder / "metrics.json")
        except UserError:  # there are none, or this is what repairs them
            fields = {}
        else:
            fields = {"stages": before.stages, "seconds": before.seconds, "not_read": before.not_read}
        self._measure(trainer, pl_module, fields)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, fields: Mapping[str, Any]) -> None:
        model, target, device = trained_model(pl_module), target_of(trainer), pl_module.device
        embed = trainer.datamodule.embedded  # type: ignore[attr-defined]
        images = self.evaluation.measure_images(model, target, device, embed, Processes.current())
        visible = self.evaluation.visible_scenes(model, target, device, Processes.current())
        if not trainer.is_global_zero:
            return
        program = Path(sys.argv[0]).name.replace("__main__.py", "ms2")
        command = " ".join([program, *sys.argv[1:]])
        features = getattr(pl_module, "features", None)
        measurements = self.evaluation.measure(model, target, device, images, features, visible)
        measurements = with_run(measurements, steps=trainer.global_step, command=command, **fields)
        figures = draw_figures(measurements, self.name)
        write_files(self.output, measurements, figures, run_card(self.name, measurements.results, model))
        for logger in trainer.loggers:
            log_results(logger, measurements, figures)
        for line in result_lines(measurements.results):
            print(line)
        if target.annotated and not self.evaluation.evaluate_labels:
            config = self.folder / "config.yaml"
            print(f"distances to the target's labels: ms2 test --config {config} --evaluate_labels true")
        names = ("metrics.json", "summary.png", "rule_changes.png")
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # which keeps nothing
            print(f"results: {', '.join(str(self.output / name) for name in names)}")


class ImageWriter(Callback):
    """Writes predicted images as numbered PNG files.

    Args:
        folder: Output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Write the batch's images as PNG."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, image in zip(batch.tolist(), outputs, strict=True):
            Image.fromarray(to_pixels(image)).save(self.folder / f"{number:06d}.png")


def current_model(pl_module: LightningModule) -> SceneModel:
    """Return the scene model as it is trained, without a parameter model that no training step has reached."""
    found: SceneModel = pl_module.current_model()  # type: ignore[operator]
    return found


def trained_model(pl_module: LightningModule) -> SceneModel:
    """Return the scene model of the end of training, with structure model and parameter model."""
    found: SceneModel = pl_module.scene_model  # type: ignore[assignment]
    return found


def target_of(trainer: Trainer) -> Target:
    """Return the target whose images the trainer reads."""
    found: Target = trainer.datamodule.target  # type: ignore[attr-defined]
    return found
