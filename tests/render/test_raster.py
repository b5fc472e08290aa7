"""WarpEngine against geometry: ray casting, closed forms, and itself in other batches and processes."""

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ms2.core.errors import UserError
from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.engines.warp.packing import mip_levels, pack_meshes
from ms2.render.engines.warp.runtime import load_warp
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.engine import RasterOutput
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.mesh_files import load_mesh
from ms2.render.scene3d.meshes import Mesh, MeshLibrary, concatenate_meshes
from ms2.render.scene3d.scene import Scene3D
from ms2.render.scene3d.shapes import box, cylinder, ellipsoid, flat_shaded, plane, polygon

SIZE = (48, 64)
FOCAL, CENTRE = 60.0, (32.0, 24.0)
DATA = os.environ.get("MS2_DATA")


def camera(number: int = 1, height: float = 0.0, pitch: float = 0.0) -> Camera:
    """At the origin, or over it; looks along y."""
    one = torch.ones(number, 1)
    return Camera.from_pinhole(one * torch.tensor([FOCAL, FOCAL]), one * torch.tensor(CENTRE), height, pitch)


def light(number: int = 1, **more: Tensor) -> Lighting:
    """Ambient light alone, from everywhere; no fog."""
    zero, one = torch.zeros(number, 3), torch.ones(number, 3)
    up = one * torch.tensor([0.0, 0.0, 1.0])
    plain = Lighting(up, zero, one, one, torch.zeros(number), zero, zero, zero, torch.zeros(number))
    return replace(plain, **more)


def instances(*rows: list[tuple[int, tuple[float, float, float]]]) -> InstanceBatch:
    """Meshes at places, unturned; a list for each scene."""
    n = max(map(len, rows))
    mesh, place = torch.full((len(rows), n), -1), torch.zeros(len(rows), n, 3)
    for b, row in enumerate(rows):
        for i, (number, where) in enumerate(row):
            mesh[b, i], place[b, i] = number, torch.tensor(where)
    return InstanceBatch.place_upright(
        mesh, place, torch.zeros(mesh.shape), torch.ones(place.shape), torch.ones(place.shape)
    )


def wall(width: float, height: float, **looks: object) -> Mesh:
    """A rectangle that faces the camera, its middle at the origin."""
    x, z = width / 2, height / 2
    looks = {"colour": (0.8, 0.8, 0.8)} | looks
    return polygon([(-x, 0, -z), (x, 0, -z), (x, 0, z), (-x, 0, z)], **looks)


def drawn(meshes: list[Mesh], batch: InstanceBatch, lighting: Lighting | None = None, **more: object) -> RasterOutput:
    """Render with a level camera at the origin; one sample per pixel and no shadows by default."""
    settings = {"supersampling": 1, "shadow_size": 0} | more
    size = settings.pop("size", SIZE)
    library = MeshLibrary({str(i): mesh for i, mesh in enumerate(meshes)})
    return WarpEngine(**settings).render(
        Scene3D(library, batch, camera(len(batch)), lighting or light(len(batch))), size
    )


def soup(seed: int, number: int = 12, behind: bool = False) -> Mesh:
    """Random triangles before the camera, or all around it."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform((-4, -3 if behind else 4, -3), (4, 9, 3), (number, 1, 3))
    places = (middle + rng.uniform(-3, 3, (number, 3, 3))).reshape(-1, 3).astype(np.float32)
    colour = rng.random((len(places), 3)).astype(np.float32)
    return Mesh(places, np.tile(np.float32([0, 0, 1]), (len(places), 1)), np.arange(len(places)).reshape(-1, 3),
                colour=colour)  # fmt: skip


def cast(meshes: list[Mesh], near: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Which mesh each pixel's central ray meets first, -1 for none, and at what depth: Möller and Trumbore's test."""
    x, y = np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5)
    rays = np.stack([(x - CENTRE[0]) / FOCAL, np.ones_like(x), -(y - CENTRE[1]) / FOCAL], -1)
    best, owner = np.full(x.shape, np.inf), np.full(x.shape, -1)
    for number, mesh in enumerate(meshes):
        for a, b, c in mesh.vertices.astype(float)[mesh.triangles]:
            u, v = b - a, c - a
            h = np.cross(rays, v)
            with np.errstate(all="ignore"):
                f = 1 / (h @ u)
                s = f * (h @ -a)
                q = np.cross(-a, u)
                t = f * (rays @ q)
                depth = f * (v @ q)
            hit = (s >= 0) & (t >= 0) & (s + t <= 1) & (depth > near) & (depth < best)
            best[hit], owner[hit] = depth[hit], number
    return owner, best


def same(one: RasterOutput, other: RasterOutput) -> bool:
    """Bit by bit."""
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(RasterOutput) if f.name != "labels"]
    pairs += [(getattr(one.labels, f.name), getattr(other.labels, f.name)) for f in fields(one.labels)]
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


# --- where things are ---


@pytest.mark.parametrize("supersampling", [1, 2, 3])
def test_a_wall_covers_the_pixels_that_it_should(supersampling):
    raster = drawn([wall(2, 1)], instances([(0, (0, 6, 0))]), supersampling=supersampling)
    expected = torch.full(SIZE, -1)
    expected[19:29, 22:42] = 0  # 2 m at 6 m with 60 pixels of focal length are 20 pixels
    assert torch.equal(raster.instances[0].long(), expected)
    assert torch.equal(raster.depth[0] < math.inf, expected == 0)
    box_, labels = torch.tensor([22.0, 19, 42, 29]), raster.labels
    assert torch.allclose(labels.extents[0, 0], box_, atol=1e-4) and torch.equal(labels.visible_boxes[0, 0], box_)
    assert labels.areas.item() == labels.visible_areas.item() == 200


def test_an_edge_within_a_pixel_is_blended_in_linear_light():
    raster = drawn([wall(2.05, 1)], instances([(0, (0.025, 6, 0))]), supersampling=2)  # 20.5 pixels from column 22 on
    assert raster.image[0, 0, 24, 41:44].tolist() == pytest.approx([0.8, 0.8 * 0.5**0.5, 0], abs=1e-4)
    assert raster.labels.areas.item() == 205
    # half of the samples are enough: the wall is nearer than the sky
    assert raster.instances[0, 24, 40:44].tolist() == [0, 0, 0, -1]


def test_depth_of_a_slope():
    slope = polygon([(-9, 3, -3), (9, 3, -3), (9, 12, 3), (-9, 12, 3)])
    for supersampling in (1, 2):
        raster = drawn([slope], instances([(0, (0, 0, 0))]), supersampling=supersampling)
        rows = (CENTRE[1] - torch.arange(SIZE[0]) - 0.5) / FOCAL  # of a ray's height at 1 m
        expected = 7.5 / (1 - 1.5 * rows)  # the slope is y = 7.5 + 1.5 z, the ray z = rows y
        seen = raster.instances[0, :, 32] == 0
        assert seen.sum() > 20
        assert torch.allclose(raster.depth[0, seen, 32], expected[seen], rtol=1e-5)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_ids_and_depth_agree_with_ray_casting(seed, behind):
    meshes = [soup(10 * seed + i, 6, behind) for i in range(5)]
    raster = drawn(meshes, instances([(i, (0, 0, 0)) for i in range(5)]))
    owner, depth = cast(meshes)
    ids = raster.instances[0].numpy()
    assert (owner >= 0).mean() > 0.3
    # a ray may pass an edge on either side when it meets it to within rounding
    assert (ids == owner).mean() > 0.998
    both = (ids == owner) & (ids >= 0)
    assert np.allclose(raster.depth[0].numpy()[both], depth[both], rtol=2e-3)
    assert np.median(abs(raster.depth[0].numpy()[both] / depth[both] - 1)) < 1e-6


def test_no_sample_falls_between_the_triangles_of_a_ball():
    sphere = ellipsoid((1.5, 1.5, 1.5), 24, 48)
    raster = drawn([sphere], instances([(0, (0.01, 6, 0.02))]), size=(240, 320), supersampling=1)
    seen = drawn([sphere], instances([(0, (0.01, 6, 0.02))])).instances[0] == 0
    rows = [row.nonzero()[:, 0] for row in seen if row.any()]
    assert len(rows) > 20 and all(len(row) == row[-1] - row[0] + 1 for row in rows)
    assert raster.instances.max() == 0


def test_the_ground_is_cut_at_the_near_plane():
    raster = WarpEngine(1, 0).render(
        Scene3D(MeshLibrary({"ground": plane(1000, 1000)}), instances([(0, (0, 0, 0))]), camera(height=1.5), light()),
        SIZE,
    )
    assert (raster.instances[0, :24] == -1).all() and (raster.instances[0, 25:] == 0).all()
    rows = torch.arange(25, SIZE[0]) + 0.5 - CENTRE[1]
    expected = (FOCAL * 1.5 / rows)[:, None].expand(-1, SIZE[1])
    assert torch.allclose(raster.depth[0, 25:], expected, rtol=1e-4)
    box_ = raster.labels.boxes(SIZE)[0, 0]
    assert torch.allclose(box_, torch.tensor([0, 24.18, 64, 48]), atol=0.02)  # its far edge is 500 m away


def test_nothing_behind_the_camera_is_drawn():
    raster = drawn([box(1, 1, 1)], instances([(0, (0, -5, 0))], [(0, (30, 5, 0))]))
    assert (raster.instances == -1).all() and (raster.labels.areas == 0).all()
    assert (raster.labels.extents[0] == 0).all() and raster.labels.extents[1, 0, 0] > SIZE[1]
    assert (raster.labels.boxes(SIZE) == 0).all() and raster.labels.truncation(SIZE).tolist() == [[0], [1]]


def test_of_equals_the_first_is_seen():
    walls = [wall(2, 1), wall(2, 1)]
    for order in ((0, 1), (1, 0)):
        raster = drawn(walls, instances([(i, (0, 6, 0)) for i in order]))
        assert set(raster.instances.flatten().tolist()) == {-1, 0}
    assert raster.labels.areas.tolist() == [[200, 200]] and raster.labels.visible_areas.tolist() == [[200, 0]]


def test_unused_entries_do_nothing():
    mesh = [wall(2, 1)]
    one = drawn(mesh, instances([(0, (0, 6, 0))]))
    other = drawn(mesh, instances([(-1, (0, 5, 0)), (0, (0, 6, 0)), (-1, (0, 4, 0))]))
    assert torch.equal(one.image, other.image)
    assert torch.equal(other.instances, torch.where(one.instances == 0, 1, -1))
    assert (other.labels.areas == torch.tensor([[0, 200, 0]])).all()
    empty = drawn(mesh, instances([(-1, (0, 0, 0))]))
    assert (empty.instances == -1).all() and empty.depth.isinf().all()


def test_areas_without_occluders_are_those_of_an_image_of_one():
    meshes = [soup(i, 8, behind=i == 2) for i in range(4)]
    together = drawn(meshes, instances([(i, (0, 0, 0)) for i in range(4)]), supersampling=2)
    alone = drawn(meshes, instances(*([(i, (0, 0, 0))] for i in range(4))), supersampling=2)
    assert torch.equal(together.labels.areas[0], alone.labels.visible_areas[:, 0])
    assert torch.equal(together.labels.areas[0], alone.labels.areas[:, 0])
    assert torch.equal(together.labels.extents[0], alone.labels.extents[:, 0])
    seen = torch.stack([(together.instances == i).sum() for i in range(4)])
    assert (together.labels.visible_areas[0] - seen).abs().max() < 40  # samples against whole pixels
    assert (together.labels.visible_areas <= together.labels.areas).all()
    for i in range(4):
        rows, columns = (together.instances[0] == i).nonzero().T
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0] * 4
        assert together.labels.visible_boxes[0, i].tolist() == expected


def test_visibility_and_truncation():
    raster = drawn([wall(2, 1), wall(1, 1)], instances([(1, (-0.4, 4.8, 0)), (0, (0, 6, 0)), (0, (3.2, 6, 0))]))
    shares = raster.labels.visibility[0]
    assert shares[0] == 1 and 0.4 < shares[1] < 0.6
    assert raster.labels.truncation(SIZE)[0].tolist() == pytest.approx([0, 0, 0.5], abs=1e-5)
    assert raster.labels.boxes(SIZE)[0, 2].tolist() == pytest.approx([54, 19, 64, 29], abs=1e-4)


def test_labels_only_where_wanted():
    batch = replace(instances([(0, (0, 6, 0)), (0, (0, 8, 0.4))]), labelled=torch.tensor([[False, True]]))
    labels = drawn([wall(2, 1)], batch).labels
    assert labels.areas[0, 0] == 0 and labels.areas[0, 1] > 0 and (labels.extents[0, 0] == 0).all()
    library = MeshLibrary({"wall": wall(2, 1)})
    assert WarpEngine().render(Scene3D(library, batch, camera(), light()), SIZE, labels=False).labels is None


def test_instances_are_stretched_turned_and_moved():
    mesh, place = torch.tensor([[0]]), torch.tensor([[[1.0, 7.0, 0.5]]])
    scale, yaw = torch.tensor([[[2.0, 3.0, 0.5]]]), torch.tensor([[0.7]])
    batch = InstanceBatch.place_upright(mesh, place, yaw, scale, torch.ones(1, 1, 3))
    cos, sin = math.cos(0.7), math.sin(0.7)
    turn = np.array([[cos, -sin, 0, 1], [sin, cos, 0, 7], [0, 0, 1, 0.5], [0, 0, 0, 1]])
    solid = box(1, 1, 1)
    expected, _ = cast([solid.transformed(turn @ np.diag([2, 3, 0.5, 1]))])
    assert (drawn([solid], batch).instances[0].numpy() == expected).mean() > 0.998


# --- the same again ---


def busy(number: int) -> tuple[MeshLibrary, InstanceBatch, Camera, Lighting]:
    """Random scenes with all that there is: textures, paint, gloss, shadows, fog."""
    rng = torch.Generator().manual_seed(3)
    texture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    ground = plane(200, 200, (50, 50), texture=0, textures=(texture,), casts_shadow=False)
    things = {"ground": ground, "box": box(1, 2, 1, paint=1.0, gloss=0.5), "cone": cylinder(1, 2, 0.0, paint=0.5)}
    mesh = torch.randint(-1, 3, (number, 9), generator=rng)
    mesh[:, 0] = 0
    place = torch.rand(number, 9, 3, generator=rng) * torch.tensor([10, 20, 0]) + torch.tensor([-5.0, 4, 0])
    place[mesh == 0] = 0
    yaw, colour = torch.rand(number, 9, generator=rng) * 6, torch.rand(number, 9, 3, generator=rng)
    batch = InstanceBatch.place_upright(mesh, place, yaw, torch.ones(number, 9, 3), colour)
    return MeshLibrary(things), batch, camera(number, 1.5), Lighting.daylight(number)


def only(value: object, index: object) -> object:
    """Some scenes of instances, cameras, lighting or outputs."""
    values = [getattr(value, f.name) for f in fields(value)]
    return type(value)(
        *(v if v is None else v[index] if isinstance(v, Tensor) else only(v, index) for v in values)  # labels inside
    )


def test_pixels_do_not_depend_on_the_batch():
    library, *scenes = busy(5)
    whole = WarpEngine(scenes_per_pass=5).render(Scene3D(library, *scenes), SIZE)
    assert same(whole, WarpEngine(scenes_per_pass=2).render(Scene3D(library, *scenes), SIZE))
    assert same(whole, WarpEngine().render(Scene3D(library, *scenes), SIZE))
    other = torch.tensor([3, 0, 4])
    small = WarpEngine()
    for _ in range(2):  # buffers are used again
        assert same(only(whole, other), small.render(Scene3D(library, *(only(value, other) for value in scenes)), SIZE))
    plain = small.render(Scene3D(library, *scenes), SIZE, labels=False)
    assert torch.equal(plain.image, whole.image) and torch.equal(plain.instances, whole.instances)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pixels_do_not_depend_on_threads(threads):
    library, *scenes = busy(6)
    whole = WarpEngine(scenes_per_pass=6).render(Scene3D(library, *scenes), SIZE)
    engine, before = WarpEngine(scenes_per_pass=1), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert same(whole, engine.render(Scene3D(library, *scenes), SIZE))
        with ThreadPoolExecutor(3) as pool:  # as threads of the caller's do
            found = list(pool.map(lambda _: engine.render(Scene3D(library, *scenes), SIZE), range(6)))
    finally:
        torch.set_num_threads(before)
    assert all(same(whole, one) for one in found)


def test_an_engine_serves_in_and_out_of_inference_mode():
    library, *scenes = busy(2)
    engine = WarpEngine()
    with torch.inference_mode():
        first = engine.render(Scene3D(library, *scenes), SIZE)
    assert same(first, engine.render(Scene3D(library, *scenes), SIZE))


def test_copies_render_the_same():
    library, *scenes = busy(2)
    one = WarpEngine(1, 64, 30.0, 20.0, 0.5, 1)
    expected = one.render(Scene3D(library, *scenes), SIZE)  # what was rendered before is not copied
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert same(expected, other.render(Scene3D(library, *scenes), SIZE)) and other.settings == one.settings


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (4, 4)])
def test_small_images(size):
    batch = instances([(0, (0, 6, 0))], [(-1, (0, 6, 0))])
    raster = drawn([wall(30, 30)], batch, size=size)
    assert raster.depth.tolist() == [[[6] * size[1]] * size[0], [[math.inf] * size[1]] * size[0]]
    none = drawn([wall(1, 1)], InstanceBatch(*(v[:, :0] for v in (batch.mesh, batch.transform, batch.colour))))
    assert (none.instances == -1).all() and none.labels.areas.shape == (2, 0)


def digest() -> str:
    library, *scenes = busy(3)
    raster = WarpEngine().render(Scene3D(library, *scenes), SIZE)
    return str([float(v.double().nan_to_num(posinf=0).sum()) for v in (raster.image, raster.instances, raster.depth)])


def test_pixels_do_not_depend_on_the_process():
    code = "import test_raster; print(test_raster.digest())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == digest()  # and Warp does not say anything
    assert not found.stderr


# --- light ---


def test_a_surface_shows_its_colour_in_full_light():
    raster = drawn([wall(2, 1, colour=(0.2, 0.5, 0.8))], instances([(0, (0, 6, 0))]))
    assert raster.image[0, :, 24, 32].tolist() == pytest.approx([0.2, 0.5, 0.8], abs=1e-4)
    assert raster.image[0, :, 0, 0].tolist() == [0, 0, 0]


def test_paint_takes_the_colour_of_the_instance():
    meshes = [wall(2, 1, colour=(0.5, 0.5, 0.5), paint=share) for share in (0.0, 1.0)]
    batch = replace(instances([(0, (-1, 6, 0)), (1, (1, 6, 0))]), colour=torch.tensor([[[0.0, 1, 0], [0.0, 1, 0]]]))
    image = drawn(meshes, batch).image[0]
    assert image[:, 24, 25].tolist() == pytest.approx([0.5, 0.5, 0.5], abs=1e-4)
    assert image[:, 24, 40].tolist() == pytest.approx([0, 0.5, 0], abs=1e-4)


@pytest.mark.parametrize("flipped", [False, True])
def test_light_of_sun_and_sky_by_angle(flipped):
    dark = torch.zeros(1, 3)
    sun = torch.tensor([[1.0, -2, 2]])  # a third, two thirds: unit length is 3
    mesh = wall(2, 1, colour=(1.0, 1.0, 1.0))
    if flipped:
        mesh = replace(mesh, normals=-mesh.normals, triangles=mesh.triangles[:, ::-1])
    lighting = light(sun=sun, sun_colour=torch.full((1, 3), 0.9), ambient=dark, bounce=dark)
    image = drawn([mesh], instances([(0, (0, 6, 0))]), lighting).image[0]
    assert image[0, 24, 32].item() ** 2 == pytest.approx(0.9 * 2 / 3, abs=1e-5)
    behind = replace(lighting, sun=-sun, ambient=torch.full((1, 3), 0.4), bounce=torch.full((1, 3), 0.2))
    image = drawn([mesh], instances([(0, (0, 6, 0))]), behind).image[0]
    assert image[0, 24, 32].item() ** 2 == pytest.approx(0.3, abs=1e-5)  # upright: half sky, half ground


def test_normals_of_stretched_instances():
    dark = torch.zeros(1, 3)
    slope = polygon([(-1, 0, -1), (1, 0, -1), (1, 2, 1), (-1, 2, 1)])  # normal (0, -1, 1)
    batch = instances([(0, (0, 6, 0))])
    scale = torch.diag(torch.tensor([1.0, 3.0, 1.0, 1.0]))
    batch = replace(batch, transform=batch.transform @ scale)
    lighting = light(sun=torch.tensor([[0.0, 0, 1]]), sun_colour=torch.full((1, 3), 0.7), ambient=dark, bounce=dark)
    image = drawn([slope], batch, lighting).image[0]
    assert image[0, 24, 32].item() ** 2 == pytest.approx(0.7 * 3 / math.sqrt(10), abs=1e-4)  # normal (0, -1, 3)


def test_shadows_fall_where_rays_to_the_sun_are_blocked():
    sun = np.array([0.5, -0.3, 0.9])
    solid, ground = box(1.5, 1.5, 1.5), plane(80, 80, casts_shadow=False)
    where = np.array([-1.0, 7.0, 0.5])  # floats
    lighting = light(
        sun=torch.tensor(sun[None], dtype=torch.float32), sun_colour=torch.full((1, 3), 0.5),
        ambient=torch.full((1, 3), 0.2), bounce=torch.full((1, 3), 0.2),
    )  # fmt: skip
    library = MeshLibrary({"ground": ground, "box": solid})
    raster = WarpEngine(1).render(
        Scene3D(
            library,
            instances([(0, (0, 0, 0)), (1, tuple(where))]),
            Camera.from_pinhole(torch.tensor([[120.0, 120]]), torch.tensor([[64.0, 30]]), 2.0),
            lighting,
        ),
        (96, 128),
    )
    y, x = (raster.instances[0] == 0).nonzero().T.numpy()
    depth = raster.depth[0, y, x].numpy()
    keep = depth < 25
    x, y, depth = x[keep], y[keep], depth[keep]
    places = np.stack([(x + 0.5 - 64) / 120 * depth, depth, np.zeros_like(depth)], 1)
    low, high = where - np.array([0.75, 0.75, 0]), where + np.array([0.75, 0.75, 1.5])
    t0, t1 = (low - places) / sun, (high - places) / sun
    inside = np.minimum(t0, t1).max(1) < np.maximum(t0, t1).min(1)
    found = raster.image[0, 0, y, x].numpy() < 0.6  # in light 0.2 + 0.5 0.84 = 0.62, whose root is 0.79; 0.45 without
    assert inside.sum() > 100
    assert (found == inside).mean() > 0.99


def test_soft_shadows_end_where_they_should():
    ground, roof = plane(80, 80, casts_shadow=False), box(8, 8, 0.1)
    dark = torch.zeros(1, 3)
    lighting = light(sun_colour=torch.full((1, 3), 0.7), ambient=dark, bounce=dark, softness=torch.tensor([1.0]))
    raster = WarpEngine(1).render(
        Scene3D(
            MeshLibrary({"ground": ground, "roof": roof}),
            instances([(0, (0, 0, 0)), (1, (-4, 12, 3))]),  # its edge is at x = 0
            Camera.from_pinhole(torch.tensor([[240.0, 240]]), torch.tensor([[256.0, 10]]), 1.5),
            lighting,
        ),
        (96, 512),
    )
    line = int(10 + 240 * 1.5 / 12)  # the row of what lies 12 m ahead
    depth = raster.depth[0, line]
    x = (torch.arange(512) + 0.5 - 256) / 240 * depth
    found = raster.image[0, 0, line].square() / 0.7
    assert (raster.instances[0, line] == 0).all()
    near = x > -6
    assert torch.allclose(found[near], ((x[near] + 1) / 2).clamp(0, 1), atol=0.15)
    assert (found[(x < -1.2) & (x > -6)] < 1e-3).all() and (found[x > 1.2] > 0.999).all()


def test_no_surface_shadows_itself():
    lighting = replace(Lighting.daylight(8), ambient=torch.zeros(8, 3), bounce=torch.zeros(8, 3), fog=torch.zeros(8))
    angle = torch.arange(8) * math.pi / 4 + 0.2
    lighting = replace(lighting, sun=torch.stack([angle.sin(), angle.cos(), torch.full((8,), 0.5)], 1))
    batch = instances(*([(0, (0, 5, -1))] for _ in range(8)))
    for mesh in (box(2, 2, 2), ellipsoid((1.2, 1.2, 1.2), 24, 32)):
        with_, without = (drawn([mesh], batch, lighting, shadow_size=size).image for size in (1024, 0))
        # a convex body has no shadow on itself but where the sun's light fades out
        assert ((with_ - without).abs() > 0.02).float().mean() < 0.004


def test_fog_and_sky():
    grey = torch.full((1, 3), 0.5)
    lighting = light(fog=torch.tensor([0.1]), fog_colour=grey, horizon=grey, zenith=torch.zeros(1, 3))
    raster = drawn([wall(2, 1)], instances([(0, (0, 6, 0))]), lighting)
    seen = math.exp(-0.1 * 6)
    assert raster.image[0, 0, 24, 32].item() ** 2 == pytest.approx(0.64 * seen + 0.25 * (1 - seen), abs=1e-5)
    column = raster.image[0, 0, :, 0]
    assert column[24:].tolist() == pytest.approx([0.5] * 24) and (column[:23].diff() > 0).all()


def test_the_sun_stands_in_its_direction():
    sun = torch.tensor([[0.16, 1.0, 0.26]])
    lighting = light(sun=sun, sun_colour=torch.ones(1, 3))
    image = drawn([wall(2, 1)], instances([(-1, (0, 0, 0))]), lighting).image[0, 0]
    y, x = divmod(int(image.argmax()), SIZE[1])
    assert (x, y) == (int(CENTRE[0] + FOCAL * 0.16), int(CENTRE[1] - FOCAL * 0.26))


# --- textures ---


def checker(side: int) -> np.ndarray:
    return (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)


def test_far_textures_are_averaged_and_near_ones_are_not():
    mesh = wall(2, 2, texture=0, textures=(checker(64),))  # its light is 0.64, half of the time
    far = drawn([mesh], instances([(0, (0, 12, 0))])).image[0, 0]  # 10 pixels for 64 texels
    assert far[20:28, 28:36].flatten().tolist() == pytest.approx([0.8 * 0.5**0.5] * 64, abs=0.01)
    coarse = wall(2, 2, texture=0, textures=(checker(4),))
    near = drawn([coarse], instances([(0, (0, 3, 0))])).image[0, 0]  # 10 pixels for a texel
    assert [near[y, x].item() > 0.4 for y, x in ((9, 17), (9, 27), (19, 17), (19, 27))] == [False, True, True, False]


def test_the_lower_left_of_a_texture_is_at_the_origin_of_uv():
    texture = np.zeros((4, 2, 3), np.uint8)
    texture[0, 1] = 255, 0, 0  # above right
    texture[3, 0] = 0, 255, 0  # below left
    image = drawn([wall(2, 2, texture=0, textures=(texture,))], instances([(0, (0, 3, 0))])).image[0]
    red, green = image[:, 9, 42], image[:, 39, 22]  # the middles of these texels
    assert red.tolist() == pytest.approx([0.8, 0, 0], abs=0.1) and green.tolist() == pytest.approx([0, 0.8, 0], abs=0.1)


def test_uv_is_linear_on_the_ground_and_not_on_the_image():
    ramp = np.linspace(0, 255, 256).round().astype(np.uint8)[::-1, None, None].repeat(4, 1).repeat(3, 2)
    ground = polygon([(-9, -2, 0), (9, -2, 0), (9, 30, 0), (-9, 30, 0)], texture=0, textures=(ramp,))
    raster = WarpEngine(1, 0).render(
        Scene3D(MeshLibrary({"ground": ground}), instances([(0, (0, 0, 0))]), camera(height=1.5), light()), SIZE
    )
    rows = torch.arange(29, SIZE[0])
    along = (FOCAL * 1.5 / (rows + 0.5 - CENTRE[1]) + 2) / 32  # the texture's height from its lower edge
    assert raster.image[0, 0, 29:, 20].tolist() == pytest.approx(along.tolist(), abs=0.02)


def test_mip_levels_keep_the_light():
    texture = np.random.default_rng(0).integers(0, 256, (20, 70, 3), dtype=np.uint8)
    levels = mip_levels(texture)
    assert [tuple(level.shape[1:]) for level in levels] == [(16, 64), (8, 32), (4, 16), (2, 8), (1, 4), (1, 2), (1, 1)]
    mean = torch.from_numpy(texture / 255.0).square().mean((0, 1))
    for level in levels:
        assert level.mean((1, 2)).tolist() == pytest.approx(mean.tolist(), abs=0.02)


def test_equal_textures_are_stored_once():
    one, two = checker(8), checker(16)
    a, b = (wall(1, 1, texture=0, textures=(texture,)) for texture in (one, two))
    library = MeshLibrary({"a": a, "b": concatenate_meshes(a, b), "c": replace(a, textures=(one.copy(),))})
    arrays = pack_meshes(library, torch.device("cpu"))
    assert arrays.triangle[:, 3].tolist() == [0, 0, 0, 0, 1, 1, 0, 0] and len(arrays.texture) == 2


# --- cameras, shapes, files ---


def test_kitti_cameras_project_as_their_calibration_says():
    p2 = torch.tensor([[721.5, 0, 609.6, 44.9], [0, 721.5, 172.9, 0.2], [0, 0, 1, 0.003]])
    point = torch.tensor([2.0, 1.0, 15.0])  # in the reference camera's axes
    expected = p2 @ torch.cat([point, torch.ones(1)])
    u, v = (expected[:2] / expected[2]).tolist()
    made = Camera.from_kitti(p2[None], (375, 1242), (128, 416), height=1.6)
    world = torch.tensor([2.0, 15.0, 0.6, 1.0])
    x, y, z = (made.pose[0] @ world).tolist()
    found = [made.focal[0, 0] * x / z + made.centre[0, 0], made.focal[0, 1] * y / z + made.centre[0, 1]]
    assert [float(f) for f in found] == pytest.approx([(u + 0.5) * 416 / 1242, (v + 0.5) * 128 / 375], abs=1e-3)


def test_cameras_turn():
    one = torch.ones(1, 2)
    turned = Camera.from_pinhole(one, one, 1.0, pitch=0.3, yaw=0.2).pose[0]
    ahead = torch.tensor([-math.sin(0.2) * math.cos(0.3), math.cos(0.2) * math.cos(0.3), math.sin(0.3)])
    assert torch.allclose(turned @ torch.cat([ahead * 5 + torch.tensor([0, 0, 1.0]), torch.ones(1)]),
                          torch.tensor([0.0, 0, 5]), atol=1e-5)  # fmt: skip
    assert torch.allclose(turned[:, :3] @ turned[:, :3].T, torch.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    "mesh", [box(1, 2, 3), cylinder(1, 2), cylinder(1, 2, 0.5), cylinder(1, 3, 0.0), ellipsoid((1, 2, 3))]
)
def test_shapes_are_closed_and_face_outwards(mesh):
    corners = mesh.vertices[mesh.triangles].astype(float)
    a, b, c = corners.swapaxes(0, 1)
    face = np.cross(b - a, c - a)
    assert abs(face.sum(0)).max() < 1e-4  # closed: the areas cancel
    volume = (a * face).sum() / 6
    assert volume > 0
    mean = mesh.normals[mesh.triangles].mean(1)
    real = np.linalg.norm(face, axis=1) > 1e-9
    assert ((face * mean).sum(1)[real] > 0).all()
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
    flat = flat_shaded(mesh)
    assert np.allclose(flat.vertices[flat.triangles], mesh.vertices[mesh.triangles])


@pytest.mark.skipif(not DATA, reason="MS2_DATA names no folder of data")
@pytest.mark.parametrize(
    ("name", "height"),
    [("kenney_carkit_v2/sedan", 1.3), ("quaternius_people/modular_men_Suit", 1.9), ("quaternius_nature/Tree1", 4.1)],
)
def test_glb_files_stand_upright(name, height):
    mesh = load_mesh(Path(DATA) / "assets3d" / f"{name}.glb")
    assert abs(mesh.vertices[:, 2].min()) < 0.15 and mesh.vertices[:, 2].max() == pytest.approx(height, abs=0.2)
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-3)
    raster = drawn([mesh], instances([(0, (0, 6, -1))]))
    assert raster.labels.areas.item() > 30
    assert raster.image[0, :, raster.instances[0] == 0].std() > 0.02  # it has colours


@pytest.mark.skipif(not DATA, reason="MS2_DATA names no folder of data")
def test_a_broken_glb_is_named(tmp_path):
    good = Path(DATA) / "assets3d" / "kenney_carkit_v2" / "sedan.glb"
    alone = tmp_path / "alone.glb"
    alone.write_bytes(good.read_bytes())
    with pytest.raises(UserError, match=r"alone\.glb needs the texture .*, which is not there"):
        load_mesh(alone)
    short = tmp_path / "short.glb"
    short.write_bytes((Path(DATA) / "assets3d" / "quaternius_nature" / "Tree1.glb").read_bytes()[:3000])
    with pytest.raises(UserError, match=r"short\.glb cannot be read as GLB"):
        load_mesh(short)


def test_a_glb_may_keep_its_buffer_in_a_file_of_its_own(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "whole.glb")
    data = (tmp_path / "whole.glb").read_bytes()
    end = 20 + int.from_bytes(data[12:16], "little")  # of the JSON chunk, after which the buffer's header has 8 bytes
    description = json.loads(data[20:end])
    description["buffers"][0]["uri"] = "model.bin"
    chunk = json.dumps(description).encode()
    chunk += b" " * (-len(chunk) % 4)
    header = data[:8] + (20 + len(chunk)).to_bytes(4, "little") + len(chunk).to_bytes(4, "little") + data[16:20]
    (tmp_path / "parts.glb").write_bytes(header + chunk)
    (tmp_path / "model.bin").write_bytes(data[end + 8 :])
    whole, parts = (load_mesh(tmp_path / f"{name}.glb") for name in ("whole", "parts"))
    assert np.array_equal(whole.vertices, parts.vertices) and np.array_equal(whole.triangles, parts.triangles)
    assert np.ptp(parts.vertices, axis=0) == pytest.approx([1, 3, 2])
    (tmp_path / "model.bin").unlink()
    with pytest.raises(UserError, match=r"parts\.glb needs the buffer .*model\.bin, which is not there"):
        load_mesh(tmp_path / "parts.glb")


def test_files_that_are_no_glb_are_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*car\.glb"):
        load_mesh(tmp_path / "car.glb")
    (tmp_path / "car.glb").write_text("a car")
    with pytest.raises(UserError, match=r"car\.glb is no GLB file"):
        load_mesh(tmp_path / "car.glb")


OBJ = """mtllib model.mtl
v 0 0 0
v 2 0 0
v 2 1 0
v 0 1 0
v 0 0 3
vt 0 0
vt 1 0
vt 1 1
usemtl body
f 1/1 2/2 3/3
f 1/1 3/2 4/3
usemtl glass
f 1/1 2/2 5/3
"""
"""Two metres wide to the left, one high, and three long ahead."""
MTL = "newmtl body\nKd 1 0 0\nnewmtl glass\nKd 0.25 0.25 0.25\nmap_Kd -s 1 1 1 glass.png\n"


def write_obj(folder, obj=OBJ, mtl=MTL, texture=True):
    (folder / "model.obj").write_text(obj)
    if mtl:
        (folder / "model.mtl").write_text(mtl)
    if texture:
        Image.fromarray(checker(4)).save(folder / "glass.png")
    return folder / "model.obj"


def test_obj_files_stand_upright(tmp_path):
    mesh = load_mesh(write_obj(tmp_path), paint_materials=("body",))
    assert mesh.vertices.min(0) == pytest.approx([-2, 0, 0]) and mesh.vertices.max(0) == pytest.approx([0, 3, 1])
    body = mesh.paint == 1
    assert body.sum() == 6 and (mesh.colour[body] == 1).all()  # the instance's colour alone
    assert mesh.colour[~body] == pytest.approx(0.5, abs=0.01)  # Kd is linear
    assert sorted(mesh.texture) == [-1, -1, 0] and mesh.textures[0].shape == (4, 4, 3)


def test_facets_of_files_without_normals_are_flat(tmp_path):
    mesh = load_mesh(write_obj(tmp_path))
    for triangle in mesh.triangles:
        a, b, c = mesh.vertices[triangle]
        normal = np.cross(b - a, c - a)
        assert mesh.normals[triangle] == pytest.approx(np.tile(normal / np.linalg.norm(normal), (3, 1)), abs=1e-5)
    lines = "vn 0 1 0\n" + OBJ.replace("/1 ", "/1/1 ").replace("/2 ", "/2/1 ").replace("/3\n", "/3/1\n")
    mesh = load_mesh(write_obj(tmp_path, lines))
    assert mesh.normals == pytest.approx(np.tile([0, 0, 1], (len(mesh.normals), 1)), abs=1e-5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"mtl": ""}, r"model\.obj needs the materials .*model\.mtl, which are not there"),
        ({"texture": False}, r"model\.obj needs the texture .*glass\.png, which is not there"),
        ({"obj": "v 0 0 0\n"}, r"model\.obj has no triangles"),
        ({"obj": "v 0 0 0\nf 1 2 3\n"}, r"model\.obj cannot be read as OBJ"),
    ],
)
def test_a_broken_obj_is_named(parts, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_mesh(write_obj(tmp_path, **parts))


def test_a_broken_texture_is_named(tmp_path):
    path = write_obj(tmp_path)
    (tmp_path / "glass.png").write_bytes((tmp_path / "glass.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"glass\.png, which cannot be read as an image"):
        load_mesh(path)


def test_other_kinds_of_files_are_named(tmp_path):
    (tmp_path / "car.fbx").write_text("a car")
    with pytest.raises(UserError, match=r"car\.fbx is neither GLB nor OBJ\. .*Available: \.glb, \.obj"):
        load_mesh(tmp_path / "car.fbx")


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"triangles": np.array([[0, 1, 4]])}, "mesh 'wall' has triangles with vertices 0 to 4, but its .* 0 to 3"),
        (
            {"triangles": np.zeros((0, 3), int)},
            "mesh 'wall' has 4 vertices and 0 triangles: it needs at least one of each",
        ),
        ({"vertices": np.full((4, 3), np.nan)}, "mesh 'wall' has vertices that are not finite"),
        ({"texture": 1}, "mesh 'wall' uses texture 1, but has 0"),
        (
            {"texture": 0, "textures": (checker(2),), "uv": None},
            "mesh 'wall' has a texture, but no texture coordinates uv",
        ),
    ],
)
def test_bad_meshes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        MeshLibrary({"wall": replace(wall(1, 1), **change)})


def test_bad_arguments_are_named():
    with pytest.raises(UserError, match="the mesh library is empty"):
        MeshLibrary({})
    library = MeshLibrary({"wall": wall(1, 1)})
    with pytest.raises(UserError, match=r"no mesh 'hall'. Did you mean 'wall'\? Available: wall"):
        library.index_of("hall")
    assert library.index_of("wall") == 0
    with pytest.raises(UserError, match="cannot render an image of 0 x 64 pixels"):
        WarpEngine().render(Scene3D(library, instances([(0, (0, 6, 0))]), camera(), light()), (0, 64))
    with pytest.raises(UserError, match="supersampling must be at least 1, not 0"):
        WarpEngine(0)
    with pytest.raises(UserError, match="a shadow map of 4 samples is too small"):
        WarpEngine(shadow_size=4)


def test_bad_scenes_are_named():
    engine, library = WarpEngine(), MeshLibrary({"wall": wall(1, 1)})

    def render(*scenes: object) -> None:
        engine.render(Scene3D(library, *scenes), SIZE)

    batch = instances([(0, (0, 6, 0))])
    with pytest.raises(UserError, match="there is no mesh 1: the library has 0 to 0, and -1 marks an unused entry"):
        render(replace(batch, mesh=torch.tensor([[1]])), camera(), light())
    with pytest.raises(UserError, match="instances for 1, camera for 2, lighting for 1"):
        render(batch, camera(2), light())
    with pytest.raises(UserError, match="the sun's direction must be a vector of positive length"):
        render(batch, camera(), light(sun=torch.zeros(1, 3)))
    with pytest.raises(UserError, match="a camera's focal length is not positive"):
        render(batch, replace(camera(), focal=torch.zeros(1, 2)), light())
    with pytest.raises(UserError, match="a transform matrix has values that are not finite"):
        render(replace(batch, transform=batch.transform * math.nan), camera(), light())


def test_without_warp_the_package_to_install_is_named():
    with mock.patch.dict(sys.modules, {"warp": None}), pytest.raises(UserError, match="pip install warp-lang"):
        load_warp()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_renders_the_same():
    library, *scenes = busy(5)
    engine = WarpEngine()
    here = engine.render(Scene3D(library, *scenes), SIZE)
    batch, *others = scenes
    on_gpu = InstanceBatch(batch.mesh.cuda(), batch.transform.cuda(), batch.colour.cuda())
    there = engine.render(Scene3D(library, on_gpu, *others), SIZE)
    assert there.image.is_cuda
    # it fuses multiplications with additions, which moves edges by less than anyone sees
    assert (there.instances.cpu() == here.instances).float().mean() > 0.999
    assert (there.image.cpu() - here.image).abs().mean() < 1e-3
    assert torch.allclose(there.labels.areas.cpu(), here.labels.areas, atol=1, rtol=0.01)


def test_the_kernels_compile_for_cuda_without_a_gpu(tmp_path):
    warp, *modules = load_warp()
    for module in modules:
        warp.compile_aot_module(module, arch=90, module_dir=tmp_path, use_ptx=True)
    found = list(tmp_path.rglob("*.ptx"))
    assert len(found) == 2 and all(".target sm_90" in file.read_text() for file in found)
