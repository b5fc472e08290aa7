"""Interface of feature extractors: images in, named blocks of features out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num
from torch import Generator, Tensor, nn

from ms2.core.errors import UserError, suggest
from ms2.core.hashing import sha256
from ms2.core.registry import Plugin
from ms2.features.channel import ReadingChannel
from ms2.render.base import Renderer, Rendering, visible_enough
from ms2.scene.batch import SceneBatch

PART_ON_CPU = 2**20
"""Numbers in the images that an extractor reads at once on a CPU: with more, its maps exceed the caches."""

Blocks = dict[str, Float[Tensor, "b _"]]
"""Features of b images in named blocks, each with a dimension and a scale of its own."""


class PretrainedWeights(NamedTuple):
    """Weights that were loaded from a file or a library, and that nothing trains.

    Attributes:
        source: What they are and where from, for errors.
        fingerprint: `weights_fingerprint` of the module that they were loaded into.
    """

    source: str
    fingerprint: str


class FeatureExtractor(Plugin, nn.Module, ABC, kind="features"):
    """Base class: maps images to named feature blocks, in which images are compared without labels (section 3.3).

    Attributes:
        pretrained: By the name of a submodule, the pretrained weights that it holds. Checkpoints hold their fingerprint
            instead of them, unless they were changed since.

    Example:
        >>> class Brightness(FeatureExtractor):
        ...     def forward(self, images):
        ...         return {"brightness": images.mean((2, 3))}
        >>> Brightness()(torch.zeros(2, 1, 8, 8))["brightness"].shape
        torch.Size([2, 1])
    """

    pretrained: Mapping[str, PretrainedWeights] = MappingProxyType({})

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute the feature blocks of images with pixels in [0, 1]."""

    def embed_scenes(self, renderer: Renderer, scenes: SceneBatch, generator: Generator) -> Blocks:
        """Compute the feature blocks of generated scenes: those of their images, unless it reads their labels.

        Args:
            renderer: Renders the scenes.
            scenes: The scenes.
            generator: Draws the errors of what is read of labels.
        """
        return blocks_of(self, renderer.render(scenes))


def blocks_of(features: FeatureExtractor, images: Float[Tensor, "b c h w"]) -> Blocks:
    """Compute the feature blocks of images; without gradients, on a CPU a part of the images at a time."""
    if torch.is_grad_enabled() or images.device.type != "cpu" or images.numel() <= PART_ON_CPU:
        return features(images)
    parts = [features(part) for part in images.split(max(1, PART_ON_CPU // images[0].numel()))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class CountPrediction(NamedTuple):
    """Predicted presence and numbers of objects; None where an extractor has no such head.

    Attributes:
        presence: Whether each class is present.
        counts: Expected number of objects of each class.
        total: Expected number of objects.
        slots: Expected number of objects in each slot of `CountSlots`.
    """

    presence: Bool[Tensor, "b c"] | None
    counts: Float[Tensor, "b c"] | None
    total: Float[Tensor, " b"] | None
    slots: Float[Tensor, "b s"] | None = None


class CountSlots(nn.Module):
    """Output slots of count heads: one per class, or one per class and index of the parent object.

    Args:
        classes: Names of the classes.
        parents_per_class: Number of parents whose objects are counted separately, by class. With ``{"car": 4}`` there
            are slots ``car_1`` ... ``car_4``, for cars on the first ... fourth road of their scene.

    Attributes:
        names: Names of the slots: those of classes, and ``<class>_<number of the parent>``.
        class_ids: Class number of each slot.

    Raises:
        UserError: If a class is not among the classes.
    """

    table: Tensor
    """Slot by class and by the parent's number; the last row is of no class, the last column of parents without one."""

    def __init__(self, classes: Sequence[str], parents_per_class: Mapping[str, int] | None = None) -> None:
        super().__init__()
        parents_per_class = parents_per_class or {}
        check_names(parents_per_class, classes, "parents_per_class")
        self.sizes = [parents_per_class.get(name, 1) for name in classes]
        self.class_ids = [c for c, size in enumerate(self.sizes) for _ in range(size)]
        self.names = [
            f"{name}_{k + 1}" if name in parents_per_class else name
            for name, size in zip(classes, self.sizes, strict=True)
            for k in range(size)
        ]
        table = torch.full((len(self.sizes) + 1, max(self.sizes, default=1) + 1), -1)
        for c, size in enumerate(self.sizes):
            first = self.class_ids.index(c)
            table[c, : size if size > 1 else None] = first + torch.arange(size)
        self.register_buffer("table", table, persistent=False)

    def __len__(self) -> int:
        return len(self.names)

    def assign(self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Compute the slot of each object, -1 for none. An object without parent is in its class's first slot.

        Args:
            classes: Class number of each object, or -1.
            parents: Index of each object's parent, or -1.
        """
        if max(self.sizes, default=1) == 1:
            return classes
        number = self._parent_number(classes, parents).clamp(max=self.table.shape[1] - 1)
        return self.table[classes, number]  # class -1 indexes the last row

    def _parent_number(self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Compute the number of each object's parent among those of its class; 0 without a parent."""
        number = (classes.unsqueeze(2) == classes.unsqueeze(1)).tril(-1).sum(2)
        return F.pad(number, (1, 0)).gather(1, parents + 1)

    def check(
        self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"], seen: Bool[Tensor, "b n"] | None = None
    ) -> None:
        """Check that every object has a slot.

        Args:
            classes: Class number of each object, or -1.
            parents: Index of each object's parent, or -1.
            seen: Which objects are counted; all by default.

        Raises:
            CountError: If an object's parent has a higher number than are counted separately.
        """
        beyond = (self.assign(classes, parents) < 0) & (classes >= 0)
        if seen is not None:  # parents are numbered among all, so that hidden objects are left out afterwards
            beyond &= seen
        if bool(beyond.any()):
            class_id = int(classes[beyond][0])
            name = self.names[self.class_ids.index(class_id)].rsplit("_", 1)[0]
            largest = int(self._parent_number(classes, parents)[beyond & (classes == class_id)].max())
            raise CountError(
                f"an image has objects of class {name!r} whose parent is number {largest + 1}, but only "
                f"{self.sizes[class_id]} are counted separately: raise features.parents_per_class"
            )

    def counts(self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"]) -> Int[Tensor, "b s"]:
        """Count the objects in each slot, given their classes and parents."""
        return self.count_assigned(self.assign(classes, parents))

    def count_assigned(self, slot: Int[Tensor, "b n"], weight: Num[Tensor, "b n"] | None = None) -> Num[Tensor, "b s"]:
        """Count the objects in each slot, given the slot of each, or -1; each counts its weight, by default 1."""
        weight = torch.ones_like(slot) if weight is None else weight
        counts = weight.new_zeros(len(slot), len(self) + 1)
        return counts.scatter_add_(1, slot % (len(self) + 1), weight)[:, :-1]


def check_names(settings: Mapping[str, float], classes: Sequence[str], setting: str) -> None:
    """Raise an error if a setting by class names a class that does not exist.

    Raises:
        UserError: If a name is not among ``classes``.
    """
    for name in settings:
        if name not in classes:
            raise UserError(f"features.{setting} names a class {name!r} that the world lacks. {suggest(name, classes)}")


class SceneFeatureExtractor(FeatureExtractor, ABC):
    """Extractor whose blocks are functions of the scene, so that their true values can be computed from it."""

    @abstractmethod
    def ground_truth(self, scenes: SceneBatch, centres: Float[Tensor, "b n 2"] | None) -> Blocks:
        """Compute the blocks' true values, differentiable in the scenes' parameters.

        Args:
            scenes: The scenes.
            centres: Centres of objects on the image, in fractions of its width and height; None if unknown.
        """


class CountingExtractor(FeatureExtractor, ABC):
    """Extractor that reads numbers of objects, so that its errors can be measured on labelled renders.

    Attributes:
        slots: What is counted.
        min_visibility: Visible fraction of an object below which it is not labelled.
        min_height: Height in pixels below which it is not.
        channel: What is read of each number, once it was measured; None where `predict_counts` has no slots.
    """

    slots: CountSlots
    min_visibility: float = 0.0
    min_height: float = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.channel: ReadingChannel | None = None

    @property
    def device(self) -> torch.device:
        """Device of the parameters, or of the buffers of an extractor without any."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def labels_all(self) -> bool:
        """Whether every object is labelled, however little of it can be seen."""
        return self.min_visibility == 0 and self.min_height == 0

    def labelled(self, labels: Rendering) -> Bool[Tensor, "b n"]:
        """Return which objects of images can be seen well enough to be labelled."""
        return visible_enough(labels, self.min_visibility, self.min_height)

    def check_numbers(
        self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"], seen: Bool[Tensor, "b n"]
    ) -> None:
        """Check that the objects of scenes that are seen can all be counted; called for some of the rendered images.

        Args:
            classes: Class number of each object, or -1.
            parents: Index of each object's parent, or -1.
            seen: Which objects are visible enough to be labelled.

        Raises:
            CountError: If a scene holds more of them than the extractor can represent.
        """

    def overflow_fraction(self, images: Float[Tensor, "b c h w"]) -> dict[str, float]:
        """Estimate, by block, the fraction of images whose count exceeds the block's last bin; empty if unknown."""
        return {}

    @abstractmethod
    def predict_counts(self, images: Float[Tensor, "b c h w"]) -> CountPrediction:
        """Predict presence and numbers of objects; NaN for classes that are not read."""

    def render_labelled(self, renderer: Renderer, scenes: SceneBatch) -> Rendering:
        """Render scenes with labels, as `predict_labelled` reads them; boxes are in pixels of the renderer's images."""
        return renderer.render_labelled(scenes)

    def predict_labelled(self, labels: Rendering, generator: Generator) -> CountPrediction:
        """Predict presence and numbers of objects in rendered images, by which the extractor's errors are measured.

        Args:
            labels: The images with their labels, which an extractor may use whose errors are known already.
            generator: Draws such errors.
        """
        return self.predict_counts(labels.image)


class TrainedExtractor(CountingExtractor, ABC):
    """Counting extractor that is trained on samples of the prior, whose labels are exact and cost nothing."""

    @abstractmethod
    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Compute the training loss on labelled images, and on their scenes for extractors that predict parameters.

        It must not wait for the device, as ``bool(tensor)`` does: what has to be read belongs into `check_numbers`.
        """

    def calibrate(self, images: Iterator[Float[Tensor, "b c h w"]]) -> None:
        """Set what is measured with the final weights, such as the features' moments; nothing by default.

        Args:
            images: Batches of images of training, which are rendered as they are asked for.
        """


class CountError(UserError):
    """More objects than the extractor's count heads can represent."""


def state_bytes(module: nn.Module) -> Iterator[bytes]:
    """Iterate over names and bytes of a module's state in order of the names, for hashing."""
    for name, value in sorted(module.state_dict().items()):
        yield name.encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def weights_fingerprint(module: nn.Module) -> str:
    """Compute the SHA-256 of names and values of a module's state, as hexadecimal digits."""
    return sha256(state_bytes(module))


def class_counts(labels: Rendering, num_classes: int) -> Int[Tensor, "b c"]:
    """Count the objects of each class in each image."""
    return count_classes(labels.classes, num_classes)


def count_classes(classes: Int[Tensor, "b n"], num_classes: int) -> Int[Tensor, "b c"]:
    """Count the objects of each class in each scene; -1 is none."""
    index = classes.clamp(min=-1) % (num_classes + 1)
    counts = index.new_zeros(len(index), num_classes + 1)
    return counts.scatter_add_(1, index, (classes >= 0).long())[:, :num_classes]


def check_counts(counts: Int[Tensor, "b c"], max_count: int, objects: str) -> None:
    """Raise an error if labels exceed the count heads.

    Args:
        counts: Numbers of objects in images of the prior.
        max_count: Largest count that the heads can represent.
        objects: What is counted, for the message.

    Raises:
        CountError: If an image holds more than ``max_count`` objects.
    """
    if counts.numel() and int(counts.max()) > max_count:
        raise CountError(
            f"an image of the prior holds {int(counts.max())} {objects}, but the extractor counts only to "
            f"{max_count}: raise features.max_count to at least {int(counts.max())}"
        )
