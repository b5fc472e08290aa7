"""Specification of a data set."""

from dataclasses import dataclass
from typing import Any, Literal

from ms2.core.bounds import Fraction, PositiveFloat, PositiveInt, Seed, check_arguments


@dataclass(frozen=True)
class Plan:
    """Specification of a data set; with the scene model, everything that its files depend on.

    Args:
        num_scenes: Number of scenes, each with one image, or with as many as it has frames.
        seed: Seed; image i depends on the seed and on i only, so a larger set extends a smaller one.
        image: ``png``, or ``jpeg`` of quality 95.
        depth: Whether to write 16-bit depth PNGs: metres times 256, 0 for none (3D worlds).
        maps: Further ground truth: ``panoptic``, ``normals``, ``amodal``, ``float_depth``; formats may add what they
            are made from.
        classes: Labelled classes; by default the grammar's terminals and the scenery's classes, which leaves out roads.
        conditions: Conditions on the number of objects, such as ``car == 5``, ``pedestrian >= 1``.
        min_visibility: Minimum visible fraction of a labelled object.
        min_pixels: Minimum number of visible pixels of a labelled object.
        formats: Names of the formats.
        frames: Number of frames of each scene, in which the camera drives and objects move (3D worlds); None for single
            images.
        fps: Frames per second.

    Raises:
        UserError: If a value is out of range.
    """

    num_scenes: PositiveInt = 1000
    seed: Seed = 0
    image: Literal["png", "jpeg"] = "png"
    depth: bool = False
    maps: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    conditions: tuple[str, ...] = ()
    min_visibility: Fraction = 0.1
    min_pixels: PositiveInt = 8
    formats: tuple[str, ...] = ("coco",)
    frames: PositiveInt | None = None
    fps: PositiveFloat = 10.0

    def __post_init__(self) -> None:
        check_arguments(type(self), vars(self), "data set")

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON data; without frames and fps for single images."""
        left_out = ("frames", "fps") if self.frames is None else ()
        found = {key: value for key, value in vars(self).items() if key not in left_out}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.num_scenes * (self.frames or 1)
