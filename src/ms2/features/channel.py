"""What an extractor reads of each number of objects, measured on labelled renders."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from ms2.core.bounds import Dimension

NUM_BINS = 32
"""Bins of readings, with equally many of the measured readings in each."""
PSEUDO_COUNT = 1.0
"""Images that each number is taken to have had beside those measured, with the readings of all numbers together."""
READ, NOT_READ = 0.3, 0.05
"""Information of a reading about the number in the structure, as a fraction of that number's entropy, from which it is
read, and below which not: what is hidden counts, as nothing can be learned of it."""

Quality = Literal["read", "blurred", "not read"]


class ReadingChannel(nn.Module):
    """The distribution of readings of each number of objects, and of the number visible, by what is counted.

    An extractor's reading is blurred, and it is blind to what is hidden, so that the distribution of its readings is
    not that of the numbers. On renders both are known: this keeps the joint distribution of the number of objects in
    the structure, the number of those that are visible, and the reading, for each class alone, all others as they come.
    Not in the paper, which compares readings as they are.

    Args:
        sets: Count slots that are added up to each number, by its name.
        largest: Largest number that is told apart; larger ones are taken for it.

    Attributes:
        names: Names of the numbers.
        joint: Images by number, by number visible and by bin of the reading; all zero before `measure`.
        edges: Edges between the bins of readings.
        highest: Highest reading of each number.

    Example:
        >>> channel = ReadingChannel({"count_car": [0]}, largest=3)
        >>> numbers = torch.randint(4, (1000, 1), generator=torch.Generator().manual_seed(0))
        >>> channel.measure(numbers.float(), numbers, numbers)  # readings without error
        >>> channel.quality()
        ['read']
    """

    members: Tensor
    joint: Tensor
    edges: Tensor
    highest: Tensor

    def __init__(self, sets: Mapping[str, Sequence[int]], largest: Dimension) -> None:
        super().__init__()
        self.names, self.largest = list(sets), largest
        num_slots = 1 + max(max(slots) for slots in sets.values())
        members = [[int(slot in slots) for slots in sets.values()] for slot in range(num_slots)]
        self.register_buffer("members", torch.tensor(members), persistent=False)
        self.register_buffer("joint", torch.zeros(len(sets), largest + 1, largest + 1, NUM_BINS))
        self.register_buffer("edges", torch.zeros(len(sets), NUM_BINS - 1))
        self.register_buffer("highest", torch.zeros(len(sets)))

    @property
    def is_measured(self) -> bool:
        """Whether `measure` was called, here or before the weights were saved."""
        return bool(self.joint.any())

    def sums(self, slots: Shaped[Tensor, "m s"]) -> Shaped[Tensor, "m k"]:
        """Add up numbers in slots, read or true, to those of each name."""
        return (slots.unsqueeze(2) * self.members).sum(1)

    def measure(self, readings: Float[Tensor, "m k"], visible: Int[Tensor, "m k"], numbers: Int[Tensor, "m k"]) -> None:
        """Replace the channel by what is read in m labelled images.

        Args:
            readings: What the extractor reads, in objects.
            visible: How many are visible.
            numbers: How many there are in the structure.
        """
        inner = torch.linspace(0, 1, NUM_BINS + 1, device=readings.device)[1:-1]
        self.edges.copy_(readings.double().quantile(inner.double(), 0).T)
        self.highest.copy_(readings.amax(0))
        size = self.largest + 1
        place = numbers.clamp(max=self.largest) * size + visible.clamp(max=self.largest)
        place = place * NUM_BINS + self.bins(readings)
        counts = torch.stack([one.bincount(minlength=size * size * NUM_BINS) for one in place.unbind(1)])
        self.joint.copy_(counts.view_as(self.joint))

    def bins(self, readings: Float[Tensor, "m k"]) -> Int[Tensor, "m k"]:
        """Compute the bin of each reading."""
        return torch.searchsorted(self.edges, readings.T.to(self.edges).contiguous(), right=True).T

    def fraction_beyond(self, readings: Float[Tensor, "m k"]) -> Float[Tensor, " k"]:
        """Compute the fraction of readings at least half an object above all that were measured."""
        return (readings > self.highest + 0.5).float().mean(0)

    def histogram(self, readings: Float[Tensor, "m k"]) -> Float[Tensor, "k r"]:
        """Compute the fraction of images in each bin of readings."""
        counts = torch.stack([one.bincount(minlength=NUM_BINS) for one in self.bins(readings).unbind(1)])
        return counts / len(readings)

    def reading_given_number(self) -> Float[Tensor, "k n r"]:
        """Compute p(bin of the reading | number of objects); zero for numbers that no measured image had."""
        return self._conditional(self.joint.sum(2))

    def reading_given_visible(self) -> Float[Tensor, "k v r"]:
        """Compute p(bin of the reading | number visible); zero for numbers that no measured image had."""
        return self._conditional(self.joint.sum(1))

    def visible_given_number(self) -> Float[Tensor, "k n v"]:
        """Compute p(number visible | number of objects); zero for numbers that no measured image had."""
        counts = self.joint.sum(3)
        return counts / counts.sum(2, keepdim=True).clamp(min=1)

    def information(self, visible: bool = False) -> Float[Tensor, " k"]:
        """Estimate the mutual information of reading and number in nats, over the measured images.

        Args:
            visible: Of the number visible instead of the number of objects.

        The estimate from counts is corrected for its bias (Miller and Madow, 1955).
        """
        counts = self.joint.sum(1 if visible else 2)
        found = _entropy(counts.sum(2)) + _entropy(counts.sum(1)) - _entropy(counts.flatten(1))
        return found.clamp(min=0)

    def entropy(self, visible: bool = False) -> Float[Tensor, " k"]:
        """Estimate the entropy of the number of objects, or of those visible, in nats: the most a reading can hold."""
        return _entropy(self.joint.sum((2, 3) if not visible else (1, 3)))

    def quality(self) -> list[Quality]:
        """Say of each name whether the number of objects is read, blurred, or not read."""
        fraction = self.information() / self.entropy().clamp(min=1e-6)
        return ["read" if f >= READ else "blurred" if f >= NOT_READ else "not read" for f in fraction.tolist()]

    def _conditional(self, counts: Float[Tensor, "k n r"]) -> Float[Tensor, "k n r"]:
        """Divide counts by their sums, smoothed towards the readings of all numbers together."""
        everything = counts.sum(1, keepdim=True)
        everything = everything / everything.sum(2, keepdim=True).clamp(min=1)
        number = counts.sum(2, keepdim=True)
        return (counts + PSEUDO_COUNT * everything) / (number + PSEUDO_COUNT) * (number > 0)


def _entropy(counts: Float[Tensor, "k n"]) -> Float[Tensor, " k"]:
    """Estimate the entropy of distributions from counts, in nats."""
    total = counts.sum(1, keepdim=True).clamp(min=1)
    p = counts / total
    return torch.special.entr(p).sum(1) + ((counts > 0).sum(1) - 1).clamp(min=0) / (2 * total.squeeze(1))
