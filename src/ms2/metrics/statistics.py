"""Statistics of scene structure: counts per histogram bin, and vectors of counts."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from ms2.core.bounds import Dimension
from ms2.core.errors import UserError, suggest
from ms2.metrics.base import HISTOGRAM_ROWS, Statistic, round_fractions
from ms2.metrics.histograms import compare_histograms, distribution, histogram_noise_floor
from ms2.metrics.intervals import Interval
from ms2.metrics.results import VISIBLE, HistogramResult
from ms2.metrics.vectors import compare_vectors, vector_noise_floor
from ms2.scene.batch import SceneBatch

if TYPE_CHECKING:
    from torchmetrics import Metric

MIN_SHOWN_FRACTION = 0.002
"""Fraction in a bin below which its bar is too short to be visible."""


class StructureStatistic(Statistic[Int[Tensor, "n k"]], kind="statistics"):
    """Base class of statistics of structure: the counts that each scene adds to a histogram's bins.

    Attributes:
        ordered: Whether bin i stands for the number i, so that a mean makes sense.
        visible_title: Title of the statistic where only objects that can be seen in an image are counted; empty if it
            makes no sense there, as that of children whose parents may be hidden.
    """

    ordered: bool = True
    visible_title: str = ""

    def of_visible(self) -> "StructureStatistic | None":
        """Return the same statistic under the name and title for objects that can be seen; None if it has none."""
        if not self.visible_title:
            return None
        found = copy.copy(self)
        found.name, found.title = VISIBLE + self.name, self.visible_title
        return found

    def bin_names(self, class_names: Sequence[str], num_bins: int) -> list[str]:
        """Return the names of the bins."""
        return [str(i) for i in range(num_bins)]

    def compare(
        self, generated: Int[Tensor, "n k"], target: Int[Tensor, "m j"], *, generator: torch.Generator
    ) -> dict[str, Interval]:
        """Compute total variation, KL divergence and Wasserstein distance."""
        return compare_histograms(generated, target, generator=generator)

    def noise_floor(
        self, target: Int[Tensor, "n k"], num_scenes: int, *, generator: torch.Generator
    ) -> dict[str, float]:
        """Estimate the total variation, KL divergence and Wasserstein distance of a perfect model."""
        return histogram_noise_floor(target, num_scenes, generator=generator)

    def mean(self, sample: Int[Tensor, "n k"]) -> float | None:
        """Compute the mean number, where bins have an order."""
        share = distribution(sample)
        return float(share @ torch.arange(share.shape[0], dtype=share.dtype)) if self.ordered else None

    def histogram(
        self, samples: Mapping[str, Int[Tensor, "_ _"]], class_names: Sequence[str]
    ) -> HistogramResult | None:
        """Compute the fraction in each bin, up to the last bin of more than `MIN_SHOWN_FRACTION`."""
        shares = {row: distribution(samples[row]) for row in HISTOGRAM_ROWS if row in samples}
        width = max(len(share) for share in shares.values())
        table = torch.stack([F.pad(share, (0, width - len(share))) for share in shares.values()])
        if self.ordered:
            seen = (table.amax(0) > MIN_SHOWN_FRACTION).nonzero()
            table = table[:, : int(seen.max()) + 1 if len(seen) else 1]
        bins = self.bin_names(class_names, table.shape[1])
        return HistogramResult(
            self.name,
            self.title,
            bins,
            {row: round_fractions(share) for row, share in zip(shares, table.tolist(), strict=True)},
        )

    def validation_metric(self, target: Int[Tensor, "n k"]) -> "tuple[str, Metric] | None":
        """Make a metric that accumulates the total variation."""
        from ms2.metrics.accumulated import TotalVariation

        return "tv", TotalVariation(target)


class ObjectCount(StructureStatistic):
    """Number of objects per scene, of one class or of all.

    Args:
        classes: The one class to count; objects of all classes by default.
        name: Short name, the key in ``metrics.json`` and on figures.
    """

    def __init__(self, classes: str | None = None, name: str = "count") -> None:
        self.classes, self.name = classes, name
        what = "objects" if classes is None else plural(classes)
        self.title, self.visible_title = f"{what} per scene", f"visible {what} per image"
        self.counted_class = classes or ""

    def measure(self, scenes: SceneBatch, class_names: Sequence[str]) -> Int[Tensor, "b k"]:
        """One-hot encode the number of objects."""
        counted = scenes.mask if self.classes is None else scenes.classes == class_index(self.classes, class_names)
        return F.one_hot(counted.sum(1))


class ChildCount(StructureStatistic):
    """Number of children of a class per parent, such as cars on the first road.

    Args:
        child_class: Class to count.
        parent_class: Class of the parents.
        parent_indices: Which parents to include: 1 is a scene's first, in the order of its derivation.
        name: Short name, the key in ``metrics.json`` and on figures.
    """

    def __init__(self, child_class: str, parent_class: str, parent_indices: Sequence[Dimension], name: str) -> None:
        if not parent_indices:
            raise UserError("parent_indices is empty: they count from 1, as in [1] or [2, 3, 4]")
        self.child_class, self.parent_class, self.name = child_class, parent_class, name
        self.parent_indices = list(parent_indices)
        self.title = f"{child_class} on {parent_class} {', '.join(map(str, parent_indices))}"

    def measure(self, scenes: SceneBatch, class_names: Sequence[str]) -> Int[Tensor, "b k"]:
        """Count the parents that a scene has by their number of children."""
        child, parent = (class_index(name, class_names) for name in (self.child_class, self.parent_class))
        counts, exists = count_children(scenes, child, parent)
        chosen = [index - 1 for index in self.parent_indices if index <= counts.shape[1]]
        if not chosen:
            return counts.new_zeros(len(counts), 1)
        return (F.one_hot(counts[:, chosen]) * exists[:, chosen, None]).sum(1)


class StructureVector(StructureStatistic):
    """Vector of the number of parents, and of the children of each of the first parents.

    Distributions of vectors are compared by their energy distance; there is no histogram.

    Args:
        child_class: Class of the children.
        parent_class: Class of the parents.
        num_parents: Number of parents counted separately.
        name: Short name, the key in ``metrics.json`` and on figures.
    """

    ordered = False

    def __init__(self, child_class: str, parent_class: str, num_parents: Dimension = 4, name: str = "joint") -> None:
        self.child_class, self.parent_class, self.name = child_class, parent_class, name
        self.num_parents = num_parents
        self.title = f"{parent_class} and {child_class} on each"

    def measure(self, scenes: SceneBatch, class_names: Sequence[str]) -> Int[Tensor, "b k"]:
        """Compute the vectors: number of parents, then of children of the first, second, ..."""
        child, parent = (class_index(name, class_names) for name in (self.child_class, self.parent_class))
        counts, exists = count_children(scenes, child, parent)
        counts = F.pad(counts, (0, self.num_parents))[:, : self.num_parents]
        return torch.cat([exists.sum(1, keepdim=True), counts], 1)

    def compare(
        self, generated: Int[Tensor, "n k"], target: Int[Tensor, "m k"], *, generator: torch.Generator
    ) -> dict[str, Interval]:
        """Compute the energy distance."""
        return {"energy": compare_vectors(generated, target, generator=generator)}

    def noise_floor(
        self, target: Int[Tensor, "n k"], num_scenes: int, *, generator: torch.Generator
    ) -> dict[str, float]:
        """Estimate the energy distance of a perfect model."""
        return {"energy": vector_noise_floor(target, num_scenes, generator=generator)}

    def histogram(
        self, samples: Mapping[str, Int[Tensor, "_ _"]], class_names: Sequence[str]
    ) -> HistogramResult | None:
        """Return None: vectors have no histogram."""
        return None

    def validation_metric(self, target: Int[Tensor, "n k"]) -> "tuple[str, Metric] | None":
        """Return None: the energy distance takes all pairs of scenes, too many for each validation."""
        return None


class ClassFrequency(StructureStatistic):
    """Histogram of the classes of all objects."""

    name, title, ordered = "class", "classes of objects", False
    visible_title = "classes of visible objects"

    def measure(self, scenes: SceneBatch, class_names: Sequence[str]) -> Int[Tensor, "b k"]:
        """Count the objects of each class."""
        return scenes.counts(len(class_names))

    def bin_names(self, class_names: Sequence[str], num_bins: int) -> list[str]:
        """Return the class names."""
        return list(class_names)


def count_children(scenes: SceneBatch, child: int, parent: int) -> tuple[Int[Tensor, "b p"], Int[Tensor, "b p"]]:
    """Count the children of each parent in the order of the parents, and mark which parents exist (1 or 0)."""
    is_parent, is_child = scenes.classes == parent, scenes.classes == child
    max_parents = max(1, int(is_parent.sum(1).max())) if len(scenes) else 1
    number = (is_parent.cumsum(1) - 1).gather(1, scenes.parents.clamp(min=0))
    is_child = is_child & is_parent.gather(1, scenes.parents.clamp(min=0)) & (scenes.parents >= 0)
    counts = torch.zeros(len(scenes), max_parents, dtype=torch.long, device=number.device)
    counts.scatter_add_(1, number.clamp(0, max_parents - 1), is_child.long())
    exists = torch.arange(max_parents, device=number.device) < is_parent.sum(1, keepdim=True)
    return counts, exists.long()


def plural(name: str) -> str:
    """Return the plural of a class's name, such as ``bushes``."""
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def class_index(name: str, class_names: Sequence[str], *others: str) -> int:
    """Return a class's index; the error for an unknown name suggests the classes and ``others``.

    Raises:
        UserError: If there is no class of that name.
    """
    if name not in class_names:
        near = suggest(name, [*class_names, *others])
        raise UserError(f"a statistic measures the class {name!r}, but there is no such class. {near}")
    return list(class_names).index(name)
