"""Counts of objects that a detector finds, which was trained on photographs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ms2.core.bounds import Bounds, Dimension, Fraction, NonNegativeFloat, PositiveFloat
from ms2.core.errors import UserError, suggest
from ms2.features.base import (
    Blocks,
    CountingExtractor,
    CountPrediction,
    CountSlots,
    FeatureExtractor,
    blocks_of,
    check_counts,
    check_names,
)
from ms2.features.channel import ReadingChannel
from ms2.features.count_bins import CountBins
from ms2.features.detection.box_layout import BoxLayout
from ms2.features.detection.detections import Detections, find_riders
from ms2.features.detection.height_recall import RecallByHeight
from ms2.features.detection.object_detector import ObjectDetector
from ms2.render.base import Renderer, Rendering, scaled_size
from ms2.scene.batch import SceneBatch

RIDER = "rider"
"""Category of people who ride on one of `MOUNTS`; COCO labels the person and the bicycle only."""
PERSON, MOUNTS = "person", ("bicycle", "motorcycle")
"""COCO's categories of riders, and of what they ride on."""
STREET_CATEGORIES = {
    "car": ("car",),
    "truck": ("truck", "bus", "train"),
    "pedestrian": (PERSON,),
    "cyclist": (RIDER,),
}
"""COCO's categories of each class that a street's labels tell apart, as KITTI's do: trucks and trams are one class, a
van is a car or a truck, as the detector finds it, and a person on a bicycle is no pedestrian."""
MAX_CANDIDATES = 100
"""Detections of an image that are considered, those of the highest scores; COCO's own evaluation takes as many."""
Scale = Annotated[float, Bounds(ge=0.1, le=16)]
"""Factor on both sides of an image."""
LabelScale = Annotated[float, Bounds(ge=0.1, le=1)]
"""Factor on both sides of a render that is not looked at."""


class Found(NamedTuple):
    """What of each class is found in images.

    Attributes:
        classes: Index of each object's class among `DetectorCounts.counted`; -1 for those of no class.
        boxes: Boxes x0, y0, x1, y1 in pixels; those of riders cover what they ride on.
    """

    classes: Int[Tensor, "b n"]
    boxes: Float[Tensor, "b n 4"]

    @property
    def heights(self) -> Float[Tensor, "b n"]:
        """Heights of the boxes in pixels."""
        return self.boxes[..., 3] - self.boxes[..., 1]


class DetectorCounts(CountingExtractor):
    """Counts the objects that a detector finds, which was trained on photographs and is not trained here.

    The supervision is that of the detector: labels of other photographs, such as COCO's. Neither labels of the target
    nor those of renders are used, except that the errors of the counts are measured on renders. Not in the paper.

    A person who rides on a bicycle or motorcycle (`find_riders`) is of category ``rider``, not ``person``. Classes that
    the detector cannot find have no block, and their counts are NaN; learning by likelihood keeps the prior's.

    Blocks: ``classes``, the number of objects of each class that is counted, and ``count_<class>``, each number spread
    over bins (`CountBins`); with ``layout`` and ``image_features`` theirs too.

    Args:
        channels: Channels of the images.
        classes: Names of the world's classes.
        detector: The detector.
        categories: The detector's categories that are counted, by class; by default those of cars, trucks, pedestrians
            and cyclists (`STREET_CATEGORIES`), of which the world needs one at least.
        min_score: Score from which a detection counts: one number, or one by class, 0.5 for others.
        min_height: Height in pixels of the image from which a box counts, and an object is labelled in renders: one
            number, or one by class, 0 for others. What is read of renders and of photographs differs most where objects
            are small.
        min_visibility: Visible fraction of an object below which it is not labelled in renders.
        scale: Factor by which images are enlarged for the detector, whose training images may have been larger.
        max_iou: Intersection over union above which two boxes show one object, whatever their categories; but people
            and what they ride on are two.
        min_rider_overlap: Overlap from which a person rides on a bicycle or motorcycle, as a fraction of the smaller
            box.
        max_count: Largest count that is represented: one number, or one by class, 20 for others.
        count_kernel_std: Standard deviation of the Gaussian that spreads a count over the bins.
        recall: Errors by which the channel of readings is drawn from what renders show, in place of the detector's
            readings of renders; it does not depend on how well they are drawn then. None to read renders as the target.
        label_scale: With ``recall``, size of renders, which the detector does not read, as a fraction of the images': a
            third takes a sixth of the time.
        layout: Blocks of where boxes are, by which places are learned; false boxes are left out of renders' blocks.
        image_features: Further blocks, of the image as a whole, by which light, colours and what the detector cannot
            find are learned; images of the target are scaled by ``label_scale`` for them, as renders are.

    Raises:
        UserError: If a category or a class does not exist, no class is counted, or one that is has no recall.
    """

    members: Tensor
    """Whether each category, ``rider`` the last, belongs to each class that is counted."""
    place: Tensor
    """Index among those counted of each of the world's classes, or -1; the last is that of unused entries."""
    people: Tensor
    mounts: Tensor
    least_score: Tensor
    """Score from which a detection of each category counts."""
    least_height: Tensor
    """Height from which an object of each of the world's classes is labelled; the last is that of unused entries."""

    def __init__(
        self,
        channels: Dimension,
        classes: Sequence[str],
        detector: ObjectDetector,
        categories: dict[str, Sequence[str]] | None = None,
        min_score: Fraction | dict[str, Fraction] = 0.5,
        min_height: NonNegativeFloat | dict[str, NonNegativeFloat] = 0.0,
        min_visibility: Fraction = 0.1,
        scale: Scale = 1.0,
        max_iou: Fraction = 0.5,
        min_rider_overlap: Fraction = 0.5,
        max_count: Dimension | dict[str, Dimension] = 20,
        count_kernel_std: PositiveFloat = 0.7,
        recall: RecallByHeight | None = None,
        label_scale: LabelScale = 1.0,
        layout: BoxLayout | None = None,
        image_features: Sequence[FeatureExtractor] = (),
    ) -> None:
        super().__init__()
        self.recall, self.label_scale, self.layout = recall, 1.0 if recall is None else label_scale, layout
        self.image_features = nn.ModuleList(image_features)
        self.detector, self.slots, self.num_classes = detector, CountSlots(classes), len(classes)
        self.pretrained = {} if detector.pretrained is None else {"detector": detector.pretrained}
        self.min_visibility, self.scale = min_visibility, scale
        self.max_iou, self.min_rider_overlap = max_iou, min_rider_overlap
        found = _categories(classes, detector.categories, categories)
        self.counted = [name for name in classes if name in found]
        """Names of the classes that are counted."""
        self.places = [list(classes).index(name) for name in self.counted]
        place = torch.full((self.num_classes + 1,), -1)
        place[self.places] = torch.arange(len(self.places))
        self.register_buffer("place", place, persistent=False)
        names = [*detector.categories, RIDER]
        members = torch.tensor([[name in found[one] for one in self.counted] for name in names])
        self.register_buffer("members", members, persistent=False)
        people = torch.tensor([name == PERSON for name in names])
        mounts = torch.tensor([name in MOUNTS for name in names])
        self.register_buffer("people", people, persistent=False)
        self.register_buffer("mounts", mounts, persistent=False)
        by_class = _by_class(min_score, self.counted, 0.5, classes, "min_score")
        self.register_buffer("least_score", _least_scores(by_class, members, people, mounts), persistent=False)
        least = _by_class(min_height, self.counted, 0.0, classes, "min_height")
        self.min_height = min(least.values())
        heights = torch.tensor([*(least.get(name, self.min_height) for name in classes), self.min_height])
        self.register_buffer("least_height", heights, persistent=False)
        largest = _by_class(max_count, self.counted, 20, classes, "max_count")
        self.bins = CountBins({f"count_{name}": largest[name] for name in self.counted}, count_kernel_std)
        if recall is not None:
            recall.check(self.counted)
        if layout is not None:
            layout.check(self.counted)
        _check_image_features(image_features)
        # also of classes without readings, whose numbers are kept so
        sets = {f"count_{name}": [place] for place, name in enumerate(classes)}
        self.channel = ReadingChannel(sets, max(largest.values()), len(self.slots))
        self.train(False).requires_grad_(False)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute block ``classes`` and the count blocks."""
        found = self.classify(self.detect(images))
        classes = found.classes.where(self._is_counted(found), -1)
        small = scaled(images, self.label_scale) if self.image_features else images
        return self._blocks(self._numbers(classes), classes, found.boxes, small, images.shape[3])

    def embed_scenes(self, renderer: Renderer, scenes: SceneBatch, generator: Generator) -> Blocks:
        """Compute the blocks of generated scenes: of what the detector finds, or with ``recall`` of their labels."""
        if self.recall is None:
            return super().embed_scenes(renderer, scenes, generator)
        return self.embed_labelled(self.render_labelled(renderer, scenes), renderer.size[1], generator)

    def embed_labelled(self, labels: Rendering, width: int, generator: Generator) -> Blocks:
        """Compute the blocks of labels of `render_labelled` with ``recall``; whole images have a width in pixels."""
        assert self.recall is not None
        classes, heights = self._seen(labels)
        found = classes.where(self.recall.found(self.counted, classes, heights, generator), -1)
        numbers = self.recall.count(self.counted, found, generator)
        return self._blocks(numbers, found, labels.boxes, labels.image, width)

    def _blocks(
        self,
        numbers: Int[Tensor, "b k"],
        classes: Int[Tensor, "b n"],
        boxes: Float[Tensor, "b n 4"],
        images: Float[Tensor, "b c h w"],
        width: int,
    ) -> Blocks:
        """Compute all blocks of the boxes that count, in images of a width in pixels that have been scaled since."""
        blocks = {"classes": numbers.to(images.dtype), **self.bins(numbers.to(images.dtype))}
        if self.layout is not None:
            blocks |= self.layout(boxes, classes, self.counted, width)
        for part in self.image_features:
            assert isinstance(part, FeatureExtractor)
            blocks |= blocks_of(part, images)
        return blocks

    def predict_counts(self, images: Float[Tensor, "b c h w"]) -> CountPrediction:
        """Count the objects of each class: NaN for classes that are not counted."""
        return self._prediction(self.numbers(images))

    def predict_labelled(self, labels: Rendering, generator: Generator) -> CountPrediction:
        """Count the objects in rendered images: by the detector, or as many as `RecallByHeight` says of those seen."""
        if self.recall is None:
            return self.predict_counts(labels.image)
        return self._prediction(self.recall.draw(self.counted, *self._seen(labels), generator).float())

    def render_labelled(self, renderer: Renderer, scenes: SceneBatch) -> Rendering:
        """Render scenes with labels: with ``recall`` at the size of ``label_scale``, with boxes of the whole size."""
        return _render_small(renderer, scenes, self.label_scale)

    def _seen(self, labels: Rendering) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Return the index of each object's class among those counted, -1 if it is not labelled, and its height."""
        heights = labels.boxes[..., 3] - labels.boxes[..., 1]
        return self.place[labels.classes].where(self.labelled(labels), -1), heights

    def _prediction(self, numbers: Float[Tensor, "b k"]) -> CountPrediction:
        """Return numbers of the classes that are counted, NaN for others."""
        counts = numbers.new_full((len(numbers), self.num_classes), torch.nan)
        counts[:, self.places] = numbers
        return CountPrediction(None, counts, counts.sum(1), counts)

    def overflow_fraction(self, images: Float[Tensor, "b c h w"]) -> dict[str, float]:
        """Compute, by block, the fraction of images whose count exceeds the block's last bin."""
        return self.bins.overflow_fraction(self.numbers(images))

    def labelled(self, labels: Rendering) -> Bool[Tensor, "b n"]:
        """Return which objects of images can be seen well enough to be labelled, at the height of their class."""
        heights = labels.boxes[..., 3] - labels.boxes[..., 1]
        return super().labelled(labels) & (heights >= self.least_height[labels.classes])

    def check_numbers(
        self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"], seen: Bool[Tensor, "b n"]
    ) -> None:
        """Check that the objects of scenes that are seen can all be counted."""
        counts = self.slots.counts(torch.where(seen, classes, -1), parents)
        for place, (name, max_count) in zip(self.places, self.bins.max_counts.items(), strict=True):
            check_counts(counts[:, place, None], max_count, name.removeprefix("count_"))

    @torch.no_grad()
    def numbers(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Count the objects of each of the k classes that are counted."""
        return self.count(self.detect(images)).to(images.dtype)

    def count(self, detections: Detections) -> Int[Tensor, "b k"]:
        """Count the detections of each of the k classes that are counted, of those whose score and height count."""
        found = self.classify(detections)
        return self._numbers(found.classes.where(self._is_counted(found), -1))

    def _is_counted(self, found: Found) -> Bool[Tensor, "b n"]:
        return found.heights >= self.least_height[self.places][found.classes]

    def _numbers(self, classes: Int[Tensor, "b n"]) -> Int[Tensor, "b k"]:
        return (classes.unsqueeze(2) == torch.arange(len(self.counted), device=classes.device)).sum(1)

    @torch.no_grad()
    def detect(self, images: Float[Tensor, "b c h w"]) -> Detections:
        """Detect objects without duplicates, in pixels of the images, whatever their score and height."""
        height, width = images.shape[2:]
        images = images.expand(-1, 3, -1, -1)
        if self.scale != 1:
            sides = round(height * self.scale), round(width * self.scale)
            images = F.interpolate(images, sides, mode="bilinear", antialias=True).clamp(0, 1)
        ratio = images.new_tensor([width / images.shape[3], height / images.shape[2]]).repeat(2)
        found = self.detector(images).best(MAX_CANDIDATES).without_duplicates(self.max_iou, self.mounts[:-1].long())
        limits = images.new_tensor([width, height]).repeat(2)
        return found._replace(boxes=torch.minimum((found.boxes * ratio).clamp(min=0), limits))

    def classify(self, found: Detections, min_score: float | None = None) -> Found:
        """Find the class of each detection whose score is high enough, and who of the people rides.

        Args:
            found: The detections.
            min_score: Score from which they count, in place of the settings' scores.
        """
        least = self.least_score[found.categories] if min_score is None else min_score
        used = (found.categories >= 0) & (found.scores >= least)
        people, mounts = (some[found.categories] & used for some in (self.people, self.mounts))
        riding, boxes = find_riders(found.boxes, people, mounts, self.min_rider_overlap)
        categories = found.categories.masked_fill(riding, len(self.members) - 1)
        members = self.members[categories] & used.unsqueeze(2)
        classes = torch.where(members.any(2), members.long().argmax(2), -1)
        return Found(classes, boxes)

    def train(self, mode: bool = True) -> "DetectorCounts":
        """Keep evaluation mode: nothing is trained."""
        super().train(False)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "DetectorCounts":
        """Keep the weights frozen."""
        super().requires_grad_(False)
        return self


def _categories(
    classes: Sequence[str], known: Sequence[str], categories: dict[str, Sequence[str]] | None
) -> dict[str, Sequence[str]]:
    """Return the categories of each class that is counted, checked."""
    found = categories
    if found is None:
        found = {name: some for name, some in STREET_CATEGORIES.items() if name in classes}
        if not found:
            raise UserError(
                f"the world has none of the classes {', '.join(STREET_CATEGORIES)}, whose categories are known: set "
                f"features.categories to those of each of its own classes that is to be counted: {', '.join(classes)}"
            )
    check_names(dict.fromkeys(found, 0), classes, "categories")
    if not any(found.values()):
        raise UserError("features.categories is empty: name the detector's categories of one class at least")
    owner: dict[str, str] = {}
    for name, some in found.items():
        for category in some:
            if category not in (*known, RIDER):
                raise UserError(
                    f"features.categories.{name} names {category!r}, which the detector does not find. "
                    f"{suggest(category, [*known, RIDER])}"
                )
            if category in owner:
                raise UserError(
                    f"features.categories counts {category!r} as {owner[category]!r} and as {name!r}: name it once"
                )
            owner[category] = name
    return {name: some for name, some in found.items() if some}


def _by_class(given: Any, counted: Sequence[str], default: Any, classes: Sequence[str], setting: str) -> dict[str, Any]:
    """Return a setting of each class that is counted."""
    if not isinstance(given, dict):
        return dict.fromkeys(counted, given)
    check_names(given, classes, setting)
    return {name: given.get(name, default) for name in counted}


def _least_scores(
    min_score: dict[str, float], members: Bool[Tensor, "k c"], people: Bool[Tensor, " k"], mounts: Bool[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Return the score of each of k categories: that of its class; what people ride on needs that of riders."""
    by_class = torch.tensor(list(min_score.values()))
    least = by_class.expand(members.shape).where(members, torch.inf).amin(1)
    of_riders = least[-1].where(least[-1].isfinite(), least.where(people, torch.inf).amin())
    return of_riders.where((people | mounts) & least.isinf(), least)


def _check_image_features(given: Sequence[FeatureExtractor]) -> None:
    """Raise an error if one needs training, or labels."""
    for part in given:
        if isinstance(part, CountingExtractor):
            raise UserError(
                f"features.image_features are features of the image as a whole that need no training, which "
                f"{type(part).__name__} is not: give Backbone or ImageColours; MixedCounts trains a part of its own"
            )


def _render_small(renderer: Renderer, scenes: SceneBatch, factor: float) -> Rendering:
    """Render scenes with labels at a multiple of the renderer's size, with boxes in pixels of the whole size."""
    if factor == 1:
        return renderer.render_labelled(scenes)
    labels = renderer.resized(factor).render_labelled(scenes)
    scale = labels.boxes.new_ones(2)  # filled there, as copies to a device wait for it
    scale[0], scale[1] = (renderer.size[k] / labels.image.shape[2 + k] for k in (1, 0))
    both, seen = scale.repeat(2), labels.visible_boxes
    return replace(labels, boxes=labels.boxes * both, visible_boxes=seen * both, corners=labels.corners * scale)


def scaled(images: Float[Tensor, "b c h w"], factor: float) -> Float[Tensor, "b c i j"]:
    """Scale images by a factor, as renderers do."""
    sides = scaled_size((images.shape[2], images.shape[3]), factor)
    return images if factor == 1 else F.interpolate(images, sides, mode="bilinear", antialias=True).clamp(0, 1)
