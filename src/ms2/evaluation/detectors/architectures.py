"""Build torchvision's detectors for small images: backbone, feature pyramid and head."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ms2.core.paths import UserPath
from ms2.datasets.labelled_set import Annotations
from ms2.features.backbone import IMAGENET_MEAN, IMAGENET_STD, truncate_network

HEADS = ("fasterrcnn", "fcos", "maskrcnn")
PYRAMID_LAYERS = {
    "resnet18": {"layer1": 64, "layer2": 128, "layer3": 256},
    "resnet50": {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048},
    "mobilenet_v3_large": {"3": 24, "6": 40, "12": 112},
}
"""Layers of each backbone that feed the feature pyramid, with strides of 4, 8, 16 and 32, and their channels.

Light backbones stop where the receptive field covers the objects of small images: deeper layers hold most weights.
"""
ARCHITECTURES = tuple(f"{head}_{body}_fpn" for head in HEADS for body in PYRAMID_LAYERS)
MIN_STRIDE = 4
"""Pixels per cell of the pyramid's finest level; doubled per level."""
STEM_LAYERS = ("conv1", "layer1", "0", "1")
"""First layers of resnets and mobilenets, which are not trained where the backbone is pretrained."""
NUM_PROPOSALS = {
    **{f"rpn_pre_nms_top_n_{mode}": 400 for mode in ("train", "test")},
    **{f"rpn_post_nms_top_n_{mode}": 200 for mode in ("train", "test")},
    **{f"{part}_batch_size_per_image": 64 for part in ("rpn", "box")},
}
"""Numbers of proposals with light backbones, all but resnet50; torchvision's are for images of 800 pixels."""
MIN_SCORE = 0.05
"""Lowest score of a detection."""


class _Transform(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Normalises by ImageNet's statistics, and upscales by a factor, where torchvision's resizes to a fixed size."""

    def __init__(self, upscale: float) -> None:
        super().__init__(1, 1, list(IMAGENET_MEAN), list(IMAGENET_STD))
        self.upscale = upscale

    def resize(self, image: Tensor, target: Annotations | None = None) -> tuple[Tensor, Annotations | None]:
        """Resize an image and its annotations."""
        if self.upscale == 1:
            return image, target
        sides = [round(self.upscale * side) for side in image.shape[1:]]
        self.min_size, self.max_size = (min(sides),), max(sides)
        resized: tuple[Tensor, Annotations | None] = super().resize(image, target)
        return resized


class _RoIHeads(RoIHeads):  # type: ignore[misc]  # torchvision has no types
    """Predicts masks in training only: average precision uses boxes alone, and masks take most of the time."""

    def has_mask(self) -> bool:
        """Return whether masks are predicted."""
        return self.training and bool(super().has_mask())


def build_network(architecture: str, num_classes: int, upscale: float, min_anchor_size: float) -> Any:
    """Build a detector with random weights; its ``backbone.body`` has the layers of the classification network."""
    head, body = architecture.removesuffix("_fpn").split("_", 1)
    network = models.get_model(body, weights=None)
    light = body != "resnet50"
    width = 64 if light else 256
    levels = range(len(PYRAMID_LAYERS[body]) + 1)  # the pyramid adds a level
    names = {layer: str(i) for i, layer in enumerate(PYRAMID_LAYERS[body])}
    backbone = BackboneWithFPN(
        getattr(network, "features", network),
        names,
        list(PYRAMID_LAYERS[body].values()),
        width,
        norm_layer=nn.BatchNorm2d,
    )
    if head == "fcos":
        points = AnchorGenerator(tuple((MIN_STRIDE * 2**i,) for i in levels), ((1.0,),) * len(levels))  # one per cell
        towers = FCOSHead(width, 1, num_classes + 1, num_convs=2 if light else 4)
        model = FCOS(backbone, num_classes + 1, anchor_generator=points, head=towers, score_thresh=MIN_SCORE)
    else:
        sizes = tuple((min_anchor_size * 2**i,) for i in levels)
        model = (MaskRCNN if head == "maskrcnn" else FasterRCNN)(
            backbone,
            num_classes + 1,
            rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
            box_score_thresh=MIN_SCORE,
            **(NUM_PROPOSALS if light else {}),
        )
        model.roi_heads.__class__ = _RoIHeads
    model.transform = _Transform(upscale)
    return model.to(memory_format=torch.channels_last)  # a little faster on CPUs


def load_backbone(body: nn.Module, architecture: str, weights: UserPath) -> None:
    """Load the weights of a classification network into the backbone."""
    name = architecture.removesuffix("_fpn").split("_", 1)[1]
    prefix = "" if name.startswith("resnet") else "features."
    network = truncate_network(name, [prefix + list(PYRAMID_LAYERS[name])[-1]], weights)
    body.load_state_dict({key.removeprefix(prefix): value for key, value in network.state_dict().items()})


def freeze_stem(body: nn.Module) -> None:
    """Exclude the first layers and all batch norms from training, as torchvision does with pretrained backbones."""
    for name, layer in body.named_modules():
        if isinstance(layer, nn.BatchNorm2d) or name in STEM_LAYERS:
            layer.requires_grad_(False)
