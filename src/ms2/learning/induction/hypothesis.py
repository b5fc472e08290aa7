"""A hypothesis about scenes: kinds of scenes, the lists of each, and the lists under objects of each class."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.learning.induction.codes import choice_code, choice_probabilities
from ms2.learning.induction.lists import Expansion, Place
from ms2.learning.induction.object_table import ObjectTable


@dataclass(frozen=True)
class Hypothesis:
    """Lists of objects, for scenes and under objects, as they were fitted to scenes.

    Attributes:
        classes: Names of the classes.
        kinds: Lists of each kind of scene; usually there is one kind.
        kind_of: Kind that each scene was counted with.
        inside: Lists under the objects of each class that has children.
    """

    classes: tuple[str, ...]
    kinds: tuple[Expansion, ...]
    kind_of: Int[Tensor, " b"]
    inside: Mapping[int, Expansion]

    @property
    def code(self) -> float:
        """Nats that tell the structure of all scenes, the tables and the rules."""
        return self.kinds_code + sum(one.code for one in (*self.kinds, *self.inside.values()))

    @property
    def kinds_code(self) -> float:
        """Nats that tell the kind of each scene, and the rules that name the kinds."""
        k = len(self.kinds)
        rules = 2 * k * math.log(num_symbols(len(self.classes))) if k > 1 else 0.0
        return rules + float(choice_code(self.kind_of.bincount(minlength=k)))

    @property
    def kind_probabilities(self) -> Float[Tensor, " k"]:
        """Probability of each kind of scene."""
        return choice_probabilities(self.kind_of.bincount(minlength=len(self.kinds)))

    def log_prob(self, table: ObjectTable) -> Float[Tensor, " b"]:
        """Compute the log-probability of each scene's structure; minus infinity for what cannot be.

        Siblings of different classes have no order, those of one class that of the rows. The kind of a scene is summed
        over.
        """
        scenes = scene_place(table)
        by_kind = torch.stack([one.log_prob(scenes) for one in self.kinds], 1)
        total = (by_kind + self.kind_probabilities.log()).logsumexp(1)
        for c in range(len(self.classes)):
            owners = (table.label == c).nonzero()[:, 0]
            lists = self.inside.get(c, Expansion(()))
            total = total.index_add(0, table.scene[owners], lists.log_prob(class_place(table, c)))
        return total


def num_symbols(num_classes: int) -> int:
    """Return the number of symbols that rules name: classes and as many lists, an alternative, the end of a rule."""
    return 2 * num_classes + 3


def scene_place(table: ObjectTable) -> Place:
    """Count the objects of each scene that have no parent."""
    size, top = len(table.classes), table.parent < 0
    counts = (table.scene[top] * size + table.label[top]).bincount(minlength=table.num_scenes * size)
    return Place(counts.reshape(-1, size), torch.zeros(table.num_scenes, dtype=torch.long), num_symbols(size))


def class_place(table: ObjectTable, label: int) -> Place:
    """Count the children of each object of a class."""
    size, owners = len(table.classes), (table.label == label).nonzero()[:, 0]
    number = torch.full((len(table) + 1,), -1).index_copy_(0, owners, torch.arange(len(owners)))
    above = number[table.parent]  # -1, the last entry, for those without a parent
    under = above >= 0
    counts = (above[under] * size + table.label[under]).bincount(minlength=len(owners) * size)
    return Place(counts.reshape(-1, size), table.rank[owners], num_symbols(size))
