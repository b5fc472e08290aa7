"""Interface of object detectors that were trained on photographs: images in, boxes out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.registry import Plugin
from ms2.features.base import PretrainedWeights
from ms2.features.detection.detections import Detections

UNUSED_CATEGORIES = ("__background__", "N/A")
"""Categories of torchvision's detectors that stand for none of COCO's."""


class ObjectDetector(Plugin, nn.Module, ABC, kind="detectors"):
    """Base class: finds objects in photographs, whose labels it was trained with; nothing here trains it.

    Attributes:
        categories: Names of what it finds.
        pretrained: Its weights; None if they are random. Checkpoints hold their fingerprint instead of them.
    """

    categories: Sequence[str]
    pretrained: PretrainedWeights | None = None

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Detections:
        """Find objects in images with pixels in [0, 1]; duplicates, and objects of any score, may be among them."""

    def train(self, mode: bool = True) -> "ObjectDetector":
        """Keep evaluation mode: the detector is never trained."""
        super().train(False)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "ObjectDetector":
        """Keep the weights frozen."""
        super().requires_grad_(False)
        return self


def coco_categories() -> list[str]:
    """Return the names of COCO's 80 categories in the order of most detectors' outputs."""
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

    meta: Mapping[str, Sequence[str]] = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta
    return [name for name in meta["categories"] if name not in UNUSED_CATEGORIES]
