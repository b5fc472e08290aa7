"""Lateral strips of a street, and the placement of objects on them without overlap. Metres and radians."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.worlds.driving3d.declaration import OBJECT_CLASSES
from ms2.worlds.driving3d.draws import Draws
from ms2.worlds.driving3d.places import Places
from ms2.worlds.driving3d.strip_tables import (
    BUILDING_SETBACK,
    NO_STRIP,
    ROADSIDE_STRIPS,
    STRIPS,
    class_flags,
    strip_tables,
)

MIN_DISTANCE = 6.0
"""Minimum distance ahead of the camera at which objects are placed, in metres."""
FIELD_OF_VIEW = 0.79
"""Lateral distance per distance ahead within the view of KITTI's camera at 416 x 128 pixels, for any sampled pose."""


MIN_STRIP_WIDTH = 0.1
"""Width in metres of strips that are not there."""
NO_ROOM = 1e15
"""Factor on the priority of strips that have no room left, less than `NO_STRIP`."""


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
    parking: Float[Tensor, "2 b"]
    walk: Float[Tensor, "2 b"]
    verge: Float[Tensor, "2 b"]


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
    scale: Float[Tensor, "3 b n"]
    size: Float[Tensor, "2 b n"]
    turn: Float[Tensor, "b n"]
    off_street: Bool[Tensor, "b n"]

    def having(self, flag: str) -> Bool[Tensor, "b n"]:
        """Return which objects are of a class with this boolean property of `ObjectClass`."""
        return class_flags(flag, self.object_class.device)[self.object_class]

    def half_extents(self) -> "HalfExtents":
        """Compute half extents of the objects' rotated rectangles."""
        sideways = self.having("faces_street")
        cos, sin = self.turn.cos().abs(), self.turn.sin().abs()
        width, length = (self.size / 2).unbind()
        long, wide = torch.where(sideways, width, length), torch.where(sideways, length, width)
        round_ = self.having("post_mounted")
        return HalfExtents(
            torch.where(round_, long, long * cos + wide * sin), torch.where(round_, wide, wide * cos + long * sin)
        )


class HalfExtents(NamedTuple):
    """Half of the space that objects take up along the street and across it, in metres."""

    along: Float[Tensor, "b n"]
    across: Float[Tensor, "b n"]


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
        half = (section.width / 2).expand(2, -1)
        lane = (section.width / section.lanes).expand(2, -1)
        four = section.lanes == 4
        beside = lane * four
        kerb = half + section.parking
        # without a pavement, people walk on the verge
        walk = torch.where(section.walk > 0, section.walk, section.verge.clamp(max=1.5))
        line = kerb + section.walk + section.verge
        green = kerb + walk + 0.8
        end = (line - 0.4).maximum(green + 0.8)
        front = line.maximum(end) + 0.5
        edges = {
            "lane": (torch.zeros_like(half), lane),
            "outer": (beside, 2 * beside),
            "edge": (half - 0.5, half),
            "parking": (half, kerb),
            "kerb": (kerb + 0.1, kerb + 0.5),
            "walk": (kerb + 0.6, kerb + 0.6 + (walk - 0.8).clamp(min=0.4)),
            "green": (green, end),
            "front": (front, front + 3.0),
            "back": (front + 10.5, front + 25.5),
        }
        inner, outer = (torch.stack([edges[name][i] for name in STRIPS]).permute(2, 1, 0).flatten(1) for i in (0, 1))
        return cls(inner, outer, strip_tables(inner.device).row[four.long()])

    def widened(self, strip: Int[Tensor, "b n"], width: Float[Tensor, "b n"]) -> "StripBatch":
        """Move roadside strips outwards where objects of this ``width`` on ``strip`` are wider than the strip."""
        widest = torch.zeros_like(self.inner).scatter_reduce_(1, strip, width, "amax")
        reach = widest + (widest > 0) * strip_tables(strip.device).gap
        # of both sides at once
        inner, outer, reaches = (list(edge.unflatten(1, (2, -1)).unbind(2)) for edge in (self.inner, self.outer, reach))
        for name in ROADSIDE_STRIPS[1:]:
            j = STRIPS.index(name)
            before, inner[j] = inner[j], inner[j].maximum(inner[j - 1] + reaches[j - 1])
            if name == ROADSIDE_STRIPS[-1]:
                outer[j] = outer[j] + (inner[j] - before)
            else:
                # a strip keeps its outer edge if possible, so that those after it keep their position
                outer[j] = outer[j].maximum(inner[j] + 0.4)
                inner[j + 1] = inner[j + 1].maximum(outer[j] + 0.1)
        return self._replace(inner=torch.stack(inner, 2).flatten(1), outer=torch.stack(outer, 2).flatten(1))


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
        places: Attributes by which objects are placed, if streets have them.
    """

    def __init__(self, max_distance: float, places: Places | None = None) -> None:
        self.max_distance, self.places = max_distance, places

    def choose(
        self,
        objects: UnplacedObjects,
        extents: HalfExtents,
        strips: StripBatch,
        street: Mapping[str, Tensor],
        draws: Draws,
    ) -> Int[Tensor, "b n"]:
        """Sample the strip of each object by its class's weights; strips with room take precedence."""
        tables = strip_tables(strips.inner.device)
        visible_to = torch.where(tables.building, strips.inner + 3, strips.outer)
        room = self.max_distance - self._begin(strips, visible_to, self._view(street), street)
        need = self._need(objects, extents, street).T.contiguous()[..., None]
        # from here on, scenes are the second dimension, so that what an object needs lies together
        kind = torch.where(objects.off_street, len(OBJECT_CLASSES), objects.object_class).T
        candidate = tables.candidate[kind]  # n b c
        row, slack, width = (
            values.expand(len(kind), -1, -1).gather(2, candidate)
            for values in (strips.row, room, strips.outer - strips.inner)
        )
        slack = slack - need
        # The least of exponential variables, each divided by its weight, is a sample: among those that have room too.
        priority = draws.exponential(slack.shape, 1)
        inverse_weight = self._inverse_weight(kind, strips, street)
        priority = priority * torch.where(width > MIN_STRIP_WIDTH, inverse_weight, NO_STRIP)
        used, chosen = torch.zeros_like(room), []
        for first, last, rows, most, length in zip(priority, priority * NO_ROOM, row, slack, need, strict=True):
            choice = torch.where(used.gather(1, rows) <= most, first, last).argmin(1, keepdim=True)
            used.scatter_add_(1, rows.gather(1, choice), length)
            chosen.append(choice)
        if not chosen:
            return objects.object_class
        return candidate.gather(2, torch.stack(chosen))[..., 0].T.contiguous()

    def place(
        self,
        objects: UnplacedObjects,
        extents: HalfExtents,
        strips: StripBatch,
        strip: Int[Tensor, "b n"],
        street: dict[str, Tensor],
        draws: Draws,
    ) -> Placement:
        """Sample the objects' positions on their strips, with vehicles inside their lane.

        Limit the curvature such that the street stays in view up to its farthest object.
        """
        tables = strip_tables(strip.device)
        fitted, side = tables.fitted[strip], tables.side[strip]
        room = (strips.outer - strips.inner).gather(1, strip)
        objects = _narrowed(objects, room, fitted, self._half_width(extents, street))
        extents = objects.half_extents()
        half, need = self._half_width(extents, street), self._need(objects, extents, street)
        strips = strips.widened(strip, 2 * half * objects.is_object)
        view = self._view(street)
        # the near end of the first object is at the strip's near end; its middle is farther ahead
        beyond = (half + BUILDING_SETBACK - view.gather(1, strip) * need / 2).clamp(min=0) * objects.is_object
        widest = torch.zeros_like(strips.inner).scatter_reduce_(1, strip, beyond, "amax")
        begin = self._begin(strips, torch.where(tables.building, strips.inner, strips.outer) + widest, view, street)
        row = strips.row.gather(1, strip)
        used = torch.zeros_like(begin).scatter_add_(1, row, need)
        along, draw = draws.uniform((2, *strip.shape), 1).unbind()
        own_begin = begin.gather(1, strip)
        free = (self.max_distance - own_begin - used.gather(1, row)).clamp(min=0)
        if self.places is not None:
            number = torch.zeros_like(begin).scatter_add_(1, row, objects.is_object.float()).gather(1, row)
            start = draws.uniform(begin.shape, 0)
            along = self.places.along(along, start, strip, objects.object_class, own_begin, free, number)
        ahead = self._ahead(objects.is_object, row, need, own_begin + along * free, used, along)
        far = torch.where(used > 0, begin.gather(1, strips.row) + used, 0).amax(1)
        street = street | {"curve": street["curve"] * (self.max_distance / far).clamp(max=1)}

        inner, outer = strips.inner.gather(1, strip), strips.outer.gather(1, strip)
        low, high = inner + half, outer - half
        visible = self._view(street).gather(1, strip) * ahead + side * street["offset"][:, None]
        anywhere = low + (high.minimum(visible).maximum(low) - low) * draw
        # vehicles keep a little more distance from the roadside than from the middle of the road
        middle = (inner + outer) / 2 - 0.15 * tables.lane[strip] + 0.5 * (draw - 0.5)
        middle = torch.where(high > low, middle.maximum(low).minimum(high), torch.where(fitted, (low + high) / 2, low))
        aside = torch.where(objects.having("random_lateral") | objects.off_street, anywhere, middle)
        aside = torch.where(objects.having("faces_street"), low + BUILDING_SETBACK * draw, aside)
        aside = torch.where(tables.edge[strip], high - 0.3 * draw, aside)
        return Placement(ahead, aside, street, objects)

    def _need(
        self, objects: UnplacedObjects, extents: HalfExtents, street: Mapping[str, Tensor]
    ) -> Float[Tensor, "b n"]:
        """Compute the length along the street that each object takes up, with a gap to the next."""
        slope = self._slope(street)
        sine = slope / (1 + slope.square()).sqrt()
        # positions are along y, to which a bent street is oblique
        needed = 2.04 * extents.along + 2 * extents.across * sine + 0.2
        if self.places is not None:
            return needed.maximum(self.places.spacing(objects.object_class)) * objects.is_object
        return needed.maximum(strip_tables(slope.device).spacing[objects.object_class]) * objects.is_object

    def _inverse_weight(
        self, kind: Int[Tensor, "n b"], strips: StripBatch, street: Mapping[str, Tensor]
    ) -> Float[Tensor, "n b c"]:
        """Return the inverse weights of each object's candidate strips; `Places` has those of each street."""
        if self.places is None:
            return strip_tables(kind.device).inverse_weight[kind]
        exists = strips.outer - strips.inner > MIN_STRIP_WIDTH
        inverse = self.places.inverse_weights(exists, street["lanes"] == 4)
        return inverse[torch.arange(len(inverse), device=kind.device), kind]

    def _slope(self, street: Mapping[str, Tensor]) -> Float[Tensor, "b 1"]:
        """Compute the slope dx/dy of the street at its far end."""
        return street["curve"].abs()[:, None] * self.max_distance

    def _begin(
        self,
        strips: StripBatch,
        visible_to: Float[Tensor, "b s"],
        view: Float[Tensor, "b s"],
        street: Mapping[str, Tensor],
    ) -> Float[Tensor, "b s"]:
        """Compute the distance ahead from which strips are visible up to ``visible_to`` metres from the middle."""
        edges = torch.stack([strips.inner, visible_to]) * strip_tables(view.device).side - street["offset"][:, None]
        begin = (edges.abs().amax(0) / view).clamp(min=MIN_DISTANCE)
        # strips that share a row begin together
        return torch.zeros_like(begin).scatter_reduce_(1, strips.row, begin, "amax").gather(1, strips.row)

    def _view(self, street: Mapping[str, Tensor]) -> Float[Tensor, "b s"]:
        """Compute the lateral distance per distance ahead that is visible of each strip, given its curvature."""
        side = strip_tables(street["curve"].device).side
        return FIELD_OF_VIEW - (side * street["curve"][:, None]).clamp(min=0) * (self.max_distance / 2)

    def _half_width(self, extents: HalfExtents, street: Mapping[str, Tensor]) -> Float[Tensor, "b n"]:
        """Bound half of the objects' extents across the street: where it bends, they are oblique to x."""
        along, across = extents
        curve, slope = street["curve"].abs()[:, None], self._slope(street)
        slant = (1 + slope.square()).sqrt()  # 1 / cos
        return across * slant + curve * (along + across * (slope / slant)).square() / 2

    def _ahead(
        self,
        is_object: Bool[Tensor, "b n"],
        row: Int[Tensor, "b n"],
        need: Float[Tensor, "b n"],
        free_before: Float[Tensor, "b n"],
        used: Float[Tensor, "b s"],
        draw: Float[Tensor, "b n"],
    ) -> Float[Tensor, "b n"]:
        """Compute distances ahead: draws from the free length of a `StripBatch` row, plus the objects before.

        Args:
            is_object: Which entries are objects.
            row: Row of each.
            need: Length that each takes up, 0 for what is no object.
            free_before: Where its row begins, plus the free length before it.
            used: Length that is taken up of each row.
            draw: Fraction in [0, 1) of its row's free length before each, by which they are sorted on their row.
        """
        order = (row + draw).argsort(1)  # by rows, and by draws on each
        sorted_need = need.gather(1, order)
        before = torch.empty_like(need).scatter_(1, order, sorted_need.cumsum(1) - sorted_need)
        taken = before - (used.cumsum(1) - used).gather(1, row)
        return free_before + taken * is_object + need / 2


def _narrowed(
    objects: UnplacedObjects, room: Float[Tensor, "b n"], where: Bool[Tensor, "b n"], half: Float[Tensor, "b n"]
) -> UnplacedObjects:
    """Narrow vehicles that are wider than their lane, to 60 % of their own width at most."""
    (width, length), (scale, *others) = objects.size.unbind(), objects.scale.unbind()
    own = width / scale
    narrow = torch.where(where, (width - (2 * half - room).clamp(min=0)).maximum(0.6 * own), width)
    return objects._replace(size=torch.stack([narrow, length]), scale=torch.stack([narrow / own, *others]))
