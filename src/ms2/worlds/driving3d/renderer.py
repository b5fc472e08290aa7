"""Renderer of driving scenes, with KITTI's camera and labels."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import Bounds, Dimension
from ms2.core.errors import UserError, suggest
from ms2.core.paths import OptionalPath, expand_path
from ms2.render.base import Rendering, asset_licence, scaled_size
from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.asset_report import AssetReport
from ms2.render.scene3d.calibration import read_projection
from ms2.render.scene3d.camera import Camera, inverse_pose
from ms2.render.scene3d.engine import Engine, check_size
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.renderer import Renderer3D
from ms2.render.scene3d.scene import Scene3D
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.assets.mesh_classes import MeshSet
from ms2.worlds.driving3d.declaration import ENVIRONMENT_ATTRIBUTES, OBJECT_ATTRIBUTES, OBJECTS, SCENARIOS
from ms2.worlds.driving3d.mesh_tables import MeshTables, load_mesh_tables
from ms2.worlds.driving3d.motion import CAMERA_X, CAMERA_Y
from ms2.worlds.driving3d.street import ground_height, ground_instances
from ms2.worlds.driving3d.surfaces import CITYSCAPES_IDS, SURFACES, surface_index, surface_table

KITTI_SIZE = (375, 1242)
"""Height and width of KITTI's images in pixels."""
KITTI_P2 = ((721.5377, 0.0, 609.5593, 44.85728), (0.0, 721.5377, 172.854, 0.2163791), (0.0, 0.0, 1.0, 0.002745884))
"""Projection matrix of most of KITTI's frames."""
HORIZON_GAIN, ZENITH_GAIN, FOG_GAIN = 1.45, 1.25, 1.1
"""Factors on the display colours of sky and fog in the detailed set: cameras on streets overexpose both."""
MAX_GAIN, METERING_STEPS = 4.0, 9
"""Largest factor of the camera's exposure control, and steps of the bisection that finds it, to 0.5 %."""
FAR_DISTANCE = 32.0
"""Distance in metres ahead from which on meshes of lower detail are used."""


@dataclass(frozen=True)
class Rendering3D(Rendering):
    """A rendering of 3D scenes with KITTI's labels.

    Attributes:
        depth: Distance along the optical axis in metres; infinite for the sky.
        truncation: Fraction of each object's amodal box outside of the image.
        boxes3d: Height, width, length; x (right), y (down), z (forward) of the centre of the base, in the axes of
            KITTI's reference camera; rotation around its y axis, 0 for an object that heads to the right. Metres and
            radians. The smallest box of that heading around the mesh as drawn.
        projection: Projection matrix from those axes to pixels, KITTI's P2 for images of this size.
        drawn: Index of the instance visible at each pixel: of the objects, then of the ground; -1 for the sky.
        ground: Surface of each instance of the ground: its index in `SURFACES`.
    """

    depth: Float[Tensor, "b h w"]
    truncation: Float[Tensor, "b n"]
    boxes3d: Float[Tensor, "b n 7"]
    projection: Float[Tensor, "b 3 4"]
    drawn: Int[Tensor, "b h w"]
    ground: Int[Tensor, "b g"]

    @property
    def surfaces(self) -> Int[Tensor, "b h w"]:
        """Look up the surface visible at each pixel: its index in `SURFACES`, or -1 where an object is."""
        sky, objects = torch.zeros_like(self.classes[:, :1]), torch.full_like(self.classes, -1)
        table = torch.cat([sky, objects, self.ground], 1)
        return table.gather(1, (self.drawn + 1).long().flatten(1)).view(self.drawn.shape)


class StreetView(Renderer3D):
    """Renders street scenes from a camera on a car.

    The world's axes are x to the right, y forward and z up, in metres, with the camera above the origin; yaw is
    counter-clockwise as seen from above, and 0 for objects that face away from the camera. ``width``, ``length`` and
    ``height`` are factors on the mesh's own size. Objects of the classes Rural, Suburban and Urban represent the scene
    as a whole, and are not rendered. In the frames of sequences the camera is above ``camera_x`` and ``camera_y``.

    Args:
        size: Height and width of the images in pixels.
        calibration: KITTI calibration file with the camera to use; the camera of most of KITTI's frames by default.
            Images of another aspect ratio than KITTI's are cropped as KITTI's images are for training.
        field_of_view: Of another camera without such a file: the angle in degrees that images of ``size`` show from
            left to right, for square pixels and an optical axis through the middle. Objects are placed where KITTI's
            camera sees them, so images of a wider one are to be cropped.
        classes: Class names of the world's grammar, in order of their index.
        assets: Folder with user meshes that replace the procedural ones: GLB or OBJ files in subfolders named by class.
        on_error: How to handle unreadable meshes: "raise", or "skip" with a warning.
        mesh_set: Procedural meshes, textures and sky, the same as the layout's: "plain", or "detailed" for images that
            are compared with photographs: more shapes, finer textures, a skyline at the horizon, and a bright sky.
        metering: Mean brightness that the camera's exposure control aims at, as cameras of cars have one; that of
            KITTI's images is 0.36. None for no control: then the light alone decides.
        engine: Engine that renders the 3D scenes; `WarpEngine` with its default settings if not given.
    """

    channels = 3
    attributes = OBJECT_ATTRIBUTES
    environment = ENVIRONMENT_ATTRIBUTES
    min_height = 8
    surfaces = SURFACES
    cityscapes_ids = CITYSCAPES_IDS

    def __init__(
        self,
        size: tuple[Dimension, Dimension] = (128, 416),
        calibration: OptionalPath = None,
        field_of_view: Annotated[float, Bounds(ge=10, le=82)] | None = None,
        classes: Sequence[str] = (*SCENARIOS, *OBJECTS),
        assets: OptionalPath = None,
        on_error: Literal["raise", "skip"] = "raise",
        mesh_set: MeshSet = "plain",
        metering: Annotated[float, Bounds(gt=0, lt=1)] | None = None,
        engine: Engine | None = None,
    ) -> None:
        check_size(size)
        if calibration is not None and field_of_view is not None:
            raise UserError("both calibration and field_of_view describe the camera: give one of them")
        for name in classes:
            if name not in (*SCENARIOS, *OBJECTS):
                raise UserError(
                    f"StreetView cannot render a {name!r}. {suggest(name, OBJECTS)} Set classes to the class names of "
                    "the world's grammar, each of which is one of these or a scenario."
                )
        self.size, self.classes, self.on_error = (size[0], size[1]), tuple(classes), on_error
        self.mesh_set, self.metering = mesh_set, metering
        self.assets = None if assets is None else str(expand_path(assets))
        if assets is not None:
            self.licence = asset_licence(str(assets))
        self.engine = WarpEngine() if engine is None else engine
        if field_of_view is None:
            p2 = torch.tensor(KITTI_P2) if calibration is None else read_projection(expand_path(calibration))
            self.projection = resized_projection(p2, self.size)
        else:
            self.projection = projection_of_view(field_of_view, self.size)
        load_mesh_tables(self.assets, on_error, mesh_set)  # so that errors in the assets are raised here
        self._tables: dict[torch.device, MeshTables] = {}

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 3 h w"]:
        """Render images."""
        return _grade(self.engine.render(self.assemble(scenes), self.size, labels=False).image, scenes, self.metering)

    def render_labelled(self, scenes: SceneBatch) -> Rendering3D:
        """Render images with labels."""
        made, n = self.assemble(scenes), scenes.classes.shape[1]
        output = self.engine.render(made, self.size)
        labels = output.labels
        assert labels is not None
        boxes = labels.boxes(self.size)[:, :n]
        x0, y0, x1, y1 = boxes.unbind(-1)
        return Rendering3D(
            image=_grade(output.image, scenes, self.metering),
            classes=scenes.classes,
            parents=scenes.parents,
            boxes=boxes,
            corners=torch.stack([torch.stack(c, -1) for c in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], -2),
            visible_boxes=labels.visible_boxes[:, :n],
            instances=torch.where(output.instances < n, output.instances, -1).long(),
            visibility=labels.visibility[:, :n],
            depth=output.depth,
            truncation=labels.truncation(self.size)[:, :n],
            boxes3d=_boxes3d(made.objects(n), self._tables_on(x0.device).hull, scenes),
            projection=self.projection.to(x0.device).expand(len(scenes), -1, -1),
            drawn=output.instances,
            ground=surface_table(tuple(made.meshes.meshes)).to(x0.device)[made.instances.mesh[:, n:]],
        )

    def resized(self, factor: float) -> "StreetView":
        """Return a renderer of the same view at a multiple of this one's size."""
        other = copy.copy(self)
        height, width = scaled_size(self.size, factor)
        check_size((height, width))
        scale = self.projection.new_tensor([width / self.size[1], height / self.size[0]])
        projection = self.projection.clone()
        projection[:2] *= scale[:, None]
        projection[:2] += ((scale - 1) / 2)[:, None] * self.projection[2]  # pixel centres are at integers
        other.size, other.projection = (height, width), projection
        other._tables = self._tables  # a copy collects the meshes again, here at every call
        return other

    def assemble(self, scenes: SceneBatch) -> Scene3D:
        """Place the meshes of scenes, with camera and lighting."""
        tables = self._tables_on(scenes.classes.device)
        objects = self._objects(scenes, tables)
        ground = ground_instances(scenes, tables)
        instances = InstanceBatch(
            torch.cat([objects.mesh, ground.mesh], 1),
            torch.cat([objects.transform, ground.transform], 1),
            torch.cat([objects.colour, ground.colour], 1),
            torch.cat([objects.mesh >= 0, torch.zeros_like(ground.mesh, dtype=torch.bool)], 1),
        )
        return Scene3D(tables.library, instances, self._camera(scenes), _lighting(scenes, self.mesh_set))

    def surface_of(self, mesh: str) -> int:
        """Return the index in ``surfaces`` of a mesh of the ground, given its name."""
        return surface_index(mesh)

    def processing(self, scenes: SceneBatch) -> dict[str, Float[Tensor, " b"]]:
        """Return the gain of the exposure control, and the attributes of the camera's own processing.

        Display values are multiplied by ``gain`` and ``exposure``, so linear light by their square.
        """
        found = {name: scenes.environment[name] for name in ("exposure", "contrast", "saturation", "blur")}
        gain = torch.ones_like(found["exposure"])
        if self.metering is not None:
            image = self.engine.label_engine.render(self.assemble(scenes), self.size, labels=False).image
            gain = _metering_gain(image, scenes, self.metering)[:, 0, 0]
        return {"gain": gain, **found}

    def check_assets(self, folder: Path, mend: bool = False) -> list[AssetReport]:
        """Check a folder of meshes for the setting ``assets``."""
        from ms2.worlds.driving3d.assets.check import check_assets

        return check_assets(folder, mend)

    @property
    def source_files(self) -> tuple[Path, ...]:
        """User meshes with their textures, and the file that turns them."""
        files = () if self.assets is None else Path(self.assets).rglob("*")
        return tuple(sorted(path for path in files if path.is_file()))

    def _objects(self, scenes: SceneBatch, tables: MeshTables) -> InstanceBatch:
        """Build the instances of the objects."""
        object_class = self._object_class(scenes)
        used = object_class >= 0
        of = {a.name: torch.where(used, scenes.attributes[a.name], 0) for a in self.attributes}
        number, colours = tables.number[object_class], tables.colours[object_class]
        model = tables.first[object_class] + (of["model"] * number).long().minimum(number - 1)
        colour = tables.palette[object_class, (of["colour"] * colours).long().minimum(colours - 1)]
        scale = torch.stack([of["width"], of["length"], of["height"]], -1)
        position = torch.stack([of["x"], of["y"], ground_height(of["x"], of["y"], scenes)], -1)
        mesh = model
        if (
            CAMERA_Y not in scenes.environment
        ):  # in sequences objects keep their mesh, so that flow leads to what it shows
            mesh = torch.where(of["y"] > FAR_DISTANCE, tables.far[model], model)
        return InstanceBatch.place_upright(torch.where(used, mesh, -1), position, of["yaw"], scale, colour)

    def _object_class(self, scenes: SceneBatch) -> Int[Tensor, "b n"]:
        """Return the index of each object's class in ``OBJECTS``; -1 for scenarios and unused entries."""
        table = [OBJECTS.index(name) if name in OBJECTS else -1 for name in self.classes]
        return scenes.classes.new_tensor([*table, -1])[scenes.classes]

    def _camera(self, scenes: SceneBatch) -> Camera:
        of = scenes.environment
        p2 = self.projection.to(of["pitch"].device).expand(len(scenes), -1, -1)
        camera = Camera.from_kitti(p2, self.size, self.size, of["camera_height"], of["pitch"], of["camera_yaw"])
        return _moved(camera, scenes)

    def bounds(self, scenes: SceneBatch) -> tuple[Attribute, ...]:
        """Return the attributes of objects with their bounds; in sequences, objects may be behind the first frame's."""
        if CAMERA_Y not in scenes.environment:
            return self.attributes
        return tuple(one._replace(low=-one.high) if one.name == "y" else one for one in self.attributes)

    def poses(self, scenes: SceneBatch) -> Float[Tensor, "b 3 4"]:
        """Compute the pose of KITTI's reference camera, in whose axes 3D boxes are, from its axes to the world's."""
        return inverse_pose(_reference_camera(scenes).pose)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the meshes, which are large: copies collect them again."""
        return vars(self) | {"_tables": {}}

    def _tables_on(self, device: torch.device) -> MeshTables:
        """Return the meshes, with their tables on a device."""
        if device not in self._tables:
            self._tables[device] = load_mesh_tables(self.assets, self.on_error, self.mesh_set).to(device)
        return self._tables[device]


def _lighting(scenes: SceneBatch, mesh_set: MeshSet) -> Lighting:
    """Interpolate between daylight and an overcast sky by cloud cover."""
    of, device = scenes.environment, scenes.classes.device
    clear, grey = Lighting.daylight(len(scenes), device), Lighting.overcast(len(scenes), device)
    clouds, haze = of["clouds"].float(), of["haze"].float()

    def between(name: str) -> Tensor:
        a, b = getattr(clear, name), getattr(grey, name)
        return torch.lerp(a, b, clouds[:, None] if a.ndim > 1 else clouds)

    height, azimuth = of["sun_height"], of["sun_azimuth"]
    sun = torch.stack([height.cos() * azimuth.sin(), height.cos() * azimuth.cos(), height.sin()], 1)
    names = ("sun_colour", "ambient", "bounce", "fog", "fog_colour", "horizon", "zenith", "softness")
    light = {name: between(name) for name in names}
    light["fog"] = light["fog"] * (0.1 + 0.6 * haze)
    if mesh_set == "detailed":
        light["horizon"], light["zenith"] = light["horizon"] * HORIZON_GAIN, light["zenith"] * ZENITH_GAIN
        light["fog_colour"] = light["fog_colour"] * FOG_GAIN
    return Lighting(sun=sun.float(), **light)


def _metering_gain(image: Float[Tensor, "b 3 h w"], scenes: SceneBatch, level: float) -> Float[Tensor, "b 1 1"]:
    """Compute the factor with which images have the mean ``level`` at an exposure of 1, as an exposure control does."""
    contrast = scenes.environment["contrast"][:, None, None]
    small = F.adaptive_avg_pool2d(image.mean(1), (24, 78)).clamp_(min=1e-3)
    low, high = (torch.full_like(contrast, math.log(limit)) for limit in (1 / MAX_GAIN, MAX_GAIN))
    for _ in range(METERING_STEPS):
        middle = (low + high) / 2
        dark = (small * middle.exp()).clamp_(max=1).pow_(contrast).mean((1, 2), keepdim=True) < level
        low, high = torch.where(dark, middle, low), torch.where(dark, high, middle)
    return low.exp()


def _grade(image: Float[Tensor, "b 3 h w"], scenes: SceneBatch, level: float | None) -> Float[Tensor, "b 3 h w"]:
    """Apply the camera's exposure control, saturation, exposure, contrast and blur."""
    if level is not None:
        image.mul_(_metering_gain(image, scenes, level)[:, None])
    of = {name: values[:, None, None, None] for name, values in scenes.environment.items()}
    grey = image.mean(1, keepdim=True)
    # in place: memory for new tensors takes longer than the arithmetic
    graded = torch.lerp(grey, image, of["saturation"]).mul_(of["exposure"]).clamp_(0, 1).pow_(of["contrast"])
    return graded.lerp_(_blurred(graded), 0.5 * of["blur"])


def _blurred(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Average each pixel with its eight neighbours, by rows, then columns: faster on a CPU than avg_pool2d."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = (padded[..., :-2] + padded[..., 1:-1]).add_(padded[..., 2:])
    return (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :]).div_(9)


def _reference_camera(scenes: SceneBatch) -> Camera:
    """Build KITTI's reference camera, some centimetres beside the colour camera; its focal length is 1 here."""
    of = scenes.environment
    focal = torch.ones(len(scenes), 2, device=of["pitch"].device)
    camera = Camera.from_pinhole(focal, 0 * focal, of["camera_height"], of["pitch"], of["camera_yaw"])
    return _moved(camera, scenes)


def _moved(camera: Camera, scenes: SceneBatch) -> Camera:
    """Move cameras of sequences to where they are in each frame."""
    of = scenes.environment
    if CAMERA_Y not in of:
        return camera
    position = torch.stack([of[CAMERA_X], of[CAMERA_Y], torch.zeros_like(of[CAMERA_Y])], 1).double()
    shift = (camera.pose[:, :, :3].double() * position[:, None]).sum(2)
    return replace(camera, pose=torch.cat([camera.pose[:, :, :3], camera.pose[:, :, 3:] - shift[..., None].float()], 2))


def _boxes3d(objects: InstanceBatch, hull: Float[Tensor, "a v 3"], scenes: SceneBatch) -> Float[Tensor, "b n 7"]:
    """Compute KITTI's 3D boxes, the smallest around the meshes as drawn; zeros for unused entries.

    KITTI's boxes turn around the camera's y axis only. In the axes of a pitched camera upright objects lean, by 0.1 m
    for a height of 7 m and a pitch of 0.015: so the boxes around them are larger than the meshes' own.

    Args:
        objects: The objects' instances.
        hull: Corners of the convex hull of each mesh.
        scenes: The scenes, for the heading of the objects and the camera's pose.
    """
    of, used = scenes.environment, objects.mesh >= 0
    reference = _reference_camera(scenes)
    turn = -(scenes.attributes["yaw"] - of["camera_yaw"][:, None]) - math.pi / 2
    turn = torch.where(used, (turn + math.pi) % (2 * math.pi) - math.pi, 0)
    # products of small matrices are rounded differently in other batches; in doubles that is not seen
    cos, sin = turn.double().cos(), turn.double().sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    # rows: along the object, down, across
    axes = torch.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], -1).unflatten(
        -1, (3, 3)
    )  # ahead, down, side
    pose, model = reference.pose.double()[:, None], objects.transform.double()
    to_box = (axes @ pose[..., :3] @ model[..., :3, :3]).float()
    origin = pose[..., :3] @ model[..., :3, 3:] + pose[..., 3:]
    corners = hull[objects.mesh.clamp(min=0)]
    low, high = zip(*(_range(corners, to_box[..., axis, :]) for axis in range(3)), strict=True)
    bottom = torch.stack([(low[0] + high[0]) / 2, high[1], (low[2] + high[2]) / 2], -1)
    position = (origin + axes.mT @ bottom[..., None].double())[..., 0].float()
    length, height, width = (end - start for start, end in zip(low, high, strict=True))
    return torch.cat([torch.stack([height, width, length], -1), position, turn[..., None]], -1) * used[..., None]


def _range(
    points: Float[Tensor, "b n v 3"], direction: Float[Tensor, "b n 3"]
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Compute the smallest and the largest coordinate of points along a direction."""
    x, y, z = direction[..., None, :].unbind(-1)
    along = points[..., 0] * x + points[..., 1] * y + points[..., 2] * z
    return along.amin(-1), along.amax(-1)


def projection_of_view(degrees: float, size: tuple[int, int]) -> Float[Tensor, "3 4"]:
    """Compute the projection of a camera with square pixels that looks through the middle of images of ``size``.

    Args:
        degrees: Angle between the outer edges of the images.
        size: Their height and width in pixels.
    """
    height, width = size
    focal = width / 2 / math.tan(math.radians(degrees) / 2)
    middle = (width - 1) / 2, (height - 1) / 2  # pixel centres are at integers
    return torch.tensor([[focal, 0, middle[0], 0], [0, focal, middle[1], 0], [0, 0, 1, 0]])


def resized_projection(p2: Float[Tensor, "3 4"], size: tuple[int, int]) -> Float[Tensor, "3 4"]:
    """Compute the projection for KITTI images that are scaled to cover ``size`` and cropped to it at the centre."""
    height, width = KITTI_SIZE
    scale = max(size[0] / height, size[1] / width)
    resized = p2.clone()
    resized[:2] *= scale
    # pixel centres are at integers in KITTI's coordinates: shift by half a pixel before and after scaling
    crop = p2.new_tensor([width * scale - size[1], height * scale - size[0]]) / 2
    shift = (scale - 1) / 2 - crop
    resized[:2] += shift[:, None] * p2[2]
    return resized
