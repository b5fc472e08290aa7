"""Draws driving scenes with the rasteriser, as KITTI's camera would see them, with all their labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.core.files import expand_path
from ms2.render.base import Renderer, Rendering, asset_licence
from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.calibration import read_projection
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.engine import Engine, RasterOutput
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.meshes import MeshLibrary
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.assets.ground import CURVES, FIELDS, KERB, RIBBONS, grounds
from ms2.worlds.driving3d.assets.kinds import kinds
from ms2.worlds.driving3d.grammar import OBJECTS, SCENARIOS

KITTI_SIZE = (375, 1242)
"""Height and width of KITTI's images."""
KITTI_P2 = ((721.5377, 0.0, 609.5593, 44.85728), (0.0, 721.5377, 172.854, 0.2163791), (0.0, 0.0, 1.0, 0.002745884))
"""Projection of most of KITTI's frames."""
FAR = 32.0
"""Metres ahead from which on coarser meshes do."""
STRAIGHT = 1e-4
"""Curvature per metre below which a street is drawn straight: its bend is 18 cm after 60 m."""


@dataclass(frozen=True)
class Rendering3D(Rendering):
    """Images of 3D scenes, with labels in KITTI's terms.

    Attributes:
        depth: Metres along the camera's axis; infinite for the sky.
        truncation: Share of each object's amodal box outside of the image.
        boxes3d: Height, width, length; x to the right, y down, z ahead of the middle of the foot, in the axes of
            KITTI's reference camera; and the turn about its y axis, 0 where the object heads to the right. Metres and
            radians.
        projection: From those axes to pixels, KITTI's P2 for images of this size.
    """

    depth: Float[Tensor, "b h w"]
    truncation: Float[Tensor, "b n"]
    boxes3d: Float[Tensor, "b n 7"]
    projection: Float[Tensor, "b 3 4"]


class Assets(NamedTuple):
    """What can be drawn, on one device; k classes.

    Attributes:
        meshes: All meshes.
        first: Number of each class's first mesh.
        number: Number of its meshes.
        far: Number of the mesh that stands for each of them far away.
        size: Width, length and height of each mesh in metres.
        middle: Where the middle of its box is from its origin: a crown or a lamp's arm may reach out to one side.
        palette: Colours of each class's paint, padded.
        colours: How many there are.
        ribbon: Number of the mesh of each ground: straight, then bent more and more.
        curves: Bends of those per metre.
        field: Number of each field's mesh.
    """

    meshes: MeshLibrary
    first: Int[Tensor, " k"]
    number: Int[Tensor, " k"]
    far: Int[Tensor, " m"]
    size: Float[Tensor, "m 3"]
    middle: Float[Tensor, "m 2"]
    palette: Float[Tensor, "k p 3"]
    colours: Int[Tensor, " k"]
    ribbon: dict[str, Int[Tensor, " c"]]
    curves: Float[Tensor, " c"]
    field: Int[Tensor, " f"]


ROADS, FOUR_LANES = ("road_plain", "road_two"), "road_four"
VERGES = ("grass", "grass", "gravel")
ENVIRONMENT = (
    Attribute("curve", -1 / 80, 1 / 80),
    Attribute("road_width", 3, 18),
    Attribute("lanes", 2, 4),
    *(Attribute(f"{what}_{side}", 0, most) for what, most in (("parking", 3), ("walk", 6), ("verge", 15))
      for side in ("left", "right")),
    *(Attribute(f"{what}_look", 0, 1) for what in ("road", "walk", "verge", "field")),
    Attribute("offset", -8, 8),
    Attribute("camera_height", 1, 3),
    Attribute("pitch", -0.2, 0.2),
    Attribute("camera_yaw", -0.5, 0.5),
    Attribute("sun_azimuth", -math.pi, math.pi, periodic=True),
    Attribute("sun_height", 0.1, math.pi / 2),
    Attribute("clouds", 0, 1),
    Attribute("haze", 0, 1),
    Attribute("exposure", 0.3, 2),
    Attribute("contrast", 0.5, 4),
    Attribute("saturation", 0, 2),
    Attribute("blur", 0, 1),
)  # fmt: skip


class StreetView(Renderer):
    """Street scenes as a camera on a car sees them.

    The world's axes are x to the right, y ahead and z up, in metres, with the camera over the origin; yaw turns
    counter-clockwise as seen from above, and is 0 for what faces away from the camera. ``width``, ``length`` and
    ``height`` scale the model's own size. Objects of the classes Rural, Suburban and Urban stand for the scene as a
    whole, and are not drawn.

    Args:
        size: Height and width of the images in pixels.
        calibration: File of KITTI's ``calib`` folder whose camera to use; that of most frames by default. Images of
            another shape than KITTI's are cut as the target Kitti cuts them.
        classes: What the world's classes are, in the order of their numbers.
        assets: Folder with models that replace those made by code: its subfolders, named as the classes, hold GLB or
            OBJ files.
        on_error: What to do with models in it that can't be read.
        engine: Engine that renders the 3D scenes; `WarpEngine` with its default settings if not given.
    """

    channels = 3
    attributes = (
        Attribute("x", -1000, 1000),
        Attribute("y", 0, 2000),
        Attribute("yaw", -math.pi, math.pi, periodic=True),
        Attribute("width", 0.5, 2),
        Attribute("length", 0.5, 2),
        Attribute("height", 0.5, 2),
        Attribute("model", 0, 1),
        Attribute("colour", 0, 1),
    )
    environment = ENVIRONMENT

    def __init__(
        self,
        size: tuple[int, int] = (128, 416),
        calibration: str | None = None,
        classes: Sequence[str] = (*SCENARIOS, *OBJECTS),
        assets: str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        engine: Engine | None = None,
    ) -> None:
        for name in classes:
            if name not in (*SCENARIOS, *OBJECTS):
                raise UserError(
                    f"StreetView cannot draw a {name!r}. {suggest(name, OBJECTS)} Give classes the world's class "
                    "names, each of which is one of these or a scenario."
                )
        self.size, self.classes, self.on_error = (size[0], size[1]), tuple(classes), on_error
        self.assets = None if assets is None else str(expand_path(assets))
        if assets is not None:
            self.licence = asset_licence(assets)
        self.engine = WarpEngine() if engine is None else engine
        p2 = torch.tensor(KITTI_P2) if calibration is None else read_projection(expand_path(calibration))
        self.projection = _resized(p2, self.size)
        self._copies: dict[torch.device, Assets] = {}
        self._on(torch.device("cpu"))  # bad assets are named now

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 3 h w"]:
        """Images alone."""
        return self._graded(self._draw(scenes, labels=False)[0].image, scenes)

    def render_labelled(self, scenes: SceneBatch) -> Rendering3D:
        """Images with labels."""
        raster, boxes3d = self._draw(scenes, labels=True)
        assert raster.labels is not None
        n = scenes.classes.shape[1]
        labels = raster.labels
        boxes = labels.boxes(self.size)[:, :n]
        visible = labels.visible_boxes[:, :n]
        x0, y0, x1, y1 = boxes.unbind(-1)
        return Rendering3D(
            image=self._graded(raster.image, scenes),
            classes=scenes.classes,
            parents=scenes.parents,
            boxes=boxes,
            corners=torch.stack([torch.stack(c, -1) for c in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], -2),
            visible_boxes=visible,
            instances=torch.where(raster.instances < n, raster.instances, -1).long(),
            visibility=labels.visibility[:, :n],
            depth=raster.depth,
            truncation=labels.truncation(self.size)[:, :n],
            boxes3d=boxes3d,
            projection=self.projection.to(x0.device).expand(len(scenes), -1, -1),
        )

    # -- drawing ---------------------------------------------------------------------------------------

    def _draw(self, scenes: SceneBatch, labels: bool) -> tuple[RasterOutput, Float[Tensor, "b n 7"]]:
        """Pictures, and the 3D boxes of the objects."""
        assets = self._on(scenes.classes.device)
        objects, boxes = self._objects(scenes, assets)
        ground = self._ground(scenes, assets)
        both = InstanceBatch(
            torch.cat([objects.mesh, ground.mesh], 1),
            torch.cat([objects.transform, ground.transform], 1),
            torch.cat([objects.colour, ground.colour], 1),
            torch.cat([objects.mesh >= 0, torch.zeros_like(ground.mesh, dtype=torch.bool)], 1),
        )
        camera, lighting = self._camera(scenes), self._light(scenes)
        return self.engine.render(assets.meshes, both, camera, lighting, self.size, labels), boxes

    def _objects(self, scenes: SceneBatch, assets: Assets) -> tuple[InstanceBatch, Float[Tensor, "b n 7"]]:
        """Instances of the objects, and their 3D boxes."""
        kind = self._kind(scenes)
        used = kind >= 0
        of = {a.name: torch.where(used, scenes.attributes[a.name], 0) for a in self.attributes}
        number, colours = assets.number[kind], assets.colours[kind]
        model = assets.first[kind] + (of["model"] * number).long().minimum(number - 1)
        colour = assets.palette[kind, (of["colour"] * colours).long().minimum(colours - 1)]
        scale = torch.stack([of["width"], of["length"], of["height"]], -1)
        place = torch.stack([of["x"], of["y"], self._height(of["x"], of["y"], scenes)], -1)
        drawn = torch.where(of["y"] > FAR, assets.far[model], model)
        instances = InstanceBatch.place_upright(torch.where(used, drawn, -1), place, of["yaw"], scale, colour)
        middle = torch.einsum("bnij,bnj->bni", instances.transform[:, :, :3, :2], assets.middle[model]) + place
        return instances, self._boxes3d(middle, of["yaw"], assets.size[model] * scale, scenes) * used[..., None]

    def _height(self, x: Float[Tensor, "b n"], y: Float[Tensor, "b n"], scenes: SceneBatch) -> Float[Tensor, "b n"]:
        """Height of the ground at a place: pavements and verges beside them are raised."""
        of = {name: values[:, None] for name, values in scenes.environment.items()}
        aside = x + of["offset"] - of["curve"] * y.square() / 2

        def chosen(what: str) -> Float[Tensor, "b n"]:
            return torch.where(aside < 0, of[f"{what}_left"], of[f"{what}_right"])

        walk, kerb = chosen("walk"), of["road_width"] / 2 + chosen("parking")
        raised = (walk > 0) & (aside.abs() > kerb) & (aside.abs() < kerb + 0.2 + walk + chosen("verge"))
        return torch.where(raised, KERB, 0.0)

    def _kind(self, scenes: SceneBatch) -> Int[Tensor, "b n"]:
        """Index of each object among ``OBJECTS``; -1 for what is not drawn."""
        table = [OBJECTS.index(name) if name in OBJECTS else -1 for name in self.classes]
        return scenes.classes.new_tensor([*table, -1])[scenes.classes]

    def _ground(self, scenes: SceneBatch, assets: Assets) -> InstanceBatch:
        """Road, parking strips, kerbs, pavements, verges and the field around them."""
        of = scenes.environment
        four, half = of["lanes"] >= 3, of["road_width"] / 2
        road = _chosen(of["road_look"], [assets.ribbon[name] for name in ROADS])
        road = torch.where(four[:, None], assets.ribbon[FOUR_LANES], road)
        verge = _chosen(of["verge_look"], [assets.ribbon[name] for name in VERGES])
        level = torch.zeros_like(half)
        strips = [(road, level, of["road_width"], level)]
        for side, sign in (("left", -1), ("right", 1)):
            parking, walk, green = (of[f"{what}_{side}"] for what in ("parking", "walk", "verge"))
            raised = torch.where(walk > 0, KERB, 0.0)
            kerb = half + parking
            strips += [
                (assets.ribbon["parking"], sign * (half + parking / 2), parking, level),
                (assets.ribbon["kerb"], sign * (kerb + 0.1), torch.where(walk > 0, 0.2, 0.0), level),
                (assets.ribbon["walk"], sign * (kerb + 0.2 + walk / 2), walk, level + KERB),
                (verge, sign * (kerb + walk + 0.2 + green / 2), green, raised - 0.02),
            ]
        parts = [self._ribbon(scenes, assets, *strip) for strip in strips]
        field = assets.field[(of["field_look"] * len(assets.field)).long().clamp(max=len(assets.field) - 1)]
        flat = torch.eye(4, device=half.device).expand(len(scenes), 4, 4)
        mesh = torch.stack([field, *(mesh for mesh, _ in parts)], 1)
        transform = torch.stack([flat, *(matrix for _, matrix in parts)], 1)
        return InstanceBatch(mesh, transform, torch.ones(*mesh.shape, 3, device=half.device))

    def _ribbon(
        self,
        scenes: SceneBatch,
        assets: Assets,
        meshes: Int[Tensor, "*b c"],
        middle: Float[Tensor, " b"],
        width: Float[Tensor, " b"],
        height: Float[Tensor, " b"],
    ) -> tuple[Int[Tensor, " b"], Float[Tensor, "b 4 4"]]:
        """A strip of ground along the street: mesh, or -1 where it has no width, and transform.

        The meshes are a metre wide and bend by x = c y^2 / 2. One that is stretched to a width w and a length a bends
        by w c / a^2, so the mesh with c nearest the bend divided by w is taken, and stretched a little to fit.
        """
        curve = scenes.environment["curve"]
        safe = width.clamp(min=0.05)
        wanted = (curve.abs() / safe).clamp(min=1e-9)
        nearest = (assets.curves[1:].log() - wanted.log()[:, None]).abs().argmin(1) + 1
        bent = curve.abs() > STRAIGHT
        level = torch.where(bent, nearest, 0)
        along = torch.where(bent, (assets.curves[level] / wanted).sqrt(), 1.0)
        across = torch.where(bent & (curve < 0), -safe, safe)
        table = meshes.expand(len(scenes), -1)
        mesh = torch.where(width > 0, table.gather(1, level[:, None])[:, 0], -1)
        matrix = torch.zeros(len(scenes), 4, 4, device=curve.device)
        matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2], matrix[:, 3, 3] = across, along, 1.0, 1.0
        matrix[:, 0, 3], matrix[:, 2, 3] = middle - scenes.environment["offset"], height
        return mesh, matrix

    def _camera(self, scenes: SceneBatch) -> Camera:
        of = scenes.environment
        p2 = self.projection.to(of["pitch"].device).expand(len(scenes), -1, -1)
        return Camera.from_kitti(p2, self.size, self.size, of["camera_height"], of["pitch"], of["camera_yaw"])

    def _light(self, scenes: SceneBatch) -> Lighting:
        """Between a clear day and a grey one."""
        of, device = scenes.environment, scenes.classes.device
        clear, grey = Lighting.daylight(len(scenes), device), Lighting.overcast(len(scenes), device)
        clouds, haze = of["clouds"].float(), of["haze"].float()

        def between(name: str) -> Tensor:
            a, b = getattr(clear, name), getattr(grey, name)
            return torch.lerp(a, b, clouds[:, None] if a.ndim > 1 else clouds)

        high, round_ = of["sun_height"], of["sun_azimuth"]
        sun = torch.stack([high.cos() * round_.sin(), high.cos() * round_.cos(), high.sin()], 1)
        names = ("sun_colour", "ambient", "bounce", "fog", "fog_colour", "horizon", "zenith", "softness")
        light = {name: between(name) for name in names}
        light["fog"] = light["fog"] * (0.1 + 0.6 * haze)
        return Lighting(sun=sun.float(), **light)

    def _graded(self, image: Float[Tensor, "b 3 h w"], scenes: SceneBatch) -> Float[Tensor, "b 3 h w"]:
        """As the camera has it: its exposure, contrast, colours and lens."""
        of = {name: values[:, None, None, None] for name, values in scenes.environment.items()}
        grey = image.mean(1, keepdim=True)
        graded = torch.lerp(grey, image, of["saturation"]).mul(of["exposure"]).clamp(0, 1).pow(of["contrast"])
        return torch.lerp(graded, _softened(graded), 0.5 * of["blur"])

    def _boxes3d(
        self, foot: Float[Tensor, "b n 3"], yaw: Float[Tensor, "b n"], size: Float[Tensor, "b n 3"], scenes: SceneBatch
    ) -> Float[Tensor, "b n 7"]:
        """Boxes around models, given the middles of their lower faces in the world's axes."""
        of = scenes.environment
        # in the axes of KITTI's reference camera, beside which the coloured one is a few centimetres off
        level = Camera.from_pinhole(
            torch.ones(len(scenes), 2, device=size.device), torch.zeros(len(scenes), 2, device=size.device),
            of["camera_height"], of["pitch"], of["camera_yaw"],
        )  # fmt: skip
        seen = torch.einsum("bij,bnj->bni", level.pose[:, :, :3], foot) + level.pose[:, None, :, 3]
        turn = -(yaw - of["camera_yaw"][:, None]) - math.pi / 2
        turn = (turn + math.pi) % (2 * math.pi) - math.pi
        width, length, height = size.unbind(-1)
        return torch.cat([torch.stack([height, width, length], -1), seen, turn[..., None]], -1)

    def __getstate__(self) -> dict[str, Any]:
        """Copies make what they draw with anew: it is large, and code makes it."""
        return vars(self) | {"_copies": {}}

    def _on(self, device: torch.device) -> Assets:
        """What can be drawn, on a device; made once for each."""
        if device not in self._copies:
            self._copies[device] = self._made(device)
        return self._copies[device]

    def _made(self, device: torch.device) -> Assets:
        found = kinds(self.assets, self.on_error)
        meshes = {f"{name}_{i}": mesh for name in OBJECTS for i, mesh in enumerate(found[name].models)}
        coarser = {f"{name}_{i}_far": mesh for name in OBJECTS for i, mesh in enumerate(found[name].far)}
        numbers = [len(found[name].models) for name in OBJECTS]
        library = MeshLibrary(meshes | coarser | grounds())
        names = list(library.meshes)

        def numbered(chosen: Sequence[str]) -> Int[Tensor, " c"]:
            return torch.tensor([names.index(name) for name in chosen], device=device)

        first = torch.tensor([0, *numbers]).cumsum(0)[:-1]
        sizes = [size for name in OBJECTS for size in found[name].sizes]
        middles = [(m.vertices.min(0) + m.vertices.max(0))[:2] / 2 for name in OBJECTS for m in found[name].models]
        colours = [torch.tensor(found[name].palette) for name in OBJECTS]
        stand_ins = [f"{name}_far" if f"{name}_far" in coarser else name for name in meshes]
        return Assets(
            library,
            first.to(device),
            torch.tensor(numbers, device=device),
            numbered(stand_ins),
            torch.tensor(sizes, device=device, dtype=torch.float32),
            torch.tensor(np.stack(middles), device=device, dtype=torch.float32),
            torch.nn.utils.rnn.pad_sequence(colours, batch_first=True).to(device, torch.float32),
            torch.tensor([len(c) for c in colours], device=device),
            {name: numbered([f"{name}_{c}" for c in range(len(CURVES))]) for name in RIBBONS},
            torch.tensor(CURVES, device=device),
            numbered([f"field_{name}" for name in FIELDS]),
        )


def _softened(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each pixel's mean with its eight neighbours, by rows and then columns: a fifth of avg_pool2d's time on a CPU."""
    wide = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = (wide[..., :-2] + wide[..., 1:-1]).add_(wide[..., 2:])
    return (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :]).div_(9)


def _resized(p2: Float[Tensor, "3 4"], size: tuple[int, int]) -> Float[Tensor, "3 4"]:
    """The projection for images that were scaled to cover a size, and cut to it around their middle."""
    height, width = KITTI_SIZE
    scale = max(size[0] / height, size[1] / width)
    resized = p2.clone()
    resized[:2] *= scale
    # pixels' centres have whole numbers in KITTI's coordinates: half a pixel before, half a pixel after
    middle = p2.new_tensor([width * scale - size[1], height * scale - size[0]]) / 2
    shift = (scale - 1) / 2 - middle
    resized[:2] += shift[:, None] * p2[2]
    return resized


def _chosen(look: Float[Tensor, " b"], tables: Sequence[Int[Tensor, " c"]]) -> Int[Tensor, "b c"]:
    """One of the tables for each scene."""
    return torch.stack(list(tables))[(look * len(tables)).long().clamp(max=len(tables) - 1)]
