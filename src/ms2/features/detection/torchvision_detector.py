"""Object detectors of torchvision, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.bounds import Seed
from ms2.core.errors import UserError, suggest
from ms2.core.files import read_tensors, reading
from ms2.core.paths import IsPath, UserPath, expand_path
from ms2.features.backbone import WeightsError, torchvision_weights
from ms2.features.base import PretrainedWeights, weights_fingerprint
from ms2.features.detection.detections import Detections, pad_detections
from ms2.features.detection.object_detector import ObjectDetector

DetectorWeights = Annotated[str | Path | None, IsPath(("coco",))]
"""Path of a file of weights, ``coco``, or None for random ones."""


class TorchvisionDetector(ObjectDetector):
    """Detector of torchvision, trained on COCO.

    Images keep their size, where torchvision would enlarge them to 800 pixels; ``features.scale`` enlarges them.

    Args:
        architecture: Name of a torchvision detector, such as ``fasterrcnn_mobilenet_v3_large_fpn``.
        weights: File of a state dict; ``coco`` for torchvision's own, from its cache or the net; null for random ones.
        seed: Seed of the weights' random initialisation.

    Raises:
        UserError: If there is no such detector.
        WeightsError: If there are no such weights, or they are those of another network.

    Example:
        >>> detector = TorchvisionDetector("ssdlite320_mobilenet_v3_large", weights=None)
        >>> detector(torch.rand(2, 3, 64, 96)).boxes.shape[::2]
        torch.Size([2, 4])
    """

    def __init__(
        self,
        architecture: str = "fasterrcnn_mobilenet_v3_large_fpn",
        weights: DetectorWeights = "coco",
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        from torchvision import models

        names = models.list_models(module=models.detection)
        if architecture not in names:
            raise UserError(f"torchvision has no detector {architecture!r}. {suggest(architecture, names)}")
        entry = models.get_model_weights(architecture).DEFAULT
        self.categories: list[str] = entry.meta["categories"]
        with torch.random.fork_rng([]):  # torchvision draws initial weights from the global generator
            torch.manual_seed(seed)
            self.network: Any = models.get_model(
                architecture, weights=None, weights_backbone=None, num_classes=len(self.categories)
            )
        if weights is not None:
            _load(self.network, _state_dict(entry, weights), architecture, weights)
            self.pretrained = PretrainedWeights(f"{architecture} from {weights}", weights_fingerprint(self))
        self.train(False).requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Detections:
        """Find objects; torchvision has removed duplicates of one category."""
        sides = images.shape[2:]
        self.network.transform.min_size, self.network.transform.max_size = (min(sides),), max(sides)
        found = self.network(list(images))
        return pad_detections([(one["boxes"], one["scores"], one["labels"]) for one in found])


def _state_dict(entry: Any, weights: UserPath) -> Mapping[str, Tensor]:
    """Read weights from a file, or torchvision's own from its cache or the net."""
    if weights != "coco":
        path = expand_path(weights)
        if not path.is_file():
            raise WeightsError(f"there are no weights {path.absolute()}: give a file of a state dict, or 'coco'")
        with reading(path, "weights", "save a state dict there", WeightsError):
            return dict(read_tensors(path))
    return torchvision_weights(entry, "the detector's weights", "give its path as weights")


def _load(network: torch.nn.Module, weights: Mapping[str, Tensor], architecture: str, source: UserPath) -> None:
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WeightsError(f"the weights {source} are not those of {architecture}: {first[:200]}") from error
