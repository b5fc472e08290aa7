"""Dense counting: per-cell supervision of object density, in place of image-level heads."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.core.bounds import Bounds, Dimension, Fraction, NonNegativeFloat, PositiveFloat
from ms2.features.base import Blocks, CountPrediction, CountSlots, TrainedExtractor, check_counts, check_names
from ms2.features.channel import ReadingChannel
from ms2.features.context import AxialContext, FeaturePyramid
from ms2.features.count_bins import CountBins
from ms2.features.resnet import ResidualBlock, residual_trunk, strided_trunk
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch

THRESHOLD_SOFTNESS = 0.1
"""Scale, in objects, of the sigmoid at ``count_threshold``."""


PyramidLevels = Annotated[int, Bounds(ge=0, le=8)]
"""Number of coarser maps, each of half the resolution of the one before."""


class Cells(NamedTuple):
    """The four cells around the centre of each labelled object, which share it by bilinear weights.

    Attributes:
        slots: Count slot of each object; -1 for none.
        places: Index of each cell among the cells of an image, by rows.
        weight: How much of the object is in each cell: they sum to 1, or are all zero for objects without a label.
    """

    slots: Int[Tensor, "b n 1"]
    places: Int[Tensor, "b n 4"]
    weight: Float[Tensor, "b n 4 1"]


class DenseCounts(TrainedExtractor):
    """Predicts, for each cell of the image, the density of objects of each class; features are sums over cells.

    Not in the paper, whose heads are for the whole image (`ResNet`). Labels of prior samples are exact and cost
    nothing, so that positions may be labelled as well, and counts are sums over the image rather than its labels.

    Blocks: ``classes``, the expected number of objects of each class, and the expected numbers named by ``max_count``,
    each spread by a Gaussian over bins 0 ... ``max_count``: near numbers are near, and far ones equally far.

    Args:
        channels: Channels of the images.
        classes: Names of the classes.
        widths: Output channels of the three residual blocks, or strided convolutions.
        strides: Strides of the three; their product is the size of a cell in pixels. A cell should be no larger
            than half an object, or two may have their centres in one.
        background_weight: Weight of cells without an object in the loss, since few cells hold one; the expected counts
            are corrected for it.
        max_count: Largest count that is represented: one number for block ``count`` of all objects, or one by class
            for blocks ``count_<class>``.
        parents_per_class: Number of parents whose objects are counted separately, by class: ``{"car": 4}`` for the cars
            of the first, second, third and fourth road, in blocks ``count_car_1`` ... ``count_car_4``.
        count_kernel_std: Standard deviation of the Gaussian that spreads a count over the bins.
        min_visibility: Visible fraction of an object below which it is not labelled. Hidden objects can only be
            guessed, which blurs the counts.
        pyramid_levels: Number of coarser feature maps, each of half the resolution, that are added to the map. Without,
            a cell's receptive field is some 35 pixels, less than a car nearby or a building.
        count_threshold: By class, the density in a neighbourhood below which nothing is counted. Otherwise small
            densities everywhere, as on clutter in photographs, add up to objects.
        trunk: ``residual``: three residual blocks. ``strided``: convolutions that only reduce the resolution, then two
            residual blocks on the cells; a third of the time on small images.
        total_weight: Weight of the error of the number of all objects of an image in the loss; cells weigh 1 each.
            Errors of cells are alike wherever objects lie in cells in the same way, as in rows, and then add up.
        min_height: Height of an object in pixels below which it is not labelled.
        count_weight: Weight of the error of the number of objects of each class of an image, as ``total_weight``.
        half_cell_shift: Whether counts are averaged over the image and the image moved by half a cell, in both
            directions, which takes twice the time: errors depend on where objects lie in cells.

    Raises:
        UserError: If a setting is out of range, or names a class that does not exist.

    Example:
        >>> features = DenseCounts(world.renderer.channels, world.classes)
        >>> images = world.renderer.render(world.sample_prior(4, generator(0, "example")))
        >>> sorted(features(images))
        ['classes', 'count']
    """

    weights: Tensor
    thresholds: Tensor
    summed: Tensor
    corners: Tensor
    first_cell: Tensor

    def __init__(
        self,
        channels: Dimension,
        classes: Sequence[str],
        widths: tuple[Dimension, Dimension, Dimension] = (16, 32, 64),
        strides: tuple[Dimension, Dimension, Dimension] = (2, 2, 1),
        background_weight: PositiveFloat = 0.2,
        max_count: Dimension | dict[str, Dimension] = 10,
        parents_per_class: dict[str, Dimension] | None = None,
        count_kernel_std: PositiveFloat = 0.4,
        min_visibility: Fraction = 0.0,
        pyramid_levels: PyramidLevels = 0,
        count_threshold: dict[str, NonNegativeFloat] | None = None,
        trunk: Literal["residual", "strided"] = "residual",
        total_weight: NonNegativeFloat = 0.0,
        half_cell_shift: bool = False,
        min_height: NonNegativeFloat = 0.0,
        count_weight: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        self.total_weight, self.half_cell_shift = total_weight, half_cell_shift
        self.min_visibility, self.min_height = min_visibility, min_height
        self.count_weight = count_weight
        self.background_weight = background_weight
        self.slots = CountSlots(classes, parents_per_class)
        self.counted = _counted(self.slots, classes, max_count)
        check_names(count_threshold or {}, classes, "count_threshold")
        self.has_threshold = bool(count_threshold)
        by_slot = [(count_threshold or {}).get(classes[number], -math.inf) for number in self.slots.class_ids]
        self.register_buffer("thresholds", torch.tensor(by_slot)[:, None, None], persistent=False)
        self.num_classes, self.cell = len(classes), float(math.prod(strides))
        weights = torch.tensor([1.0] * len(self.slots) + [background_weight])
        self.register_buffer("weights", weights[:, None, None], persistent=False)
        members = [[s for s, c in enumerate(self.slots.class_ids) if c == number] for number in range(len(classes))]
        members += [slots for slots, _ in self.counted.values()]
        summed = torch.tensor([[float(s in some) for some in members] for s in range(len(self.slots))])
        sets = {f"count_{name}": [s] for s, name in enumerate(self.slots.names)}
        sets |= {name: slots for name, (slots, _) in self.counted.items()}
        self.channel = ReadingChannel(sets, max((number for _, number in self.counted.values()), default=1))
        self.register_buffer("summed", summed, persistent=False)
        self.bins = CountBins({name: number for name, (_, number) in self.counted.items()}, count_kernel_std)
        self.register_buffer("first_cell", torch.tensor(-0.5), persistent=False)
        self.register_buffer("corners", torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]]), persistent=False)
        make_trunk = residual_trunk if trunk == "residual" else strided_trunk
        self.trunk = make_trunk(channels, widths, strides)
        if pyramid_levels:
            self.trunk.append(FeaturePyramid(widths[-1], pyramid_levels))
            self.trunk.append(ResidualBlock(widths[-1], widths[-1], 1))
            self.trunk.to(memory_format=torch.channels_last)
        # which parent an object has may show far from it: the number of roads before the one that a car is on
        self.scan = AxialContext(widths[-1]) if parents_per_class else nn.Identity()
        self.head = nn.Conv2d(widths[-1], len(self.slots) + 1, 1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute block ``classes`` and the count blocks."""
        return self.count_blocks(self.expected_counts(images))

    def count_blocks(self, slots: Float[Tensor, "b s"]) -> Blocks:
        """Compute the blocks from expected numbers in each slot."""
        numbers = self._numbers(slots)
        return {"classes": numbers[:, : self.num_classes], **self.bins(numbers[:, self.num_classes :])}

    def _numbers(self, slots: Float[Tensor, "b s"]) -> Float[Tensor, "b n"]:
        """Sum up slots, for each class and then for each count block; in full precision, as a product may not be."""
        return (slots.unsqueeze(2) * self.summed).sum(1)

    def overflow_fraction(self, images: Float[Tensor, "b c h w"]) -> dict[str, float]:
        """Estimate, by block, the fraction of images whose count exceeds the block's last bin."""
        return self.bins.overflow_fraction(self._numbers(self.expected_counts(images))[:, self.num_classes :])

    def expected_counts(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s"]:
        """Compute the expected number of objects in each slot."""
        counts = self.density_maps(images).sum((2, 3))
        if not self.half_cell_shift:
            return counts
        half = int(self.cell) // 2
        return (counts + self.density_maps(F.pad(images, (half, 0, half, 0))).sum((2, 3))) / 2

    def density_maps(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s i j"]:
        """Compute the expected number of objects of each slot in each cell."""
        return self.densities(self._logits(images))

    def densities(self, logits: Float[Tensor, "b k i j"]) -> Float[Tensor, "b s i j"]:
        """Compute the expected number of objects of each slot in each cell, from the cells' logits."""
        # with weights, the loss is minimal at p * weight, normalised; so divide by the weights
        density = (logits.float() - self.weights.log()).softmax(1)[:, :-1]
        if not self.has_threshold:
            return density
        # an object's density is shared by neighbouring cells
        around = 9 * F.avg_pool2d(density, 3, 1, 1)
        return density * ((around - self.thresholds) / THRESHOLD_SOFTNESS).sigmoid()

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Compute the cross-entropy of each cell's slot; the last class is background."""
        logits = self._logits(images)
        return self._count_loss(logits, self._cells(labels, *logits.shape[2:]))

    def _count_loss(self, logits: Float[Tensor, "b k i j"], cells: Cells) -> Float[Tensor, ""]:
        """Compute the mean cross-entropy of the cells, in which the background has a weight of its own."""
        batch, _, rows, columns = logits.shape
        target = self._cell_targets(cells, rows, columns, self.background_weight)
        loss = (logits.log_softmax(1) * target).sum() / -(batch * rows * columns)
        if self.total_weight:
            found, true = self.densities(logits).sum((1, 2, 3)), cells.weight.sum((1, 2, 3))
            loss = loss + self.total_weight / (rows * columns) * F.smooth_l1_loss(found, true)
        if self.count_weight:
            true = self.slots.count_assigned(cells.slots.squeeze(2), cells.weight.sum((2, 3)))
            found = self.densities(logits).sum((2, 3))
            error = F.smooth_l1_loss(found, true, reduction="sum") / batch
            loss = loss + self.count_weight / (rows * columns) * error
        return loss

    def check_numbers(
        self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"], seen: Bool[Tensor, "b n"]
    ) -> None:
        """Check that the objects of scenes that are seen can all be counted."""
        self.slots.check(classes, parents, seen)
        # parents are numbered among all, so that hidden objects are left out afterwards
        slots = torch.where(seen, self.slots.assign(classes, parents), -1)
        counts = self.slots.count_assigned(slots)
        for name, (members, max_count) in self.counted.items():
            objects = name.removeprefix("count_") if name != "count" else "objects"
            check_counts(counts[:, members].sum(1, keepdim=True), max_count, objects)

    def predict_counts(self, images: Float[Tensor, "b c h w"]) -> CountPrediction:
        """Predict expected counts, and presence where at least half an object is expected."""
        slots = self.expected_counts(images)
        counts = self._numbers(slots)[:, : self.num_classes]
        return CountPrediction(counts > 0.5, counts, counts.sum(1), slots)

    def _logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        return self.head(self._maps(images))

    def _maps(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        """Compute the features of each cell."""
        return self.scan(self.trunk(images.contiguous(memory_format=torch.channels_last)))

    # -- labels ----------------------------------------------------------------------------------------

    def _cells(self, labels: Rendering, rows: int, columns: int) -> Cells:
        """Compute the four cells around the centre of each object that is visible enough, and their bilinear weights.

        Bilinear weights sum to one wherever the cells' edges happen to lie. Assigning each object to one cell would
        leave the network uncertain about centres near an edge, and its probabilities would not sum to one: counts would
        be biased in layouts with few positions, such as digits on a line.
        """
        slots = self.slots.assign(labels.classes, labels.parents).unsqueeze(2)
        low, high = labels.boxes.unflatten(2, (2, 1, 2)).unbind(2)  # [b n 1 2]
        is_labelled = (high > low).all(3, keepdim=True)
        if not self.labels_all:
            is_labelled &= self.labelled(labels)[..., None, None]
        centre = torch.add(self.first_cell, low + high, alpha=0.5 / self.cell)
        cell = centre.floor() + self.corners
        weight = (1 - (centre - cell).abs()).prod(3, keepdim=True) * is_labelled
        # cells beyond the canvas are replaced by those at its edge
        column, row = cell.long().unbind(3)
        places = torch.add(column.clamp(0, columns - 1), row.clamp(0, rows - 1), alpha=columns)
        return Cells(slots, places, weight)

    def _cell_targets(
        self, cells: Cells, rows: int, columns: int, background_weight: float = 1.0
    ) -> Float[Tensor, "b k i j"]:
        """Compute target densities: each object's 1 is split among its cells; then background, times its weight.

        A cell that several objects share holds at most 1.
        """
        slots, places, weight = cells
        size = len(self.slots) + 1  # the last is of objects without a slot
        index = torch.add(places, slots % size, alpha=rows * columns)
        density = weight.new_zeros(len(slots), size * rows * columns)
        density.scatter_add_(1, index.flatten(1), weight.flatten(1))
        density = density.view(len(slots), size, rows, columns).narrow(1, 0, len(self.slots))
        objects = density.sum(1, keepdim=True)
        background = torch.rsub(objects, background_weight, alpha=background_weight).clamp(min=0)
        return torch.cat([density, background], 1) / objects.clamp(min=1)


def _counted(
    slots: CountSlots, classes: Sequence[str], max_count: int | Mapping[str, int]
) -> dict[str, tuple[list[int], int]]:
    """Return, by the name of a count block, the slots that it adds up and its largest number."""
    if isinstance(max_count, int):
        return {"count": (list(range(len(slots))), max_count)}
    check_names(max_count, classes, "max_count")
    return {
        f"count_{name}": ([s], max_count[classes[number]])
        for s, (name, number) in enumerate(zip(slots.names, slots.class_ids, strict=True))
        if classes[number] in max_count
    }
