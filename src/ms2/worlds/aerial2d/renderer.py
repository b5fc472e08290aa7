"""The renderer of Aerial 2D: roads with cars, houses and trees, seen from above."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.render.base import Renderer, Rendering, asset_licence
from ms2.render.compositing.layers import (
    Fragments,
    blend,
    concatenate_fragments,
    cos_sin,
    fragment_boxes,
    peel,
    rasterise,
    topmost,
)
from ms2.render.compositing.sprites import rectangle_corners
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch
from ms2.worlds.aerial2d.assets import (
    KINDS,
    SHADOW_BLUR,
    SHOULDER,
    Atlas,
    check_assets,
    make_atlas,
    make_grounds,
    road_lanes,
)

SOLID = 0.5
"""Least opacity at which a pixel belongs to an object."""
DARKNESS = 0.5
"""Share of light that a shadow takes at its core."""
DETAIL = 1.3
"""Texels of a picture for each pixel: fewer blur, more alias."""
PART = 16
"""Scenes that are drawn at once on a CPU."""
ROUNDNESS = 0.22
"""By how much a tree's sunny side is lighter than its middle."""
ROAD, HOUSE, TREE = (KINDS[name].level for name in ("Road", "house", "tree"))
LEVELS = 1 + max(kind.level for kind in KINDS.values())


class Objects(NamedTuple):
    """s objects of all scenes, the lowest first; places and sizes in pixels.

    Attributes:
        scene: Scene of each.
        place: Its place in the scene.
        kind: Its class.
        level: Its height, as in `Kind`.
        picture: Its picture in the atlas.
        x: Column of its centre.
        y: Row of its centre.
        cos: Cosine of its angle.
        sin: Sine of its angle.
        length: Side along the heading.
        width: Side across.
        paint: Colour of its paint.
        sun: Direction x, y to which its shadow falls on the image.
    """

    scene: Int[Tensor, " s"]
    place: Int[Tensor, " s"]
    kind: Int[Tensor, " s"]
    level: Int[Tensor, " s"]
    picture: Int[Tensor, " s"]
    x: Float[Tensor, " s"]
    y: Float[Tensor, " s"]
    cos: Float[Tensor, " s"]
    sin: Float[Tensor, " s"]
    length: Float[Tensor, " s"]
    width: Float[Tensor, " s"]
    paint: Float[Tensor, "s 3"]
    sun: Float[Tensor, "s 2"]

    def part(self, which: slice) -> "Objects":
        """Some of them."""
        return Objects(*(values[which] for values in self))

    def count_up_to(self, level: int) -> int:
        """Number of objects up to this level."""
        return int((self.level <= level).sum())


class AerialView(Renderer):
    """Draws a square of land from above: roads, and on and beside them cars, houses and trees, with their shadows.

    What is higher hides what is lower: trees, houses, cars, roads; of one kind, later objects hide earlier ones.
    Places and sizes are in metres from the left upper corner, with y pointing down; angles turn counter-clockwise on
    the image and are 0 where the length points to the right. Roads run on beyond the image, however long they are said
    to be. Differentiable in x, y, angle, length and width.

    Args:
        canvas_size: Side of the square image in pixels.
        extent: Side in metres of the square that is seen.
        classes: What the world's classes are, in the order of their numbers: of Road, car, truck, house and tree.
        assets: Folder with pictures that replace the drawn ones: its subfolders car, truck, house and tree hold
            transparent PNGs seen from above and pointing right, ground any pictures that tile.
    """

    channels = 3
    differentiable = frozenset({"x", "y", "angle", "length", "width"})
    environment = (
        Attribute("ground", 0, 1),
        Attribute("ground_x", 0, 1),
        Attribute("ground_y", 0, 1),
        Attribute("sun", -math.pi, math.pi, periodic=True),
        Attribute("light", 0.7, 1.1),
    )

    def __init__(
        self,
        canvas_size: int = 128,
        extent: float = 64.0,
        classes: Sequence[str] = ("Road", "car", "house", "tree"),
        assets: str | None = None,
    ) -> None:
        if canvas_size < 1 or extent <= 0:
            raise UserError(
                f"an image of {canvas_size} pixels for {extent} metres shows nothing: both must be positive"
            )
        for name in classes:
            if name not in KINDS:
                raise UserError(
                    f"AerialView cannot draw a {name!r}. {suggest(name, KINDS)} Give classes the world's class names, "
                    "each of which is one of these."
                )
        if assets is not None:
            check_assets(assets)
            self.licence = asset_licence(assets)
        self.canvas_size, self.extent, self.classes = canvas_size, extent, tuple(classes)
        self.size = (canvas_size, canvas_size)
        self.attributes = (
            Attribute("x", 0, extent),
            Attribute("y", 0, extent),
            Attribute("angle", -math.pi, math.pi, periodic=True),
            Attribute("length", 0.5, 80),
            Attribute("width", 0.5, 20),
            Attribute("model", 0, 1),
            Attribute("colour", 0, 1),
        )
        self.atlas = make_atlas(self.classes, DETAIL * canvas_size / extent, assets)
        self.grounds = make_grounds(canvas_size, extent, assets)
        self._copies: dict[torch.device, tuple[Atlas, Tensor]] = {}

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 3 h w"]:
        """Images alone."""
        return torch.cat([self._draw(part)[0] for part in _parts(scenes)])

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Images with labels; an object's mask is where it is at least half opaque, without its shadow."""
        parts = [self._labelled(part) for part in _parts(scenes)]
        return Rendering(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Rendering)))

    def centres(self, scenes: SceneBatch) -> Float[Tensor, "b n 2"]:
        """Where things are on the image."""
        return torch.stack([scenes.attributes[name] / self.extent for name in ("x", "y")], 2)

    def _labelled(self, scenes: SceneBatch) -> Rendering:
        image, objects, fragments, opacity = self._draw(scenes)
        solid = opacity >= SOLID
        top, seen = topmost(fragments.pixel, solid, len(scenes) * self.canvas_size**2)
        owner = torch.cat([top.new_full((1,), -1), fragments.expand_to_fragments(objects.place)])
        whole, area = fragment_boxes(fragments, solid, len(objects.place))
        visible, shown = fragment_boxes(fragments, seen, len(objects.place))

        def per_object(values: Tensor) -> Tensor:
            out = values.new_zeros(*scenes.classes.shape, *values.shape[1:])
            out[objects.scene, objects.place] = values
            return out

        return Rendering(
            image=image,
            classes=scenes.classes,
            parents=scenes.parents,
            boxes=per_object(whole),
            corners=self._corners(scenes),
            visible_boxes=per_object(visible),
            instances=owner.index_select(0, top + 1).view(len(scenes), *self.size),
            visibility=per_object(shown / area.clamp(min=1)),
        )

    def _corners(self, scenes: SceneBatch) -> Float[Tensor, "b n 4 2"]:
        names = ("x", "y", "angle", "length", "width")
        x, y, angle, length, width = (torch.where(scenes.mask, scenes.attributes[name], 0) for name in names)
        scale = self.canvas_size / self.extent
        return (
            rectangle_corners(x * scale, y * scale, angle, length * scale, width * scale) * scenes.mask[..., None, None]
        )

    # --- drawing ---

    def _draw(self, scenes: SceneBatch) -> tuple[Tensor, Objects, Fragments, Tensor]:
        """Images, objects, their fragments, and how opaque each fragment is."""
        atlas, grounds = self._on(scenes.classes.device)
        objects = self._objects(scenes, atlas)
        number = objects.count_up_to(ROAD)
        roads, things = objects.part(slice(number)), objects.part(slice(number, None))
        planes = [plane.clone() for plane in self._ground(scenes, grounds).view(3, -1)]  # views can't be drawn on
        low = self._draw_roads(planes, roads, atlas)
        light = scenes.environment["light"]
        fragments, sample = self._looked_up(things, things.picture, atlas)
        dark, shaded = self._shadows(things, fragments, atlas, len(scenes))
        bright = (1 - DARKNESS * dark).view(-1, self.canvas_size**2) * light[:, None]
        planes = [plane * bright.view(-1) for plane in planes]
        lit = fragments.expand_to_fragments(light[things.scene]) * (1 - DARKNESS * shaded)
        own, painted = sample[:3], sample[4] * self._roundness(things, fragments)
        paint = [fragments.expand_to_fragments(channel) for channel in things.paint.unbind(1)]
        colour = [(o + painted * p) * lit for o, p in zip(own, paint, strict=True)]
        blend(planes, peel(fragments.pixel, sample[3], len(dark)), fragments.pixel, sample[3], colour)
        image = torch.stack([plane.view(len(scenes), *self.size) for plane in planes], 1).clamp_(0, 1)
        opacity = torch.cat([low[1], sample[3]]).detach()
        return image, objects, concatenate_fragments(low[0], fragments, number), opacity

    def _objects(self, scenes: SceneBatch, atlas: Atlas) -> Objects:
        # the number of a place that holds no object, -1, is the last of the table
        levels = torch.tensor([KINDS[name].level for name in self.classes] + [LEVELS], device=scenes.classes.device)
        level, order = levels[scenes.classes.flatten()].sort(stable=True)
        level, order = level[level < LEVELS], order[level < LEVELS]
        scene = order.div(max(1, scenes.classes.shape[1]), rounding_mode="floor")
        kind = scenes.classes.flatten()[order]
        of = {a.name: scenes.attributes[a.name].flatten()[order] for a in self.attributes}
        number = atlas.number[kind]
        chosen = torch.where(level == ROAD, road_lanes(of["width"]), (of["model"] * number).long().minimum(number - 1))
        scale, colours = self.canvas_size / self.extent, atlas.colours[kind]
        sun_x, sun_y = cos_sin(-scenes.environment["sun"])
        return Objects(
            scene,
            order - scene * scenes.classes.shape[1],
            kind,
            level,
            atlas.first[kind] + chosen,
            of["x"] * scale,
            of["y"] * scale,
            *cos_sin(of["angle"]),
            of["length"] * scale,
            of["width"] * scale,
            atlas.palette[kind, (of["colour"] * colours).long().minimum(colours - 1)],
            torch.stack([sun_x, sun_y], 1)[scene],
        )

    def _ground(self, scenes: SceneBatch, grounds: Float[Tensor, "g 3 t t"]) -> Float[Tensor, "3 b h w"]:
        side = grounds.shape[-1] - self.canvas_size + 1
        windows = grounds.unfold(2, self.canvas_size, 1).unfold(3, self.canvas_size, 1)
        of = scenes.environment
        chosen = (of["ground"] * len(grounds)).long().clamp(max=len(grounds) - 1)
        x, y = ((of[name] * side).long() % side for name in ("ground_x", "ground_y"))
        channel = torch.arange(3, device=grounds.device)
        return windows[chosen, channel[:, None], y, x]

    def _draw_roads(self, planes: list[Tensor], roads: Objects, atlas: Atlas) -> tuple[Fragments, Float[Tensor, " k"]]:
        """Lay roads over the ground, in place; their fragments and how opaque those are."""
        period = torch.full_like(roads.length, KINDS["Road"].length * self.canvas_size / self.extent)
        # three times the side reaches from any place of the image beyond any other
        whole = roads._replace(length=period, width=roads.width * (1 + 2 * SHOULDER))
        fragments, sample = self._looked_up(whole, roads.picture, atlas, reach=3.0 * self.canvas_size)
        # no lines where another road crosses
        with torch.no_grad():
            cover = torch.zeros_like(planes[0]).scatter_add_(0, fragments.pixel, sample[3])
            bare = (2 * (cover.index_select(0, fragments.pixel) - sample[3]) - 1).clamp_(0, 1)
        paint = [fragments.expand_to_fragments(channel) for channel in roads.paint.unbind(1)]
        colour = [
            torch.lerp(own, sample[0] * p, bare) + sample[4] * p for own, p in zip(sample[:3], paint, strict=True)
        ]
        layers = peel(fragments.pixel, sample[3], len(planes[0]))
        blend(planes, layers, fragments.pixel, sample[3], colour)
        return fragments, sample[3]

    def _shadows(
        self, things: Objects, fragments: Fragments, atlas: Atlas, batch: int
    ) -> tuple[Float[Tensor, " p"], Float[Tensor, " k"]]:
        """How dark the shadows make each pixel's ground and each fragment: the higher throw them on the lower."""
        kinds = [KINDS[name] for name in self.classes]
        table = [[k.shadow, 1 + 2 * SHADOW_BLUR / k.length, 1 + 2 * SHADOW_BLUR / k.width] for k in kinds]
        shift, longer, wider = torch.tensor(table, device=things.x.device).view(-1, 3)[things.kind].unbind(1)
        shift = shift * (self.canvas_size / self.extent)
        moved = things._replace(
            x=things.x + shift * things.sun[:, 0],
            y=things.y + shift * things.sun[:, 1],
            length=things.length * longer,
            width=things.width * wider,
        )
        thrown, sample = self._looked_up(moved, atlas.shadow[things.kind], atlas, slice(3, 4))
        dark = sample.new_zeros(batch * self.canvas_size**2)
        shaded: list[Tensor] = []
        for level in range(LEVELS - 1, ROAD, -1):
            first, last = things.count_up_to(level - 1), things.count_up_to(level)
            on, by = (slice(f.num_fragments_up_to(first), f.num_fragments_up_to(last)) for f in (fragments, thrown))
            shaded.insert(0, dark.index_select(0, fragments.pixel[on]))
            dark = dark.scatter_reduce(0, thrown.pixel[by], sample[0, by], "amax")
        return dark, torch.cat(shaded)

    def _roundness(self, things: Objects, fragments: Fragments) -> Float[Tensor, " k"]:
        """Light on the paint of fragments: trees are lighter where they face the sun."""
        slope = torch.where(things.level == TREE, -2 * ROUNDNESS, 0.0) / things.length.detach()
        x, y = slope * things.sun[:, 0], slope * things.sun[:, 1]
        return 1 + fragments.affine_at_pixels(x, y, -x * things.x - y * things.y)

    def _looked_up(
        self,
        objects: Objects,
        picture: Int[Tensor, " s"],
        atlas: Atlas,
        planes: slice = slice(None),
        reach: float | None = None,
    ) -> tuple[Fragments, Float[Tensor, "c k"]]:
        """Fragments of objects with what pictures show there; at a ``reach``, pictures repeat along the heading."""
        length, width, cos, sin = objects.length, objects.width, objects.cos, objects.sin
        bleed = 1 + atlas.bleed[picture]
        ahead = length / 2 * bleed[:, 0] if reach is None else torch.full_like(length, reach)
        aside = width / 2 * bleed[:, 1]
        fragments = rasterise(objects.x, objects.y, cos, sin, ahead, aside, objects.scene, *self.size)
        (middle_x, middle_y), (half_x, half_y) = atlas.centre[picture].unbind(1), atlas.half[picture].unbind(1)
        # houses' pictures are lit from their left: turned over where the sun stands to their right
        left = (objects.level != HOUSE) | (sin * objects.sun[:, 0] + cos * objects.sun[:, 1] >= 0)
        along, across = 2 * half_x / length, torch.where(left, 2, -2) * half_y / width
        u = _turned(fragments, along * cos, -along * sin, middle_x, objects)
        v = _turned(fragments, across * sin, across * cos, middle_y, objects)
        if reach is not None:
            # pictures that repeat are one below the other on the sheet
            size = 2 * half_x[:1]
            u = u - ((u - (middle_x - half_x)[:1]) / size).floor() * size
        if not len(u):
            return fragments, atlas.sheet[0, planes, 0, :0]
        grid = torch.stack([u, v]).t()[None, None]
        return fragments, F.grid_sample(atlas.sheet[:, planes], grid, align_corners=False)[0, :, 0]

    def _on(self, device: torch.device) -> tuple[Atlas, Float[Tensor, "g 3 t t"]]:
        """Pictures and grounds on a device, the grounds repeated so far that windows may start anywhere."""
        if device not in self._copies:
            atlas = Atlas(*(getattr(self.atlas, field.name).to(device) for field in fields(Atlas)))
            more = (0, self.canvas_size - 1, 0, self.canvas_size - 1)
            self._copies[device] = atlas, F.pad(self.grounds.to(device), more, mode="circular")
        return self._copies[device]


def _parts(scenes: SceneBatch) -> Iterator[SceneBatch]:
    """The scenes in parts: on a CPU so few that their pixels and fragments stay in its cache."""
    size = max(1, len(scenes)) if scenes.classes.is_cuda else PART
    for start in range(0, max(1, len(scenes)), size):
        yield scenes[start : start + size]


def _turned(fragments: Fragments, x: Tensor, y: Tensor, centre: Tensor, objects: Objects) -> Float[Tensor, " k"]:
    """A coordinate that is ``centre`` at objects' centres and grows by x and y with each column and row."""
    return fragments.affine_at_pixels(x, y, centre - x * objects.x - y * objects.y)
