"""What an extractor reads of each number of objects, measured on labelled renders."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ms2.core.bounds import Dimension

NUM_BINS = 32
"""Bins of readings, with equally many of the measured readings in each."""
PSEUDO_COUNT = 1.0
"""Images that each number is taken to have had beside those measured, with the readings of all numbers together."""
READ, NOT_READ = 0.5, 0.05
"""Information of a reading, as a fraction of a number's entropy, from which the number is read, and below which not."""
TINY = 1e-6
"""Smallest probability of a reading."""
DEGREE, NUM_HIDDEN = 4, 64
"""Degree of the polynomials, and hidden units of the network, by which all numbers change how one is read."""
EPOCHS, FIT_BATCH, FIT_LR = 25, 256, 2e-2
"""Optimisation of that network (AdamW, one cycle)."""
FIT_DECAY = 2000.0
"""Its weight decay times the number of images: the more there are, the less a prior of small weights counts."""
JUDGED_BY = 0.2
"""Fraction of the measured images that it is not fitted to, by which it is judged."""

Quality = Literal["read", "occluded", "blurred", "not read"]


def reading_quality(of_structure: float, of_visible: float) -> Quality:
    """Say how well a number is read.

    Args:
        of_structure: Information of its reading about the number of objects, as a fraction of that number's entropy.
        of_visible: The same of the number visible.

    Returns:
        ``read`` if the reading tells how many there are; ``occluded`` if it tells how many can be seen, but much is
        hidden, so that no better extractor would help; ``not read`` if it tells nothing of how many can be seen, and
        ``blurred`` otherwise.
    """
    if of_structure >= READ:
        return "read"
    if of_visible < NOT_READ:
        return "not read"
    return "occluded" if of_visible >= READ else "blurred"


class ReadingChannel(nn.Module):
    """The distribution of readings of each number of objects, and of the number visible.

    An extractor's reading is blurred, and it is blind to what is hidden, so that the distribution of its readings is
    not that of the numbers. On renders both are known: this keeps the joint distribution of the number of objects in
    the structure, the number of those that are visible, and the reading, for each class alone, all others as they come.
    What hides an object depends on all that there is, though, so that a structure of other numbers would be read
    otherwise. Hence the distribution of a reading r of number k given all numbers n is that given its own, tilted:

        p_k(r | n) ~ p_k(r | n_k) exp(sum_d a_kd(n) L_d(r)),

    with Legendre polynomials L_d of the bin's rank, and a small network a that is fitted to the same images by maximum
    likelihood. A number is read as its table says, without a tilt, where the tilt makes readings that it was not fitted
    to no more likely. Not in the paper, which compares readings as they are.

    Args:
        sets: Count slots that are added up to each number, by its name.
        largest: Largest number that is told apart; larger ones are taken for it.
        num_slots: Number of count slots; by default up to the last one that is added up.

    Attributes:
        sets: Count slots that are added up to each number, by its name.
        names: Names of the numbers.
        joint: Images by number, by number visible and by bin of the reading; all zero before `measure`.
        edges: Edges between the bins of readings.
        highest: Highest reading of each number.
        fractions: Information of each reading about the number of objects and about the number visible, as fractions of
            their entropies, in the images that `quality` is judged by.
        by_chance: Information that shuffled readings seem to hold of both.

    Example:
        >>> channel = ReadingChannel({"count_car": [0]}, largest=3)
        >>> numbers = torch.randint(4, (1000, 1), generator=torch.Generator().manual_seed(0))
        >>> channel.measure(numbers.float(), numbers, numbers, torch.Generator())  # readings without error
        >>> channel.quality()
        ['read']
    """

    joint: Tensor
    edges: Tensor
    highest: Tensor
    fractions: Tensor
    by_chance: Tensor
    members: Tensor
    basis: Tensor
    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self, sets: Mapping[str, Sequence[int]], largest: Dimension, num_slots: Dimension | None = None
    ) -> None:
        super().__init__()
        self.sets, self.names, self.largest = dict(sets), list(sets), largest
        num_slots = num_slots or 1 + max(max(slots) for slots in sets.values())
        members = [[slot in slots for slots in sets.values()] for slot in range(num_slots)]
        self.register_buffer("members", torch.tensor(members), persistent=False)
        self.register_buffer("joint", torch.zeros(len(sets), largest + 1, largest + 1, NUM_BINS))
        self.register_buffer("edges", torch.zeros(len(sets), NUM_BINS - 1))
        self.register_buffer("highest", torch.zeros(len(sets)))
        self.register_buffer("fractions", torch.zeros(2, len(sets)))
        self.register_buffer("by_chance", torch.zeros(2, len(sets)))
        rank = torch.linspace(-1, 1, NUM_BINS)
        basis = [torch.special.legendre_polynomial_p(rank, d) for d in range(1, DEGREE + 1)]
        self.register_buffer("basis", torch.stack(basis), persistent=False)
        # no parameters, as they are not trained with the extractor
        self.register_buffer("hidden_weight", torch.zeros(NUM_HIDDEN, len(sets)))
        self.register_buffer("hidden_bias", torch.zeros(NUM_HIDDEN))
        self.register_buffer("weight", torch.zeros(len(sets) * DEGREE, NUM_HIDDEN))
        self.register_buffer("bias", torch.zeros(len(sets) * DEGREE))

    @property
    def is_measured(self) -> bool:
        """Whether `measure` was called, here or before the weights were saved."""
        return bool(self.joint.any())

    def sums(self, slots: Shaped[Tensor, "m s"]) -> Shaped[Tensor, "m k"]:
        """Add up numbers in slots, read or true, to those of each name; slots that are not read, NaN, count nothing."""
        return slots.nan_to_num().unsqueeze(2).where(self.members, 0).sum(1)

    def measure(
        self,
        readings: Float[Tensor, "m k"],
        visible: Int[Tensor, "m k"],
        numbers: Int[Tensor, "m k"],
        generator: Generator,
        judged: bool = True,
    ) -> None:
        """Replace the channel by what is read in m labelled images.

        Args:
            readings: What the extractor reads, in objects.
            visible: How many are visible.
            numbers: How many there are in the structure.
            generator: Draws initial weights and batches of the fit.
            judged: Whether `quality` is judged by these images. It should not be where numbers vary less than those
                that the extractor was trained on: the less a number varies, the less any reading tells of it.
        """
        self.edges.copy_(torch.stack([_edges(one) for one in readings.double().unbind(1)]))
        self.highest.copy_(readings.amax(0))
        size, bins = self.largest + 1, self.bins(readings)
        place = numbers.clamp(max=self.largest) * size + visible.clamp(max=self.largest)
        place = place * NUM_BINS + bins
        counts = torch.stack([one.bincount(minlength=size * size * NUM_BINS) for one in place.unbind(1)])
        self.joint.copy_(counts.view_as(self.joint))
        if len(self.names) > 1:  # there is nothing else to depend on otherwise
            self._fit(bins, numbers, generator)
        shuffled = bins[torch.randperm(len(bins), generator=generator, device=bins.device)]
        by_chance = [_information(self._counts(number, shuffled)) for number in (numbers, visible)]
        self.by_chance.copy_(torch.stack(by_chance))
        if judged:
            found = [self.information(seen) / self.entropy(seen).clamp(min=TINY) for seen in (False, True)]
            self.fractions.copy_(torch.stack(found))

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

    def readings_given_numbers(self, numbers: Int[Tensor, "m k"]) -> Float[Tensor, "m k r"]:
        """Compute p(bin of each reading | all numbers of a scene).

        Zero for a number that no measured image had, and for one above ``largest``: such scenes explain no reading.
        """
        network = (self.hidden_weight, self.hidden_bias, self.weight, self.bias)
        own = self._own(numbers)
        known = F.pad(self.joint.sum((2, 3)) > 0, (0, 1))
        given = self._log_given(self._log_table(self.joint.sum(2)), numbers, network).exp()
        return given * known.gather(1, own.T).T.unsqueeze(2)

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

        The estimate from counts is corrected for its bias (Miller and Madow, 1955). With few images much is left of it:
        about the estimate for readings that are shuffled among the images, which is subtracted where it is positive.
        """
        found = _information(self.joint.sum(1 if visible else 2)) - self.by_chance[int(visible)].clamp(min=0)
        return found.clamp(min=0)

    def _counts(self, numbers: Int[Tensor, "m k"], bins: Int[Tensor, "m k"]) -> Float[Tensor, "k n r"]:
        """Count images by number and by bin of the reading."""
        size = self.largest + 1
        place = numbers.clamp(max=self.largest) * NUM_BINS + bins
        counts = torch.stack([one.bincount(minlength=size * NUM_BINS) for one in place.unbind(1)])
        return counts.view(-1, size, NUM_BINS).to(self.joint)

    def entropy(self, visible: bool = False) -> Float[Tensor, " k"]:
        """Estimate the entropy of the number of objects, or of those visible, in nats: the most a reading can hold."""
        return _entropy(self.joint.sum((2, 3) if not visible else (1, 3)))

    def quality(self) -> list[Quality]:
        """Say of each name how well its number is read, see `reading_quality`."""
        return [reading_quality(*pair) for pair in self.fractions.T.tolist()]

    def _own(self, numbers: Int[Tensor, "m k"]) -> Int[Tensor, "m k"]:
        """Compute the place of each number in a table with one place for all above ``largest``."""
        return numbers.clamp(max=self.largest + 1)

    def _log_table(self, counts: Float[Tensor, "k n r"]) -> Float[Tensor, "k n+1 r"]:
        """Compute log p(bin of the reading | its number), with one number more for all above ``largest``."""
        return F.pad(self._conditional(counts), (0, 0, 0, 1)).clamp(min=TINY).log()

    def _log_given(
        self, table: Float[Tensor, "k n r"], numbers: Int[Tensor, "m k"], network: Sequence[Tensor]
    ) -> Float[Tensor, "m k r"]:
        """Compute log p(bin of each reading | all numbers) by the weights of the network."""
        hidden_weight, hidden_bias, weight, bias = network
        scaled = 2 * numbers.clamp(max=self.largest).to(table) / self.largest - 1
        tilts = F.linear(F.gelu(F.linear(scaled, hidden_weight, hidden_bias)), weight, bias)
        places = torch.arange(len(self.names), device=numbers.device)
        return (table[places, self._own(numbers)] + tilts.unflatten(1, (-1, DEGREE)) @ self.basis).log_softmax(2)

    def _log_likelihood(
        self,
        table: Float[Tensor, "k n r"],
        numbers: Int[Tensor, "m k"],
        bins: Int[Tensor, "m k"],
        network: Sequence[Tensor],
    ) -> Float[Tensor, "m k"]:
        """Compute the log-likelihood of each image's readings by name."""
        return self._log_given(table, numbers, network).gather(2, bins.unsqueeze(2)).squeeze(2)

    def _fit(self, bins: Int[Tensor, "m k"], numbers: Int[Tensor, "m k"], generator: Generator) -> None:
        """Fit the network to the bins of readings of m images, and keep the tilts that others confirm."""
        kept = (self.hidden_weight, self.hidden_bias, self.weight, self.bias)
        for tensor in kept:
            tensor.zero_()
        order = torch.randperm(len(bins), generator=generator, device=bins.device)
        others, fitted = order.tensor_split([round(JUDGED_BY * len(bins))])
        table = self._log_table(self._counts(numbers[fitted], bins[fitted]))
        judged = table, numbers[others], bins[others]
        without = self._log_likelihood(*judged, kept)
        bound = len(self.names) ** -0.5
        self.hidden_weight.uniform_(-bound, bound, generator=generator)
        steps = -(-EPOCHS * len(fitted) // FIT_BATCH)
        with torch.enable_grad():
            network = [tensor.clone().requires_grad_() for tensor in kept]
            optimizer = torch.optim.AdamW(network, FIT_LR, weight_decay=FIT_DECAY / len(fitted))
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, FIT_LR, total_steps=steps)
            for _ in range(steps):
                place = torch.randint(len(fitted), (FIT_BATCH,), generator=generator, device=bins.device)
                chosen = fitted[place]
                loss = -self._log_likelihood(table, numbers[chosen], bins[chosen], network).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        for tensor, found in zip(kept, network, strict=True):
            tensor.copy_(found.detach())
        gain = self._log_likelihood(*judged, kept) - without
        helps = gain.mean(0) * len(others) ** 0.5 > gain.std(0)  # by more than its standard error
        helps = helps.repeat_interleave(DEGREE)
        self.weight.mul_(helps.unsqueeze(1))
        self.bias.mul_(helps)

    def _conditional(self, counts: Float[Tensor, "k n r"]) -> Float[Tensor, "k n r"]:
        """Divide counts by their sums, smoothed towards the readings of all numbers together."""
        everything = counts.sum(1, keepdim=True)
        everything = everything / everything.sum(2, keepdim=True).clamp(min=1)
        number = counts.sum(2, keepdim=True)
        return (counts + PSEUDO_COUNT * everything) / (number + PSEUDO_COUNT) * (number > 0)


def _edges(readings: Float[Tensor, " m"]) -> Float[Tensor, " e"]:
    """Compute the edges between bins of equally many readings, or between all of a few distinct ones.

    Readings of few values, as those without error, would share bins where they are rare: the channel would not tell
    them apart.
    """
    distinct = readings.unique()
    if len(distinct) > NUM_BINS:
        inner = torch.linspace(0, 1, NUM_BINS + 1, device=readings.device, dtype=readings.dtype)[1:-1]
        return readings.quantile(inner)
    between = F.pad((distinct[1:] + distinct[:-1]) / 2, (0, 1), value=math.inf)
    # spread over all bins, by whose rank the tilt's polynomials go
    bins = torch.linspace(0, NUM_BINS - 1, len(distinct), device=readings.device).round()
    below = bins <= torch.arange(NUM_BINS - 1, device=readings.device)[:, None]
    return between[below.sum(1) - 1]


def _information(counts: Float[Tensor, "k n r"]) -> Float[Tensor, " k"]:
    """Estimate the mutual information of number and bin from counts, in nats, with Miller and Madow's correction."""
    return _entropy(counts.sum(2)) + _entropy(counts.sum(1)) - _entropy(counts.flatten(1))


def _entropy(counts: Float[Tensor, "k n"]) -> Float[Tensor, " k"]:
    """Estimate the entropy of distributions from counts, in nats."""
    total = counts.sum(1, keepdim=True).clamp(min=1)
    p = counts / total
    return torch.special.entr(p).sum(1) + ((counts > 0).sum(1) - 1).clamp(min=0) / (2 * total.squeeze(1))
