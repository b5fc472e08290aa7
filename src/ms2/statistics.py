"""Statistics of scene structure: what histograms are made of, and distances between them taken."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ms2.registry import Plugin
from ms2.scene import SceneBatch


class Statistic(Plugin, ABC, kind="statistics"):
    """What each scene adds to the bins of a histogram.

    Attributes:
        name: Short name, the prefix of its distances in ``metrics.json``.
        title: What its histogram shows.
    """

    name: str
    title: str

    @abstractmethod
    def table(self, scenes: SceneBatch, classes: Sequence[str]) -> Int[Tensor, "b k"]:
        """What each scene adds to each bin; the width may differ between sets of scenes."""

    def bins(self, classes: Sequence[str], width: int) -> list[str]:
        """Names of the bins."""
        return [str(i) for i in range(width)]


class ObjectCount(Statistic):
    """The number of objects in a scene."""

    name, title = "count", "objects per scene"

    def table(self, scenes: SceneBatch, classes: Sequence[str]) -> Int[Tensor, "b k"]:
        """One-hot of the number of objects."""
        return torch.nn.functional.one_hot(scenes.mask.sum(1))


class ClassFrequency(Statistic):
    """The classes of all objects together."""

    name, title = "class", "classes of objects"

    def table(self, scenes: SceneBatch, classes: Sequence[str]) -> Int[Tensor, "b k"]:
        """Number of objects of each class."""
        return scenes.counts(len(classes))

    def bins(self, classes: Sequence[str], width: int) -> list[str]:
        """The classes."""
        return list(classes)
