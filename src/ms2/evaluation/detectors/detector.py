"""Object detectors: torchvision's networks as LightningModules."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from ms2.core.bounds import BatchSize, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from ms2.core.divergence import FiniteTraining, TrainedWeights
from ms2.core.errors import UserError, suggest
from ms2.core.files import read_tensors, reading, write_tensors
from ms2.core.paths import OptionalPath, UserPath, Weights, expand_path
from ms2.core.seeding import generator
from ms2.core.settings import Configured, settings_of
from ms2.datasets.labelled_set import Annotations
from ms2.evaluation.detectors.architectures import ARCHITECTURES, build_network, freeze_stem, load_backbone
from ms2.models.checkpoints import CheckpointError

MAX_GRADIENT_NORM = 10.0
"""Norm to which gradients are clipped; without it one bad batch can undo the training."""


class Detector(Configured, FiniteTraining, LightningModule):
    """A torchvision detector adapted to small images.

    Images keep their size, where torchvision's own models resize them to 800 pixels, and the pyramid starts at a stride
    of 4 with small anchors.

    Args:
        categories: Category names in label order, from label 1.
        architecture: ``maskrcnn_resnet50_fpn`` is the paper's (section 4.3), without masks
            ``fasterrcnn_resnet50_fpn``; those with ``resnet18`` or ``mobilenet_v3_large`` are for CPUs, of which
            ``fcos_resnet18_fpn`` learns the fastest from random weights.
        backbone_weights: Initial weights of the backbone: ``imagenet`` for torchvision's own, from its cache or a
            download; a file of a state dict; null for random ones. With weights, first layers and batch norms are not
            trained.
        fine_tune_from: File of a trained detector to fine-tune.
        upscale: Factor by which images are upsampled.
        min_anchor_size: Side of the smallest anchors in pixels of the upsampled image; doubled per level.
        max_steps: Training steps.
        batch_size: Images per step.
        lr: Peak learning rate (AdamW), with cosine decay to zero.
        warmup_fraction: Fraction of the steps with a rising learning rate.
        weight_decay: Weight decay of AdamW.
        seed: Seed of initial weights, order of the images, and the sampling of proposals in training.

    Raises:
        UserError: If there is no such architecture.
        WeightsError: If there are no such weights.
        CheckpointError: If the detector to fine-tune is none, or another one.
    """

    model: Any

    trained_part = "the detector"

    def __init__(
        self,
        categories: Sequence[str],
        architecture: str = "fcos_resnet18_fpn",
        backbone_weights: Weights = None,
        fine_tune_from: OptionalPath = None,
        upscale: PositiveFloat = 1.0,
        min_anchor_size: PositiveFloat = 8.0,
        max_steps: PositiveInt = 400,
        batch_size: BatchSize = 8,
        lr: PositiveFloat = 1e-3,
        warmup_fraction: Fraction = 0.1,
        weight_decay: NonNegativeFloat = 1e-2,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UserError(f"there is no detector {architecture!r}. {suggest(architecture, ARCHITECTURES)}")
        if not categories:
            raise UserError("categories is empty: name at least one class to detect")
        self.categories, self.architecture, self.frozen = tuple(categories), architecture, backbone_weights is not None
        self.max_steps, self.batch_size, self.seed = max_steps, batch_size, seed
        self.lr, self.warmup_fraction, self.weight_decay = lr, warmup_fraction, weight_decay
        with torch.random.fork_rng([]):  # torchvision draws initial weights from the global generator
            torch.manual_seed(seed)
            self.model = build_network(architecture, len(self.categories), upscale, min_anchor_size)
        if fine_tune_from is not None:
            self._load_trained(expand_path(fine_tune_from))
        elif backbone_weights is not None:
            load_backbone(self.model.backbone.body, architecture, backbone_weights)
        if self.frozen:
            freeze_stem(self.model.backbone.body)

    def forward(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[Annotations]:
        """Predict ``boxes``, ``scores`` and ``labels`` of each image, see `ms2.metrics.average_precision`."""
        found = self.model([image / 255 for image in images])
        return [{name: one[name] for name in ("boxes", "scores", "labels")} for one in found]

    def loss(self, images: Sequence[UInt8[Tensor, "3 _ _"]], targets: Sequence[Annotations]) -> Tensor:
        """Compute the sum of the detector's losses (in training mode)."""
        wanted = ("boxes", "labels", "masks")
        known = [{name: one[name] for name in wanted if name in one} for one in targets]
        losses: dict[str, Tensor] = self.model([image / 255 for image in images], known)
        return torch.stack(list(losses.values())).sum()

    def training_step(self, batch: tuple[list[Tensor], list[Annotations]], batch_idx: int) -> Tensor:
        """Compute the loss of a batch."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # torchvision samples proposals with the global generator
            torch.manual_seed(generator(self.seed, "detector", self.global_step).initial_seed())
            loss = self.loss(*batch)
        self.log("detector/loss", loss, prog_bar=True, batch_size=self.batch_size)
        return loss

    def predict_step(
        self, batch: tuple[list[Tensor], list[Annotations]], batch_idx: int
    ) -> list[tuple[Annotations, Annotations]]:
        """Predict detections; return them with the annotations of each image, on the CPU and without masks."""
        images, targets = batch
        kept = [{name: value for name, value in one.items() if name != "masks"} for one in targets]
        return [(_on_cpu(found), _on_cpu(one)) for found, one in zip(self(images), kept, strict=True)]

    def trained_weights(self) -> list[TrainedWeights]:
        """Return the weights that are not frozen."""
        return [TrainedWeights("lr", self.lr, [p for p in self.parameters() if p.requires_grad])]

    def train(self, mode: bool = True) -> "Detector":
        """Set training mode, keeping frozen batch norms in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for layer in self.model.backbone.body.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the gradient norm."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), MAX_GRADIENT_NORM)

    def configure_optimizers(self) -> Any:
        """Configure AdamW with warm-up and cosine decay."""
        learned = [p for p in self.parameters() if p.requires_grad]
        steps = max(2, self.max_steps)
        optimizer = torch.optim.AdamW(learned, self.lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.lr,
            total_steps=steps,
            pct_start=max(self.warmup_fraction, 1.5 / steps),  # it divides by the number of warm-up steps less 1
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def save(self, path: Path, **more: Any) -> None:
        """Save settings and weights atomically.

        Args:
            path: The file.
            more: Plain values to save with them.
        """
        weights = {name: tensor.cpu() for name, tensor in self.state_dict().items()}
        write_tensors(path, {**more, "detector": settings_of(self.settings), "weights": weights})

    def _load_trained(self, path: Path) -> None:
        saved = _read(path)
        with _reading(path):
            for name, mine in (("architecture", self.architecture), ("categories", list(self.categories))):
                if saved["detector"][name] != mine:
                    raise CheckpointError(
                        f"{path} holds a detector whose {name} is {saved['detector'][name]}, but this one's is {mine}: "
                        "to fine-tune it, make them the same"
                    )
            self.load_state_dict(saved["weights"])


def load_detector(path: UserPath) -> Detector:
    """Load a trained detector with its settings.

    Raises:
        CheckpointError: If the file holds none.
    """
    path = expand_path(path)
    saved = _read(path)
    with _reading(path):
        # all weights are in the file
        detector = Detector(**{**saved["detector"], "backbone_weights": None, "fine_tune_from": None})
        detector.load_state_dict(saved["weights"])
    return detector.eval()


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(path, "a detector", "train it again", CheckpointError)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"there is no detector {path.absolute()}: give a file that `train_detector` has saved")
    with _reading(path):
        saved = read_tensors(path)
    if not isinstance(saved, dict) or not {"detector", "weights"} <= saved.keys():
        raise CheckpointError(f"{path} holds no detector: give a file that `train_detector` has saved")
    return saved


def _on_cpu(target: Annotations) -> Annotations:
    return {name: value.detach().cpu() for name, value in target.items()}
