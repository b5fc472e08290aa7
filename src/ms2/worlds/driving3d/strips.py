"""Lateral strips of a street, and the placement of objects on them without overlap. Metres and radians."""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.worlds.driving3d.declaration import OBJECT_CLASSES

STRIPS = ("lane", "outer", "edge", "parking", "kerb", "walk", "green", "front", "back")
"""Strips along the street from its middle outwards, on either side; ``outer`` is the outer of two lanes."""
VEHICLE_STRIPS = ("lane", "outer", "parking")
"""Strips between whose edges vehicles must fit; elsewhere objects that are wider than their strip extend beyond it."""
ROADSIDE_STRIPS = ("kerb", "walk", "green", "front", "back")
"""Strips that move outwards where objects on the one before are wider than it."""
BUILDING_STRIPS = ("front", "back")
OFF_STREET_WEIGHTS = {"green": 1.0, "front": 1.0, "back": 2.0}
"""Weights of strips for vehicles and people off the street."""
EGO_LANE_WEIGHT = 0.3
"""Weight of the camera's own lane relative to the oncoming one: vehicles ahead occlude the rest of the street."""
BUILDING_SETBACK = 1.5
"""Maximum distance of house fronts from the inner edge of their strip in metres."""
MIN_DISTANCE = 6.0
"""Minimum distance ahead of the camera at which objects are placed, in metres."""
FIELD_OF_VIEW = 0.79
"""Lateral distance per distance ahead within the view of KITTI's camera at 416 x 128 pixels, for any sampled pose."""


class CrossSection(NamedTuple):
    """Cross-sections of b streets, in metres; widths per side are those on the left and on the right.

    Attributes:
        width: Width of the road, both directions together.
        lanes: Number of lanes of both directions together.
        parking: Width of the parking strips; 0 for none.
        walk: Width of the pavements; 0 for none.
        verge: Width of the green strips between pavement and houses.
    """

    width: Float[Tensor, " b"]
    lanes: Float[Tensor, " b"]
    parking: Float[Tensor, "b 2"]
    walk: Float[Tensor, "b 2"]
    verge: Float[Tensor, "b 2"]


class UnplacedObjects(NamedTuple):
    """Objects before placement.

    Attributes:
        object_class: Index of the class in `OBJECTS`.
        is_object: Whether the entry is an object in the street; scenarios and unused entries are not.
        model: Attribute that selects the mesh.
        scale: Factors on width, length and height.
        size: Width and length on the ground.
        turn: Deviation of the heading from that of the class on its side of the street.
        off_street: Whether a vehicle or person is placed off the street.
    """

    object_class: Int[Tensor, "b n"]
    is_object: Bool[Tensor, "b n"]
    model: Float[Tensor, "b n"]
    scale: Float[Tensor, "b n 3"]
    size: Float[Tensor, "b n 2"]
    turn: Float[Tensor, "b n"]
    off_street: Bool[Tensor, "b n"]

    def having(self, flag: str) -> Bool[Tensor, "b n"]:
        """Return which objects are of a class with this boolean property of `ObjectClass`."""
        flags = [getattr(cls, flag) for cls in OBJECT_CLASSES.values()]
        return torch.tensor(flags, device=self.object_class.device)[self.object_class]

    def half_extents(self) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """Compute half extents, along and across the street, of the objects' rotated rectangles."""
        sideways = self.having("faces_street")
        cos, sin = self.turn.cos().abs(), self.turn.sin().abs()
        width, length = self.size.unbind(-1)
        long, wide = torch.where(sideways, width, length) / 2, torch.where(sideways, length, width) / 2
        round_ = self.having("post_mounted")
        return torch.where(round_, long, long * cos + wide * sin), torch.where(round_, wide, wide * cos + long * sin)


class StripBatch(NamedTuple):
    """Strips on both sides of b streets, left ones first; s = 2 * len(STRIPS). Distances from the street's middle.

    Attributes:
        inner: Edge towards the middle.
        outer: The other edge; objects that are wider than the strip extend beyond this one.
        row: Strips with the same number share one row of objects, because objects on them would touch.
    """

    inner: Float[Tensor, "b s"]
    outer: Float[Tensor, "b s"]
    row: Int[Tensor, "b s"]

    @classmethod
    def from_section(cls, section: CrossSection) -> "StripBatch":
        """Divide cross-sections into strips."""
        half = (section.width / 2)[:, None].expand(-1, 2)
        lane = (section.width / section.lanes)[:, None].expand(-1, 2)
        four = (section.lanes == 4)[:, None].expand(-1, 2)
        kerb = half + section.parking
        # without a pavement, people walk on the verge
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
        inner, outer = (
            torch.cat([torch.stack([edges[name][i] for name in STRIPS], 2)[:, side] for side in (0, 1)], 1)
            for i in (0, 1)
        )
        row = torch.arange(inner.shape[1], device=inner.device).expand(len(inner), -1).clone()
        for side in (0, len(STRIPS)):
            beside = torch.where(four[:, 0], STRIPS.index("outer"), STRIPS.index("lane"))
            row[:, side + STRIPS.index("edge")] = side + beside
        return cls(inner, outer, row)

    def widened(self, strip: Int[Tensor, "b n"], width: Float[Tensor, "b n"]) -> "StripBatch":
        """Move roadside strips outwards where objects of this ``width`` on ``strip`` are wider than the strip."""
        widest = torch.zeros_like(self.inner).scatter_reduce_(1, strip, width, "amax")
        inner, outer = self.inner.clone(), self.outer.clone()
        for side in (0, len(STRIPS)):
            for before, name in pairwise(ROADSIDE_STRIPS):
                i, j = side + STRIPS.index(before), side + STRIPS.index(name)
                gap = 0.1 + BUILDING_SETBACK * (before == "front")
                end = inner[:, i] + widest[:, i] + torch.where(widest[:, i] > 0, gap, 0)
                shift = (end - inner[:, j]).clamp(min=0)
                # a strip keeps its outer edge if possible, so that those after it keep their position
                inner[:, j] = inner[:, j] + shift
                outer[:, j] = outer[:, j].maximum(inner[:, j] + 0.4) if name != "back" else outer[:, j] + shift
                pushed = (outer[:, j] > self.outer[:, j]) & (j + 1 < side + len(STRIPS))
                if name != "back":
                    after = side + STRIPS.index(ROADSIDE_STRIPS[ROADSIDE_STRIPS.index(name) + 1])
                    inner[:, after] = torch.where(pushed, inner[:, after].maximum(outer[:, j] + 0.1), inner[:, after])
        return self._replace(inner=inner, outer=outer)


class Placement(NamedTuple):
    """Positions of objects on their street.

    Attributes:
        ahead: Distance ahead of the camera.
        aside: Distance from the street's middle.
        street: Attributes of the street, with a curvature reduced so that all objects stay in view.
        objects: The objects, with vehicles narrowed to their lane.
    """

    ahead: Float[Tensor, "b n"]
    aside: Float[Tensor, "b n"]
    street: dict[str, Tensor]
    objects: UnplacedObjects


class StripPlacer:
    """Places objects on the strips of their class without overlap.

    On a strip, n objects are placed uniformly among all arrangements without overlap (Rényi 1953). Objects that find
    no room are placed beyond the far end of a strip, and the street bends less.

    Args:
        max_distance: Largest distance ahead of the camera in metres.
    """

    def __init__(self, max_distance: float) -> None:
        self.max_distance = max_distance

    def choose(
        self, objects: UnplacedObjects, strips: StripBatch, street: Mapping[str, Tensor], generator: Generator
    ) -> Int[Tensor, "b n"]:
        """Sample the strip of each object by its class's weights; strips with room take precedence."""
        b, n = objects.object_class.shape
        device = objects.object_class.device
        buildings = torch.tensor([name in BUILDING_STRIPS for name in STRIPS] * 2, device=device)
        visible_to = torch.where(buildings, strips.inner + 3, strips.outer)
        room = self.max_distance - self._begin(strips, visible_to, street)
        need = self._need(objects, street)
        off = torch.tensor([OFF_STREET_WEIGHTS.get(name, 0.0) for name in STRIPS] * 2, device=device)
        weight = torch.where(objects.off_street[..., None], off, _weights(device)[objects.object_class])
        weight = weight * (strips.outer - strips.inner > 0.1)[:, None]
        # the Gumbel-max trick: the argmax of perturbed log-weights is a sample, also among the strips that have room
        draw = torch.rand(b, n, 2 * len(STRIPS), generator=generator, device=device).clamp(1e-7, 1 - 1e-7)
        perturbed = weight.clamp(min=1e-30).log() - (-draw.log()).log()
        used, chosen = torch.zeros_like(room), []
        for i in range(n):
            fits = used.gather(1, strips.row) + need[:, i, None] <= room
            choice = (perturbed[:, i] + torch.where(fits, 0.0, -40.0)).argmax(1, keepdim=True)
            chosen.append(choice)
            used.scatter_add_(1, strips.row.gather(1, choice), need[:, i, None])
        return torch.cat(chosen, 1)

    def place(
        self,
        objects: UnplacedObjects,
        strips: StripBatch,
        strip: Int[Tensor, "b n"],
        street: dict[str, Tensor],
        generator: Generator,
    ) -> Placement:
        """Sample the objects' positions on their strips, with vehicles inside their lane.

        Limit the curvature such that the street stays in view up to its farthest object.
        """
        device = strip.device
        name = torch.arange(len(STRIPS), device=device).repeat(2)[strip]
        fitted = torch.isin(name, name.new_tensor([STRIPS.index(one) for one in VEHICLE_STRIPS]))
        room = (strips.outer - strips.inner).gather(1, strip)
        objects = _narrowed(objects, room, fitted, self._half_width(objects, street))
        half = self._half_width(objects, street)
        strips = strips.widened(strip, 2 * half * objects.is_object)
        inner, outer = strips.inner.gather(1, strip), strips.outer.gather(1, strip)
        need = self._need(objects, street)
        begin = self._begin(strips, self._visible_to(objects, strips, strip, half, need, street), street)
        row = strips.row.gather(1, strip)
        used = torch.zeros_like(begin).scatter_add_(1, row, need)
        ahead = self._ahead(objects.is_object, row, need, begin.gather(1, strip), used.gather(1, row), generator)
        far = torch.where(used > 0, begin.gather(1, strips.row) + used, 0).amax(1)
        street = street | {"curve": street["curve"] * (self.max_distance / far).clamp(max=1)}

        low, high = inner + half, outer - half
        draw = torch.rand(strip.shape, generator=generator, device=device)
        side = _sides(device)[strip]
        visible = self._view(_sides(device), street).gather(1, strip) * ahead + side * street["offset"][:, None]
        anywhere = low + (high.minimum(visible).maximum(low) - low) * draw
        # vehicles keep a little more distance from the roadside than from the middle of the road
        is_lane = torch.isin(name, name.new_tensor([STRIPS.index(one) for one in ("lane", "outer")]))
        middle = (inner + outer) / 2 - 0.15 * is_lane + 0.5 * (draw - 0.5)
        middle = torch.where(high > low, middle.maximum(low).minimum(high), torch.where(fitted, (low + high) / 2, low))
        spread = objects.having("random_lateral") | objects.off_street
        aside = torch.where(spread, anywhere, middle)
        aside = torch.where(objects.having("faces_street"), low + BUILDING_SETBACK * draw, aside)
        aside = torch.where(name == STRIPS.index("edge"), high - 0.3 * draw, aside)
        return Placement(ahead, aside, street, objects)

    def _need(self, objects: UnplacedObjects, street: Mapping[str, Tensor]) -> Float[Tensor, "b n"]:
        """Compute the length along the street that each object takes up, with a gap to the next."""
        along, across = objects.half_extents()
        slope = self._slope(street)
        sine = slope / (1 + slope.square()).sqrt()
        spacing = torch.tensor([cls.spacing for cls in OBJECT_CLASSES.values()], device=along.device)
        # positions are along y, to which a bent street is oblique
        needed = 2.04 * along + 2 * across * sine + 0.2
        return torch.maximum(spacing[objects.object_class], needed) * objects.is_object

    def _slope(self, street: Mapping[str, Tensor]) -> Float[Tensor, "b 1"]:
        """Compute the slope dx/dy of the street at its far end."""
        return street["curve"].abs()[:, None] * self.max_distance

    def _begin(
        self, strips: StripBatch, visible_to: Float[Tensor, "b s"], street: Mapping[str, Tensor]
    ) -> Float[Tensor, "b s"]:
        """Compute the distance ahead from which strips are visible up to ``visible_to`` metres from the middle."""
        side = _sides(visible_to.device)
        edges = torch.stack([strips.inner, visible_to]) * side - street["offset"][:, None]
        begin = (edges.abs().amax(0) / self._view(side, street)).clamp(min=MIN_DISTANCE)
        # strips that share a row begin together
        together = (strips.row[:, :, None] == strips.row[:, None]) * begin[:, None]
        return together.amax(2)

    def _view(self, side: Float[Tensor, "s"], street: Mapping[str, Tensor]) -> Float[Tensor, "b s"]:
        """Compute the lateral distance per distance ahead that is visible of a street, given its curvature."""
        return FIELD_OF_VIEW - (side * street["curve"][:, None]).clamp(min=0) * self.max_distance / 2

    def _visible_to(
        self,
        objects: UnplacedObjects,
        strips: StripBatch,
        strip: Int[Tensor, "b n"],
        half: Float[Tensor, "b n"],
        need: Float[Tensor, "b n"],
        street: Mapping[str, Tensor],
    ) -> Float[Tensor, "b s"]:
        """Compute how far from the middle a strip's near end must be visible for objects' centres to be in view."""
        # the near end of the first object is at the strip's near end; its middle is farther ahead
        beyond = half + BUILDING_SETBACK - self._view(_sides(strip.device), street).gather(1, strip) * need / 2
        beyond = beyond.clamp(min=0) * objects.is_object
        widest = torch.zeros_like(strips.inner).scatter_reduce_(1, strip, beyond, "amax")
        buildings = torch.tensor([name in BUILDING_STRIPS for name in STRIPS] * 2, device=strip.device)
        return torch.where(buildings, strips.inner, strips.outer) + widest

    def _half_width(self, objects: UnplacedObjects, street: Mapping[str, Tensor]) -> Float[Tensor, "b n"]:
        """Bound half of the objects' extents across the street: where it bends, they are oblique to x."""
        along, across = objects.half_extents()
        curve, slope = street["curve"].abs()[:, None], self._slope(street)
        slant = (1 + slope.square()).sqrt()  # 1 / cos
        return across * slant + curve * (along + across * slope / slant).square() / 2

    def _ahead(
        self,
        is_object: Bool[Tensor, "b n"],
        row: Int[Tensor, "b n"],
        need: Float[Tensor, "b n"],
        begin: Float[Tensor, "b n"],
        used: Float[Tensor, "b n"],
        generator: Generator,
    ) -> Float[Tensor, "b n"]:
        """Sample distances ahead: uniform draws from the free length of a `StripBatch` row, plus the objects before."""
        draw = torch.rand(row.shape, generator=generator, device=row.device)
        key = torch.where(is_object, row, -1)
        before = (key[:, :, None] == key[:, None]) & (draw[:, None] < draw[:, :, None])
        taken = (before * need[:, None]).sum(2)
        return begin + draw * (self.max_distance - begin - used).clamp(min=0) + taken + need / 2


def _narrowed(
    objects: UnplacedObjects, room: Float[Tensor, "b n"], where: Bool[Tensor, "b n"], half: Float[Tensor, "b n"]
) -> UnplacedObjects:
    """Narrow vehicles that are wider than their lane, to 60 % of their own width at most."""
    width, length = objects.size.unbind(-1)
    own = width / objects.scale[..., 0]
    narrow = (width - (2 * half - room).clamp(min=0)).maximum(0.6 * own)
    narrow = torch.where(where, narrow, width)
    size, scale = torch.stack([narrow, length], -1), objects.scale.clone()
    scale[..., 0] = narrow / own
    return objects._replace(size=size, scale=scale)


def _sides(device: torch.device) -> Float[Tensor, " s"]:
    """Return -1 for strips on the left, 1 for those on the right."""
    return torch.tensor([-1.0, 1.0], device=device).repeat_interleave(len(STRIPS))


def _weights(device: torch.device) -> Float[Tensor, "k s"]:
    """Return the weight of each strip for each class: equal on both sides, but for the camera's own lane."""
    rows = [[cls.strips.get(name, 0.0) for name in STRIPS] for cls in OBJECT_CLASSES.values()]
    weights = torch.tensor(rows, device=device).repeat(1, 2)
    weights[:, len(STRIPS) + STRIPS.index("lane")] *= EGO_LANE_WEIGHT
    return weights
