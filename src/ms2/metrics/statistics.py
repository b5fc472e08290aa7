"""Statistics of scene structure: what histograms are made of, and distances between them taken."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.core.registry import Plugin
from ms2.scene.batch import SceneBatch


class Statistic(Plugin, ABC, kind="statistics"):
    """What each scene adds to the bins of a histogram.

    Attributes:
        name: Short name, the prefix of its distances in ``metrics.json``.
        title: What its histogram shows.
        ordered: Whether bin i stands for the number i, so that a mean makes sense.
        histogram: Whether its table is that of a histogram at all; if not, each scene has a vector of numbers, and
            distributions of those are compared by their energy distance.
    """

    name: str
    title: str
    ordered: bool = True
    histogram: bool = True

    @abstractmethod
    def table(self, scenes: SceneBatch, classes: Sequence[str]) -> Int[Tensor, "b k"]:
        """What each scene adds to each bin; the width may differ between sets of scenes."""

    def bins(self, classes: Sequence[str], width: int) -> list[str]:
        """Names of the bins."""
        return [str(i) for i in range(width)]


class ObjectCount(Statistic):
    """The number of objects in a scene, of one class or of all.

    Args:
        classes: The class; all objects by default.
        name: Short name.
    """

    def __init__(self, classes: str | None = None, name: str = "count") -> None:
        self.classes, self.name = classes, name
        self.title = f"{classes or 'objects'} per scene"

    def table(self, scenes: SceneBatch, classes: Sequence[str]) -> Int[Tensor, "b k"]:
        """One-hot of the number of objects."""
        counted = scenes.mask if self.classes is None else scenes.classes == number_of(self.classes, classes)
        return F.one_hot(counted.sum(1))


class ChildCount(Statistic):
    """The number of objects of a class that belong to one, as of the cars on the first road.

    Args:
        child: The class that is counted.
        parent: The class that they belong to.
        items: Which of their parents count, in the order in which the grammar makes them, from 1.
        name: Short name.
    """

    def __init__(self, child: str, parent: str, items: Sequence[int], name: str) -> None:
        if not items or min(items) < 1:
            raise UserError(f"items count from 1, as in [1] or [2, 3, 4], so they can't be {list(items)}")
        self.child, self.parent, self.items, self.name = child, parent, list(items), name
        self.title = f"{child} on {parent} {', '.join(map(str, items))}"

    def table(self, scenes: SceneBatch, classes: Sequence[str]) -> Int[Tensor, "b k"]:
        """One for the number of objects of each of these parents that a scene has."""
        counts, there = children(scenes, number_of(self.child, classes), number_of(self.parent, classes))
        chosen = [item - 1 for item in self.items if item <= counts.shape[1]]
        if not chosen:
            return counts.new_zeros(len(counts), 1)
        return (F.one_hot(counts[:, chosen]) * there[:, chosen, None]).sum(1)


class Joint(Statistic):
    """The whole structure as one vector: the number of parents, and how many objects belong to each of the first.

    Args:
        child: The class that is counted.
        parent: The class that they belong to.
        items: How many of their parents are told apart.
        name: Short name.
    """

    histogram, ordered = False, False

    def __init__(self, child: str, parent: str, items: int = 4, name: str = "joint") -> None:
        self.child, self.parent, self.items, self.name = child, parent, items, name
        self.title = f"{parent} and {child} on each"

    def table(self, scenes: SceneBatch, classes: Sequence[str]) -> Int[Tensor, "b k"]:
        """Number of parents, then of objects that belong to the first, second, ..."""
        counts, there = children(scenes, number_of(self.child, classes), number_of(self.parent, classes))
        counts = F.pad(counts, (0, self.items))[:, : self.items]
        return torch.cat([there.sum(1, keepdim=True), counts], 1)


class ClassFrequency(Statistic):
    """The classes of all objects together."""

    name, title, ordered = "class", "classes of objects", False

    def table(self, scenes: SceneBatch, classes: Sequence[str]) -> Int[Tensor, "b k"]:
        """Number of objects of each class."""
        return scenes.counts(len(classes))

    def bins(self, classes: Sequence[str], width: int) -> list[str]:
        """The classes."""
        return list(classes)


def children(scenes: SceneBatch, child: int, parent: int) -> tuple[Int[Tensor, "b p"], Int[Tensor, "b p"]]:
    """Number of children of each of a scene's parents, in their order, and 1 for each parent that there is."""
    is_parent, is_child = scenes.classes == parent, scenes.classes == child
    most = max(1, int(is_parent.sum(1).max())) if len(scenes) else 1
    number = (is_parent.cumsum(1) - 1).gather(1, scenes.parents.clamp(min=0))
    is_child = is_child & is_parent.gather(1, scenes.parents.clamp(min=0)) & (scenes.parents >= 0)
    counts = torch.zeros(len(scenes), most, dtype=torch.long, device=number.device)
    counts.scatter_add_(1, number.clamp(0, most - 1), is_child.long())
    there = torch.arange(most, device=number.device) < is_parent.sum(1, keepdim=True)
    return counts, there.long()


def number_of(name: str, classes: Sequence[str]) -> int:
    """The number of a class.

    Raises:
        UserError: If the grammar has none of that name.
    """
    if name not in classes:
        raise UserError(f"a statistic counts {name!r}, which the grammar lacks. {suggest(name, classes)}")
    return list(classes).index(name)
