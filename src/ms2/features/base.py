"""What a feature extractor takes and gives: images in, named blocks of features out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.core.errors import UserError, suggest
from ms2.core.registry import Plugin
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch

Blocks = dict[str, Float[Tensor, "b _"]]
"""Features of b images in named blocks, each with a dimension and a scale of its own."""


class FeatureExtractor(Plugin, nn.Module, ABC, kind="features"):
    """Embeds images, so that structure can be compared without labels (section 3.3).

    Example:
        >>> class Brightness(FeatureExtractor):
        ...     def forward(self, images):
        ...         return {"brightness": images.mean((2, 3))}
        >>> Brightness()(torch.ones(2, 3, 8, 8))["brightness"].shape
        torch.Size([2, 3])
    """

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Named feature blocks of images with pixels in [0, 1]."""


class CountPrediction(NamedTuple):
    """What an extractor believes to be in images; None where it has no such head.

    Attributes:
        presence: Whether each class is present.
        counts: Expected number of objects of each class.
        total: Expected number of objects.
        slots: Expected number of objects in each slot of `Slots`.
    """

    presence: Bool[Tensor, "b c"] | None
    counts: Float[Tensor, "b c"] | None
    total: Float[Tensor, " b"] | None
    slots: Float[Tensor, "b s"] | None = None


class Slots:
    """What an extractor tells apart: classes, and within some of them the object that theirs belong to.

    Args:
        classes: Names of the classes.
        by_parent: By class, how many parents are told apart. With ``{"car": 4}`` there are slots ``car_1`` ...
            ``car_4``, for cars that belong to the first ... fourth road of their scene.

    Attributes:
        names: Names of the slots: those of classes, and ``<class>_<number of the parent>``.
        kind: Class number of each slot.

    Raises:
        UserError: If a class is not among the classes.
    """

    def __init__(self, classes: Sequence[str], by_parent: Mapping[str, int] | None = None) -> None:
        by_parent = by_parent or {}
        check_names(by_parent, classes, "by_parent")
        self.sizes = [by_parent.get(name, 1) for name in classes]
        self.first = [sum(self.sizes[:c]) for c in range(len(classes))]
        self.kind = [c for c, size in enumerate(self.sizes) for _ in range(size)]
        self.names = [
            f"{name}_{k + 1}" if name in by_parent else name
            for name, size in zip(classes, self.sizes, strict=True)
            for k in range(size)
        ]

    def __len__(self) -> int:
        return len(self.names)

    def of(self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"], strict: bool = True) -> Int[Tensor, "b n"]:
        """The slot of each object; -1 where there is none. An object without parent is in its class's first.

        Args:
            classes: Class number of each object, or -1.
            parents: Place of the object that each belongs to, or -1.
            strict: Whether objects must belong to parents that are told apart; others have no slot if not.

        Raises:
            CountError: If ``strict`` and an object belongs to a parent beyond those that are told apart.
        """
        same = (classes[:, :, None] == classes[:, None, :]).tril(-1)
        number = same.sum(2)  # of each object among those of its class
        place = torch.where(parents >= 0, number.gather(1, parents.clamp(min=0)), 0)
        size, first = classes.new_tensor([*self.sizes, 1]), classes.new_tensor([*self.first, -1])
        place = torch.where(size[classes] > 1, place, 0)  # class -1 reads the last entry
        beyond = place >= size[classes]
        if strict and bool(beyond.any()):
            kind = classes[beyond][0]
            raise CountError(
                f"an image has objects of class {self.names[self.first[int(kind)]].rsplit('_', 1)[0]!r} that belong to "
                f"parent number {int(place.max()) + 1}, but only {int(size[kind])} are told apart: raise "
                "features.by_parent"
            )
        return torch.where((classes >= 0) & ~beyond, first[classes] + place, -1)

    def counts(self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"]) -> Int[Tensor, "b s"]:
        """Objects in each slot of each scene."""
        return self.count(self.of(classes, parents))

    def count(self, slot: Int[Tensor, "b n"]) -> Int[Tensor, "b s"]:
        """The same, given the slot of each object, or -1."""
        counts = slot.new_zeros(len(slot), len(self) + 1)
        return counts.scatter_add_(1, slot % (len(self) + 1), (slot >= 0).long())[:, :-1]


def check_names(given: Mapping[str, float], classes: Sequence[str], what: str) -> None:
    """Refuse settings for classes that there are not.

    Raises:
        UserError: If a name is not among ``classes``.
    """
    for name in given:
        if name not in classes:
            raise UserError(f"features.{what} names a class {name!r} that the world lacks. {suggest(name, classes)}")


class AttributeExtractor(FeatureExtractor, ABC):
    """An extractor of blocks whose true values are known where scenes are: it reads them off images."""

    @abstractmethod
    def truth(self, scenes: SceneBatch, centres: Float[Tensor, "b n 2"] | None) -> Blocks:
        """Blocks as they would be read without an error; differentiable in the scenes' parameters.

        Args:
            scenes: The scenes.
            centres: Where objects are on the image, as shares of its width and height; None where nobody knows.
        """


class TrainedExtractor(FeatureExtractor, ABC):
    """An extractor that is trained on samples of the prior, whose labels are free and exact.

    Attributes:
        slots: What it tells apart.
        least_visible: Visible share of an object below which it is not told of it.
    """

    slots: Slots
    least_visible: float = 0.0

    @abstractmethod
    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Training loss on labelled images, and for those who read parameters too, on the scenes that they show."""

    def beyond(self, images: Float[Tensor, "b c h w"]) -> dict[str, float]:
        """By block, the share of images that hold more than the block tells apart, where the extractor can know."""
        return {}

    @abstractmethod
    def read(self, images: Float[Tensor, "b c h w"]) -> CountPrediction:
        """What the extractor reads off images, for the probe."""


class CountError(UserError):
    """More objects than the extractor has places for."""


def weight_bytes(module: nn.Module) -> Iterator[bytes]:
    """Names and values of all that a module's state holds, in order of the names, to make a hash of."""
    for name, value in sorted(module.state_dict().items()):
        yield name.encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


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
