"""The parameter prior of driving scenes: where things stand along a street, and its light. Metres and radians."""

import math
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.errors import UserError, suggest
from ms2.core.files import expand_path
from ms2.priors.parameters import ParameterPrior, uniform
from ms2.scene.attributes import ENVIRONMENT, Attribute
from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.assets.folder import ON_POSTS
from ms2.worlds.driving3d.assets.kinds import kinds
from ms2.worlds.driving3d.grammar import OBJECTS, SCENARIOS

FIRST = len(SCENARIOS)
"""Class number of the first of ``OBJECTS``."""
NEAREST = 6.0
"""Metres ahead of the camera at which the nearest things stand."""
FIELD_OF_VIEW = 0.79
"""Metres to the side per metre ahead up to which KITTI's camera sees, cut to 416 x 128 pixels, however it is turned."""
TRAFFIC = ("car", "truck", "cyclist", "pedestrian")
"""Classes of which some may stand off the street."""
OFF_STREET = {"green": 1.0, "front": 1.0, "back": 2.0}
"""Weight of each kind of strip for those."""
OWN_LANE = 0.3
"""Traffic on the camera's own lane, against the oncoming one: what it has before it hides the rest of the street."""
SETBACK = 1.5
"""Metres by which fronts of houses lie behind the foremost place for them, at most."""


LIGHT = {
    "sun_azimuth": (-math.pi, math.pi),
    "sun_height": (0.35, 1.1),
    "clouds": (0.0, 0.8),
    "haze": (0.0, 1.0),
    "exposure": (0.95, 1.5),
    "contrast": (1.4, 2.8),
    "saturation": (0.7, 1.3),
    "blur": (0.0, 1.0),
}
"""What the light's parameters are drawn between."""


MUTABLE = {
    ENVIRONMENT: (
        Attribute("sun_azimuth", -math.pi, math.pi, periodic=True),
        Attribute("sun_height", 0.1, math.pi / 2),
        Attribute("clouds", 0, 1),
        Attribute("haze", 0, 1),
        Attribute("exposure", 0.3, 2),
        Attribute("contrast", 0.5, 4),
        Attribute("saturation", 0, 2),
        Attribute("blur", 0, 1),
        Attribute("pitch", -0.1, 0.1),
    ),
    **dict.fromkeys(
        OBJECTS,
        (
            Attribute("width", 0.5, 2),
            Attribute("length", 0.5, 2),
            Attribute("height", 0.5, 2),
            Attribute("colour", 0, 1),
        ),
    ),
}
"""What may be learned: the light, and sizes and colours; places are the layout's, which keeps things apart."""


class Kind(NamedTuple):
    """How a class is placed.

    Attributes:
        room: Metres of a strip that one of it takes up along the street; a longer model takes up its length.
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
FITTED = ("lane", "outer", "parking")
"""Those that vehicles must fit between the edges of; elsewhere what is wider than a strip reaches out of it."""
BESIDE = ("kerb", "walk", "green", "front", "back")
"""Those that make way for each other."""
WALKERS, FRONTS, SIGNS, PLANTS = (
    ("pedestrian", "cyclist"), ("house", "building"), ("sign", "light"), ("tree", "bush"),
)  # fmt: skip
"""Classes by the way they are turned; vehicles and poles are none of these."""


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


class Things(NamedTuple):
    """Objects that have no place yet.

    Attributes:
        kind: Index of their class among ``OBJECTS``.
        real: Which of them stand on the street; scenarios don't.
        model: What the renderer chooses their model by.
        scale: Of width, length and height.
        size: Width and length on the ground in metres.
        turn: How far they are turned from the direction that their kind has on its side of the street.
        off_street: Which of them stand off the street, unlike others of their kind.
    """

    kind: Int[Tensor, "b n"]
    real: Bool[Tensor, "b n"]
    model: Float[Tensor, "b n"]
    scale: Float[Tensor, "b n 3"]
    size: Float[Tensor, "b n 2"]
    turn: Float[Tensor, "b n"]
    off_street: Bool[Tensor, "b n"]

    def is_any(self, *names: str) -> Bool[Tensor, "b n"]:
        """Which of them are of these classes."""
        return torch.isin(self.kind, self.kind.new_tensor([OBJECTS.index(name) for name in names]))

    def halves(self) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Half of what they take up along the street, and across it."""
        sideways = self.is_any(*FRONTS)
        cos, sin = self.turn.cos().abs(), self.turn.sin().abs()
        width, length = self.size.unbind(-1)
        long, wide = torch.where(sideways, width, length) / 2, torch.where(sideways, length, width) / 2
        round_ = self.is_any(*ON_POSTS)
        return torch.where(round_, long, long * cos + wide * sin), torch.where(round_, wide, wide * cos + long * sin)


class Strips(NamedTuple):
    """Strips on both sides of b streets, those on the left first; distances from the street's middle.

    Attributes:
        inner: Edge towards the middle.
        outer: The other edge; what is wider than the strip reaches beyond this one.
        row: Strips with the same number share one row of objects, since these would touch.
    """

    inner: Float[Tensor, "b s"]
    outer: Float[Tensor, "b s"]
    row: Int[Tensor, "b s"]


class StreetLayout(ParameterPrior):
    """A street with strips for lanes, parked cars, pavements, trees and houses, on which things stand in a row.

    Each object chooses one of the strips of its class that still have room; on a strip, n objects are placed like
    beads on a string, uniformly among all ways in which they don't overlap. Objects on different strips don't overlap
    either: what lies further out makes way for what is wider than its strip, and vehicles are made to fit their lane.
    Strips begin where the camera's view reaches them. What no strip has room for stands beyond the far end of one, so
    that no object is lost, and the street bends the less.

    Traffic keeps to the right, and the camera drives on the right-hand side of the road, KITTI's height above it.

    Args:
        max_distance: Largest distance in metres ahead of the camera at which objects are placed.
        max_curvature: Greatest curvature of the street to either side, in radians per metre.
        cloud_range: Range of cloud cover, within [0, 1].
        light_ranges: Ranges of other attributes of the light that override the defaults: sun_azimuth and sun_height
            (radians), haze, exposure, contrast, saturation and blur.
        off_street_fraction: Share of vehicles and people off the street, turned anyhow, as on car parks, drives and
            side streets. An extractor that has seen some finds them on photographs too.
        assets: Folder of models, the same as the renderer's, which need other room than those made by code.
        on_error: What to do with models in it that can't be read.
    """

    mutable = MUTABLE

    def __init__(
        self,
        max_distance: float = 60.0,
        max_curvature: float = 1 / 250,
        cloud_range: tuple[float, float] = (0.0, 0.8),
        light_ranges: dict[str, tuple[float, float]] | None = None,
        off_street_fraction: float = 0.0,
        assets: str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        if not max_distance > 2 * NEAREST:
            raise UserError(
                f"max_distance must exceed {2 * NEAREST:g} m, or there is no room for objects; it is {max_distance}"
            )
        if not 0 <= max_curvature <= 1 / 80 or max_curvature * max_distance > 1:
            raise UserError(
                f"max_curvature must lie between 0 and 1/80 per metre, and below 1/max_distance to keep the street "
                f"in view; it is {max_curvature}"
            )
        if not 0 <= cloud_range[0] <= cloud_range[1] <= 1:
            raise UserError(f"cloud_range must be two fractions in [0, 1] in ascending order, not {cloud_range}")
        bounds = {a.name: a for a in MUTABLE[ENVIRONMENT]}
        for name, (low, high) in (light_ranges or {}).items():
            if name == "clouds":
                raise UserError("light_ranges must not contain clouds: set cloud_range instead")
            if name not in LIGHT:
                raise UserError(f"light_ranges has no attribute {name!r}. {suggest(name, LIGHT)}")
            least, most = bounds[name].low, bounds[name].high
            if not least <= low <= high <= most:
                raise UserError(
                    f"light_ranges must give two values of {name!r} in [{least:.3g}, {most:.3g}] in ascending order, "
                    f"not {low}, {high}"
                )
        if not 0 <= off_street_fraction <= 1:
            raise UserError(f"off_street_fraction is a share between 0 and 1, and can't be {off_street_fraction}")
        self.off_street_fraction = off_street_fraction
        self.light_ranges = {**LIGHT, "clouds": cloud_range, **(light_ranges or {})}
        self.max_distance, self.max_curvature, self.on_error = max_distance, max_curvature, on_error
        self.assets = None if assets is None else str(expand_path(assets))

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Lay out the street, place everything on it, and draw the light."""
        section = self._section(_scenario(scenes), generator)
        street = self._street(section, generator)
        things = self._things(scenes, generator)
        strips = _strips(section)
        strip = self._chosen(things, strips, street, generator)
        ahead, aside, street, things = self._placed(things, strips, strip, street, generator)
        right = strip >= len(STRIPS)
        bend, offset = street["curve"][:, None], street["offset"][:, None]
        yaw = self._heading(things, right, generator) - torch.atan(bend * ahead)
        width, length, height = things.scale.unbind(-1)
        return scenes.with_attributes(
            x=torch.where(right, aside, -aside) - offset + bend * ahead.square() / 2,
            y=ahead,
            yaw=(yaw + math.pi) % (2 * math.pi) - math.pi,
            width=width,
            length=length,
            height=height,
            model=things.model,
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

    def _light(self, n: int, generator: Generator) -> dict[str, Float[Tensor, " n"]]:
        return {
            name: low + (high - low) * torch.rand(n, generator=generator, device=generator.device)
            for name, (low, high) in self.light_ranges.items()
        }

    # -- what stands on it -----------------------------------------------------------------------------

    def _things(self, scenes: SceneBatch, generator: Generator) -> Things:
        """What the objects look like, which decides the room that they need."""
        device = scenes.classes.device
        kind, real = (scenes.classes - FIRST).clamp(min=0), scenes.classes >= FIRST
        low, high = torch.tensor([[k.low, k.high] for k in KINDS.values()], device=device)[kind].unbind(-1)
        common = uniform(scenes, 0, 1, generator)
        # an object's three sides grow together, give or take a tenth of that
        three = [0.8 * common + 0.2 * uniform(scenes, 0, 1, generator) for _ in range(3)]
        scale = torch.stack([low + (high - low) * share for share in three], -1)
        model = uniform(scenes, 0, 1, generator)
        number, sizes = _footprints(self.assets, self.on_error)
        number, sizes = number.to(device)[kind], sizes.to(device)[kind]
        chosen = (model * number).long().minimum(number - 1)
        size = sizes.gather(2, chosen[..., None, None].expand(-1, -1, 1, 2))[:, :, 0] * scale[..., :2]
        things = Things(kind, real, model, scale, size, torch.zeros_like(model), torch.zeros_like(real))
        if self.off_street_fraction:
            off_street = things.is_any(*TRAFFIC) & (uniform(scenes, 0, 1, generator) < self.off_street_fraction)
            things = things._replace(off_street=off_street)
        most = torch.full_like(model, 0.04).minimum(0.18 / size[..., 1])  # long vehicles would leave their lane
        for turn, names in ((0.34, WALKERS), (0.0, FRONTS), (0.2, SIGNS), (math.pi, PLANTS)):
            most = torch.where(things.is_any(*names), turn, most)
        most = torch.where(things.off_street, math.pi, most)
        return things._replace(turn=most * uniform(scenes, -1, 1, generator))

    def _chosen(
        self, things: Things, strips: Strips, street: Mapping[str, Tensor], generator: Generator
    ) -> Int[Tensor, "b n"]:
        """Strip of each object: by the weights of its kind, among those with room, as long as there are any."""
        b, n = things.kind.shape
        device = things.kind.device
        far = torch.tensor([name in ("front", "back") for name in STRIPS] * 2, device=device)
        room = self.max_distance - self._begin(strips, torch.where(far, strips.inner + 3, strips.outer), street)
        need = self._need(things, street)
        off = torch.tensor([OFF_STREET.get(name, 0.0) for name in STRIPS] * 2, device=device)
        weight = torch.where(things.off_street[..., None], off, _weights(device)[things.kind])
        weight = weight * (strips.outer - strips.inner > 0.1)[:, None]
        # the largest of log-weights with Gumbel noise is a draw by weight, also among those that have room
        draw = torch.rand(b, n, 2 * len(STRIPS), generator=generator, device=device).clamp(1e-7, 1 - 1e-7)
        wish = weight.clamp(min=1e-30).log() - (-draw.log()).log()
        used, chosen = torch.zeros_like(room), []
        for i in range(n):
            fits = used.gather(1, strips.row) + need[:, i, None] <= room
            choice = (wish[:, i] + torch.where(fits, 0.0, -40.0)).argmax(1, keepdim=True)
            chosen.append(choice)
            used.scatter_add_(1, strips.row.gather(1, choice), need[:, i, None])
        return torch.cat(chosen, 1)

    def _need(self, things: Things, street: Mapping[str, Tensor]) -> Float[Tensor, "b n"]:
        """Metres along the street that each object takes up, with a gap to the next."""
        along, across = things.halves()
        slope = self._slope(street)
        sine = slope / (1 + slope.square()).sqrt()
        least = torch.tensor([k.room for k in KINDS.values()], device=along.device)[things.kind]
        # along y, to which the street is askew where it bends
        return torch.maximum(least, 2.04 * along + 2 * across * sine + 0.2) * things.real

    def _slope(self, street: Mapping[str, Tensor]) -> Float[Tensor, "b 1"]:
        """Metres to the side per metre ahead by which a street is bent at its far end."""
        return street["curve"].abs()[:, None] * self.max_distance

    def _begin(self, strips: Strips, sight: Float[Tensor, "b s"], street: Mapping[str, Tensor]) -> Float[Tensor, "b s"]:
        """Metres ahead from which on each strip is seen up to a distance from the street's middle."""
        side = _sides(sight.device)
        edges = torch.stack([strips.inner, sight]) * side - street["offset"][:, None]
        begin = (edges.abs().amax(0) / self._view(side, street)).clamp(min=NEAREST)
        # who shares a row begins together
        together = (strips.row[:, :, None] == strips.row[:, None]) * begin[:, None]
        return together.amax(2)

    def _view(self, side: Float[Tensor, "s"], street: Mapping[str, Tensor]) -> Float[Tensor, "b s"]:
        """Metres to a side per metre ahead that are surely seen of a street, however it bends."""
        return FIELD_OF_VIEW - (side * street["curve"][:, None]).clamp(min=0) * self.max_distance / 2

    def _placed(
        self,
        things: Things,
        strips: Strips,
        strip: Int[Tensor, "b n"],
        street: dict[str, Tensor],
        generator: Generator,
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"], dict[str, Tensor], Things]:
        """How far ahead each object stands, and how far from the street's middle; street and things fitted to that."""
        device = strip.device
        name = torch.arange(len(STRIPS), device=device).repeat(2)[strip]
        fitted = torch.isin(name, name.new_tensor([STRIPS.index(one) for one in FITTED]))
        things = _narrowed(things, (strips.outer - strips.inner).gather(1, strip), fitted, self._half(things, street))
        half = self._half(things, street)
        strips = _spread(strips, strip, 2 * half * things.real)
        inner, outer = strips.inner.gather(1, strip), strips.outer.gather(1, strip)
        need = self._need(things, street)
        begin = self._begin(strips, self._sight(things, strips, strip, half, need, street), street)
        row = strips.row.gather(1, strip)
        used = torch.zeros_like(begin).scatter_add_(1, row, need)
        ahead = self._beads(things.real, row, need, begin.gather(1, strip), used.gather(1, row), generator)
        far = torch.where(used > 0, begin.gather(1, strips.row) + used, 0).amax(1)
        street = street | {"curve": street["curve"] * (self.max_distance / far).clamp(max=1)}

        low, high = inner + half, outer - half
        draw = torch.rand(strip.shape, generator=generator, device=device)
        side = _sides(device)[strip]
        seen = self._view(_sides(device), street).gather(1, strip) * ahead + side * street["offset"][:, None]
        anywhere = low + (high.minimum(seen).maximum(low) - low) * draw
        # traffic leaves a little more room beside the road than in the middle of it
        is_lane = torch.isin(name, name.new_tensor([STRIPS.index(one) for one in ("lane", "outer")]))
        middle = (inner + outer) / 2 - 0.15 * is_lane + 0.5 * (draw - 0.5)
        middle = torch.where(high > low, middle.maximum(low).minimum(high), torch.where(fitted, (low + high) / 2, low))
        aside = torch.where(things.is_any("pedestrian", "tree", "bush") | things.off_street, anywhere, middle)
        aside = torch.where(things.is_any(*FRONTS), low + SETBACK * draw, aside)
        return ahead, torch.where(name == STRIPS.index("edge"), high - 0.3 * draw, aside), street, things

    def _sight(
        self,
        things: Things,
        strips: Strips,
        strip: Int[Tensor, "b n"],
        half: Float[Tensor, "b n"],
        need: Float[Tensor, "b n"],
        street: Mapping[str, Tensor],
    ) -> Float[Tensor, "b s"]:
        """Up to where a strip is to be seen where it begins, so that the middle of each thing on it is in view."""
        # where the strip begins the near end of its first thing stands; the middle of that is farther ahead
        beyond = half + SETBACK - self._view(_sides(strip.device), street).gather(1, strip) * need / 2
        widest = torch.zeros_like(strips.inner).scatter_reduce_(1, strip, beyond.clamp(min=0) * things.real, "amax")
        far = torch.tensor([name in ("front", "back") for name in STRIPS] * 2, device=strip.device)
        return torch.where(far, strips.inner, strips.outer) + widest

    def _half(self, things: Things, street: Mapping[str, Tensor]) -> Float[Tensor, "b n"]:
        """Half of what the objects take up across the street, at most: where it bends, they stand askew to x."""
        along, across = things.halves()
        curve, slope = street["curve"].abs()[:, None], self._slope(street)
        slant = (1 + slope.square()).sqrt()  # 1 / cos
        return across * slant + curve * (along + across * slope / slant).square() / 2

    def _beads(
        self,
        real: Bool[Tensor, "b n"],
        row: Int[Tensor, "b n"],
        need: Float[Tensor, "b n"],
        begin: Float[Tensor, "b n"],
        used: Float[Tensor, "b n"],
        generator: Generator,
    ) -> Float[Tensor, "b n"]:
        """Distance ahead of each object: sorted uniform draws from what is left of its row, moved on by the rest."""
        draw = torch.rand(row.shape, generator=generator, device=row.device)
        key = torch.where(real, row, -1)
        before = (key[:, :, None] == key[:, None]) & (draw[:, None] < draw[:, :, None])
        gone = (before * need[:, None]).sum(2)
        return begin + draw * (self.max_distance - begin - used).clamp(min=0) + gone + need / 2

    def _heading(self, things: Things, right: Bool[Tensor, "b n"], generator: Generator) -> Float[Tensor, "b n"]:
        """Yaw against the street's direction: traffic with its lane, fronts towards the street, signs as seen."""
        turned = torch.rand(right.shape, generator=generator, device=right.device) < 0.15
        along = torch.where(right, 0.0, math.pi)
        heading = torch.where(things.is_any(*WALKERS), along + math.pi * turned, along)
        # a model's front faces the camera where it is not turned: signs are for those who come their way
        heading = torch.where(things.is_any(*FRONTS), torch.where(right, -math.pi / 2, math.pi / 2), heading)
        return heading + things.turn


@lru_cache(maxsize=4)
def _footprints(assets: str | None, on_error: str) -> tuple[Int[Tensor, " k"], Float[Tensor, "k m 2"]]:
    """Number of each class's models, and their width and length where they stand on the ground."""
    found = kinds(assets, on_error)
    numbers = torch.tensor([len(found[name].models) for name in OBJECTS])
    sizes = torch.zeros(len(OBJECTS), int(numbers.max()), 2)
    for i, name in enumerate(OBJECTS):
        for j, (mesh, size) in enumerate(zip(found[name].models, found[name].sizes, strict=True)):
            foot = mesh.vertices[mesh.vertices[:, 2] <= 0.05 * size[2]][:, :2]
            # crowns and arms may reach over other things
            sizes[i, j] = 2 * float((foot**2).sum(1).max()) ** 0.5 if name in ON_POSTS else torch.tensor(size[:2])
    return numbers, sizes


def _scenario(scenes: SceneBatch) -> Int[Tensor, " b"]:
    """Number of each scene's scenario; the first where a grammar of one's own has none."""
    found = (scenes.classes >= 0) & (scenes.classes < FIRST)
    return torch.where(found, scenes.classes, 0).amax(1)


def _strips(section: Section) -> Strips:
    """The strips of a cross-section."""
    half = (section.width / 2)[:, None].expand(-1, 2)
    lane = (section.width / section.lanes)[:, None].expand(-1, 2)
    four = (section.lanes == 4)[:, None].expand(-1, 2)
    kerb = half + section.parking
    # where there is no pavement, people walk on the verge
    walk = torch.where(section.walk > 0, section.walk, section.verge.clamp(max=1.5))
    line = kerb + section.walk + section.verge
    green = kerb + walk + 0.8
    end = (line - 0.4).maximum(green + 0.8)
    front = line.maximum(end) + 0.5
    edges = {
        "lane": (torch.zeros_like(half), lane),
        "outer": (torch.where(four, lane, 0.0), torch.where(four, 2 * lane, 0.0)),
        "edge": (half - 0.5, half),
        "parking": (half, kerb),
        "kerb": (kerb + 0.1, kerb + 0.5),
        "walk": (kerb + 0.6, kerb + 0.6 + (walk - 0.8).clamp(min=0.4)),
        "green": (green, end),
        "front": (front, front + 3.0),
        "back": (front + 10.5, front + 25.5),
    }
    inner, outer = (torch.cat([torch.stack([edges[n][i] for n in STRIPS], 2)[:, k] for k in (0, 1)], 1) for i in (0, 1))
    row = torch.arange(inner.shape[1], device=inner.device).expand(len(inner), -1).clone()
    for side in (0, len(STRIPS)):
        beside = torch.where(four[:, 0], STRIPS.index("outer"), STRIPS.index("lane"))
        row[:, side + STRIPS.index("edge")] = side + beside
    return Strips(inner, outer, row)


def _narrowed(
    things: Things, room: Float[Tensor, "b n"], where: Bool[Tensor, "b n"], half: Float[Tensor, "b n"]
) -> Things:
    """Vehicles as wide as their lane, where they would be wider."""
    width, length = things.size.unbind(-1)
    own = width / things.scale[..., 0]
    narrow = (width - (2 * half - room).clamp(min=0)).maximum(0.6 * own)
    narrow = torch.where(where, narrow, width)
    size, scale = torch.stack([narrow, length], -1), things.scale.clone()
    scale[..., 0] = narrow / own
    return things._replace(size=size, scale=scale)


def _spread(strips: Strips, strip: Int[Tensor, "b n"], wide: Float[Tensor, "b n"]) -> Strips:
    """Strips beside the road moved out where those before them hold something wider than they are."""
    widest = torch.zeros_like(strips.inner).scatter_reduce_(1, strip, wide, "amax")
    inner, outer = strips.inner.clone(), strips.outer.clone()
    for side in (0, len(STRIPS)):
        for before, name in pairwise(BESIDE):
            i, j = side + STRIPS.index(before), side + STRIPS.index(name)
            end = inner[:, i] + widest[:, i] + torch.where(widest[:, i] > 0, 0.1 + SETBACK * (before == "front"), 0)
            shift = (end - inner[:, j]).clamp(min=0)
            # a strip keeps its outer edge if it can, so that those after it may stay where they are
            inner[:, j] = inner[:, j] + shift
            outer[:, j] = outer[:, j].maximum(inner[:, j] + 0.4) if name != "back" else outer[:, j] + shift
            pushed = (outer[:, j] > strips.outer[:, j]) & (j + 1 < side + len(STRIPS))
            if name != "back":
                after = side + STRIPS.index(BESIDE[BESIDE.index(name) + 1])
                inner[:, after] = torch.where(pushed, inner[:, after].maximum(outer[:, j] + 0.1), inner[:, after])
    return strips._replace(inner=inner, outer=outer)


def _sides(device: torch.device) -> Float[Tensor, " s"]:
    """-1 for strips on the left, 1 for those on the right."""
    return torch.tensor([-1.0, 1.0], device=device).repeat_interleave(len(STRIPS))


def _weights(device: torch.device) -> Float[Tensor, "k s"]:
    """Weight of each strip for each class: the same on either side, but for the lane that the camera drives on."""
    rows = [[kind.strips.get(name, 0.0) for name in STRIPS] for kind in KINDS.values()]
    weights = torch.tensor(rows, device=device).repeat(1, 2)
    weights[:, len(STRIPS) + STRIPS.index("lane")] *= OWN_LANE
    return weights
