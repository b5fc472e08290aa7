"""An extractor that is told where objects are: dense supervision removes the bottleneck of image-level heads."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.features.base import Blocks, CountPrediction, Slots, TrainedExtractor, check_counts, check_names
from ms2.features.resnet import ResidualBlock, residual_trunk
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch

SOFT = 0.1
"""Objects within which what is near the least to be sure of counts in part."""


class DenseCounts(TrainedExtractor):
    """Tells for each cell of the image how much of an object of which class is there; features are sums over cells.

    Not in the paper, whose image-level presence heads read classes too weakly, and with a bias that learning
    then exploits. Labels of prior samples are free and exact, so they may as well say where.

    Blocks: ``classes``, the expected number of objects of each class, and the expected numbers of what ``max_count``
    names as soft one-hot over 0 ... their most, in which near numbers are near and far ones equally far.

    Args:
        channels: Channels of an image.
        classes: Names of the classes.
        widths: Channels of the three residual blocks.
        strides: Strides of the three blocks; their product is the side of a cell in pixels. A cell should be no
            larger than half an object, or two may have their centres in one.
        empty_weight: Weight of cells without an object in the loss, to help along the few that hold one; the
            expected counts are corrected for it.
        max_count: Most objects that are told apart: a number for block ``count`` of all objects, or one by class
            for blocks ``count_<class>``.
        by_parent: Classes whose objects are counted apart for each object that they may belong to, and how many of
            those: ``{"car": 4}`` for the cars of the first, second, third and fourth road, in blocks
            ``count_car_1`` ... ``count_car_4``.
        count_width: Standard deviation of a number's bump in the blocks of counts.
        least_visible: Visible share of an object below which the network is not told of it. What can't be seen it can
            only guess, which blurs its counts.
        levels: Coarser maps that each cell is told of, each half as fine as the one before. Without, a cell sees some
            35 pixels, which is less than a car nearby or a building.
        count_threshold: By class, how much of an object must be expected at a place to be counted. What looks a little
            like a car wherever one looks, as clutter in photographs does, adds up to cars otherwise.

    Example:
        >>> features = DenseCounts(world.renderer.channels, world.classes)
        >>> images = world.renderer.render(world.sample_prior(4, generator(0, "example")))
        >>> sorted(features(images))
        ['classes', 'count']
    """

    weights: Tensor
    least: Tensor

    def __init__(
        self,
        channels: int,
        classes: Sequence[str],
        widths: tuple[int, int, int] = (16, 32, 64),
        strides: tuple[int, int, int] = (2, 2, 1),
        empty_weight: float = 0.2,
        max_count: int | dict[str, int] = 10,
        by_parent: dict[str, int] | None = None,
        count_width: float = 0.4,
        least_visible: float = 0.0,
        levels: int = 0,
        count_threshold: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        if levels < 0:
            raise UserError(f"levels is a number of coarser maps, and can't be {levels}")
        self.least_visible = least_visible
        if empty_weight <= 0 or count_width <= 0:
            raise UserError(f"empty_weight and count_width must be positive, not {empty_weight} and {count_width}")
        self.slots, self.count_width = Slots(classes, by_parent), count_width
        self.counted = _counted(self.slots, classes, max_count)
        check_names(count_threshold or {}, classes, "count_threshold")
        self.doubts = bool(count_threshold)
        least = torch.tensor([(count_threshold or {}).get(classes[kind], -math.inf) for kind in self.slots.kind])
        self.register_buffer("least", least[:, None, None], persistent=False)
        self.cell: float = math.prod(strides)
        self.register_buffer("weights", torch.tensor([1.0] * len(self.slots) + [empty_weight]), persistent=False)
        member = F.one_hot(torch.tensor(self.slots.kind), len(classes)).float()
        self.register_buffer("member", member, persistent=False)
        self.trunk = residual_trunk(channels, widths, strides)
        if levels:
            self.trunk.append(Pyramid(widths[-1], levels)).append(ResidualBlock(widths[-1], widths[-1], 1))
            self.trunk.to(memory_format=torch.channels_last)
        # whose an object is shows far from it: how many roads lie before the one that a car stands on
        self.scan = Scan(widths[-1]) if by_parent else nn.Identity()
        self.head = nn.Conv2d(widths[-1], len(self.slots) + 1, 1)

    member: Tensor

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Block ``classes``, and the counts named in ``max_count``."""
        return self.blocks_of(self.expected_counts(images))

    def blocks_of(self, slots: Float[Tensor, "b s"]) -> Blocks:
        """Blocks of expected numbers in each slot."""
        blocks = {"classes": slots @ self.member}
        for name, (members, most) in self.counted.items():
            bins = torch.arange(most + 1.0, device=slots.device)
            number = slots[:, members].sum(1, keepdim=True).clamp(max=most)
            blocks[name] = torch.exp(-0.5 * ((number - bins) / self.count_width) ** 2)
        return blocks

    def beyond(self, images: Float[Tensor, "b c h w"]) -> dict[str, float]:
        """By block, the share of images whose number lies beyond the block's last bin."""
        slots = self.expected_counts(images)
        return {
            name: float((slots[:, members].sum(1) > most + 0.5).float().mean())
            for name, (members, most) in self.counted.items()
        }

    def expected_counts(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s"]:
        """Expected number of objects in each slot."""
        return self.masses(self._logits(images)).sum((2, 3))

    def masses(self, logits: Float[Tensor, "b k i j"]) -> Float[Tensor, "b s i j"]:
        """Expected numbers in each cell, given what is said of it."""
        # with weights, the optimum is p * weight, normalised
        masses = (logits.float() - self.weights.log()[:, None, None]).softmax(1)[:, :-1]
        if not self.doubts:
            return masses
        # an object's mass is shared by cells that touch
        near = 9 * F.avg_pool2d(masses, 3, 1, 1)
        return masses * ((near - self.least) / SOFT).sigmoid()

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Cross-entropy of what each cell holds, the last class being nothing."""
        return self._loss(self._logits(images), labels)

    def _loss(self, logits: Float[Tensor, "b k i j"], labels: Rendering) -> Float[Tensor, ""]:
        counts = self.slots.count(self._taught(labels))
        for name, (members, most) in self.counted.items():
            what = name.removeprefix("count_") if name != "count" else "objects"
            check_counts(counts[:, members].sum(1, keepdim=True), most, what)
        return F.cross_entropy(logits, self._cells(labels, logits.shape[2], logits.shape[3]), self.weights)

    def read(self, images: Float[Tensor, "b c h w"]) -> CountPrediction:
        """Expected counts, and presence where at least half an object is expected."""
        slots = self.expected_counts(images)
        counts = slots @ self.member
        return CountPrediction(counts > 0.5, counts, counts.sum(1), slots)

    def _logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        return self.head(self._maps(images))

    def _maps(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        """What is known of each cell."""
        return self.scan(self.trunk(images.contiguous(memory_format=torch.channels_last)))

    def _taught(self, labels: Rendering) -> Int[Tensor, "b n"]:
        """The slot of each object that the network is told of, else -1."""
        # whose an object is, is asked before any is left out: parents are told apart by their number
        slots = self.slots.of(labels.classes, labels.parents)
        return torch.where(labels.visibility >= self.least_visible, slots, -1)

    def _cells(self, labels: Rendering, rows: int, columns: int) -> Float[Tensor, "b k i j"]:
        """What each cell should hold: every object's unit of mass, shared by the four cells around its centre.

        Bilinear shares sum to one wherever the grid happens to lie. All or nothing would leave the network in doubt
        about centres near an edge, and its doubts don't sum to one: a layout that keeps to few places, as a line of
        digits does, would be miscounted. Where objects crowd, a cell holds no more than one.
        """
        slots = self._taught(labels)
        mass = labels.boxes.new_zeros(len(slots), len(self.slots), rows, columns)
        for (scene, place), row, column, share in self._shares(labels, slots, rows, columns):
            mass.index_put_((scene, slots[scene, place], row, column), share, accumulate=True)
        mass = mass / mass.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([mass, 1 - mass.sum(1, keepdim=True)], 1).clamp(min=0)

    def _shares(
        self, labels: Rendering, slots: Int[Tensor, "b n"], rows: int, columns: int
    ) -> Iterator[tuple[tuple[Tensor, ...], Int[Tensor, " o"], Int[Tensor, " o"], Float[Tensor, " o"]]]:
        """For the o objects with a slot, their scene and place, and four times a cell's row, column, and its share."""
        boxes = labels.boxes
        on_canvas = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        where = ((slots >= 0) & on_canvas).nonzero(as_tuple=True)
        box = boxes[where]
        x, y = ((box[:, :2] + box[:, 2:]) / (2 * self.cell) - 0.5).unbind(1)
        left, top = x.floor(), y.floor()
        for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
            for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
                # what would fall off the canvas stays in its last row and column
                yield where, row.long().clamp(0, rows - 1), column.long().clamp(0, columns - 1), share_x * share_y


class Pyramid(nn.Module):
    """Adds to each place of a map what coarser ones, each half as fine, say of it.

    Args:
        width: Channels of the map; each coarser one has half as many again.
        levels: Number of coarser maps.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        wider = width * 3 // 2
        self.coarser = nn.Sequential(
            ResidualBlock(width, wider, 2),
            Pyramid(wider, levels - 1) if levels > 1 else nn.Identity(),
            nn.Conv2d(wider, width, 1),
        )

    def forward(self, maps: Float[Tensor, "b k i j"]) -> Float[Tensor, "b k i j"]:
        """The map, with what coarser ones say added."""
        return maps + F.interpolate(self.coarser(maps), maps.shape[2:], mode="bilinear")


class Scan(nn.Module):
    """Lets each cell know what lies before and after it, in the rows above and below, the columns left and right.

    What rows and columns hold is summed up along the image from either end: how many roads have gone before is such
    a sum, however far apart they are, which convolutions of a few pixels can't tell.

    Args:
        width: Channels of the map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows, self.columns = Totals(width), Totals(width)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, maps: Float[Tensor, "b k i j"]) -> Float[Tensor, "b k i j"]:
        """The map, with what the totals say of each cell added."""
        rows = self.rows(torch.cat([maps.mean(3), maps.amax(3)], 1))
        columns = self.columns(torch.cat([maps.mean(2), maps.amax(2)], 1))
        return maps + F.relu(self.mix(maps) + rows[..., None] + columns[:, :, None])


class Totals(nn.Module):
    """Running totals of a row of features from either end.

    Args:
        width: Channels of the result; there are twice as many to begin with.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.see = nn.Conv1d(2 * width + 1, width, 3, padding=1)
        self.tell = nn.Sequential(nn.Conv1d(3 * width, width, 1), nn.ReLU(), nn.Conv1d(width, width, 1))

    def forward(self, line: Float[Tensor, "b k2 l"]) -> Float[Tensor, "b k l"]:
        """What can be said of each place, given the totals before and after it."""
        # where on the line a place is: an object that spans the image has its centre in the middle
        where = torch.linspace(-1, 1, line.shape[2], device=line.device).expand(len(line), 1, -1)
        seen = F.relu(self.see(torch.cat([line, where], 1)))
        # divided, so that totals over some dozens of places are of the size of what is summed
        before = (seen.cumsum(2) - seen) / 8
        after = (seen.flip(2).cumsum(2).flip(2) - seen) / 8
        return self.tell(torch.cat([seen, before, after], 1))


def _counted(
    slots: Slots, classes: Sequence[str], max_count: int | Mapping[str, int]
) -> dict[str, tuple[list[int], int]]:
    """Slots that are counted together and their most, by the name of the block."""
    if isinstance(max_count, int):
        return {"count": (list(range(len(slots))), max_count)}
    check_names(max_count, classes, "max_count")
    return {
        f"count_{name}": ([s], max_count[classes[kind]])
        for s, (name, kind) in enumerate(zip(slots.names, slots.kind, strict=True))
        if classes[kind] in max_count
    }
