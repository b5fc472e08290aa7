"""Boxes that a detector finds in images: the best of them, without duplicates, and who rides on what."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Detections(NamedTuple):
    """What is found in b images, at most n objects in each.

    Attributes:
        boxes: Boxes x0, y0, x1, y1 in pixels, edge to edge.
        scores: Confidence of each, from 0 to 1; 0 for unused entries.
        categories: Index of each object's category among the detector's; -1 for unused entries.
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n"]
    categories: Int[Tensor, "b n"]

    def best(self, number: int) -> "Detections":
        """Return the detections of the highest scores in each image, at most so many, the highest first."""
        scores, places = self.scores.topk(min(number, self.scores.shape[1]), 1)
        boxes = self.boxes.gather(1, places.unsqueeze(2).expand(-1, -1, 4))
        return Detections(boxes, scores, self.categories.gather(1, places))

    def only(self, kept: Bool[Tensor, "b n"]) -> "Detections":
        """Make all other entries unused."""
        return Detections(self.boxes, self.scores.where(kept, 0), self.categories.where(kept, -1))

    def without_duplicates(self, max_iou: float, groups: Int[Tensor, " k"]) -> "Detections":
        """Suppress detections that overlap one of a higher score in the same group of categories.

        Args:
            max_iou: Intersection over union above which two boxes are taken to show one object.
            groups: Group of each category. With one for all, a van that is found as car and as truck counts once.
        """
        from torchvision.ops import batched_nms

        images = torch.arange(len(self.boxes), device=groups.device).unsqueeze(1)
        group = images * (int(groups.max()) + 1) + groups[self.categories.clamp(min=0)]
        used = self.categories >= 0
        kept = batched_nms(self.boxes[used], self.scores[used], group[used], max_iou)
        places = used.flatten().nonzero().squeeze(1)[kept]
        unique = torch.zeros_like(used).flatten().index_fill(0, places, True).view_as(used)
        return self.only(unique)


def pad_detections(found: list[tuple[Tensor, Tensor, Tensor]]) -> Detections:
    """Put the boxes, scores and categories of each image into one batch, which unused entries fill up."""
    if not found:
        return Detections(torch.zeros(0, 0, 4), torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.long))
    boxes, scores, categories = map(list, zip(*found, strict=True))
    pad = torch.nn.utils.rnn.pad_sequence
    return Detections(pad(boxes, True), pad(scores, True), pad(categories, True, -1))


class Overlap(NamedTuple):
    """Overlap of each of o boxes with each of n in b images.

    Attributes:
        iou: Intersection over union.
        of_smaller: Intersection as a fraction of the smaller of the two boxes.
    """

    iou: Float[Tensor, "b o n"]
    of_smaller: Float[Tensor, "b o n"]


def pairwise_overlap(first: Float[Tensor, "b o 4"], second: Float[Tensor, "b n 4"]) -> Overlap:
    """Compute the overlap of all pairs of boxes; that of an empty one is 0."""
    low = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    high = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    both, tiny = (high - low).clamp(min=0).prod(3), torch.finfo(first.dtype).tiny
    one, other = ((some[..., 2:] - some[..., :2]).clamp(min=0).prod(2) for some in (first, second))
    one, other = one[:, :, None], other[:, None, :]
    return Overlap(both / (one + other - both).clamp(min=tiny), both / torch.minimum(one, other).clamp(min=tiny))


class Riders(NamedTuple):
    """Which of the objects in images ride on another.

    Attributes:
        riding: Whether each object is a person who rides.
        boxes: Boxes of all objects; those of riders cover what they ride on, too.
    """

    riding: Bool[Tensor, "b n"]
    boxes: Float[Tensor, "b n 4"]


def find_riders(
    boxes: Float[Tensor, "b n 4"], people: Bool[Tensor, "b n"], mounts: Bool[Tensor, "b n"], min_overlap: float
) -> Riders:
    """Find the people who ride on a bicycle or the like.

    A person rides on what their box overlaps most, by intersection over union, if no other person's overlaps that more,
    and if the intersection is large enough. So a bicycle has one rider at most, also a parked one among several people.

    Args:
        boxes: Boxes of all objects.
        people: Which of them are people.
        mounts: Which of them can be ridden on.
        min_overlap: Minimum area of the intersection, as a fraction of the smaller of the two boxes.
    """
    if not boxes.shape[1]:
        return Riders(people, boxes)
    overlap = pairwise_overlap(boxes, boxes)
    both = people[:, :, None] & mounts[:, None, :]
    iou = overlap.iou.where(both, 0)
    is_large = both & (overlap.of_smaller > 0) & (overlap.of_smaller >= min_overlap)
    mount = iou.argmax(2)
    nearest_person = iou.argmax(1).gather(1, mount)
    is_nearest = nearest_person == torch.arange(boxes.shape[1], device=boxes.device)
    riding = is_nearest & is_large.gather(2, mount.unsqueeze(2)).squeeze(2)
    ridden = boxes.gather(1, mount.unsqueeze(2).expand(-1, -1, 4))
    union = torch.cat([torch.minimum(boxes, ridden)[..., :2], torch.maximum(boxes, ridden)[..., 2:]], 2)
    return Riders(riding, union.where(riding.unsqueeze(2), boxes))
