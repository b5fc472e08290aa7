"""What a data set is to hold."""

from dataclasses import dataclass
from typing import Any, Literal

from ms2.core.errors import UserError


@dataclass(frozen=True)
class Plan:
    """What a data set is to hold: with its source, all that its files depend on.

    Args:
        num_scenes: Number of images.
        seed: Seed of the data set. An image depends on it and on its own number alone, so that a larger set begins
            with the images of a smaller one.
        image: ``png``, or ``jpeg`` of quality 95.
        depth: Whether to write depth images too: PNG of 16 bits, metres times 256, 0 for none (3D worlds).
        classes: Classes that are labelled; by default those that the grammar's terminals and the scenery name, which
            leaves out roads.
        where: Conditions on the number of objects, such as ``car == 5``, ``pedestrian >= 1``.
        min_visibility: Least visible share of an object that is labelled.
        min_pixels: Fewest visible pixels of an object that is labelled.
        formats: Formats by name.
    """

    num_scenes: int = 1000
    seed: int = 0
    image: Literal["png", "jpeg"] = "png"
    depth: bool = False
    classes: tuple[str, ...] | None = None
    where: tuple[str, ...] = ()
    min_visibility: float = 0.1
    min_pixels: int = 8
    formats: tuple[str, ...] = ("coco",)

    def __post_init__(self) -> None:
        if self.num_scenes < 1:
            raise UserError(f"a data set has at least one scene, not {self.num_scenes}")
        if not 0 <= self.min_visibility <= 1:
            raise UserError(f"min_visibility is a share, from 0 to 1, and can't be {self.min_visibility}")
        if self.min_pixels < 1:
            raise UserError(f"min_pixels is at least 1, not {self.min_pixels}: what has no pixel has no box")

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
