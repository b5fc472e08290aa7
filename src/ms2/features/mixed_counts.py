"""Counts of a detector for the classes that it finds, and of a trained extractor for all others."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.bounds import Dimension
from ms2.core.errors import UserError
from ms2.features.base import Blocks, CountPrediction, CountSlots, TrainedExtractor, blocks_of
from ms2.features.channel import ReadingChannel
from ms2.features.dense import DenseCounts
from ms2.features.detection.detector_counts import DetectorCounts, scaled
from ms2.render.base import Renderer, Rendering
from ms2.scene.batch import SceneBatch


class MixedCounts(TrainedExtractor):
    """Reads the classes that a detector knows from its detections, and all others by an extractor trained on renders.

    A detector that was trained on photographs reads them better than what is trained on renders does, but COCO has no
    trees, houses or poles. Its supervision is described at `DetectorCounts`. Not in the paper.

    Where the detector's errors are known (``detected.recall``), nothing but the trained extractor looks at renders:
    they have the size of ``detected.label_scale``, and images of the target are scaled to it for that extractor, whose
    own settings are in pixels of such images. A quarter of the sides takes a fraction of the time.

    Blocks: those of both; of two of one name, the detector's. Block ``classes`` has all classes.

    Args:
        channels: Channels of the images.
        classes: Names of the world's classes.
        detected: Counts of the detector.
        trained: Counts of the extractor that is trained, on images of the size of ``detected.label_scale``.

    Raises:
        UserError: If the trained extractor counts objects of several parents separately.
    """

    is_detected: Tensor
    """Whether each class is one that the detector finds."""

    def __init__(
        self, channels: Dimension, classes: Sequence[str], detected: DetectorCounts, trained: DenseCounts
    ) -> None:
        super().__init__()
        self.detected, self.trained, self.slots = detected, trained, CountSlots(classes)
        if len(trained.slots) != len(classes):
            raise UserError(
                "features.trained counts the objects of several parents separately, which a detector can't: leave out "
                "features.trained.parents_per_class"
            )
        found = torch.tensor([name in detected.counted for name in classes])
        self.register_buffer("is_detected", found, persistent=False)
        assert trained.channel is not None and detected.channel is not None
        names = trained.channel.sets | detected.channel.sets
        largest = max(trained.channel.largest, detected.channel.largest)
        self.channel = ReadingChannel(names, largest, len(classes))

    @property
    def labels_all(self) -> bool:
        """Whether every object is labelled, however little of it can be seen."""
        return self.detected.labels_all and self.trained.labels_all

    def labelled(self, labels: Rendering) -> Bool[Tensor, "b n"]:
        """Return which objects of images can be seen well enough to be read by the part that reads their class."""
        of_detector = self.is_detected[labels.classes.clamp(min=0)]
        return self.detected.labelled(labels).where(of_detector, self.trained.labelled(self._small(labels)))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute the blocks of both."""
        return self._both(self.trained(self._scaled(images)), self.detected(images))

    def embed_scenes(self, renderer: Renderer, scenes: SceneBatch, generator: Generator) -> Blocks:
        """Compute the blocks of generated scenes: with ``recall``, the detector's are of labels."""
        if self.detected.recall is None:
            return super().embed_scenes(renderer, scenes, generator)
        labels = self.render_labelled(renderer, scenes)
        detected = self.detected.embed_labelled(labels, renderer.size[1], generator)
        return self._both(blocks_of(self.trained, labels.image), detected)

    def _both(self, trained: Blocks, detected: Blocks) -> Blocks:
        """Join the blocks of both."""
        classes = trained["classes"].index_copy(1, self.is_detected.nonzero().squeeze(1), detected["classes"])
        return trained | detected | {"classes": classes}

    def predict_counts(self, images: Float[Tensor, "b c h w"]) -> CountPrediction:
        """Predict the number of objects of each class."""
        trained = self.trained.predict_counts(self._scaled(images))
        return self._joined(trained, self.detected.predict_counts(images))

    def render_labelled(self, renderer: Renderer, scenes: SceneBatch) -> Rendering:
        """Render scenes with labels at the size of ``detected.label_scale``, with boxes of the whole size."""
        return self.detected.render_labelled(renderer, scenes)

    def predict_labelled(self, labels: Rendering, generator: Generator) -> CountPrediction:
        """Predict the numbers in images of `render_labelled`, each part as it does."""
        parts = (part.predict_labelled(labels, generator) for part in (self.trained, self.detected))
        return self._joined(*parts)

    def _joined(self, trained: CountPrediction, detected: CountPrediction) -> CountPrediction:
        assert trained.counts is not None and detected.counts is not None
        counts = detected.counts.where(self.is_detected, trained.counts)
        return CountPrediction(counts > 0.5, counts, counts.sum(1), counts)

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Compute the loss of the extractor that is trained, on images of `render_labelled`."""
        return self.trained.loss(images, self._small(labels), scenes)

    def calibrate(self, images: Iterator[Float[Tensor, "b c h w"]]) -> None:
        """Calibrate the extractor that is trained."""
        self.trained.calibrate(self._scaled(some) for some in images)

    def check_numbers(
        self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"], seen: Bool[Tensor, "b n"]
    ) -> None:
        """Check that the objects of scenes that are seen can all be counted."""
        for part in (self.detected, self.trained):
            part.check_numbers(classes, parents, seen)

    def overflow_fraction(self, images: Float[Tensor, "b c h w"]) -> dict[str, float]:
        """Estimate, by block, the fraction of images whose count exceeds the block's last bin."""
        return self.trained.overflow_fraction(self._scaled(images)) | self.detected.overflow_fraction(images)

    def _scaled(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """Scale whole images to the size of those that the trained extractor sees."""
        return scaled(images, self.detected.label_scale)

    def _small(self, labels: Rendering) -> Rendering:
        """Return labels with boxes in pixels of the images that the trained extractor sees.

        Their sides are whole numbers of pixels, so that boxes are off by half of one at most.
        """
        scale = self.detected.label_scale
        boxes = {name: getattr(labels, name) * scale for name in ("boxes", "visible_boxes", "corners")}
        return labels if scale == 1 else replace(labels, **boxes)

    def requires_grad_(self, requires_grad: bool = True) -> "MixedCounts":
        """Set ``requires_grad`` of what is trained; the detector, and a pretrained backbone, stay frozen."""
        self.trained.requires_grad_(requires_grad)
        return self
