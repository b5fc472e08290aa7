"""The parameter prior of driving scenes: where things stand along a street, and its light. Metres and radians."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ms2.priors import ParameterPrior, uniform
from ms2.registry import UserError
from ms2.scene import SceneBatch
from ms2.worlds.driving3d.grammar import OBJECTS, SCENARIOS

FIRST = len(SCENARIOS)
"""Class number of the first of ``OBJECTS``."""
NEAREST = 6.0
"""Metres ahead of the camera at which the nearest things stand."""
FIELD_OF_VIEW = 0.84
"""Metres to the side per metre ahead up to which KITTI's camera sees."""


class Kind(NamedTuple):
    """How a class is placed.

    Attributes:
        room: Metres of a strip that one of it takes up along the street.
        low: Least scale of width, length and height, against its model's own.
        high: Greatest.
        strips: Weight of each kind of strip, by name.
    """

    room: float
    low: float
    high: float
    strips: Mapping[str, float]


KINDS = {
    "car": Kind(6.0, 0.95, 1.06, {"lane": 1.0, "outer": 1.0, "parking": 2.0}),
    "truck": Kind(12.0, 0.9, 1.05, {"lane": 1.0, "outer": 1.0}),
    "cyclist": Kind(2.6, 0.95, 1.05, {"edge": 2.0, "walk": 1.0}),
    "pedestrian": Kind(0.9, 0.92, 1.08, {"walk": 1.0}),
    "tree": Kind(2.0, 0.75, 1.35, {"kerb": 0.2, "green": 2.0, "back": 1.2}),
    "bush": Kind(2.2, 0.8, 1.6, {"green": 3.0, "back": 1.0}),
    "house": Kind(13.0, 0.9, 1.15, {"front": 3.0, "back": 1.0}),
    "building": Kind(17.0, 0.9, 1.15, {"front": 4.0, "back": 1.0}),
    "sign": Kind(1.5, 0.95, 1.1, {"kerb": 1.0}),
    "light": Kind(2.5, 0.95, 1.05, {"kerb": 1.0}),
    "pole": Kind(2.5, 0.9, 1.1, {"kerb": 1.0}),
}
"""How each of ``OBJECTS`` is placed."""
STRIPS = ("lane", "outer", "edge", "parking", "kerb", "walk", "green", "front", "back")
"""Kinds of strips along the street, from its middle outwards; there is one of each on either side."""


class Section(NamedTuple):
    """Cross-sections of b streets: distances from the middle, for the left and the right side where they differ.

    Attributes:
        width: Of the road, both directions together.
        lanes: Of both directions together.
        parking: Width of the parking strip; 0 where there is none.
        walk: Width of the pavement; 0 where there is none.
        verge: Width of the green strip between pavement and houses.
    """

    width: Float[Tensor, " b"]
    lanes: Float[Tensor, " b"]
    parking: Float[Tensor, "b 2"]
    walk: Float[Tensor, "b 2"]
    verge: Float[Tensor, "b 2"]


class Bounds(NamedTuple):
    """What a scenario's cross-sections are drawn between, or from which share of scenes."""

    width: tuple[float, float]
    four_lanes: float
    parking: float
    pavement: float
    walk: tuple[float, float]
    verge: tuple[float, float]


BOUNDS = {
    "Rural": Bounds((5.4, 8.0), 0.1, 0.0, 0.1, (1.2, 2.0), (5.0, 11.0)),
    "Suburban": Bounds((5.6, 8.5), 0.1, 0.6, 0.8, (1.3, 2.5), (1.5, 7.0)),
    "Urban": Bounds((6.4, 9.0), 0.35, 0.7, 1.0, (1.8, 4.5), (0.3, 2.5)),
}
"""Cross-sections by scenario; a road of four lanes is 1.8 times as wide."""


class StreetLayout(ParameterPrior):
    """A street with strips for lanes, parked cars, pavements, trees and houses, on which things stand in a row.

    Each object chooses one of the strips of its class that still have room; on a strip, n objects are placed like
    beads on a string, uniformly among all ways in which they don't overlap. Strips begin where the camera's view
    reaches them. What no strip has room for stands beyond the far end of one, so that no object is lost.

    Traffic keeps to the right, and the camera drives on the right-hand side of the road, KITTI's height above it.

    Args:
        reach: Metres ahead of the camera up to which objects stand.
        max_curve: Greatest curvature of the street to either side, in radians per metre.
        clouds: Least and greatest cloudiness, between 0 and 1.
    """

    def __init__(
        self,
        reach: float = 60.0,
        max_curve: float = 1 / 250,
        clouds: tuple[float, float] = (0.0, 0.8),
    ) -> None:
        if not reach > 2 * NEAREST:
            raise UserError(f"reach must be over {2 * NEAREST:g} m, or nothing has room; it is {reach}")
        if not 0 <= max_curve <= 1 / 80:
            raise UserError(f"max_curve must lie between 0 and 1/80 per metre, not be {max_curve}")
        if not 0 <= clouds[0] <= clouds[1] <= 1:
            raise UserError(f"clouds must be two shares between 0 and 1, the least first, not {clouds}")
        self.reach, self.max_curve, self.clouds = reach, max_curve, clouds

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Lay out the street, place everything on it, and draw the light."""
        device = scenes.classes.device
        scenario = _scenario(scenes)
        section = self._section(scenario, generator)
        street = self._street(section, generator)
        strip, ahead, beside = self._placed(scenes, section, street, generator)
        bend, offset = street["curve"][:, None], street["offset"][:, None]
        x = beside - offset + bend * ahead.square() / 2
        heading = self._heading(scenes, strip, generator) - torch.atan(bend * ahead)
        kind = (scenes.classes - FIRST).clamp(min=0)
        low, high = torch.tensor([[k.low, k.high] for k in KINDS.values()], device=device)[kind].unbind(-1)
        common = uniform(scenes, 0, 1, generator)
        sizes = {
            # an object's three sides grow together, give or take a tenth of that
            name: low + (high - low) * (0.8 * common + 0.2 * uniform(scenes, 0, 1, generator))
            for name in ("width", "length", "height")
        }
        return scenes.with_attributes(
            x=x,
            y=ahead,
            yaw=(heading + math.pi) % (2 * math.pi) - math.pi,
            **sizes,
            model=uniform(scenes, 0, 1, generator),
            colour=uniform(scenes, 0, 1, generator),
        ).with_environment(**street, **self._light(len(scenes), generator))

    # -- the street ------------------------------------------------------------------------------------

    def _section(self, scenario: Int[Tensor, " b"], generator: Generator) -> Section:
        b, device = len(scenario), scenario.device

        def draw(*shape: int) -> Tensor:
            return torch.rand(b, *shape, generator=generator, device=device)

        rows = [(*s.width, s.four_lanes, s.parking, s.pavement, *s.walk, *s.verge) for s in BOUNDS.values()]
        low, high, four, parking, pavement, walk0, walk1, verge0, verge1 = torch.tensor(rows, device=device)[
            scenario
        ].unbind(1)
        lanes = torch.where(draw() < four, 4.0, 2.0)
        width = (low + (high - low) * draw()) * torch.where(lanes == 4, 1.8, 1.0)
        return Section(
            width,
            lanes,
            torch.where(draw(2) < parking[:, None], 2.2, 0.0),
            torch.where(draw(2) < pavement[:, None], walk0[:, None] + (walk1 - walk0)[:, None] * draw(2), 0.0),
            verge0[:, None] + (verge1 - verge0)[:, None] * draw(2),
        )

    def _street(self, section: Section, generator: Generator) -> dict[str, Float[Tensor, " b"]]:
        """Environment of the street: its cross-section, and where on it the camera is."""
        b, device = len(section.width), section.width.device

        def between(low: float, high: float) -> Float[Tensor, " b"]:
            return low + (high - low) * torch.rand(b, generator=generator, device=device)

        outer = (section.lanes == 4) & (between(0, 1) < 0.5)
        lane = section.width / section.lanes
        return {
            "curve": self.max_curve * between(-1, 1) * between(0, 1),
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

    def _light(self, n: int, generator: Generator) -> dict[str, Float[Tensor, " n"]]:
        bounds = {
            "sun_azimuth": (-math.pi, math.pi),
            "sun_height": (0.35, 1.1),
            "clouds": self.clouds,
            "haze": (0.0, 1.0),
            "exposure": (0.95, 1.5),
            "contrast": (1.4, 2.8),
            "saturation": (0.7, 1.3),
            "blur": (0.0, 1.0),
        }
        return {
            name: low + (high - low) * torch.rand(n, generator=generator, device=generator.device)
            for name, (low, high) in bounds.items()
        }

    # -- what stands on it -----------------------------------------------------------------------------

    def _placed(
        self, scenes: SceneBatch, section: Section, street: Mapping[str, Tensor], generator: Generator
    ) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Strip of each object, how far ahead it stands, and how far to the right of the street's middle."""
        b, n = scenes.classes.shape
        device = scenes.classes.device
        inner, outer = _strips(section)
        middle = (inner + outer) / 2
        # where the view reaches a strip's far edge, so that what stands there is seen
        aside = torch.maximum((inner - street["offset"][:, None]).abs(), (outer - street["offset"][:, None]).abs())
        begin = (aside / FIELD_OF_VIEW).clamp(NEAREST, self.reach / 2)
        room = self.reach - begin
        kind = (scenes.classes - FIRST).clamp(min=0)
        need = torch.tensor([k.room for k in KINDS.values()], device=device)[kind]
        weight = _weights(device)[kind] * (outer - inner > 0.1)[:, None]
        # the largest of log-weights with Gumbel noise is a draw by weight, also among those that have room
        uniform_draw = torch.rand(b, n, 2 * len(STRIPS), generator=generator, device=device).clamp(1e-7, 1 - 1e-7)
        wish = weight.clamp(min=1e-30).log() - (-uniform_draw.log()).log()
        used, strips = torch.zeros_like(room), []
        for i in range(n):
            fits = used + need[:, i, None] <= room
            choice = (wish[:, i] + torch.where(fits, 0.0, -40.0)).argmax(1)
            strips.append(choice)
            used.scatter_add_(1, choice[:, None], (need[:, i] * scenes.mask[:, i])[:, None])
        strip = torch.stack(strips, 1)
        ahead = self._beads(scenes, strip, need, begin, used, generator)
        low, high = inner.gather(1, strip), outer.gather(1, strip)
        free = torch.tensor([k in ("pedestrian", "tree", "bush") for k in KINDS], device=device)[kind]
        across = torch.rand(b, n, generator=generator, device=device)
        beside = torch.where(free, low + (high - low) * across, middle.gather(1, strip) + 0.5 * (across - 0.5))
        return strip, ahead, beside

    def _beads(
        self,
        scenes: SceneBatch,
        strip: Int[Tensor, "b n"],
        need: Float[Tensor, "b n"],
        begin: Float[Tensor, "b s"],
        used: Float[Tensor, "b s"],
        generator: Generator,
    ) -> Float[Tensor, "b n"]:
        """Distance ahead of each object: sorted uniform draws from what is left of its strip, moved on by the rest."""
        draw = torch.rand(strip.shape, generator=generator, device=strip.device)
        key = torch.where(scenes.mask & (scenes.classes >= FIRST), strip, -1)
        before = (key[:, :, None] == key[:, None]) & (draw[:, None] < draw[:, :, None])
        gone = (before * need[:, None]).sum(2)
        left = (self.reach - begin - used).clamp(min=0).gather(1, strip)
        return begin.gather(1, strip) + draw * left + gone + need / 2

    def _heading(self, scenes: SceneBatch, strip: Int[Tensor, "b n"], generator: Generator) -> Float[Tensor, "b n"]:
        """Yaw against the street's direction: traffic with its lane, fronts towards the street, signs as seen."""
        right = strip >= len(STRIPS)
        jitter = uniform(scenes, -1, 1, generator)
        turned = uniform(scenes, 0, 1, generator) < 0.15
        along = torch.where(right, 0.0, math.pi) + 0.04 * jitter
        name = [*SCENARIOS, *OBJECTS]
        is_any = {
            group: torch.isin(scenes.classes, scenes.classes.new_tensor([name.index(m) for m in members]))
            for group, members in {
                "walkers": ("pedestrian", "cyclist"),
                "fronts": ("house", "building"),
                "signs": ("sign", "light"),
                "plants": ("tree", "bush"),
            }.items()
        }
        both_ways = along + math.pi * turned
        heading = torch.where(is_any["walkers"], both_ways + 0.3 * jitter, along)
        heading = torch.where(is_any["fronts"], torch.where(right, -math.pi / 2, math.pi / 2), heading)
        # a model's front faces the camera where it is not turned: signs are for those who come their way
        heading = torch.where(is_any["signs"], along + 0.2 * jitter, heading)
        heading = torch.where(is_any["plants"], math.pi * jitter, heading)
        return heading


def _scenario(scenes: SceneBatch) -> Int[Tensor, " b"]:
    """Number of each scene's scenario; the first where a grammar of one's own has none."""
    found = (scenes.classes >= 0) & (scenes.classes < FIRST)
    return torch.where(found, scenes.classes, 0).amax(1)


def _strips(section: Section) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b s"]]:
    """Inner and outer edge of each strip, to the right of the street's middle: those on the left first, then right."""
    half = (section.width / 2)[:, None].expand(-1, 2)
    lane = (section.width / section.lanes)[:, None].expand(-1, 2)
    four = (section.lanes == 4)[:, None].expand(-1, 2)
    kerb = half + section.parking
    # where there is no pavement, people walk on the verge
    walk = torch.where(section.walk > 0, section.walk, section.verge.clamp(max=1.5))
    line = kerb + section.walk + section.verge
    zero = torch.zeros_like(half)
    edges = {
        "lane": (zero + 0.3, lane - 0.6),
        "outer": (torch.where(four, lane + 0.3, zero), torch.where(four, 2 * lane - 0.6, zero)),
        "edge": (half - 0.5, half),
        "parking": (half, half + section.parking),
        "kerb": (kerb + 0.1, kerb + 0.5),
        "walk": (kerb + 0.6, kerb + 0.6 + (walk - 0.8).clamp(min=0.4)),
        "green": (kerb + section.walk + 0.8, (line - 0.4).maximum(kerb + section.walk + 1.6)),
        "front": (line + 5.0, line + 7.0),
        "back": (line + 15.0, line + 30.0),
    }
    inner, outer = (torch.stack([edges[name][i] for name in STRIPS], 2) for i in (0, 1))
    both = torch.stack([inner, outer])  # 2 b 2 s
    left, right = both[:, :, 0], both[:, :, 1]
    # the left side is mirrored: its inner edge is the one farther right
    return torch.cat([-left[1], right[0]], 1), torch.cat([-left[0], right[1]], 1)


def _weights(device: torch.device) -> Float[Tensor, "k s"]:
    """Weight of each strip for each class, the same on either side."""
    rows = [[kind.strips.get(name, 0.0) for name in STRIPS] for kind in KINDS.values()]
    return torch.tensor(rows, device=device).repeat(1, 2)
