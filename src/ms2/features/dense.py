"""An extractor that is told where objects are: dense supervision removes the bottleneck of image-level heads."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ms2.features.base import Blocks, Reading, TrainedExtractor, check_counts, class_counts
from ms2.features.resnet import residual_trunk
from ms2.registry import UserError
from ms2.render import Rendering


class DenseCounts(TrainedExtractor):
    """Tells for each cell of the image how much of an object of which class is there; features are sums over cells.

    Not in the paper, whose image-level presence heads read classes too weakly, and with a bias that learning
    then exploits. Labels of prior samples are free and exact, so they may as well say where.

    Blocks: ``classes``, the expected number of objects of each class, and ``count``, the expected number of all
    objects as soft one-hot over 0 ... ``max_count``, in which near numbers are near and far ones equally far.

    Args:
        channels: Channels of an image.
        num_classes: Number of classes, C.
        widths: Channels of the three residual blocks.
        strides: Strides of the three blocks; their product is the side of a cell in pixels. A cell should be no
            larger than half an object, or two may have their centres in one.
        empty_weight: Weight of cells without an object in the loss, to help along the few that hold one; the
            expected counts are corrected for it.
        max_count: Most objects that block ``count`` tells apart.
        count_width: Standard deviation of a number's bump in block ``count``.
    """

    weights: Tensor

    def __init__(
        self,
        channels: int,
        num_classes: int,
        widths: tuple[int, int, int] = (16, 32, 64),
        strides: tuple[int, int, int] = (2, 2, 1),
        empty_weight: float = 0.2,
        max_count: int = 10,
        count_width: float = 0.4,
    ) -> None:
        super().__init__()
        if empty_weight <= 0:
            raise UserError(f"empty_weight must be positive, not {empty_weight}")
        self.num_classes, self.max_count, self.count_width = num_classes, max_count, count_width
        self.cell = math.prod(strides)
        self.register_buffer("weights", torch.tensor([1.0] * num_classes + [empty_weight]), persistent=False)
        self.trunk = residual_trunk(channels, widths, strides)
        self.head = nn.Conv2d(widths[-1], num_classes + 1, 1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Blocks ``classes`` and ``count``."""
        classes = self.expected_counts(images)
        bins = torch.arange(self.max_count + 1.0, device=images.device)
        total = classes.sum(1, keepdim=True).clamp(max=self.max_count)
        return {"classes": classes, "count": torch.exp(-0.5 * ((total - bins) / self.count_width) ** 2)}

    def expected_counts(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Expected number of objects of each class."""
        # with weights, the optimum is p * weight, normalised
        logits = self._logits(images).float() - self.weights.log()[:, None, None]
        return logits.softmax(1)[:, :-1].sum((2, 3))

    def loss(self, images: Float[Tensor, "b c h w"], labels: Rendering) -> Float[Tensor, ""]:
        """Cross-entropy of what each cell holds, the last class being nothing."""
        check_counts(class_counts(labels, self.num_classes).sum(1, keepdim=True), self.max_count, "objects")
        logits = self._logits(images)
        return F.cross_entropy(logits, self._cells(labels, logits.shape[2], logits.shape[3]), self.weights)

    def read(self, images: Float[Tensor, "b c h w"]) -> Reading:
        """Expected counts, and presence where at least half an object is expected."""
        counts = self.expected_counts(images)
        return Reading(counts > 0.5, counts, counts.sum(1))

    def _logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        return self.head(self.trunk(images.contiguous(memory_format=torch.channels_last)))

    def _cells(self, labels: Rendering, rows: int, columns: int) -> Float[Tensor, "b k i j"]:
        """What each cell should hold: every object's unit of mass, shared by the four cells around its centre.

        Bilinear shares sum to one wherever the grid happens to lie. All or nothing would leave the network in doubt
        about centres near an edge, and its doubts don't sum to one: a layout that keeps to few places, as a line of
        digits does, would be miscounted. Where objects crowd, a cell holds no more than one.
        """
        on_canvas = (labels.boxes[..., 2:] > labels.boxes[..., :2]).all(-1)
        scene, place = ((labels.classes >= 0) & on_canvas).nonzero(as_tuple=True)
        box, kind = labels.boxes[scene, place], labels.classes[scene, place]
        x, y = ((box[:, :2] + box[:, 2:]) / (2 * self.cell) - 0.5).unbind(1)
        left, top = x.floor(), y.floor()
        mass = box.new_zeros(len(labels.classes), self.num_classes, rows, columns)
        for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
            for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
                # what would fall off the canvas stays in its last row and column
                index = (scene, kind, row.long().clamp(0, rows - 1), column.long().clamp(0, columns - 1))
                mass.index_put_(index, share_x * share_y, accumulate=True)
        mass = mass / mass.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([mass, 1 - mass.sum(1, keepdim=True)], 1).clamp(min=0)
