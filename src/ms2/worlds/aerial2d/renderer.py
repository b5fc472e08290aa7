"""Renderer of Aerial 2D: roads with cars, houses and trees, seen from above."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import Dimension, PositiveFloat
from ms2.core.errors import UserError, suggest
from ms2.core.paths import OptionalPath, expand_path
from ms2.render.base import Renderer, Rendering, asset_licence
from ms2.render.compositing.layers import (
    Fragments,
    blend,
    cos_sin,
    fragment_boxes,
    peel,
    rasterise,
    topmost,
)
from ms2.render.compositing.sprites import rectangle_corners
from ms2.scene.batch import SceneBatch
from ms2.worlds.aerial2d.assets import (
    SHADOW_BLUR,
    SHOULDER_WIDTH,
    Atlas,
    check_assets,
    make_atlas,
    make_grounds,
    road_lanes,
)
from ms2.worlds.aerial2d.declaration import (
    AERIAL_CLASSES,
    ENVIRONMENT_ATTRIBUTES,
    WORLD_CLASSES,
    object_attributes,
)

MASK_OPACITY = 0.5
"""Minimum opacity of an object's mask."""
SHADOW_OPACITY = 0.5
"""Fraction of light that a shadow's core absorbs."""
TEXELS_PER_PIXEL = 1.3
"""Texels of a sprite per pixel: fewer blur, more alias."""
SCENES_PER_PASS = 16
"""Scenes rendered at once on a CPU, so that they fit into its cache."""
CROWN_SHADING = 0.22
"""Relative brightness of a tree's sunny side above its middle."""
ROAD_LEVEL, HOUSE_LEVEL, TREE_LEVEL = (AERIAL_CLASSES[name].level for name in ("Road", "house", "tree"))
NUM_DRAW_LEVELS = 1 + max(cls.level for cls in AERIAL_CLASSES.values())


class Objects(NamedTuple):
    """s objects of all scenes in draw order, from low to high; positions and sizes in pixels.

    Attributes:
        scene: Index of the scene.
        object_index: Index of the object in its scene.
        object_class: Index of the class.
        level: Height level, as in `AerialClass`.
        sprite: Index of the sprite in the atlas.
        x: Column of the centre.
        y: Row of the centre.
        cos: Cosine of the angle.
        sin: Sine of the angle.
        length: Side along the heading.
        width: Side across.
        paint: Colour of the paint.
        sun: Direction x, y of the shadow on the image.
    """

    scene: Int[Tensor, " s"]
    object_index: Int[Tensor, " s"]
    object_class: Int[Tensor, " s"]
    level: Int[Tensor, " s"]
    sprite: Int[Tensor, " s"]
    x: Float[Tensor, " s"]
    y: Float[Tensor, " s"]
    cos: Float[Tensor, " s"]
    sin: Float[Tensor, " s"]
    length: Float[Tensor, " s"]
    width: Float[Tensor, " s"]
    paint: Float[Tensor, "s 3"]
    sun: Float[Tensor, "s 2"]

    def select(self, which: slice) -> "Objects":
        """Select objects."""
        return Objects(*(values[which] for values in self))


class Tables(NamedTuple):
    """What a renderer draws from, on one device.

    Attributes:
        atlas: Sprites.
        grounds: Textures of the ground, continued so that a crop may start anywhere.
        levels: Draw level of each class; the last is that of unused entries, whose class is -1.
        shadows: For each class, how far its shadow is moved in pixels, and how much longer and wider it is.
    """

    atlas: Atlas
    grounds: Float[Tensor, "g 3 t t"]
    levels: Int[Tensor, " l"]
    shadows: Float[Tensor, "c 3"]


class AerialView(Renderer):
    """Renders a square of land from above: roads, cars, houses and trees with their shadows.

    Trees occlude houses, these cars, and these roads; within a class, later objects occlude earlier ones. Positions and
    sizes are in metres from the upper left corner, with y pointing down; angles are counter-clockwise on the image, and
    0 where the length points to the right. Roads extend beyond the image, whatever their length. Differentiable in x,
    y, angle, length and width.

    Args:
        canvas_size: Side of the square image in pixels.
        extent: Side of the visible ground square in metres.
        classes: Class names of the world, in order of their index, out of Road, car, truck, house and tree.
        assets: Folder with user sprites: subfolders car, truck, house and tree with transparent PNGs seen from above
            and pointing right, and ground with tileable textures.
    """

    channels = 3
    differentiable = frozenset({"x", "y", "angle", "length", "width"})
    environment = tuple(one.attribute for one in ENVIRONMENT_ATTRIBUTES)

    def __init__(
        self,
        canvas_size: Dimension = 128,
        extent: PositiveFloat = 64.0,
        classes: Sequence[str] = WORLD_CLASSES,
        assets: OptionalPath = None,
    ) -> None:
        for name in classes:
            if name not in AERIAL_CLASSES:
                raise UserError(
                    f"AerialView cannot render a {name!r}. {suggest(name, AERIAL_CLASSES)} Set classes to the world's "
                    "class names, each of which is one of these."
                )
        own = None if assets is None else str(expand_path(assets))
        if own is not None:
            check_assets(own)
            self.licence = asset_licence(str(assets))
        self.canvas_size, self.extent, self.classes = canvas_size, extent, tuple(classes)
        self.size = (canvas_size, canvas_size)
        self.attributes = object_attributes(extent)
        self.atlas = make_atlas(self.classes, TEXELS_PER_PIXEL * canvas_size / extent, own)
        self.grounds = make_grounds(canvas_size, extent, own)
        self._copies: dict[torch.device, Tables] = {}

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 3 h w"]:
        """Render images."""
        return torch.cat([self._draw(part)[0] for part in _parts(scenes)])

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Render images with labels; masks are where opacity is at least 0.5, without shadows."""
        parts = [self._labelled(part) for part in _parts(scenes)]
        return Rendering(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Rendering)))

    def centres(self, scenes: SceneBatch) -> Float[Tensor, "b n 2"]:
        """Compute object centres as fractions of the image's width and height."""
        return torch.stack([scenes.attributes[name] / self.extent for name in ("x", "y")], 2)

    def _labelled(self, scenes: SceneBatch) -> Rendering:
        image, objects, fragments, opacity = self._draw(scenes)
        solid = opacity >= MASK_OPACITY
        top, seen = topmost(fragments.pixel, solid, len(scenes) * self.canvas_size**2)
        owner = torch.cat([top.new_full((1,), -1), fragments.expand_to_fragments(objects.object_index)])
        whole, area = fragment_boxes(fragments, solid, len(objects.object_index))
        visible, shown = fragment_boxes(fragments, seen, len(objects.object_index))

        def per_object(values: Tensor) -> Tensor:
            out = values.new_zeros(*scenes.classes.shape, *values.shape[1:])
            out[objects.scene, objects.object_index] = values
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
        corners = rectangle_corners(x * scale, y * scale, angle, length * scale, width * scale)
        return corners * scenes.mask[..., None, None]

    # --- drawing ---

    def _draw(self, scenes: SceneBatch) -> tuple[Tensor, Objects, Fragments, Tensor]:
        """Render images; also return objects, their fragments, and the opacity of each fragment."""
        tables = self._on(scenes.classes.device)
        atlas = tables.atlas
        objects, bounds, number = self._objects(scenes, tables)
        roads, raised = self._continued(objects.select(slice(number))), objects.select(slice(number, None))
        shadows = self._shadows(raised, tables)
        # all at once, as the device is waited for; pieces are the levels of objects, then those of shadows
        both = torch.cat([bounds, bounds[-1] + bounds[2:] - bounds[1]])
        every = self._rasterise((roads, raised, shadows), atlas, both)
        low, fragments = every.pieces(0, 1), every.pieces(1, NUM_DRAW_LEVELS)
        thrown = every.pieces(NUM_DRAW_LEVELS, 2 * NUM_DRAW_LEVELS - 1)
        # cloned, as views cannot be modified in place
        planes = [plane.clone() for plane in self._ground(scenes, tables.grounds).view(3, -1)]
        road_opacity = self._draw_roads(planes, roads, low, atlas)
        light = scenes.environment["light"]
        sample = self._sample_sprites(raised, fragments, atlas)
        dark, shaded = self._shade(fragments, shadows, thrown, atlas, len(scenes))
        bright = (1 - SHADOW_OPACITY * dark).view(-1, self.canvas_size**2) * light[:, None]
        planes = [plane * bright.view(-1) for plane in planes]
        lit = fragments.expand_to_fragments(light[raised.scene]) * (1 - SHADOW_OPACITY * shaded)
        own, painted = sample[:3], sample[4] * self._roundness(raised, fragments)
        paint = [fragments.expand_to_fragments(channel) for channel in raised.paint.unbind(1)]
        colour = [(o + painted * p) * lit for o, p in zip(own, paint, strict=True)]
        blend(planes, peel(fragments.pixel, sample[3], len(dark)), fragments.pixel, sample[3], colour)
        image = torch.stack([plane.view(len(scenes), *self.size) for plane in planes], 1).clamp_(0, 1)
        opacity = torch.cat([road_opacity, sample[3]]).detach()
        return image, objects, every.pieces(0, NUM_DRAW_LEVELS), opacity

    def _objects(self, scenes: SceneBatch, tables: Tables) -> tuple[Objects, Int[Tensor, " l"], int]:
        """Return the objects, the number of those below each level and of all, and the number of roads."""
        atlas = tables.atlas
        level, order = tables.levels[scenes.classes.flatten()].sort(stable=True)
        bounds = torch.searchsorted(level, torch.arange(NUM_DRAW_LEVELS + 1, device=level.device))
        _, roads, *_, number = bounds.tolist()
        level, order = level[:number], order[:number]
        scene = order.div(max(1, scenes.classes.shape[1]), rounding_mode="floor")
        kind = scenes.classes.flatten()[order]
        of = {a.name: scenes.attributes[a.name].flatten()[order] for a in self.attributes}
        number = atlas.number[kind]
        chosen = torch.where(
            level == ROAD_LEVEL, road_lanes(of["width"]), (of["model"] * number).long().minimum(number - 1)
        )
        scale, colours = self.canvas_size / self.extent, atlas.colours[kind]
        sun_x, sun_y = cos_sin(-scenes.environment["sun"])
        objects = Objects(
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
        return objects, bounds, roads

    def _continued(self, roads: Objects) -> Objects:
        """Return roads with the length of their sprite, which repeats, and with their shoulders."""
        sprite_length = AERIAL_CLASSES["Road"].sprite_size.length * self.canvas_size / self.extent
        period = torch.full_like(roads.length, sprite_length)
        return roads._replace(length=period, width=roads.width * (1 + 2 * SHOULDER_WIDTH))

    def _shadows(self, raised: Objects, tables: Tables) -> Objects:
        """Return the shadows of objects."""
        shift, longer, wider = tables.shadows[raised.object_class].unbind(1)
        shift = shift * (self.canvas_size / self.extent)
        return raised._replace(
            sprite=tables.atlas.shadow[raised.object_class],
            x=raised.x + shift * raised.sun[:, 0],
            y=raised.y + shift * raised.sun[:, 1],
            length=raised.length * longer,
            width=raised.width * wider,
        )

    def _ground(self, scenes: SceneBatch, grounds: Float[Tensor, "g 3 t t"]) -> Float[Tensor, "3 b h w"]:
        side = grounds.shape[-1] - self.canvas_size + 1
        windows = grounds.unfold(2, self.canvas_size, 1).unfold(3, self.canvas_size, 1)
        of = scenes.environment
        chosen = (of["ground"] * len(grounds)).long().clamp(max=len(grounds) - 1)
        x, y = ((of[name] * side).long() % side for name in ("ground_x", "ground_y"))
        channel = torch.arange(3, device=grounds.device)
        return windows[chosen, channel[:, None], y, x]

    def _draw_roads(
        self, planes: list[Tensor], roads: Objects, fragments: Fragments, atlas: Atlas
    ) -> Float[Tensor, " k"]:
        """Blend roads over the ground's colour channels, in place; return their fragments' opacities."""
        sample = self._sample_sprites(roads, fragments, atlas, repeated=True)
        # no lane markings at crossings
        with torch.no_grad():
            cover = torch.zeros_like(planes[0]).scatter_add_(0, fragments.pixel, sample[3])
            bare = (2 * (cover.index_select(0, fragments.pixel) - sample[3]) - 1).clamp_(0, 1)
        paint = [fragments.expand_to_fragments(channel) for channel in roads.paint.unbind(1)]
        colour = [
            torch.lerp(own, sample[0] * p, bare) + sample[4] * p for own, p in zip(sample[:3], paint, strict=True)
        ]
        layers = peel(fragments.pixel, sample[3], len(planes[0]))
        blend(planes, layers, fragments.pixel, sample[3], colour)
        return sample[3]

    def _shade(
        self, fragments: Fragments, shadows: Objects, thrown: Fragments, atlas: Atlas, batch: int
    ) -> tuple[Float[Tensor, " p"], Float[Tensor, " k"]]:
        """Compute the shadow on each pixel's ground and on each fragment; objects cast shadows on lower levels."""
        sample = self._sample_sprites(shadows, thrown, atlas, slice(3, 4))
        dark = sample.new_zeros(batch * self.canvas_size**2)
        shaded: list[Tensor] = []
        for piece in reversed(range(NUM_DRAW_LEVELS - 1)):
            on, by = fragments.span(piece), thrown.span(piece)
            shaded.insert(0, dark.index_select(0, fragments.pixel[on]))
            dark = dark.scatter_reduce(0, thrown.pixel[by], sample[0, by], "amax")
        return dark, torch.cat(shaded)

    def _roundness(self, raised: Objects, fragments: Fragments) -> Float[Tensor, " k"]:
        """Compute the brightness of painted fragments: trees are brighter on their sunny side."""
        slope = torch.where(raised.level == TREE_LEVEL, -2 * CROWN_SHADING, 0.0) / raised.length.detach()
        x, y = slope * raised.sun[:, 0], slope * raised.sun[:, 1]
        return 1 + fragments.affine_at_pixels(x, y, -x * raised.x - y * raised.y)

    @torch.no_grad()
    def _rasterise(self, parts: Sequence[Objects], atlas: Atlas, bounds: Int[Tensor, " p"]) -> Fragments:
        """Rasterise the objects of several lists, one after the other."""
        objects = Objects(*(torch.cat(values) for values in zip(*parts, strict=True)))
        bleed = 1 + atlas.bleed[objects.sprite]
        # three times the side extends beyond the image from any position in it
        ahead = torch.where(objects.level == ROAD_LEVEL, 3.0 * self.canvas_size, objects.length / 2 * bleed[:, 0])
        aside = objects.width / 2 * bleed[:, 1]
        place = objects.x, objects.y, objects.cos, objects.sin
        return rasterise(*place, ahead, aside, objects.scene, *self.size, bounds)

    def _sample_sprites(
        self,
        objects: Objects,
        fragments: Fragments,
        atlas: Atlas,
        planes: slice = slice(None),
        repeated: bool = False,
    ) -> Float[Tensor, "c k"]:
        """Sample the objects' sprites at their fragments, repeated along the heading if asked for."""
        length, width, cos, sin, sprite = objects.length, objects.width, objects.cos, objects.sin, objects.sprite
        (middle_x, middle_y), (half_x, half_y) = atlas.centre[sprite].unbind(1), atlas.half[sprite].unbind(1)
        # sprites of houses are lit from their left: mirrored where the sun is to their right
        left = (objects.level != HOUSE_LEVEL) | (sin * objects.sun[:, 0] + cos * objects.sun[:, 1] >= 0)
        along, across = 2 * half_x / length, torch.where(left, 2, -2) * half_y / width
        u = _coordinate(fragments, along * cos, -along * sin, middle_x, objects)
        v = _coordinate(fragments, across * sin, across * cos, middle_y, objects)
        if repeated:
            # sprites that repeat are one below the other on the sheet
            size = 2 * half_x[:1]
            u = u - ((u - (middle_x - half_x)[:1]) / size).floor() * size
        if not len(u):
            return atlas.sheet[0, planes, 0, :0]
        grid = torch.stack([u, v]).t()[None, None]
        return F.grid_sample(atlas.sheet[:, planes], grid, align_corners=False)[0, :, 0]

    def _on(self, device: torch.device) -> Tables:
        """Return what is drawn from on a device; copied there once, as copying waits for the device."""
        if device not in self._copies:
            more = (0, self.canvas_size - 1, 0, self.canvas_size - 1)
            classes = [AERIAL_CLASSES[name] for name in self.classes]
            shadows = [
                [c.shadow_offset, 1 + 2 * SHADOW_BLUR / c.sprite_size.length, 1 + 2 * SHADOW_BLUR / c.sprite_size.width]
                for c in classes
            ]
            self._copies[device] = Tables(
                Atlas(*(getattr(self.atlas, field.name).to(device) for field in fields(Atlas))),
                F.pad(self.grounds.to(device), more, mode="circular"),
                torch.tensor([c.level for c in classes] + [NUM_DRAW_LEVELS], device=device),
                torch.tensor(shadows, device=device).view(-1, 3),
            )
        return self._copies[device]


def _parts(scenes: SceneBatch) -> Iterator[SceneBatch]:
    """Split the scenes into passes: on a CPU, small enough for its cache."""
    size = max(1, len(scenes)) if scenes.classes.is_cuda else SCENES_PER_PASS
    for start in range(0, max(1, len(scenes)), size):
        yield scenes[start : start + size]


def _coordinate(fragments: Fragments, x: Tensor, y: Tensor, centre: Tensor, objects: Objects) -> Float[Tensor, " k"]:
    """Compute a coordinate that is ``centre`` at the objects' centres, with derivatives x per column and y per row."""
    return fragments.affine_at_pixels(x, y, centre - x * objects.x - y * objects.y)
