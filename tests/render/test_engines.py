"""Contract of engines: WarpEngine and a ray caster in NumPy agree, and a street view takes either."""

import math
import os
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import rng
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.registry import available
from ms2.render.engines.blender import Blender
from ms2.render.engines.warp import runtime
from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.engine import Engine, InstanceLabels, RasterOutput
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.meshes import MeshLibrary
from ms2.render.scene3d.scene import Scene3D
from ms2.render.scene3d.shapes import box, cylinder, plane
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import SimpleStreets
from ms2.worlds.driving3d.renderer import StreetView

NEAR = 0.2
SIZE = (36, 48)


class RayCaster(Engine, selectable=False):
    """Casts a ray through each pixel's centre at every triangle (Möller and Trumbore 1997); no shading."""

    def render_batch(self, scene: Scene3D, size: tuple[int, int], labels: bool) -> RasterOutput:
        """Render scenes one by one; arguments as in `Engine.render`."""
        found = [self._scene(scene, s, size) for s in range(len(scene))]
        ids, depth, extents, areas, boxes, visible = (torch.stack(values) for values in zip(*found, strict=True))
        image = torch.where(ids[:, None] >= 0, 0.5, 0.0).expand(-1, 3, -1, -1)
        return RasterOutput(image, ids, depth, InstanceLabels(extents, areas, boxes, visible) if labels else None)

    def _scene(self, scene: Scene3D, s: int, size: tuple[int, int]) -> list[Tensor]:
        meshes, instances, camera = scene.meshes, scene.instances, scene.camera
        focal, centre, pose = (values[s].double().numpy() for values in (camera.focal, camera.centre, camera.pose))
        x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
        rays = np.stack([(x - centre[0]) / focal[0], (y - centre[1]) / focal[1], np.ones_like(x)], -1)
        n = instances.mesh.shape[1]
        ids, nearest = np.full(size, -1), np.full(size, np.inf)
        extents, areas, boxes, visible = np.zeros((n, 4)), np.zeros(n), np.zeros((n, 4)), np.zeros(n)
        labelled = instances.mesh[s] >= 0 if instances.labelled is None else instances.labelled[s]
        for i, index in enumerate(instances.mesh[s].tolist()):
            if index < 0:
                continue
            mesh = list(meshes.meshes.values())[index]
            matrix = pose @ instances.transform[s, i].double().numpy()
            points = mesh.vertices @ matrix[:, :3].T + matrix[:, 3]
            depth = np.min([_intersect(rays, corners) for corners in points[mesh.triangles]], 0)
            ids[depth < nearest], nearest = i, np.minimum(depth, nearest)
            if labelled[i]:
                areas[i] = np.isfinite(depth).sum()
                ahead = points[points[:, 2] > NEAR]  # the test's instances do not cross the near plane
                image = ahead[:, :2] / ahead[:, 2:] * focal + centre
                extents[i] = [*image.min(0), *image.max(0)] if len(image) else 0
        for i in labelled.nonzero()[:, 0].tolist():
            rows, columns = (ids == i).nonzero()
            visible[i] = len(rows)
            if len(rows):
                boxes[i] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        floats = (torch.as_tensor(v, dtype=torch.float32) for v in (nearest, extents, areas, boxes, visible))
        return [torch.as_tensor(ids), *floats]


def _intersect(rays: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Compute the depth at which each ray from the origin meets a triangle; infinite where it does not."""
    a, u, v = corners[0], corners[1] - corners[0], corners[2] - corners[0]
    with np.errstate(all="ignore"):
        h = np.cross(rays, v)
        f = 1 / (h @ u)
        q = np.cross(-a, u)
        s, t, depth = f * (h @ -a), f * (rays @ q), f * (v @ q)
        return np.where((s >= 0) & (t >= 0) & (s + t <= 1) & (depth > NEAR), depth, np.inf)


ENGINES = [WarpEngine(supersampling=1, shadow_size=0), RayCaster()]
MESHES = MeshLibrary({"ground": plane(60, 60, casts_shadow=False), "box": box(1, 2, 1), "cone": cylinder(1, 2, 0.0)})


def scenes(number: int = 4) -> tuple[InstanceBatch, Camera, Lighting]:
    """Random boxes and cones on the ground, in front of cameras that are pitched and turned."""
    draw = rng(5)
    mesh = torch.randint(-1, 3, (number, 7), generator=draw)
    mesh[:, 0] = 0
    mesh[:, 1:] = torch.where(mesh[:, 1:] == 0, 1, mesh[:, 1:])
    position = torch.rand(number, 7, 3, generator=draw) * torch.tensor([8, 10, 0]) + torch.tensor([-4.0, 5, 0])
    position[:, 0] = torch.tensor([0.0, 35, 0])
    scale = 0.7 + torch.rand(number, 7, 3, generator=draw)
    scale[:, 0] = 1
    yaw = torch.rand(number, 7, generator=draw) * 6
    yaw[:, 0] = 0
    colour = torch.rand(number, 7, 3, generator=draw)
    instances = InstanceBatch.place_upright(mesh, position, yaw, scale, colour, mesh > 0)
    one = torch.ones(number, 1)
    focal, centre = one * torch.tensor([45.0, 45.0]), one * torch.tensor([24.0, 14.0])
    angle = torch.linspace(-0.1, 0.1, number)
    return instances, Camera.from_pinhole(focal, centre, 1.6, angle, -angle), Lighting.daylight(number)


def test_engines_agree() -> None:
    """Ids and depth, but where a ray meets an edge to within rounding; boxes to a pixel and areas to a few."""
    one, other = (engine.render(Scene3D(MESHES, *scenes()), SIZE) for engine in ENGINES)
    same = one.instances == other.instances
    assert same.float().mean() > 0.997
    solid = same & (other.instances >= 0)
    assert 0.3 < solid.float().mean() < 0.95 and len(other.instances.unique()) > 5
    torch.testing.assert_close(one.depth[solid], other.depth[solid], rtol=2e-3, atol=0)
    assert one.depth[same & (other.instances < 0)].isinf().all()
    assert one.labels is not None and other.labels is not None
    torch.testing.assert_close(one.labels.extents, other.labels.extents, atol=1e-2, rtol=1e-4)
    assert (one.labels.areas - other.labels.areas).abs().max() <= 4
    assert (one.labels.visible_areas - other.labels.visible_areas).abs().max() <= 4
    assert (one.labels.visible_boxes - other.labels.visible_boxes).abs().max() <= 1


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_an_engine_keeps_its_contract(engine: Engine) -> None:
    batch, camera, lighting = scenes()
    output = engine.render(Scene3D(MESHES, batch, camera, lighting), SIZE)
    assert output.image.shape == (4, 3, *SIZE) and output.image.min() >= 0 and output.image.max() <= 1
    assert output.instances.shape == output.depth.shape == (4, *SIZE)
    assert torch.equal(output.instances < 0, output.depth == math.inf)
    labels = output.labels
    assert labels is not None
    unlabelled = batch.mesh <= 0
    for values in (labels.extents, labels.areas, labels.visible_boxes, labels.visible_areas):
        assert not values[unlabelled].any()
    assert (labels.visible_areas <= labels.areas).all() and (labels.visibility <= 1).all()
    second = (type(value)(*(v[1:2] for v in vars(value).values())) for value in (batch, camera, lighting))
    alone = engine.render(Scene3D(MESHES, *second), SIZE, labels=False)
    assert alone.labels is None and torch.equal(alone.image[0], output.image[1])
    copied = pickle.loads(pickle.dumps(engine)).render(Scene3D(MESHES, batch, camera, lighting), SIZE)
    assert torch.equal(copied.depth, output.depth)
    for size, wrong, message in (
        ((0, 4), batch, "cannot render an image of 0 x 4 pixels"),
        (SIZE, replace(batch, mesh=batch.mesh + 1), "there is no mesh 3: the library has 0 to 2"),
    ):
        with pytest.raises(UserError, match=message):
            engine.render(Scene3D(MESHES, wrong, camera, lighting), size)


def test_a_street_view_takes_any_engine() -> None:
    grammar, draw = Driving(), rng(2)
    structure = scenes_from_derivations(grammar, SimpleStreets(0, 1).sample(grammar, 1, draw))
    scene = StreetLayout(max_distance=30).sample(structure, draw)
    one, other = (StreetView((16, 52), engine=engine).render_labelled(scene) for engine in ENGINES)
    assert (one.instances == other.instances).float().mean() > 0.97  # leaves have many edges
    assert torch.equal(one.boxes3d, other.boxes3d)
    torch.testing.assert_close(one.boxes, other.boxes, atol=0.05, rtol=0)


def test_engines_are_plugins() -> None:
    assert available("engines") == {"Blender": Blender, "WarpEngine": WarpEngine}


@pytest.mark.parametrize("place", ["/proc/none/warp", "/proc"])
def test_kernels_go_elsewhere_where_they_cannot_be_kept(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warp makes its folder when it starts, or finds one that it may not write to."""
    monkeypatch.setenv(runtime.CACHE_VARIABLE, place)
    warp = SimpleNamespace(config=SimpleNamespace(kernel_cache_dir=place))
    warp.init = lambda: os.makedirs(warp.config.kernel_cache_dir, exist_ok=True)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/proc" and access(path, mode))
    problem = runtime._init(warp)
    assert isinstance(problem, OSError) and "/proc" in str(problem)
    assert os.environ[runtime.CACHE_VARIABLE] == warp.config.kernel_cache_dir != place
    assert os.access(warp.config.kernel_cache_dir, os.W_OK)
    assert runtime._init(warp) is None
