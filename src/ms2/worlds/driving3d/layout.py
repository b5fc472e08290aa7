"""Parameter prior of driving scenes: the street, objects along it, and light. Metres and radians."""

import math
from functools import lru_cache
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.bounds import MAX_FLOAT, Bounds, FiniteFloat, Fraction
from ms2.core.errors import UserError, suggest
from ms2.core.paths import OptionalPath, expand_path
from ms2.priors.parameters import ParameterPrior, sample_uniform
from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.assets.mesh_classes import mesh_classes
from ms2.worlds.driving3d.declaration import (
    FIRST_OBJECT_CLASS_INDEX,
    LIGHT_ATTRIBUTES,
    MUTABLE_ATTRIBUTES,
    OBJECT_CLASSES,
    OBJECTS,
    SCENARIO_SETTINGS,
)
from ms2.worlds.driving3d.strips import (
    MIN_DISTANCE,
    STRIPS,
    CrossSection,
    StripBatch,
    StripPlacer,
    UnplacedObjects,
)
from ms2.worlds.environment import sample_environment, sampled_ranges

ONCOMING_FRACTION = 0.15
"""Fraction of pedestrians and cyclists that head against the traffic on their side."""


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
        assets: Folder of user meshes, the same as the renderer's; their sizes determine the spacing.
        on_error: How to handle unreadable meshes: "raise", or "skip" with a warning.
    """

    mutable = MUTABLE_ATTRIBUTES

    def __init__(
        self,
        max_distance: Annotated[float, Bounds(gt=2 * MIN_DISTANCE, le=MAX_FLOAT)] = 60.0,
        max_curvature: Annotated[float, Bounds(ge=0, le=1 / 80)] = 1 / 250,
        cloud_range: tuple[Fraction, Fraction] = (0.0, 0.8),
        light_ranges: dict[str, tuple[FiniteFloat, FiniteFloat]] | None = None,
        off_street_fraction: Fraction = 0.0,
        assets: OptionalPath = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        if max_curvature * max_distance > 1:
            raise UserError(
                f"max_curvature must be below 1/max_distance to keep the street in view; it is {max_curvature}"
            )
        if cloud_range[0] > cloud_range[1]:
            raise UserError(f"cloud_range must be two fractions in [0, 1] in ascending order, not {cloud_range}")
        _check_light(light_ranges or {})
        self.light_ranges = {**sampled_ranges(LIGHT_ATTRIBUTES), "clouds": cloud_range, **(light_ranges or {})}
        self.max_distance, self.max_curvature = max_distance, max_curvature
        self.off_street_fraction, self.on_error = off_street_fraction, on_error
        self.assets = None if assets is None else str(expand_path(assets))

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Sample the street, the objects' sizes and placements, and the light."""
        section = self._section(_scenario(scenes), generator)
        street = self._street(section, generator)
        objects = self._objects(scenes, generator)
        strips, placer = StripBatch.from_section(section), StripPlacer(self.max_distance)
        strip = placer.choose(objects, strips, street, generator)
        ahead, aside, street, objects = placer.place(objects, strips, strip, street, generator)
        right = strip >= len(STRIPS)
        bend, offset = street["curve"][:, None], street["offset"][:, None]
        yaw = self._heading(objects, right, generator) - torch.atan(bend * ahead)
        width, length, height = objects.scale.unbind(-1)
        return scenes.with_attributes(
            x=torch.where(right, aside, -aside) - offset + bend * ahead.square() / 2,
            y=ahead,
            yaw=(yaw + math.pi) % (2 * math.pi) - math.pi,
            width=width,
            length=length,
            height=height,
            model=objects.model,
            colour=sample_uniform(scenes, 0, 1, generator),
        ).with_environment(**street, **sample_environment(self.light_ranges, len(scenes), generator))

    def _section(self, scenario: Int[Tensor, " b"], generator: Generator) -> CrossSection:
        """Sample the cross-section of each street by its scenario."""
        b, device = len(scenario), scenario.device

        def draw(*shape: int) -> Tensor:
            return torch.rand(b, *shape, generator=generator, device=device)

        rows = [
            (s.four_lanes, *s.road_width, s.parking, s.pavement, *s.pavement_width, *s.verge_width)
            for s in SCENARIO_SETTINGS.values()
        ]
        columns = torch.tensor(rows, device=device)[scenario].T
        four_lanes, low_width, high_width = columns[:3]
        parking, pavement, low_walk, high_walk, low_verge, high_verge = columns[3:, :, None]  # of either side
        lanes = torch.where(draw() < four_lanes, 4.0, 2.0)
        width = (low_width + (high_width - low_width) * draw()) * torch.where(lanes == 4, 1.8, 1.0)
        parking_width = torch.where(draw(2) < parking, 2.2, 0.0)
        has_pavement = draw(2) < pavement
        walk = torch.where(has_pavement, low_walk + (high_walk - low_walk) * draw(2), 0.0)
        return CrossSection(width, lanes, parking_width, walk, low_verge + (high_verge - low_verge) * draw(2))

    def _street(self, section: CrossSection, generator: Generator) -> dict[str, Float[Tensor, " b"]]:
        """Sample the attributes of the street and the camera's pose on it."""
        b, device = len(section.width), section.width.device

        def between(low: float, high: float) -> Float[Tensor, " b"]:
            return low + (high - low) * torch.rand(b, generator=generator, device=device)

        outer = (section.lanes == 4) & (between(0, 1) < 0.5)
        lane = section.width / section.lanes
        return {
            "curve": self.max_curvature * between(-1, 1) * between(0, 1),
            "road_width": section.width,
            "lanes": section.lanes,
            **{f"parking_{side}": section.parking[:, i] for i, side in enumerate(("left", "right"))},
            **{f"walk_{side}": section.walk[:, i] for i, side in enumerate(("left", "right"))},
            **{f"verge_{side}": section.verge[:, i] for i, side in enumerate(("left", "right"))},
            "road_look": between(0, 1),
            "walk_look": between(0, 1),
            "verge_look": between(0, 1),
            "field_look": between(0, 1),
            "offset": lane * torch.where(outer, 1.5, 0.5) + between(-0.3, 0.3),
            "camera_height": between(1.6, 1.72),
            "pitch": between(-0.015, 0.015),
            "camera_yaw": between(-0.02, 0.02),
        }

    def _objects(self, scenes: SceneBatch, generator: Generator) -> UnplacedObjects:
        """Sample meshes, sizes and deviations of the heading, which determine the space that objects need."""
        device = scenes.classes.device
        classes = OBJECT_CLASSES.values()
        object_class = (scenes.classes - FIRST_OBJECT_CLASS_INDEX).clamp(min=0)
        is_object = scenes.classes >= FIRST_OBJECT_CLASS_INDEX
        bounds = torch.tensor([[cls.scale.low, cls.scale.high] for cls in classes], device=device)
        low, high = bounds[object_class].unbind(-1)
        common = sample_uniform(scenes, 0, 1, generator)
        # width, length and height are correlated: a common factor with weight 0.8
        fractions = [0.8 * common + 0.2 * sample_uniform(scenes, 0, 1, generator) for _ in range(3)]
        scale = torch.stack([low + (high - low) * fraction for fraction in fractions], -1)
        model = sample_uniform(scenes, 0, 1, generator)
        number, sizes = _footprints(self.assets, self.on_error)
        number, sizes = number.to(device)[object_class], sizes.to(device)[object_class]
        chosen = (model * number).long().minimum(number - 1)
        size = sizes.gather(2, chosen[..., None, None].expand(-1, -1, 1, 2))[:, :, 0] * scale[..., :2]
        none = torch.zeros_like(is_object)
        objects = UnplacedObjects(object_class, is_object, model, scale, size, torch.zeros_like(model), none)
        if self.off_street_fraction:
            chance = sample_uniform(scenes, 0, 1, generator)
            off_street = objects.having("vehicle_or_person") & (chance < self.off_street_fraction)
            objects = objects._replace(off_street=off_street)
        turns = torch.tensor([math.nan if cls.max_turn is None else cls.max_turn for cls in classes], device=device)
        max_turn = turns[object_class]
        in_lane = torch.full_like(model, 0.04).minimum(0.18 / size[..., 1])  # long vehicles would leave their lane
        max_turn = torch.where(max_turn.isnan(), in_lane, max_turn)
        max_turn = torch.where(objects.off_street, math.pi, max_turn)
        return objects._replace(turn=max_turn * sample_uniform(scenes, -1, 1, generator))

    def _heading(
        self, objects: UnplacedObjects, right: Bool[Tensor, "b n"], generator: Generator
    ) -> Float[Tensor, "b n"]:
        """Sample yaw relative to the street: vehicles with their lane, house fronts towards the street."""
        against = torch.rand(right.shape, generator=generator, device=right.device) < ONCOMING_FRACTION
        along = torch.where(right, 0.0, math.pi)
        heading = torch.where(objects.having("either_way"), along + math.pi * against, along)
        # a mesh's front is at +y, away from the camera, and signs face -y: unturned, they face oncoming traffic
        facing = torch.where(right, -math.pi / 2, math.pi / 2)
        heading = torch.where(objects.having("faces_street"), facing, heading)
        return heading + objects.turn


def _check_light(ranges: dict[str, tuple[float, float]]) -> None:
    bounds = {light.attribute.name: light.attribute for light in LIGHT_ATTRIBUTES}
    for name, (low, high) in ranges.items():
        if name == "clouds":
            raise UserError("light_ranges must not contain clouds: set cloud_range instead")
        if name not in bounds:
            raise UserError(f"light_ranges has no attribute {name!r}. {suggest(name, bounds)}")
        if not bounds[name].low <= low <= high <= bounds[name].high:
            raise UserError(
                f"light_ranges must give two values of {name!r} in [{bounds[name].low:.3g}, {bounds[name].high:.3g}] "
                f"in ascending order, not {low}, {high}"
            )


@lru_cache(maxsize=4)
def _footprints(assets: OptionalPath, on_error: str) -> tuple[Int[Tensor, " k"], Float[Tensor, "k m 2"]]:
    """Return the number of each class's meshes, and the width and length of each on the ground."""
    found = mesh_classes(assets, on_error)
    numbers = torch.tensor([len(found[name].models) for name in OBJECTS])
    sizes = torch.zeros(len(OBJECTS), int(numbers.max()), 2)
    for i, (name, cls) in enumerate(OBJECT_CLASSES.items()):
        for j, (mesh, size) in enumerate(zip(found[name].models, found[name].sizes, strict=True)):
            foot = mesh.vertices[mesh.vertices[:, 2] <= 0.05 * size[2]][:, :2]
            # crowns and arms may extend above other objects
            sizes[i, j] = 2 * float((foot**2).sum(1).max()) ** 0.5 if cls.post_mounted else torch.tensor(size[:2])
    return numbers, sizes


def _scenario(scenes: SceneBatch) -> Int[Tensor, " b"]:
    """Return the index of each scene's scenario; the first for scenes of other grammars, without one."""
    found = (scenes.classes >= 0) & (scenes.classes < FIRST_OBJECT_CLASS_INDEX)
    return torch.where(found, scenes.classes, 0).amax(1)
