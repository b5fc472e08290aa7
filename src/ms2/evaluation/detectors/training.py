"""Train object detectors, and evaluate their average precision."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch.utils.data import DataLoader, Sampler

from ms2.core.divergence import explained_divergence
from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.datasets.labelled_set import Annotations, ApProtocol, LabelledSet, collate
from ms2.datasets.stream import LabelledStream
from ms2.evaluation.detectors.detector import Detector
from ms2.evaluation.detectors.loading import CachedBatches, default_workers
from ms2.metrics.average_precision import kitti_ap, mean_ap
from ms2.metrics.intervals import Interval


def train_detector(
    detector: Detector,
    data: LabelledSet | LabelledStream,
    path: Path | None = None,
    *,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    num_workers: int | None = None,
    **trainer: Any,
) -> dict[str, float]:
    """Train a detector for its `max_steps`, in place.

    Images and annotations of a set are read once and kept on the device, as long as memory suffices, and shuffled;
    samples of a stream are used once, in order. A stream that ends before the last step begins again.

    Args:
        detector: The detector.
        data: Labelled images, with masks if the detector learns them; of a stream on the CPU, or on the device that
            trains.
        path: File to save it to, see `load_detector`; None to save nothing.
        progress: Whether to show a progress bar.
        callbacks: Further callbacks, such as another progress bar.
        num_workers: Processes that read images or make samples; by default some beside a GPU, and none beside a CPU.
        trainer: Further arguments of Lightning's Trainer, such as ``accelerator`` or ``precision``.

    Returns:
        ``seconds`` of wall-clock time, and ``loss`` of the last step.

    Raises:
        UserError: If the set has other categories, or lacks the masks.
    """
    _check(detector, data)
    start = time.monotonic()
    fit = _trainer(progress, callbacks, max_steps=detector.max_steps, **trainer)
    loader = _loader(detector, data, fit.strategy.root_device, num_workers)
    learns_masks = detector.architecture.startswith("maskrcnn")
    if learns_masks and not (data.masks if isinstance(data, LabelledStream) else "masks" in data[0][1]):
        raise UserError(
            f"{detector.architecture} learns masks, which the set lacks: read it with masks=True, or use fasterrcnn"
        )
    with explained_divergence(detector):
        fit.fit(detector.train(), loader)
    detector.eval()
    result = {"seconds": time.monotonic() - start, "loss": float(fit.callback_metrics["detector/loss"])}
    if path is not None:
        detector.save(path, **result)
    return result


def evaluate_detector(
    detector: Detector,
    data: LabelledSet,
    protocol: ApProtocol = "plain",
    *,
    iou: float = 0.5,
    resamples: int = 500,
    seed: int = 0,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    num_workers: int | None = None,
    **trainer: Any,
) -> dict[str, Interval]:
    """Evaluate a detector's average precision on a set, with bootstrap intervals over images.

    Args:
        detector: The detector.
        data: Labelled images.
        protocol: ``plain``, AP of each category and their ``mean`` (`mean_ap`); or ``kitti``, as ``car/easy``,
            ``car/moderate`` and so on (`kitti_ap`).
        iou: Minimum overlap of a detection and its object.
        resamples: Resamples of the bootstrap.
        seed: Seed of the bootstrap.
        progress: Whether to show a progress bar.
        callbacks: Further callbacks, such as another progress bar.
        num_workers: Processes that read images; by default some beside a GPU, and none beside a CPU.
        trainer: Further arguments of Lightning's Trainer.

    Raises:
        UserError: If the set has other categories.
    """
    _check(detector, data)
    predict = _trainer(progress, callbacks, **trainer)
    workers = default_workers(data, predict.strategy.root_device) if num_workers is None else num_workers
    loader = DataLoader(data, detector.batch_size, collate_fn=collate, num_workers=workers)
    batches = predict.predict(detector, loader)
    assert batches is not None
    pairs: list[tuple[Annotations, Annotations]] = [pair for batch in batches for pair in batch]
    detections, targets = [found for found, _ in pairs], [one for _, one in pairs]
    draw = generator(seed, "average precision")
    if protocol == "plain":
        return mean_ap(detections, targets, detector.categories, generator=draw, iou=iou, resamples=resamples)
    return {
        f"{name}/{difficulty}": ap
        for label, name in enumerate(detector.categories, 1)
        for difficulty, ap in kitti_ap(detections, targets, label, generator=draw, iou=iou, resamples=resamples).items()
    }


class ShuffledBatches(Sampler[list[int]]):
    """Batch sampler over shuffled epochs for a fixed number of steps.

    Args:
        num_images: Number of images.
        batch_size: Images per step.
        num_steps: Number of batches.
        seed: Seed of the orders.
    """

    def __init__(self, num_images: int, batch_size: int, num_steps: int, seed: int = 0) -> None:
        if num_images == 0:
            raise UserError("the set to train on holds no images")
        self.num_images, self.batch_size, self.num_steps, self.seed = num_images, batch_size, num_steps, seed

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[list[int]]:
        waiting: list[int] = []
        epoch = 0
        for _ in range(self.num_steps):
            while len(waiting) < self.batch_size:
                waiting += torch.randperm(self.num_images, generator=generator(self.seed, "images", epoch)).tolist()
                epoch += 1
            yield waiting[: self.batch_size]
            waiting = waiting[self.batch_size :]


def _loader(
    detector: Detector, data: LabelledSet | LabelledStream, device: torch.device, num_workers: int | None
) -> CachedBatches | DataLoader[Any]:
    """Return a loader of the batches to train on."""
    workers = default_workers(data, device) if num_workers is None else num_workers
    if isinstance(data, LabelledStream):
        return DataLoader(data, detector.batch_size, collate_fn=collate, num_workers=workers)
    batches = ShuffledBatches(len(data), detector.batch_size, detector.max_steps, detector.seed)
    return CachedBatches(data, batches, device, workers)


def _trainer(progress: bool, callbacks: Sequence[Callback], **settings: Any) -> Trainer:
    quiet = {"devices": 1, "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(enable_progress_bar=progress, callbacks=list(callbacks), **(quiet | settings))


def _check(detector: Detector, data: LabelledSet | LabelledStream) -> None:
    mine, theirs = ([name.casefold() for name in some.categories] for some in (detector, data))
    if mine != theirs:
        raise UserError(
            f"the detector's categories are {', '.join(detector.categories)}, but the set's are "
            f"{', '.join(data.categories)}: give both the same ones in the same order"
        )
