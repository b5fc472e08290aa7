"""What a feature extractor takes and gives: images in, named blocks of features out."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.registry import Plugin, UserError
from ms2.render import Rendering

Blocks = dict[str, Float[Tensor, "b _"]]
"""Features of b images in named blocks, each with a dimension and a scale of its own."""


class FeatureExtractor(Plugin, nn.Module, ABC, kind="features"):
    """Embeds images, so that structure can be compared without labels (section 3.3)."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Named feature blocks of images with pixels in [0, 1]."""


class Reading(NamedTuple):
    """What an extractor believes to be in images; None where it has no such head.

    Attributes:
        presence: Whether each class is present.
        counts: Expected number of objects of each class.
        total: Expected number of objects.
    """

    presence: Bool[Tensor, "b c"] | None
    counts: Float[Tensor, "b c"] | None
    total: Float[Tensor, " b"] | None


class TrainedExtractor(FeatureExtractor, ABC):
    """An extractor that is trained on samples of the prior, whose labels are free and exact."""

    @abstractmethod
    def loss(self, images: Float[Tensor, "b c h w"], labels: Rendering) -> Float[Tensor, ""]:
        """Training loss on labelled images."""

    @abstractmethod
    def read(self, images: Float[Tensor, "b c h w"]) -> Reading:
        """What the extractor reads off images, for the probe."""


class CountError(UserError):
    """More objects than the extractor has places for."""


def class_counts(labels: Rendering, num_classes: int) -> Int[Tensor, "b c"]:
    """Objects of each class in each image."""
    index = labels.classes.clamp(min=-1) % (num_classes + 1)
    counts = index.new_zeros(len(index), num_classes + 1)
    return counts.scatter_add_(1, index, (labels.classes >= 0).long())[:, :num_classes]


def check_counts(counts: Int[Tensor, "b c"], most: int, what: str) -> None:
    """Refuse labels that the count heads can't express.

    Raises:
        CountError: If some image holds more than ``most`` objects.
    """
    if counts.numel() and int(counts.max()) > most:
        raise CountError(
            f"an image of the prior holds {int(counts.max())} {what}, but the extractor counts only to {most}: "
            f"raise features.max_count to at least {int(counts.max())}"
        )
