"""Extractors that were tried for streets, beside `DenseCounts`: see docs/what_was_tried.md.

They are plug-ins of the trials alone: put this folder on the path, and name them with the module, as in
``PYTHONPATH=experiments ms2 fit --config driving_quick --stage extractor --model.features reader_trials.SizedCounts``.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.bounds import NonNegativeFloat
from ms2.features.dense import DenseCounts
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch


class SizedCounts(DenseCounts):
    """Predicts the logarithm of the size of the objects in each cell too, as detectors do.

    Args:
        size_weight: Weight of the error of width and height in the loss.
        **counting: Arguments of `DenseCounts`.
    """

    def __init__(self, size_weight: NonNegativeFloat = 0.1, **counting: Any) -> None:
        super().__init__(**counting)
        self.size_weight = size_weight
        self.sizes = nn.Conv2d(self.head.in_channels, 2, 1)

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Compute the loss of `DenseCounts`, plus the error of the size at the cells of each object."""
        maps = self._maps(images)
        logits = self.head(maps)
        cells = self._cells(labels, *logits.shape[2:])
        found = self.sizes(maps).flatten(2)
        places = cells.places.flatten(1)[:, None].expand(-1, 2, -1)
        at_cells = found.gather(2, places).unflatten(2, cells.places.shape[1:])  # [b 2 n 4]
        low, high = labels.boxes.unflatten(2, (2, 2)).unbind(2)
        size = ((high - low).clamp(min=1) / self.cell).log().transpose(1, 2).unsqueeze(3)  # [b 2 n 1]
        weight = cells.weight.squeeze(3).unsqueeze(1)
        error = (F.smooth_l1_loss(at_cells, size.expand_as(at_cells), reduction="none") * weight).sum()
        rows, columns = logits.shape[2:]
        return self._count_loss(logits, cells) + self.size_weight * error / (len(images) * rows * columns)


class FlippedCounts(DenseCounts):
    """Is taught each batch with a random half of its images mirrored, and reads an image and its mirror image.

    Args:
        read_both: Whether readings are means over the image and its mirror image.
        **counting: Arguments of `DenseCounts`.
    """

    def __init__(self, read_both: bool = False, **counting: Any) -> None:
        super().__init__(**counting)
        self.read_both = read_both

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Compute the loss on mirrored images; each step's are others, but the same for the same images."""
        draw = torch.Generator().manual_seed(int(images.sum().item() * 1000) % 2**31)
        mirrored = (torch.rand(len(images), generator=draw) < 0.5).to(images.device)
        width = images.shape[3]
        boxes = labels.boxes[..., [2, 1, 0, 3]] * labels.boxes.new_tensor([-1, 1, -1, 1])
        boxes = boxes + boxes.new_tensor([width, 0, width, 0])
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        labels = replace(labels, image=images, boxes=torch.where(mirrored[:, None, None], boxes, labels.boxes))
        return super().loss(images, labels, scenes)

    def expected_counts(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s"]:
        """Compute the expected number of objects in each slot."""
        counts = super().expected_counts(images)
        return (counts + super().expected_counts(images.flip(3))) / 2 if self.read_both else counts
