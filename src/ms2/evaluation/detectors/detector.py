"""The downstream task: object detectors that are trained on one set of labelled images and measured on another."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from torchvision import models
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ms2.core.errors import UserError, suggest
from ms2.core.files import expand_path, write_tensors
from ms2.core.seeding import generator
from ms2.core.settings import Configured, settings_of
from ms2.datasets.labelled_set import Annotations, LabelledSet, collate
from ms2.features.backbone import IMAGENET_DEVIATION, IMAGENET_MEAN, network_up_to
from ms2.metrics.average_precision import kitti_ap, mean_ap
from ms2.metrics.intervals import Interval
from ms2.models.checkpoints import CheckpointError

HEADS = ("fasterrcnn", "fcos", "maskrcnn")
LAYERS = {
    "resnet18": {"layer1": 64, "layer2": 128, "layer3": 256},
    "resnet50": {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048},
    "mobilenet_v3_large": {"3": 24, "6": 40, "12": 112},
}
"""Layers of each backbone whose maps have strides of 4, 8, 16 and 32, and their channels.

Light ones stop where the objects of small images are seen whole: their deepest layers hold most of the weights.
"""
ARCHITECTURES = tuple(f"{head}_{body}_fpn" for head in HEADS for body in LAYERS)
STRIDE = 4
"""Pixels per cell of the pyramid's finest level; each level's are twice as many."""
FIRST_LAYERS = ("conv1", "layer1", "0", "1")
"""Layers of resnets, and of mobilenets, that keep the weights they begin with."""
FEW_PROPOSALS = {
    **{f"rpn_pre_nms_top_n_{mode}": 400 for mode in ("train", "test")},
    **{f"rpn_post_nms_top_n_{mode}": 200 for mode in ("train", "test")},
    **{f"{part}_batch_size_per_image": 64 for part in ("rpn", "box")},
}
"""Of light Faster R-CNNs: torchvision's numbers are for images of 800 pixels."""
MIN_SCORE = 0.05
"""Detections of lower scores are left out."""
MAX_GRADIENT = 10.0
"""Largest norm of the gradient; longer ones are cut. One bad batch can otherwise undo the training."""
Protocol = Literal["plain", "kitti"]


class Detector(Configured, LightningModule):
    """One of torchvision's detectors, for images as small as renderers make them.

    Images keep their size, where torchvision's own models enlarge them to 800 pixels, and the pyramid starts at a
    stride of 4 with small anchors.

    Args:
        categories: Names of what it detects, that of label 1 first.
        architecture: ``maskrcnn_resnet50_fpn`` is the paper's (section 4.3), without its masks
            ``fasterrcnn_resnet50_fpn``; those with ``resnet18`` or ``mobilenet_v3_large`` are made for CPUs, of which
            ``fcos_resnet18_fpn`` learns the quickest from scratch.
        weights: Weights that the backbone begins with: ``imagenet`` for torchvision's own, from its cache or the net;
            a file of a state dict; null for random ones. Where there are any, its first layer and batch norms stay as
            they are.
        fine_tune_from: File of a detector that was trained before, which this one goes on from.
        enlarge: Factor by which images are enlarged first.
        smallest: Side of the smallest anchors in pixels of the enlarged image; each level's are twice as large.
        max_steps: Training steps.
        batch_size: Images per step.
        lr: Highest learning rate (AdamW), which falls to zero by a cosine.
        warmup: Share of the steps over which it rises from zero.
        weight_decay: Of AdamW.
        seed: Seed of initial weights, of the order of images, and of the samples that training draws.

    Raises:
        UserError: If there is no such architecture.
        WeightsError: If there are no such weights.
        CheckpointError: If the detector to go on from is none, or another one.
    """

    model: Any

    def __init__(
        self,
        categories: Sequence[str],
        architecture: str = "fcos_resnet18_fpn",
        weights: str | None = None,
        fine_tune_from: Path | str | None = None,
        enlarge: float = 1.0,
        smallest: float = 8.0,
        max_steps: int = 400,
        batch_size: int = 8,
        lr: float = 1e-3,
        warmup: float = 0.1,
        weight_decay: float = 1e-2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UserError(f"there is no detector {architecture!r}. {suggest(architecture, ARCHITECTURES)}")
        if not categories:
            raise UserError("categories is empty: name what there is to detect")
        self.categories, self.architecture, self.frozen = tuple(categories), architecture, weights is not None
        self.max_steps, self.batch_size, self.seed = max_steps, batch_size, seed
        self.lr, self.warmup, self.weight_decay = lr, warmup, weight_decay
        with torch.random.fork_rng([]):  # torchvision draws initial weights from the global generator
            torch.manual_seed(seed)
            self.model = _build(architecture, len(self.categories), enlarge, smallest)
        if fine_tune_from is not None:
            self._go_on_from(expand_path(fine_tune_from))
        elif weights is not None:
            _begin_with(self.model.backbone.body, architecture, weights)
        if self.frozen:
            _freeze(self.model.backbone.body)

    def forward(self, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[Annotations]:
        """Detect objects in each image: ``boxes``, ``scores`` and ``labels``, see `ms2.metrics.average_precision`."""
        found = self.model([image / 255 for image in images])
        return [{name: one[name] for name in ("boxes", "scores", "labels")} for one in found]

    def loss(self, images: Sequence[UInt8[Tensor, "3 _ _"]], targets: Sequence[Annotations]) -> Tensor:
        """The sum of the model's losses; it must be in training mode."""
        wanted = ("boxes", "labels", "masks")
        known = [{name: one[name] for name in wanted if name in one} for one in targets]
        losses: dict[str, Tensor] = self.model([image / 255 for image in images], known)
        return torch.stack(list(losses.values())).sum()

    def training_step(self, batch: tuple[list[Tensor], list[Annotations]], batch_idx: int) -> Tensor:
        """Loss on one batch."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # torchvision draws proposals to learn from by the global generator
            torch.manual_seed(generator(self.seed, "detector", self.global_step).initial_seed())
            loss = self.loss(*batch)
        self.log("detector/loss", loss, prog_bar=True, batch_size=self.batch_size)
        return loss

    def predict_step(
        self, batch: tuple[list[Tensor], list[Annotations]], batch_idx: int
    ) -> list[tuple[Annotations, Annotations]]:
        """Detections and target of each image, on the CPU and without masks."""
        images, targets = batch
        kept = [{name: value for name, value in one.items() if name != "masks"} for one in targets]
        return [(_on_cpu(found), _on_cpu(one)) for found, one in zip(self(images), kept, strict=True)]

    def train(self, mode: bool = True) -> "Detector":
        """Train all but what is frozen."""
        super().train(mode)
        if self.frozen:
            for layer in self.model.backbone.body.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Cut long gradients."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), MAX_GRADIENT)

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up and a cosine."""
        learned = [p for p in self.parameters() if p.requires_grad]
        steps = max(2, self.max_steps)
        optimizer = torch.optim.AdamW(learned, self.lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.lr,
            total_steps=steps,
            pct_start=max(self.warmup, 1.5 / steps),  # it divides by the warm-up's steps less one
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def save(self, path: Path, **more: Any) -> None:
        """Save settings and weights, such that a crash leaves the old file or the new one.

        Args:
            path: Where to.
            more: Plain values to keep with them.
        """
        weights = {name: tensor.cpu() for name, tensor in self.state_dict().items()}
        write_tensors(path, {**more, "detector": settings_of(self.settings), "weights": weights})

    def _go_on_from(self, path: Path) -> None:
        saved = _read(path)
        for name, mine in (("architecture", self.architecture), ("categories", list(self.categories))):
            if saved["detector"][name] != mine:
                raise CheckpointError(
                    f"{path} holds a detector whose {name} is {saved['detector'][name]}, but this one's is {mine}: to "
                    "go on from it, make them the same"
                )
        self.load_state_dict(saved["weights"])


def load_detector(path: Path | str) -> Detector:
    """A detector that was trained before, with its settings.

    Raises:
        CheckpointError: If the file holds none.
    """
    saved = _read(expand_path(path))
    settings = {**saved["detector"], "weights": None, "fine_tune_from": None}  # all weights are in the file
    detector = Detector(**settings)
    detector.load_state_dict(saved["weights"])
    return detector.eval()


def train_detector(
    detector: Detector,
    data: LabelledSet,
    path: Path | None = None,
    *,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    num_workers: int = 0,
    **trainer: Any,
) -> dict[str, float]:
    """Train a detector for its number of steps, in place.

    Args:
        detector: The detector.
        data: Labelled images, with masks if the detector learns them.
        path: Where to save it afterwards; see `load_detector`.
        progress: Whether to show a progress bar.
        callbacks: Further callbacks, such as another progress bar.
        num_workers: Processes that read images.
        trainer: Further arguments of Lightning's Trainer, such as ``accelerator`` or ``precision``.

    Returns:
        ``seconds`` of wall-clock time, and ``loss`` of the last step.

    Raises:
        UserError: If the set has other categories, or lacks the masks.
    """
    _check(detector, data)
    batches = Batches(len(data), detector.batch_size, detector.max_steps, detector.seed)
    if detector.architecture.startswith("maskrcnn") and "masks" not in data[0][1]:
        raise UserError(
            f"{detector.architecture} learns masks, which the set doesn't give: set masks, or use fasterrcnn"
        )
    loader = DataLoader(data, batch_sampler=batches, collate_fn=collate, num_workers=num_workers)
    start = time.monotonic()
    fit = _trainer(progress, callbacks, max_steps=detector.max_steps, **trainer)
    fit.fit(detector.train(), loader)
    detector.eval()
    result = {"seconds": time.monotonic() - start, "loss": float(fit.callback_metrics["detector/loss"])}
    if path is not None:
        detector.save(path, **result)
    return result


def evaluate_detector(
    detector: Detector,
    data: LabelledSet,
    protocol: Protocol = "plain",
    *,
    iou: float = 0.5,
    resamples: int = 500,
    seed: int = 0,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    num_workers: int = 0,
    **trainer: Any,
) -> dict[str, Interval]:
    """Average precision of a detector on a set, with bootstrap intervals over images.

    Args:
        detector: The detector.
        data: Labelled images.
        protocol: ``plain``, AP of each category and their ``mean`` (`mean_ap`); or ``kitti``, as ``car/easy``,
            ``car/moderate`` and so on (`kitti_ap`).
        iou: Least overlap of a detection and its object.
        resamples: Resamples of the bootstrap.
        seed: Seed of the bootstrap.
        progress: Whether to show a progress bar.
        callbacks: Further callbacks, such as another progress bar.
        num_workers: Processes that read images.
        trainer: Further arguments of Lightning's Trainer.

    Raises:
        UserError: If the set has other categories.
    """
    _check(detector, data)
    loader = DataLoader(data, detector.batch_size, collate_fn=collate, num_workers=num_workers)
    batches = _trainer(progress, callbacks, **trainer).predict(detector, loader)
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


class Batches(Sampler[list[int]]):
    """For each step the places of its images: all images once in a random order, then all in another one.

    Args:
        size: Number of images.
        batch_size: Images per step.
        steps: Number of steps.
        seed: Seed of the orders.
    """

    def __init__(self, size: int, batch_size: int, steps: int, seed: int = 0) -> None:
        if size == 0:
            raise UserError("the set to train on holds no images")
        self.size, self.batch_size, self.steps, self.seed = size, batch_size, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        waiting: list[int] = []
        turn = 0
        for _ in range(self.steps):
            while len(waiting) < self.batch_size:
                waiting += torch.randperm(self.size, generator=generator(self.seed, "images", turn)).tolist()
                turn += 1
            yield waiting[: self.batch_size]
            waiting = waiting[self.batch_size :]


def _trainer(progress: bool, callbacks: Sequence[Callback], **settings: Any) -> Trainer:
    quiet = {"devices": 1, "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(enable_progress_bar=progress, callbacks=list(callbacks), **(quiet | settings))


def _check(detector: Detector, data: LabelledSet) -> None:
    if tuple(data.categories) != detector.categories:
        raise UserError(
            f"the detector's categories are {', '.join(detector.categories)}, but the set's are "
            f"{', '.join(data.categories)}: give both the same ones in the same order"
        )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"there is no detector {path.absolute()}: give the file that training one has left")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever broken bytes raise
        raise CheckpointError(f"{path} can't be read as a detector ({type(error).__name__}): train it anew") from error
    if not isinstance(saved, dict) or not {"detector", "weights"} <= saved.keys():
        raise CheckpointError(f"{path} holds no detector: give the file that training one has left")
    return saved


def _on_cpu(target: Annotations) -> Annotations:
    return {name: value.detach().cpu() for name, value in target.items()}


class _Transform(GeneralizedRCNNTransform):
    """Normalises images by ImageNet's colours, and enlarges each by a factor, where torchvision's aims at one size."""

    def __init__(self, enlarge: float) -> None:
        super().__init__(1, 1, list(IMAGENET_MEAN), list(IMAGENET_DEVIATION))
        self.enlarge = enlarge

    def resize(self, image: Tensor, target: Annotations | None = None) -> tuple[Tensor, Annotations | None]:
        """One image and its target."""
        if self.enlarge == 1:
            return image, target
        sides = [round(self.enlarge * side) for side in image.shape[1:]]
        self.min_size, self.max_size = (min(sides),), max(sides)
        resized: tuple[Tensor, Annotations | None] = super().resize(image, target)
        return resized


class _RoIHeads(RoIHeads):
    """Draws no masks but in training: average precision looks at boxes, and masks take most of the time."""

    def has_mask(self) -> bool:
        """Whether masks are asked for."""
        return self.training and bool(super().has_mask())


def _build(architecture: str, classes: int, enlarge: float, smallest: float) -> Any:
    """The network with random weights; its ``backbone.body`` has the layers of the classification network."""
    head, body = architecture.removesuffix("_fpn").split("_", 1)
    network = models.get_model(body, weights=None)
    light = body != "resnet50"
    width = 64 if light else 256
    levels = range(len(LAYERS[body]) + 1)  # the pyramid adds one
    names = {layer: str(i) for i, layer in enumerate(LAYERS[body])}
    backbone = BackboneWithFPN(
        getattr(network, "features", network), names, list(LAYERS[body].values()), width, norm_layer=nn.BatchNorm2d
    )
    if head == "fcos":
        points = AnchorGenerator(tuple((STRIDE * 2**i,) for i in levels), ((1.0,),) * len(levels))  # one for each cell
        towers = FCOSHead(width, 1, classes + 1, num_convs=2 if light else 4)
        model = FCOS(backbone, classes + 1, anchor_generator=points, head=towers, score_thresh=MIN_SCORE)
    else:
        sizes = tuple((smallest * 2**i,) for i in levels)
        model = (MaskRCNN if head == "maskrcnn" else FasterRCNN)(
            backbone,
            classes + 1,
            rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
            box_score_thresh=MIN_SCORE,
            **(FEW_PROPOSALS if light else {}),
        )
        model.roi_heads.__class__ = _RoIHeads
    model.transform = _Transform(enlarge)
    return model.to(memory_format=torch.channels_last)  # a little faster on CPUs


def _begin_with(body: nn.Module, architecture: str, weights: str) -> None:
    """Give the layers of the backbone the weights of a classification network."""
    name = architecture.removesuffix("_fpn").split("_", 1)[1]
    prefix = "" if name.startswith("resnet") else "features."
    network = network_up_to(name, [prefix + list(LAYERS[name])[-1]], weights)
    body.load_state_dict({key.removeprefix(prefix): value for key, value in network.state_dict().items()})


def _freeze(body: nn.Module) -> None:
    """Keep what sees edges and colours, and all batch norms, as torchvision does with trained backbones."""
    for name, layer in body.named_modules():
        if isinstance(layer, nn.BatchNorm2d) or name in FIRST_LAYERS:
            layer.requires_grad_(False)
