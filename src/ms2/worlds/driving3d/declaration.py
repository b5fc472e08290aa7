"""Declaration of the driving world: scenarios, classes and attributes, each with its settings. Metres and radians.

The grammar, priors, meshes and the renderer derive their tables from it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ms2.scene.attributes import ENVIRONMENT, Attribute
from ms2.worlds.environment import SampledAttribute


class Range(NamedTuple):
    """An interval [low, high]."""

    low: float
    high: float


# -- scenarios -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A kind of streets, such as urban ones, after Structured Domain Randomisation (Prakash et al. 2019).

    Attributes:
        mean_counts: Mean number of objects in a scene by class; our own estimates, since none are published.
        road_width: Width of a road of two lanes, both directions together; roads of four lanes are 1.8 times as wide.
        four_lanes: Probability of four lanes instead of two.
        parking: Probability of a parking strip on a side.
        pavement: Probability of a pavement on a side.
        pavement_width: Width of a pavement.
        verge_width: Width of the green strip between pavement and houses.
    """

    mean_counts: Mapping[str, float]
    road_width: Range
    four_lanes: float
    parking: float
    pavement: float
    pavement_width: Range
    verge_width: Range


SCENARIO_SETTINGS: Mapping[str, Scenario] = {
    "Rural": Scenario(
        mean_counts={
            "car": 3.0, "truck": 0.2, "cyclist": 0.3, "pedestrian": 0.4, "tree": 28.0, "bush": 10.0, "house": 1.0,
            "building": 0.0, "sign": 1.0, "light": 0.1, "pole": 2.0,
        },
        road_width=Range(5.4, 8.0),
        four_lanes=0.1,
        parking=0.0,
        pavement=0.1,
        pavement_width=Range(1.2, 2.0),
        verge_width=Range(5.0, 11.0),
    ),
    "Suburban": Scenario(
        mean_counts={
            "car": 5.0, "truck": 0.2, "cyclist": 0.6, "pedestrian": 1.5, "tree": 14.0, "bush": 7.0, "house": 5.0,
            "building": 0.5, "sign": 1.5, "light": 0.3, "pole": 2.5,
        },
        road_width=Range(5.6, 8.5),
        four_lanes=0.1,
        parking=0.6,
        pavement=0.8,
        pavement_width=Range(1.3, 2.5),
        verge_width=Range(1.5, 7.0),
    ),
    "Urban": Scenario(
        mean_counts={
            "car": 8.0, "truck": 0.4, "cyclist": 1.0, "pedestrian": 4.0, "tree": 8.0, "bush": 2.0, "house": 0.5,
            "building": 7.0, "sign": 2.5, "light": 1.5, "pole": 3.0,
        },
        road_width=Range(6.4, 9.0),
        four_lanes=0.35,
        parking=0.7,
        pavement=1.0,
        pavement_width=Range(1.8, 4.5),
        verge_width=Range(0.3, 2.5),
    ),
}  # fmt: skip
SCENARIOS = tuple(SCENARIO_SETTINGS)
"""Names of the scenarios, the first classes of the grammar."""


# -- classes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrueSize:
    """Size of a class in reality, to which user meshes are scaled unless they are within its range already.

    Attributes:
        axis: Axis along which it is measured.
        minimum: Smallest plausible size.
        typical: Size that other meshes are scaled to.
        maximum: Largest plausible size.
    """

    axis: Literal["length", "height"]
    minimum: float
    typical: float
    maximum: float


@dataclass(frozen=True)
class ObjectClass:
    """How objects of a class are placed and sized.

    Attributes:
        spacing: Minimum length of a strip that an object takes up along the street; longer meshes take up their length.
        scale: Factors on width, length and height of the mesh.
        strips: Weight of each strip in which objects are placed, by the strip's name.
        true_size: Size in reality.
        max_turn: Maximum deviation of the heading from that of the class on its side of the street. None for 0.04, or
            less for long objects, so that vehicles stay in their lane.
        vehicle_or_person: Whether some may be placed off the street (`StreetLayout.off_street_fraction`).
        either_way: Whether some head against the traffic on their side.
        faces_street: Whether the front faces the street, not along it.
        post_mounted: Whether the object stands on a trunk or post, which alone determines its position, and crowns and
            arms may extend above other objects.
        random_lateral: Whether the lateral position is uniform over the strip, not near its middle.
        speed: Speed in m/s on a free street, of classes that move in sequences.
    """

    spacing: float
    scale: Range
    strips: Mapping[str, float]
    true_size: TrueSize
    max_turn: float | None = None
    vehicle_or_person: bool = False
    either_way: bool = False
    faces_street: bool = False
    post_mounted: bool = False
    random_lateral: bool = False
    speed: Range | None = None


OBJECT_CLASSES: Mapping[str, ObjectClass] = {
    "car": ObjectClass(
        spacing=6.0,
        scale=Range(0.95, 1.06),
        strips={"lane": 1.0, "outer": 1.0, "parking": 2.0},
        true_size=TrueSize("length", 3.0, 4.3, 5.8),
        speed=Range(6.0, 12.0),
        vehicle_or_person=True,
    ),
    "truck": ObjectClass(
        spacing=12.0,
        scale=Range(0.9, 1.05),
        strips={"lane": 1.0, "outer": 1.0},
        true_size=TrueSize("length", 5.0, 8.0, 20.0),
        speed=Range(5.0, 10.0),
        vehicle_or_person=True,
    ),
    "cyclist": ObjectClass(
        spacing=2.6,
        scale=Range(0.95, 1.05),
        strips={"edge": 2.0, "walk": 1.0},
        true_size=TrueSize("height", 1.2, 1.75, 2.1),
        speed=Range(3.0, 6.0),
        max_turn=0.34,
        vehicle_or_person=True,
        either_way=True,
    ),
    "pedestrian": ObjectClass(
        spacing=0.9,
        scale=Range(0.92, 1.08),
        strips={"walk": 1.0},
        true_size=TrueSize("height", 0.9, 1.75, 2.1),
        speed=Range(0.8, 1.7),
        max_turn=0.34,
        vehicle_or_person=True,
        either_way=True,
        random_lateral=True,
    ),
    "tree": ObjectClass(
        spacing=2.0,
        scale=Range(0.75, 1.35),
        strips={"kerb": 0.2, "green": 2.0, "back": 1.2},
        true_size=TrueSize("height", 3.0, 7.0, 20.0),
        max_turn=math.pi,
        post_mounted=True,
        random_lateral=True,
    ),
    "bush": ObjectClass(
        spacing=2.2,
        scale=Range(0.8, 1.6),
        strips={"green": 3.0, "back": 1.0},
        true_size=TrueSize("height", 0.5, 1.2, 3.0),
        max_turn=math.pi,
        post_mounted=True,
        random_lateral=True,
    ),
    "house": ObjectClass(
        spacing=13.0,
        scale=Range(0.9, 1.15),
        strips={"front": 3.0, "back": 1.0},
        true_size=TrueSize("height", 4.0, 7.0, 15.0),
        max_turn=0.0,
        faces_street=True,
    ),
    "building": ObjectClass(
        spacing=17.0,
        scale=Range(0.9, 1.15),
        strips={"front": 4.0, "back": 1.0},
        true_size=TrueSize("height", 8.0, 16.0, 60.0),
        max_turn=0.0,
        faces_street=True,
    ),
    "sign": ObjectClass(
        spacing=1.5,
        scale=Range(0.95, 1.1),
        strips={"kerb": 1.0},
        true_size=TrueSize("height", 1.5, 2.6, 5.0),
        max_turn=0.2,
        post_mounted=True,
    ),
    "light": ObjectClass(  # a traffic light
        spacing=2.5,
        scale=Range(0.95, 1.05),
        strips={"kerb": 1.0},
        true_size=TrueSize("height", 2.5, 3.4, 8.0),
        max_turn=0.2,
        post_mounted=True,
    ),
    "pole": ObjectClass(
        spacing=2.5,
        scale=Range(0.9, 1.1),
        strips={"kerb": 1.0},
        true_size=TrueSize("height", 3.0, 7.0, 14.0),
        post_mounted=True,
    ),
}
"""Classes of the objects in a street, in the order of the grammar's, after the scenarios."""
OBJECTS = tuple(OBJECT_CLASSES)
"""Names of the classes of objects."""
FIRST_OBJECT_CLASS_INDEX = len(SCENARIOS)
"""Index of the first of `OBJECTS` among the grammar's classes."""


# -- attributes ----------------------------------------------------------------------------------------


OBJECT_ATTRIBUTES = (
    Attribute("x", -1000, 1000),
    Attribute("y", 0, 2000),
    Attribute("yaw", -math.pi, math.pi, periodic=True),
    Attribute("width", 0.5, 2),
    Attribute("length", 0.5, 2),
    Attribute("height", 0.5, 2),
    Attribute("model", 0, 1),
    Attribute("colour", 0, 1),
)
STREET_ATTRIBUTES = (
    Attribute("curve", -1 / 80, 1 / 80),
    Attribute("road_width", 3, 18),
    Attribute("lanes", 2, 4),
    Attribute("parking_left", 0, 3),
    Attribute("parking_right", 0, 3),
    Attribute("walk_left", 0, 6),
    Attribute("walk_right", 0, 6),
    Attribute("verge_left", 0, 15),
    Attribute("verge_right", 0, 15),
    Attribute("road_look", 0, 1),
    Attribute("walk_look", 0, 1),
    Attribute("verge_look", 0, 1),
    Attribute("field_look", 0, 1),
    Attribute("offset", -8, 8),
    Attribute("camera_height", 1, 3),
    Attribute("pitch", -0.2, 0.2),
    Attribute("camera_yaw", -0.5, 0.5),
)
LIGHT_ATTRIBUTES = (
    SampledAttribute(Attribute("sun_azimuth", -math.pi, math.pi, periodic=True), Range(-math.pi, math.pi)),
    SampledAttribute(Attribute("sun_height", 0.1, math.pi / 2), Range(0.35, 1.1)),
    SampledAttribute(Attribute("clouds", 0, 1), Range(0.0, 0.8)),
    SampledAttribute(Attribute("haze", 0, 1), Range(0.0, 1.0)),
    SampledAttribute(Attribute("exposure", 0.3, 2), Range(0.95, 1.5)),
    SampledAttribute(Attribute("contrast", 0.5, 4), Range(1.4, 2.8)),
    SampledAttribute(Attribute("saturation", 0, 2), Range(0.7, 1.3)),
    SampledAttribute(Attribute("blur", 0, 1), Range(0.0, 1.0)),
)
"""Attributes of light and camera image that `StreetLayout` samples uniformly and that may be learned."""
PLACE_ATTRIBUTES = (
    SampledAttribute(Attribute("parked", 0, 1), Range(0.2, 0.9)),
    SampledAttribute(Attribute("parking_strips", 0, 1), Range(0.2, 1.0)),
    SampledAttribute(Attribute("parking_distance", 6, 40), Range(6.0, 25.0)),
    SampledAttribute(Attribute("parking_gap", 0, 10), Range(0.3, 4.0)),
    SampledAttribute(Attribute("own_lane", 0, 1), Range(0.1, 0.6)),
    SampledAttribute(Attribute("traffic_distance", 6, 40), Range(6.0, 25.0)),
    SampledAttribute(Attribute("lane_width", 2.2, 4.5), Range(2.6, 4.0)),
    SampledAttribute(Attribute("pavement_width", 0.8, 4.8), Range(1.2, 3.5)),
    SampledAttribute(Attribute("setback", 0.2, 12), Range(0.4, 8.0)),
    SampledAttribute(Attribute("street_trees", 0, 1), Range(0.3, 0.9)),
)
"""Attributes of a street that say where objects are, with the ranges of `StreetLayout.place_ranges`; see `Places`.

No image shows them themselves, and they may be learned where a layout samples them.
"""
DERIVED_PLACES = {
    "parked": "x",
    "parking_strips": "parking_right",
    "parking_distance": "y",
    "parking_gap": "y",
    "own_lane": "x",
    "traffic_distance": "y",
    "lane_width": "road_width",
    "pavement_width": "walk_right",
    "setback": "verge_right",
    "street_trees": "x",
}
"""An attribute that the renderer reads and that is derived from each of `PLACE_ATTRIBUTES`."""
ENVIRONMENT_ATTRIBUTES = (*STREET_ATTRIBUTES, *(light.attribute for light in LIGHT_ATTRIBUTES))
"""Attributes of the scene as a whole: the street and the camera's pose, then `LIGHT_ATTRIBUTES`."""

MUTABLE_ATTRIBUTES = {
    ENVIRONMENT: (*(light.attribute for light in LIGHT_ATTRIBUTES), Attribute("pitch", -0.1, 0.1)),
    **dict.fromkeys(OBJECTS, tuple(a for a in OBJECT_ATTRIBUTES if a.name in ("width", "length", "height", "colour"))),
}
"""Attributes that may be learned; positions stay as `StreetLayout` samples them, which avoids overlaps."""
