"""Parameter prior of driving scenes: the street, objects along it, and light. Metres and radians."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.bounds import MAX_FLOAT, Bounds, FiniteFloat, Fraction
from ms2.core.errors import UserError, suggest
from ms2.core.paths import OptionalPath, expand_path
from ms2.priors.parameters import ParameterPrior
from ms2.scene.attributes import ENVIRONMENT, Attribute
from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.assets.mesh_classes import MeshSet, mesh_classes
from ms2.worlds.driving3d.declaration import (
    DERIVED_PLACES,
    FIRST_OBJECT_CLASS_INDEX,
    LIGHT_ATTRIBUTES,
    MUTABLE_ATTRIBUTES,
    OBJECT_CLASSES,
    OBJECTS,
    PLACE_ATTRIBUTES,
    SCENARIO_SETTINGS,
)
from ms2.worlds.driving3d.draws import Draws, GeneratorDraws, SeededDraws, sample_seeds
from ms2.worlds.driving3d.motion import animate_street
from ms2.worlds.driving3d.places import Places
from ms2.worlds.driving3d.strip_tables import STRIPS
from ms2.worlds.driving3d.strips import (
    MIN_DISTANCE,
    CrossSection,
    StripBatch,
    StripPlacer,
    UnplacedObjects,
)
from ms2.worlds.environment import SampledAttribute, sample_environment, sampled_ranges

ONCOMING_FRACTION = 0.15
"""Fraction of pedestrians and cyclists that head against the traffic on their side."""
PARKING_WIDTH = 2.2
"""Width of a parking strip in metres."""
SEED = "layout_seed"
"""Attribute of the scene as a whole from which all draws of a layout with places are computed."""
PLACED = (
    *("curve", "road_width", "lanes", "offset"),
    *(f"{what}_{side}" for what in ("parking", "walk", "verge") for side in ("left", "right")),
)
"""Attributes of the street that are derived from its places."""


class StreetLayout(ParameterPrior):
    """Samples a street with lanes, parking, pavements and verges, objects on its strips, and light.

    Each object is placed on one of the strips of its class that still have room; on a strip, objects are placed
    uniformly among all arrangements without overlap. Objects on different strips do not overlap either: outer strips
    move outwards for objects that are wider than their strip, and vehicles are narrowed to their lane. Strips begin
    where they enter the camera's view. Objects without room are placed beyond the far end of a strip, so that none is
    dropped, and the street bends less.

    Traffic keeps to the right, and the camera is on the right-hand side of the road, at the height of KITTI's.

    Args:
        max_distance: Largest distance in metres ahead of the camera at which objects are placed.
        max_curvature: Maximum absolute curvature of the street in 1/m.
        cloud_range: Range of cloud cover, within [0, 1].
        light_ranges: Ranges of other attributes of the light that override the defaults: sun_azimuth and sun_height
            (radians), haze, exposure, contrast, saturation and blur.
        off_street_fraction: Fraction of vehicles and people placed off the street with uniformly random heading, as in
            car parks, drives and side streets. Extractors trained with some also detect those in photographs.
        place_ranges: Ranges of attributes that say where objects are, which can then be learned; those not named have
            default ranges. They are parked (share of cars), parking_strips (probability of one on either side),
            parking_distance (at which rows of parked cars begin), parking_gap (between them), own_lane (share of the
            traffic on the camera's side), traffic_distance (at which it begins), lane_width, pavement_width, setback
            (of houses) and street_trees (share of trees in front of houses); in metres. Without it the scenario
            decides, and places are not learned.
        assets: Folder of user meshes, the same as the renderer's; their sizes determine the spacing.
        on_error: How to handle unreadable meshes: "raise", or "skip" with a warning.
        mesh_set: Procedural meshes, the same as the renderer's: "plain" or "detailed".
    """

    mutable: Mapping[str, Sequence[Attribute]] = MUTABLE_ATTRIBUTES

    def __init__(
        self,
        max_distance: Annotated[float, Bounds(gt=2 * MIN_DISTANCE, le=MAX_FLOAT)] = 60.0,
        max_curvature: Annotated[float, Bounds(ge=0, le=1 / 80)] = 1 / 250,
        cloud_range: tuple[Fraction, Fraction] = (0.0, 0.8),
        light_ranges: dict[str, tuple[FiniteFloat, FiniteFloat]] | None = None,
        off_street_fraction: Fraction = 0.0,
        place_ranges: dict[str, tuple[FiniteFloat, FiniteFloat]] | None = None,
        assets: OptionalPath = None,
        on_error: Literal["raise", "skip"] = "raise",
        mesh_set: MeshSet = "plain",
    ) -> None:
        if max_curvature * max_distance > 1:
            raise UserError(
                f"max_curvature must be below 1/max_distance to keep the street in view; it is {max_curvature}"
            )
        if cloud_range[0] > cloud_range[1]:
            raise UserError(f"cloud_range must be two fractions in [0, 1] in ascending order, not {cloud_range}")
        if "clouds" in (light_ranges or {}):
            raise UserError("light_ranges must not contain clouds: set cloud_range instead")
        _check_ranges("light_ranges", light_ranges or {}, LIGHT_ATTRIBUTES)
        _check_ranges("place_ranges", place_ranges or {}, PLACE_ATTRIBUTES)
        self.light_ranges = {**sampled_ranges(LIGHT_ATTRIBUTES), "clouds": cloud_range, **(light_ranges or {})}
        self.place_ranges = None
        if place_ranges is not None:
            self.place_ranges = {**sampled_ranges(PLACE_ATTRIBUTES), **place_ranges}
            places = tuple(place.attribute for place in PLACE_ATTRIBUTES)
            self.mutable = {**MUTABLE_ATTRIBUTES, ENVIRONMENT: (*MUTABLE_ATTRIBUTES[ENVIRONMENT], *places)}
            self.derived_attributes = DERIVED_PLACES
        self.max_distance, self.max_curvature = max_distance, max_curvature
        self.off_street_fraction, self.on_error, self.mesh_set = off_street_fraction, on_error, mesh_set
        self.assets = None if assets is None else str(expand_path(assets))

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Sample the street, the objects' sizes and placements, and the light."""
        b = len(scenes)
        draws: Draws = GeneratorDraws(generator)
        places: dict[str, Tensor] = {}
        if self.place_ranges is not None:
            places = sample_environment(self.place_ranges, b, generator) | {SEED: sample_seeds(b, generator)}
            draws = SeededDraws(places[SEED])
        found = self._laid_out(scenes, draws, Places.from_environment(places) if places else None)
        return found.with_environment(**places, **sample_environment(self.light_ranges, b, generator))

    def derive_attributes(self, scenes: SceneBatch) -> SceneBatch:
        """Place the objects anew, by the places that were learned; vehicles are not wider than their lane."""
        if self.place_ranges is None:
            return scenes
        street = scenes.environment
        found = self._laid_out(scenes, SeededDraws(street[SEED]), Places.from_environment(street))
        placed = {name: found.attributes[name] for name in ("x", "y", "yaw")}
        width = torch.minimum(scenes.attributes["width"], found.attributes["width"])
        vehicle = self._vehicles(scenes)
        return scenes.with_attributes(
            **placed, width=torch.where(vehicle, width, scenes.attributes["width"])
        ).with_environment(**{name: found.environment[name] for name in PLACED})

    def animate(self, scenes: SceneBatch, num_frames: int, fps: float, generator: Generator) -> SceneBatch:
        """Continue scenes in time: the camera drives, traffic follows its lanes, people walk; see `animate_street`."""
        sizes = self._sizes(scenes)
        return animate_street(scenes, sizes, self._vehicles(scenes), self.max_distance, num_frames, fps, generator)

    def _sizes(self, scenes: SceneBatch) -> Float[Tensor, "2 b n"]:
        """Look up width and length of objects on the ground."""
        of, device = scenes.attributes, scenes.classes.device
        object_class = (scenes.classes - FIRST_OBJECT_CLASS_INDEX).clamp(min=0)
        number = _properties(self.assets, self.on_error, self.mesh_set, device)[0, object_class].long()
        footprints = _footprints(self.assets, self.on_error, self.mesh_set, device)
        chosen = (of["model"] * number).long().minimum(number - 1)
        size = footprints.flatten(1)[:, object_class * footprints.shape[2] + chosen]
        return size * torch.stack([of["width"], of["length"]])

    def _laid_out(self, scenes: SceneBatch, draws: Draws, places: Places | None) -> SceneBatch:
        """Sample the street, and the objects' sizes and placements."""
        b, n = scenes.classes.shape
        section = self._section(_scenario(scenes), draws.uniform((10, b), 1), places)
        street = self._street(section, draws.uniform((11, b), 1))
        drawn = draws.uniform((9, b, n), 1)
        objects = self._objects(scenes, drawn[:7])
        against, colour = drawn[7:]
        strips, placer = StripBatch.from_section(section), StripPlacer(self.max_distance, places)
        extents = objects.half_extents()
        strip = placer.choose(objects, extents, strips, street, draws)
        ahead, aside, street, objects = placer.place(objects, extents, strips, strip, street, draws)
        right = strip >= len(STRIPS)
        bend, offset = street["curve"][:, None], street["offset"][:, None]
        yaw = self._heading(objects, right, against) - torch.atan(bend * ahead)
        width, length, height = objects.scale
        return scenes.with_attributes(
            x=torch.where(right, aside, -aside) - offset + bend * ahead.square() / 2,
            y=ahead,
            yaw=(yaw + math.pi) % (2 * math.pi) - math.pi,
            width=width,
            length=length,
            height=height,
            model=objects.model,
            colour=colour,
        ).with_environment(**street)

    def _section(self, scenario: Int[Tensor, " b"], draw: Float[Tensor, "10 b"], places: Places | None) -> CrossSection:
        """Compute the cross-section of each street by its scenario and places from uniform draws."""
        columns = _sections(scenario.device)[:, scenario]
        four_lanes, low_width, high_width, parking, pavement, low_walk, high_walk, low_verge, high_verge = columns
        lanes = torch.where(draw[0] < four_lanes, 4.0, 2.0)
        has_pavement = draw[4:6] < pavement
        if places is not None:
            around = 0.75 + 0.5 * draw[6:]  # both sides differ by a quarter of the mean
            return CrossSection(
                places.lane_width * lanes,
                lanes,
                torch.where(draw[2:4] < places.parking_strips, PARKING_WIDTH, 0.0),
                torch.where(has_pavement, places.pavement_width * around[:2], 0.0),
                places.setback * around[2:],
            )
        width = torch.lerp(low_width, high_width, draw[1]) * torch.where(lanes == 4, 1.8, 1.0)
        # of either side
        parking_width = torch.where(draw[2:4] < parking, PARKING_WIDTH, 0.0)
        walk = torch.where(has_pavement, torch.lerp(low_walk, high_walk, draw[6:8]), 0.0)
        return CrossSection(width, lanes, parking_width, walk, torch.lerp(low_verge, high_verge, draw[8:]))

    def _street(self, section: CrossSection, draw: Float[Tensor, "11 b"]) -> dict[str, Float[Tensor, " b"]]:
        """Compute the attributes of the street and the camera's pose on it from uniform draws."""
        outer, sign, bend, shift, height, pitch, yaw, *looks = draw
        on_outer = (section.lanes == 4) & (outer < 0.5)
        lane = section.width / section.lanes
        sides = ("parking", section.parking), ("walk", section.walk), ("verge", section.verge)
        return {
            "curve": self.max_curvature * (2 * sign - 1) * bend,
            "road_width": section.width,
            "lanes": section.lanes,
            **{f"{name}_{side}": w for name, both in sides for side, w in zip(("left", "right"), both, strict=True)},
            **dict(zip(("road_look", "walk_look", "verge_look", "field_look"), looks, strict=True)),
            "offset": lane * torch.where(on_outer, 1.5, 0.5) + (0.6 * shift - 0.3),
            "camera_height": 1.6 + 0.12 * height,
            "pitch": 0.03 * pitch - 0.015,
            "camera_yaw": 0.04 * yaw - 0.02,
        }

    def _objects(self, scenes: SceneBatch, draw: Float[Tensor, "7 b n"]) -> UnplacedObjects:
        """Compute meshes, sizes and deviations of the heading, which determine the space that objects need."""
        device = scenes.classes.device
        object_class = (scenes.classes - FIRST_OBJECT_CLASS_INDEX).clamp(min=0)
        is_object = scenes.classes >= FIRST_OBJECT_CLASS_INDEX
        number, low, high, max_turn = _properties(self.assets, self.on_error, self.mesh_set, device)[:, object_class]
        common, model, chance, turn = draw[:4]
        # width, length and height are correlated: a common factor with weight 0.8
        scale = torch.lerp(low, high, torch.lerp(common, draw[4:], 0.2))
        footprints = _footprints(self.assets, self.on_error, self.mesh_set, device)
        chosen = (model * number).long().minimum(number.long() - 1)
        size = footprints.flatten(1)[:, object_class * footprints.shape[2] + chosen] * scale[:2]
        objects = UnplacedObjects(object_class, is_object, model, scale, size, turn, torch.zeros_like(is_object))
        in_lane = (0.18 / size[1]).clamp(max=0.04)  # long vehicles would leave their lane
        max_turn = torch.where(max_turn.isnan(), in_lane, max_turn)
        if self.off_street_fraction:
            off_street = objects.having("vehicle_or_person") & (chance < self.off_street_fraction)
            objects = objects._replace(off_street=off_street)
            max_turn = torch.where(off_street, math.pi, max_turn)
        return objects._replace(turn=max_turn * (2 * turn - 1))

    def _vehicles(self, scenes: SceneBatch) -> Bool[Tensor, "b n"]:
        """Return which objects are narrowed to their lane."""
        vehicles = [FIRST_OBJECT_CLASS_INDEX + OBJECTS.index(name) for name in ("car", "truck")]
        return torch.isin(scenes.classes, torch.tensor(vehicles, device=scenes.classes.device))

    def _heading(
        self, objects: UnplacedObjects, right: Bool[Tensor, "b n"], draw: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        """Compute yaw relative to the street: vehicles with their lane, house fronts towards the street."""
        against = objects.having("either_way") & (draw < ONCOMING_FRACTION)
        along = math.pi * (right == against)
        # a mesh's front is at +y, away from the camera, and signs face -y: unturned, they face oncoming traffic
        facing = math.pi * (0.5 - right.float())
        return torch.where(objects.having("faces_street"), facing, along) + objects.turn


def _check_ranges(setting: str, ranges: dict[str, tuple[float, float]], attributes: Sequence[SampledAttribute]) -> None:
    """Check that ranges are of known attributes, and within their bounds."""
    bounds = {one.attribute.name: one.attribute for one in attributes}
    for name, (low, high) in ranges.items():
        if name not in bounds:
            raise UserError(f"{setting} has no attribute {name!r}. {suggest(name, bounds)}")
        if not bounds[name].low <= low <= high <= bounds[name].high:
            raise UserError(
                f"{setting} must give two values of {name!r} in [{bounds[name].low:.3g}, {bounds[name].high:.3g}] "
                f"in ascending order, not {low}, {high}"
            )


@lru_cache(maxsize=8)
def _sections(device: torch.device) -> Float[Tensor, "9 m"]:
    """Return the columns of the scenarios' settings from which cross-sections are drawn."""
    rows = [
        (s.four_lanes, *s.road_width, s.parking, s.pavement, *s.pavement_width, *s.verge_width)
        for s in SCENARIO_SETTINGS.values()
    ]
    return torch.tensor(rows).T.to(device)


@lru_cache(maxsize=8)
def _properties(assets: OptionalPath, on_error: str, mesh_set: MeshSet, device: torch.device) -> Float[Tensor, "4 k"]:
    """Return each class's number of meshes, smallest and largest scale, and maximum turn, NaN where it has none."""
    found = mesh_classes(assets, on_error, mesh_set)
    rows = [
        (len(found[name].models), *cls.scale, math.nan if cls.max_turn is None else cls.max_turn)
        for name, cls in OBJECT_CLASSES.items()
    ]
    return torch.tensor(rows).T.to(device)


@lru_cache(maxsize=8)
def _footprints(assets: OptionalPath, on_error: str, mesh_set: MeshSet, device: torch.device) -> Float[Tensor, "2 k m"]:
    """Return the width and length of each class's meshes on the ground."""
    found = mesh_classes(assets, on_error, mesh_set)
    sizes = torch.zeros(2, len(OBJECTS), max(len(found[name].models) for name in OBJECTS))
    for i, (name, cls) in enumerate(OBJECT_CLASSES.items()):
        for j, (mesh, size) in enumerate(zip(found[name].models, found[name].sizes, strict=True)):
            foot = mesh.vertices[mesh.vertices[:, 2] <= 0.05 * size[2]][:, :2]
            # crowns and arms may extend above other objects
            sizes[:, i, j] = 2 * float((foot**2).sum(1).max()) ** 0.5 if cls.post_mounted else torch.tensor(size[:2])
    return sizes.to(device)


def _scenario(scenes: SceneBatch) -> Int[Tensor, " b"]:
    """Return the index of each scene's scenario; the first for scenes of other grammars, without one."""
    found = (scenes.classes >= 0) & (scenes.classes < FIRST_OBJECT_CLASS_INDEX)
    return torch.where(found, scenes.classes, 0).amax(1)
