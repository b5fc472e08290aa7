"""3D scenes written as GLB and USD: read by trimesh, pygltflib and usd-core, and rendered again from that.

Blender's importer reads GLB too, where ``MS2_BLENDER`` names a Python interpreter with ``bpy``.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from helpers import run_reader
from PIL import Image
from test_datasets import SMALL, small

from ms2.core.errors import UserError
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.models.opening import open_model
from ms2.render.base import Rendering
from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.export.parts import split_mesh, srgb_to_linear
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.meshes import Mesh, MeshLibrary, concatenate_meshes
from ms2.render.scene3d.scene import Scene3D
from ms2.render.scene3d.shapes import box
from ms2.scene.records import SceneRecord, from_record
from ms2.worlds.driving3d.surfaces import SURFACES

pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
pygltflib = pytest.importorskip("pygltflib")
pxr = pytest.importorskip("pxr")
NUMBER = 2
CAMERA_AXES = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass
class ReadScene:
    """A scene as another library reads it: triangles in the world's axes, and the camera."""

    up: int
    shapes: dict[str, tuple[np.ndarray, np.ndarray]]
    paths: set[str]
    camera: np.ndarray
    focal: tuple[float, float]
    centre: tuple[float, float]
    sun: np.ndarray
    properties: dict[str, Any]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    settings = [*SMALL["driving3d"], "--world.renderer.size", "[128, 416]"]
    plan = Plan(NUMBER, seed=3, formats=("glb", "usd"))
    made = Job(open_model("driving3d", arguments=settings), plan, tmp_path_factory.mktemp("scenes") / "set")
    assert generate(made, progress=False)
    return made


@cache
def read_glb(root: Path, number: int, size: tuple[int, int]) -> ReadScene:
    path = root / "glb" / f"{number:06d}.glb"
    scene, about = trimesh.load_scene(path), pygltflib.GLTF2().load(path)
    parents = scene.graph.transforms.parents
    shapes: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    paths = set()
    for node in scene.graph.nodes_geometry:
        matrix, geometry = scene.graph[node]
        way = [node]
        while way[-1] in parents:
            way.append(parents[way[-1]])
        group = next(i for i, name in enumerate(way) if name in ("objects", "street"))
        found = scene.geometry[geometry]
        vertices = trimesh.transform_points(found.vertices, matrix)
        shapes.setdefault(way[group - 1], []).append((vertices, np.asarray(found.faces)))
        paths.add("/".join(way[group - 1 : group + 2][::-1]))
    (root_node,) = about.scenes[0].nodes
    nodes = {node.name: np.array(node.matrix).reshape(4, 4).T for node in about.nodes if node.matrix}
    outer = np.array(about.nodes[root_node].matrix).reshape(4, 4).T
    exact, view = about.cameras[0].extras, about.cameras[0].perspective
    # the field of view is that of the focal length
    assert math.tan(view.yfov / 2) == pytest.approx(size[0] / 2 / exact["fy"])
    assert math.tan(view.yfov / 2) * view.aspectRatio == pytest.approx(size[1] / 2 / exact["fx"])
    return ReadScene(
        1, {name: joined(parts) for name, parts in shapes.items()}, paths, outer @ nodes["camera"],
        (exact["fx"], exact["fy"]), (exact["cx"], exact["cy"]), (outer @ nodes["sun"])[:3, 2],
        {node.name: node.extras for node in about.nodes},
    )  # fmt: skip


@cache
def read_usd(root: Path, number: int, size: tuple[int, int]) -> ReadScene:
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.Open(str(root / "usd" / f"{number:06d}.usda"))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0 and UsdGeom.GetStageUpAxis(stage) == "Z"
    cache = UsdGeom.XformCache()

    def world(prim: Any) -> np.ndarray:
        return np.array(cache.GetLocalToWorldTransform(prim)).T

    shapes: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    paths, properties = set(), {}
    for prim in stage.Traverse():
        if not prim.IsA(UsdGeom.Mesh):
            continue
        mesh, owner = UsdGeom.Mesh(prim), prim.GetParent()
        vertices = trimesh.transform_points(np.array(mesh.GetPointsAttr().Get(), float), world(prim))
        faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
        shapes.setdefault(owner.GetName(), []).append((vertices, faces))
        paths.add(f"scene_{number:06d}/{owner.GetParent().GetName()}/{owner.GetName()}")
        properties[owner.GetName()] = owner.GetCustomDataByKey("ms2")
    prim = stage.GetPrimAtPath("/Scene/camera")
    view = UsdGeom.Camera(prim).GetCamera()
    window = view.frustum.GetWindow()  # at distance 1
    (left, bottom), (right, top) = window.min, window.max
    fx, fy = size[1] / (right - left), size[0] / (top - bottom)
    return ReadScene(
        2, {name: joined(parts) for name, parts in shapes.items()}, paths, world(prim),
        (fx, fy), (-left * fx, top * fy), world(stage.GetPrimAtPath("/Scene/sun"))[:3, 2], properties,
    )  # fmt: skip


def joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = np.concatenate([faces + start for (_, faces), start in zip(parts, starts, strict=False)])
    return np.concatenate([vertices for vertices, _ in parts]), faces


@cache
def read_by_blender(root: Path, number: int, size: tuple[int, int]) -> ReadScene:
    """What Blender's importer of GLB has found, whose axes have z up."""
    output = root / "imported"
    output.mkdir(exist_ok=True)
    assert BLENDER is not None
    run_reader(BLENDER, "blender", root / "glb" / f"{number:06d}.glb", output, *size)
    about, arrays = json.loads((output / f"{number:06d}.json").read_text()), np.load(output / f"{number:06d}.npz")
    shapes: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    paths = set()
    for i, way in enumerate(about["meshes"]):
        group = next(i for i, name in enumerate(way) if name in ("objects", "street"))
        shapes.setdefault(way[group - 1], []).append((arrays[f"vertices{i}"], arrays[f"faces{i}"]))
        paths.add("/".join(way[group - 1 : group + 2][::-1]))
    exact = about["camera"]
    assert about["view"] == pytest.approx([size[1] / 2 / exact["fx"], size[0] / 2 / exact["fy"]], rel=1e-5)
    return ReadScene(
        2, {name: joined(parts) for name, parts in shapes.items()}, paths, arrays["camera"],
        (exact["fx"], exact["fy"]), (exact["cx"], exact["cy"]), arrays["sun"], about["properties"],
    )  # fmt: skip


BLENDER = os.environ.get("MS2_BLENDER")
NEEDS_BLENDER = pytest.mark.skipif(
    BLENDER is None or "python" not in Path(BLENDER).name, reason="MS2_BLENDER names no interpreter that has bpy"
)
READERS = pytest.mark.parametrize("read", [read_glb, read_usd, pytest.param(read_by_blender, marks=NEEDS_BLENDER)])
Read = Callable[[Path, int, tuple[int, int]], ReadScene]


def scenes(job: Job) -> Iterator[tuple[int, SceneRecord, Rendering]]:
    for number in range(NUMBER):
        record = json.loads((job.root / "scenes" / f"{number:06d}.json").read_text())
        scene = SceneRecord.from_json(record["scene"])
        yield number, scene, job.world.renderer.render_labelled(from_record(scene, job.world.classes))


def drawn(scene: ReadScene, size: tuple[int, int]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the shapes, the index of the one visible at each pixel, and its depth."""
    flat = {
        name: Mesh(vertices.astype(np.float32), np.tile(np.float32([0, 0, 1]), (len(vertices), 1)), faces)
        for name, (vertices, faces) in scene.shapes.items()
    }
    number = len(flat)
    pose = torch.from_numpy((CAMERA_AXES @ np.linalg.inv(scene.camera))[None, :3]).float()
    output = WarpEngine(shadow_size=0).render(
        Scene3D(
            MeshLibrary(flat),
            InstanceBatch(torch.arange(number)[None], torch.eye(4).expand(1, number, 4, 4), torch.ones(1, number, 3)),
            Camera(torch.tensor([scene.focal]), torch.tensor([scene.centre]), pose),
            Lighting.daylight(1),
        ),
        size,
        labels=False,
    )
    return list(flat), output.instances[0].numpy(), output.depth[0].numpy()


@READERS
def test_silhouettes_are_those_of_the_labels(job: Job, read: Read) -> None:
    """Whatever the size: masks, depth, camera and all that hides something agree."""
    size, seen = job.world.renderer.size, []
    for number, record, truth in scenes(job):
        names, ids, depth = drawn(read(job.root, number, size), size)
        for i, one in enumerate(record.objects):
            mask = (truth.instances[0] == i).numpy()
            if mask.sum() < 20:
                continue
            found = ids == names.index(f"{one.class_name}_{i}")
            seen.append((int(mask.sum()), (mask & found).sum() / (mask | found).sum()))
        assert ((ids < 0) == np.isinf(truth.depth[0].numpy())).mean() > 0.999  # the sky
        both = np.isfinite(depth) & np.isfinite(truth.depth[0].numpy())
        assert np.median(np.abs(depth[both] - truth.depth[0].numpy()[both])) < 1e-3
    assert len(seen) > 20 and max(area for area, _ in seen) > 2500
    assert min(overlap for area, overlap in seen if area >= 2500) >= 0.98
    assert min(overlap for _, overlap in seen) >= 0.9, sorted(seen)[:5]


@READERS
def test_names_hierarchy_and_properties(job: Job, read: Read) -> None:
    for number, record, _ in scenes(job):
        found = read(job.root, number, job.world.renderer.size)
        objects = {f"{one.class_name}_{i}": one for i, one in enumerate(record.objects) if i}
        parts = {path.rsplit("/", 1)[1] for path in found.paths if "/street/" in path}
        expected = {f"scene_{number:06d}/objects/{name}" for name in objects}
        assert {path for path in found.paths if "/objects/" in path} == expected
        assert {name.rsplit("_", 1)[0] for name in parts} <= {*SURFACES} - {"sky"} and "road_0" in parts
        for name, one in objects.items():
            known = found.properties[name]
            assert known["class"] == one.class_name and dict(known["attributes"]) == dict(one.attributes)


def test_the_camera_s_processing_is_told(job: Job) -> None:
    from pxr import Usd

    for number, record, _ in scenes(job):
        scene = from_record(record, job.world.classes)
        expected = {key: float(values[0]) for key, values in job.world.renderer.processing(scene).items()}
        assert expected["exposure"] == pytest.approx(record.environment["exposure"]) and expected["gain"] == 1
        root = read_glb(job.root, number, job.world.renderer.size).properties[f"scene_{number:06d}"]
        assert root["processing"] == pytest.approx(expected)
        stage = Usd.Stage.Open(str(job.root / "usd" / f"{number:06d}.usda"))
        assert dict(stage.GetDefaultPrim().GetCustomDataByKey("ms2:processing")) == pytest.approx(expected)


@READERS
def test_axes_lengths_and_sun(job: Job, read: Read) -> None:
    """The camera stands on the ground at its height and looks ahead; the sun stands where the environment says."""
    for number, record, _ in scenes(job):
        found, of = read(job.root, number, job.world.renderer.size), record.environment
        # KITTI's colour camera is some millimetres above the reference camera, whose height is given
        assert found.camera[found.up, 3] == pytest.approx(of["camera_height"], abs=0.1)
        assert found.camera[found.up, 2] == pytest.approx(-math.sin(of["pitch"]), abs=1e-6)
        assert found.sun[found.up] == pytest.approx(math.sin(of["sun_height"]), abs=1e-6)
        road = found.shapes["road_0"][0]
        if read is read_by_blender:  # which turns 300 m of road by matrices of 32-bit floats
            assert np.abs(road[:, found.up]).max() < 1e-4
        else:
            assert np.ptp(road[:, found.up]) == 0 and abs(road[0, found.up]) < 1e-6
        ahead = {1: -road[:, 2], 2: road[:, 1]}[found.up]
        assert ahead.max() > 100 and np.ptp(road[:, 0][np.isclose(ahead, ahead.min())]) == pytest.approx(
            of["road_width"], rel=1e-4
        )


def test_materials_of_glb_are_those_of_the_meshes(job: Job) -> None:
    """Colours in linear light, the instance's tint in them, textures with their pixels, and roughness."""
    renderer = job.world.renderer
    for number, record, _ in scenes(job):
        made = renderer.assemble(from_record(record, job.world.classes))
        scene = trimesh.load_scene(job.root / "glb" / f"{number:06d}.glb")
        meshes = list(made.meshes.meshes.values())
        parents = scene.graph.transforms.parents
        compared = 0
        for node in scene.graph.nodes_geometry:
            owner = node if parents[node] in ("objects", "street") else parents[node]
            if parents[owner] != "objects":
                continue
            i = int(owner.rsplit("_", 1)[1])
            surface = meshes[made.instances.mesh[0, i]].surface()
            tint = made.instances.colour[0, i].numpy()
            expected = srgb_to_linear(surface.colour * np.sqrt(1 + surface.paint[:, None] * (tint**2 - 1)))
            found = scene.geometry[scene.graph[node][1]]
            material = found.visual.material
            factor = np.array(material.baseColorFactor[:3]) / 255  # trimesh keeps eight bits
            near = np.abs(expected - factor).max(1).min()
            assert near < 0.004 or (factor == 1).all()
            assert material.doubleSided and material.metallicFactor == 0
            roughness = 1 - np.sqrt(surface.gloss)
            assert np.abs(roughness - material.roughnessFactor).min() < 0.01
            if material.baseColorTexture is not None:
                pixels = np.asarray(material.baseColorTexture.convert("RGB"))
                assert any(np.array_equal(pixels, each) for each in meshes[made.instances.mesh[0, i]].textures)
            compared += 1
        assert compared > 10


def test_materials_of_usd_resolve(job: Job) -> None:
    """Every mesh has a bound material, whose texture is a file that is there; colours are the instance's."""
    from pxr import Usd, UsdGeom, UsdShade

    for number, record, _ in scenes(job):
        made = job.world.renderer.assemble(from_record(record, job.world.classes))
        parts = {name: split_mesh(mesh) for name, mesh in made.meshes.meshes.items() if not name.startswith("field")}
        names = list(made.meshes.meshes)
        stage = Usd.Stage.Open(str(job.root / "usd" / f"{number:06d}.usda"))
        textured = coloured = 0
        for prim in stage.Traverse():
            if not prim.IsA(UsdGeom.Mesh):
                continue
            material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
            source = material.ComputeSurfaceSource()[0]
            assert source.GetIdAttr().Get() == "UsdPreviewSurface"
            texture = UsdShade.Shader(stage.GetPrimAtPath(material.GetPath().AppendChild("texture")))
            if texture:
                with Image.open(texture.GetInput("file").Get().resolvedPath) as image:
                    assert image.size[0] > 0
                textured += 1
            owner = prim.GetParent()
            if owner.GetParent().GetName() != "objects":
                continue
            i = int(owner.GetName().rsplit("_", 1)[1])
            part = {part.name: part for part in parts[names[made.instances.mesh[0, i]]]}[prim.GetName()]
            tint = made.instances.colour[0, i].tolist()
            expected = part.linear_colour(tuple(tint))
            if texture:
                assert np.allclose(texture.GetInput("scale").Get()[:3], expected.mean(0), atol=1e-5)
            else:
                assert np.allclose(prim.GetAttribute("primvars:displayColor").Get(), expected, atol=1e-5)
                coloured += 1
        assert textured > 10 and coloured > 10
        sky = UsdGeom.Xformable(stage.GetPrimAtPath("/Scene/sky"))
        assert np.allclose(np.array(sky.GetLocalTransformation()).T[:3, :3] @ [0, 1, 0], [0, 0, 1])  # its pole is up
        with Image.open(job.root / "usd" / f"sky/{number:06d}.png") as image:
            rows = np.asarray(image)[:, 0] / 255
        assert np.allclose(rows[0], made.lighting.zenith[0], atol=0.02)
        assert np.allclose(rows[31], made.lighting.horizon[0], atol=0.05)


def test_files_are_the_same_when_written_again(job: Job) -> None:
    """A data set's files depend on its settings alone."""
    before = {path: path.read_bytes() for folder in ("glb", "usd") for path in (job.root / folder).rglob("*.*")}
    again = Job(job.source, job.plan, job.root)
    again.finish()
    assert len(before) > 10
    assert [path for path, content in before.items() if path.read_bytes() != content and path.suffix != ".usdc"] == []


def test_parts_keep_all_triangles_with_their_materials() -> None:
    red, glossy = box(1, 2, 3, colour=(1.0, 0.0, 0.0)), box(1, 1, 1, gloss=0.25, paint=1.0)
    texture = np.zeros((2, 2, 3), np.uint8)
    mesh = concatenate_meshes(red, glossy, box(2, 2, 2, texture=0, textures=(texture,)))
    parts = split_mesh(mesh)
    assert [len(part.triangles) for part in parts] == [12, 12, 12]
    assert {part.roughness for part in parts} == {0.5, 1.0} and [part.texture is texture for part in parts].count(True)
    corners = np.concatenate([part.vertices[part.triangles].reshape(-1, 9) for part in parts])
    assert sorted(map(tuple, corners)) == sorted(map(tuple, mesh.vertices[mesh.triangles].reshape(-1, 9)))
    shiny = next(part for part in parts if part.is_painted)
    assert shiny.is_uniform and np.allclose(shiny.linear_colour((0.5, 0.0, 1.0)), [[0.21404, 0, 1]], atol=1e-4)


@pytest.mark.parametrize("name", ["glb", "usd"])
def test_flat_worlds_have_no_3d_scenes(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the format {name} holds 3D scenes, but DigitCanvas|draws flat ones"):
        Job(small("multimnist"), Plan(1, formats=(name,)), tmp_path)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pxr", None)
    with pytest.raises(UserError, match=r"usd-core, which is not installed. Try: pip install 'ms2\[usd\]'"):
        Job(small("driving3d"), Plan(1, formats=("usd",)), tmp_path)
