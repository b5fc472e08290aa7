"""Declaration of Aerial 2D: classes and attributes, each with its settings. Lengths are in metres, angles in radians.

The grammar's renderable symbols, priors, sprites and the renderer derive their tables from it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ms2.scene.attributes import Attribute
from ms2.worlds.environment import SampledAttribute

Colour = tuple[float, float, float]
"""Red, green and blue in [0, 1]."""

LANE_WIDTH = 3.6
"""Width of a lane of the roads that the priors place."""
ROAD_WIDTH = 2 * LANE_WIDTH + 1
"""Width of two lanes with their shoulders."""
MIN_SPACING = 4.9
"""Minimum distance of the centres of neighbouring cars on a lane.

A car's attribute ``spacing`` is no distance: it is the share of the lane's remaining free length that the car takes,
expressed as a probability (`lanes.Lanes`).
"""


class Size(NamedTuple):
    """Length, along the heading, and width of an object."""

    length: float
    width: float


@dataclass(frozen=True)
class AerialClass:
    """How objects of a class are rendered and sampled.

    Attributes:
        level: Height level: higher objects occlude lower ones and cast shadows on them.
        sprite_size: Size for which sprites are drawn; objects of other sizes scale them.
        shadow_offset: Distance by which the shadow is shifted.
        palette: Colours of the paint.
        size_range: Smallest and largest size that the priors sample; None if they do not place the class.
        plot: Side of the square that an object needs beside roads and other objects; None for roads and vehicles.
    """

    level: int
    sprite_size: Size
    shadow_offset: float
    palette: tuple[Colour, ...]
    size_range: tuple[Size, Size] | None = None
    plot: float | None = None


CAR_COLOURS = (
    (0.95, 0.95, 0.94), (0.78, 0.80, 0.82), (0.10, 0.10, 0.12), (0.72, 0.10, 0.10), (0.12, 0.25, 0.58),
    (0.93, 0.93, 0.92), (0.98, 0.78, 0.12), (0.09, 0.12, 0.22), (0.16, 0.52, 0.66), (0.86, 0.36, 0.10),
    (0.10, 0.44, 0.24), (0.86, 0.80, 0.66),
)  # fmt: skip
AERIAL_CLASSES: Mapping[str, AerialClass] = {
    "Road": AerialClass(
        level=0,
        sprite_size=Size(24, 7),
        shadow_offset=0,
        palette=((0.36, 0.36, 0.38), (0.41, 0.41, 0.42), (0.47, 0.46, 0.45), (0.52, 0.51, 0.49)),
        # the priors replace the length by that of the visible square
        size_range=(Size(ROAD_WIDTH, ROAD_WIDTH), Size(ROAD_WIDTH, ROAD_WIDTH)),
    ),
    "car": AerialClass(
        level=1,
        sprite_size=Size(4.5, 1.9),
        shadow_offset=0.55,
        palette=CAR_COLOURS,
        size_range=(Size(3.9, 1.75), Size(4.7, 1.95)),
    ),
    "house": AerialClass(
        level=2,
        sprite_size=Size(12, 9),
        shadow_offset=1.7,
        palette=(
            (0.72, 0.36, 0.24), (0.60, 0.28, 0.20), (0.44, 0.31, 0.25), (0.37, 0.38, 0.42), (0.52, 0.52, 0.53),
            (0.78, 0.50, 0.33), (0.70, 0.66, 0.60), (0.28, 0.30, 0.34),
        ),
        size_range=(Size(7.0, 5.0), Size(9.0, 6.5)),
        plot=9.5,
    ),
    "tree": AerialClass(
        level=3,
        sprite_size=Size(6, 6),
        shadow_offset=1.6,
        palette=(
            (0.19, 0.37, 0.13), (0.25, 0.44, 0.16), (0.15, 0.31, 0.15), (0.34, 0.48, 0.17), (0.21, 0.36, 0.20),
            (0.42, 0.50, 0.20), (0.55, 0.47, 0.16), (0.17, 0.34, 0.11),
        ),
        size_range=(Size(2.8, 2.8), Size(4.4, 4.4)),
        plot=4.5,
    ),
    "truck": AerialClass(
        level=1,
        sprite_size=Size(10, 2.5),
        shadow_offset=1.1,
        palette=(*CAR_COLOURS[:2], (0.30, 0.42, 0.60), (0.75, 0.22, 0.16), (0.88, 0.86, 0.78)),
    ),
}  # fmt: skip
"""Classes that can be rendered; a capital marks the grammar's non-terminal."""
WORLD_CLASSES = tuple(name for name, cls in AERIAL_CLASSES.items() if cls.size_range is not None)
"""Classes of the world in the order of their index: the grammar's, Road and car, then the scenery."""
ROAD, CAR, HOUSE, TREE = range(len(WORLD_CLASSES))
"""Indices of the world's classes."""
SCENERY = WORLD_CLASSES[HOUSE:]
"""Classes of objects that the parameter prior adds to the grammar's."""


ENVIRONMENT_ATTRIBUTES = (
    SampledAttribute(Attribute("ground", 0, 1), (0, 1)),
    SampledAttribute(Attribute("ground_x", 0, 1), (0, 1)),
    SampledAttribute(Attribute("ground_y", 0, 1), (0, 1)),
    SampledAttribute(Attribute("sun", -math.pi, math.pi, periodic=True), (-math.pi, math.pi)),
    SampledAttribute(Attribute("light", 0.7, 1.1), (0.85, 1.05)),
)
"""Attributes of the scene as a whole."""


def object_attributes(extent: float) -> tuple[Attribute, ...]:
    """Return the attributes of objects in a visible square of side ``extent``."""
    return (
        Attribute("x", 0, extent),
        Attribute("y", 0, extent),
        Attribute("angle", -math.pi, math.pi, periodic=True),
        Attribute("length", 0.5, 80),
        Attribute("width", 0.5, 20),
        Attribute("model", 0, 1),
        Attribute("colour", 0, 1),
    )


MUTABLE_ATTRIBUTES = {
    "car": (
        Attribute("spacing", 0, 1),
        Attribute("y", -LANE_WIDTH, LANE_WIDTH, relative=True),
        Attribute("angle", -math.pi, math.pi, periodic=True),
    )
}
"""Attributes that may be learned; a car's ``x`` is derived from its ``spacing`` (`lanes.Lanes`)."""
