"""What a grammar is learned from: the objects of many scenes, one per row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.errors import UserError
from ms2.scene.batch import SceneBatch


class InductionError(UserError):
    """No grammar can be learned from these scenes."""


@dataclass(frozen=True)
class ObjectTable:
    """Objects of many scenes, in the order of their scenes.

    Objects of one class under one parent are an ordered sequence; between classes there is no order.

    Attributes:
        classes: Names of the classes.
        num_scenes: Number of scenes, those without objects included.
        scene: Number of each object's scene, ascending.
        label: Class of each object, an index into ``classes``.
        parent: Row of each object's parent; -1 for none.
        boxes: x0, y0, x1, y1 of each object, as fractions of the image's width and height; None if unknown.
        parents_known: Whether parents were given, so that none are to be found.

    Raises:
        InductionError: If parents contradict each other.
    """

    classes: tuple[str, ...]
    num_scenes: int
    scene: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    parent: Int[Tensor, " n"]
    boxes: Float[Tensor, "n 4"] | None = None
    parents_known: bool = False

    def __post_init__(self) -> None:
        has = self.parent >= 0
        if bool((self.scene[self.parent[has]] != self.scene[has]).any()):
            wrong = int(self.scene[has][self.scene[self.parent[has]] != self.scene[has]][0])
            raise InductionError(f"an object of scene {wrong} has a parent in another scene")
        above = self.parent
        for _ in range(max(1, len(above)).bit_length() + 1):  # to the ancestor 1, 2, 4, ... levels up
            above = torch.where(above >= 0, above[above.clamp(min=0)], above)
        if bool((above >= 0).any()):
            row = int((above >= 0).nonzero()[0, 0])
            raise InductionError(
                f"objects of scene {int(self.scene[row])} are each other's parents, such as a "
                f"{self.classes[int(self.label[row])]!r}: an object cannot be above itself"
            )

    def __len__(self) -> int:
        return len(self.label)

    @property
    def rank(self) -> Int[Tensor, " n"]:
        """Number of each object among those of its class under its parent, from 0, in the order of the rows."""
        n, size = len(self), len(self.classes)
        owner = torch.where(self.parent >= 0, self.parent, n + self.scene)
        return running_index(owner * size + self.label)

    def in_order(self, key: Float[Tensor, " n"]) -> "ObjectTable":
        """Return the objects of each scene sorted by a number."""
        order = key.argsort(stable=True)
        order = order[self.scene[order].argsort(stable=True)]
        return self.rows(order)

    def select(self, scenes: Int[Tensor, " m"]) -> "ObjectTable":
        """Return some of the scenes, numbered anew in the given order."""
        number = torch.full((self.num_scenes,), -1).index_copy_(0, scenes, torch.arange(len(scenes)))
        rows = (number[self.scene] >= 0).nonzero()[:, 0]
        rows = rows[number[self.scene[rows]].argsort(stable=True)]
        chosen = self.rows(rows)
        return replace(chosen, num_scenes=len(scenes), scene=number[chosen.scene])

    def with_parents(self, parent: Int[Tensor, " n"]) -> "ObjectTable":
        """Return the objects with other parents."""
        return replace(self, parent=parent)

    def rows(self, rows: Int[Tensor, " m"]) -> "ObjectTable":
        """Return some of the objects; those whose parent is not among them have none."""
        new = torch.full((len(self) + 1,), -1)  # the last entry is that of no parent
        new[rows] = torch.arange(len(rows))
        boxes = None if self.boxes is None else self.boxes[rows]
        return replace(self, scene=self.scene[rows], label=self.label[rows], parent=new[self.parent[rows]], boxes=boxes)

    @classmethod
    def from_scenes(cls, scenes: SceneBatch, classes: Sequence[str]) -> "ObjectTable":
        """Read the objects of a batch of scenes with their parents, in the order of the derivation."""
        mask = scenes.mask
        row = mask.flatten().long().cumsum(0).reshape(mask.shape) - 1
        above = torch.where(scenes.parents >= 0, row.gather(1, scenes.parents.clamp(min=0)), -1)
        scene = torch.arange(len(scenes))[:, None].expand_as(mask)
        return cls(
            tuple(classes), len(scenes), scene[mask], scenes.classes[mask], above[mask], None, parents_known=True
        )


def running_index(keys: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Count for each entry the entries before it that have the same key."""
    order = keys.argsort(stable=True)
    sorted_keys = keys[order]
    index = torch.arange(len(keys))
    first = torch.ones_like(sorted_keys, dtype=torch.bool)
    first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    start = torch.where(first, index, 0).cummax(0).values if len(keys) else index
    return torch.empty_like(keys).index_copy_(0, order, index - start)
