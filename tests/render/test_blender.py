"""The engine Blender: its protocol with a stand-in that writes images, and Blender itself where MS2_BLENDER names one.

``MS2_BLENDER`` is a Python interpreter with ``bpy``, or the program ``blender``.
"""

import gc
import json
import os
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engines import MESHES, SIZE, scenes

from ms2.contracts.checks import num_first_scenes
from ms2.core.settings import source_fingerprint
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import render_record
from ms2.models.opening import open_model
from ms2.render.engines.blender import Blender
from ms2.render.engines.blender.exr import read_exr
from ms2.render.engines.blender.process import SCRIPT, BlenderError
from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting, display_values
from ms2.render.scene3d.meshes import Mesh, MeshLibrary
from ms2.render.scene3d.scene import Scene3D
from ms2.render.scene3d.shapes import box
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.driving3d.renderer import StreetView

BLENDER = os.environ.get("MS2_BLENDER")
needs_blender = pytest.mark.skipif(BLENDER is None, reason="MS2_BLENDER names no Blender")
WARP = WarpEngine(supersampling=1, shadow_size=0)
WRITER = '''
import struct

def write_exr(file, channels, width, height, attributes=(), compression=0, window=(0, 0), backwards=False):
    """Write rows of floats: channels is {name: list of rows}."""
    def attribute(name, kind, value):
        return name + b"\\0" + kind + b"\\0" + struct.pack("<i", len(value)) + value
    names = sorted(channels)
    listed = b"".join(n.encode() + b"\\0" + struct.pack("<iIii", 2, 0, 1, 1) for n in names) + b"\\0"
    x, y = window
    box = struct.pack("<4i", x, y, x + width - 1, y + height - 1)
    head = struct.pack("<ii", 20000630, 2) + attribute(b"channels", b"chlist", listed)
    head += attribute(b"compression", b"compression", bytes([compression])) + attribute(b"dataWindow", b"box2i", box)
    for name, text in attributes:
        head += attribute(name.encode(), b"string", text.encode())
    head += b"\\0"
    size, body, offsets = 8 + 4 * width * len(names), b"", []
    start = len(head) + 8 * height
    for k in (range(height - 1, -1, -1) if backwards else range(height)):
        offsets.append(start + len(body))
        body += struct.pack("<ii", y + k, size - 8)
        body += b"".join(struct.pack("<%df" % width, *channels[n][k]) for n in names)
    file.write(head + struct.pack("<%dQ" % height, *offsets) + body)
'''
STAND_IN = (
    "#!PYTHON -S\n"
    + WRITER
    + """
import json, os, sys, time
mode, log = MODE, LOG
again = os.path.exists(log)
with open(log, "a") as file:
    file.write(json.dumps({"arguments": sys.argv[1:]}) + "\\n")
for line in sys.stdin:
    request = json.loads(line)
    with open(log, "a") as file:
        file.write(line)
    if mode == "dies" or mode == "dies once" and not again:
        sys.exit("out of memory")
    if mode == "sleeps":
        time.sleep(60)
    if mode == "reports":
        print(json.dumps({"error": "Cycles finds no device"}), flush=True)
        continue
    height, width = request["size"]
    if mode == "writes nothing":
        print("{}", flush=True)
        continue
    shade = 0.01 * len(request["numbers"]) * request["samples"]
    channels = {"ViewLayer.Combined." + c: [[shade * k] * width] * height for k, c in enumerate("ABGR", 1)}
    if request["index"]:
        channels["ViewLayer.Object Index.X"] = [[(i + j) % 3 for i in range(width)] for j in range(height)]
    with open(request["file"], "wb") as file:
        write_exr(file, channels, width, height, [("cycles.ViewLayer.total_time", "01:02.50")])
    print("Fra:1 Mem:8.00M", json.dumps({"blender": "5.0.1"}), sep="\\n", flush=True)
"""
)


def stand_in(folder: Path, mode: str = "", name: str = "python-stand-in", **changed: Any) -> Blender:
    """A program in place of an interpreter with bpy, which draws even images and notes what it is asked."""
    path = folder / name
    text = STAND_IN.replace("PYTHON", sys.executable).replace("MODE", repr(mode)).replace("LOG", repr(f"{folder}/log"))
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return Blender(str(path), **({"samples": 1, "timeout": 30.0, "rasteriser": WARP} | changed))


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log").read_text(encoding="utf-8").splitlines()]


# --- the protocol ---


def test_one_process_renders_many_scenes_and_labels_are_the_rasteriser_s(tmp_path: Path) -> None:
    engine, (instances, camera, lighting) = stand_in(tmp_path), scenes()
    found = engine.render(Scene3D(MESHES, instances, camera, lighting), SIZE)
    expected = WARP.render(Scene3D(MESHES, instances, camera, lighting), SIZE)
    for name in ("instances", "depth"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert found.labels is not None and expected.labels is not None
    assert torch.equal(found.labels.extents, expected.labels.extents)
    used = (instances.mesh >= 0).sum(1)
    linear = 0.01 * used[:, None] * torch.tensor([4.0, 3.0, 2.0])  # the stand-in's shades of R, G and B
    assert torch.allclose(found.image, linear.sqrt()[..., None, None].expand(-1, -1, *SIZE))
    normals = engine.render_normals(Scene3D(MESHES, instances, camera, lighting), SIZE)
    assert torch.equal(normals, WARP.render_normals(Scene3D(MESHES, instances, camera, lighting), SIZE))
    index = engine.object_index(Scene3D(MESHES, instances, camera, lighting), SIZE)
    assert index[2, 1].tolist() == [(i + 1) % 3 - 1 for i in range(SIZE[1])]
    starts = [entry for entry in log(tmp_path) if "arguments" in entry]
    assert starts == [{"arguments": [str(SCRIPT)]}] and len(log(tmp_path)) == 1 + 2 * len(instances)
    assert engine.cycles_seconds == pytest.approx(8 * 62.5)
    engine.close()


def test_a_request_says_all_of_a_scene(tmp_path: Path) -> None:
    """A point that the request's camera and matrices project lies where the rasteriser's camera sees it."""
    engine, (instances, camera, lighting) = stand_in(tmp_path, samples=7, bounces=1), scenes()
    engine.render(Scene3D(MESHES, instances, camera, lighting), SIZE)
    request = log(tmp_path)[3]  # of the third scene
    used = (instances.mesh[2] >= 0).nonzero()[:, 0]
    assert request["numbers"] == used.tolist() and request["meshes"] == instances.mesh[2, used].tolist()
    assert torch.allclose(torch.tensor(request["colours"]), instances.colour[2, used] ** 2)
    assert request["samples"] == 7 and request["bounces"] == 1 and request["device"] == "cpu" and not request["index"]
    assert request["lighting"]["sun"] == lighting.sun[2].tolist() and set(request["lighting"]) == set(vars(lighting))
    point = torch.tensor([0.3, 0.2, 0.9, 1.0], dtype=torch.float64)
    world = torch.tensor(request["transforms"][-1], dtype=torch.float64) @ point
    seen = torch.linalg.inv(torch.tensor(request["camera"]["matrix"], dtype=torch.float64)) @ world
    x, y, z = seen[:3].tolist()
    assert z < 0  # in front of Blender's camera
    fx, fy = request["camera"]["focal"]
    column, row = request["camera"]["centre"][0] + fx * x / -z, request["camera"]["centre"][1] - fy * y / -z
    there = camera.pose[2].double() @ instances.transform[2, used[-1]].double() @ point
    expected = camera.focal[2] * (there[:2] / there[2]) + camera.centre[2]
    assert [column, row] == pytest.approx(expected.tolist(), abs=1e-3)
    engine.close()


def test_the_library_is_written_once_and_as_it_is_drawn(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (4, 8, 3), dtype=np.uint8)
    uv = np.zeros((24, 2))
    wall = Mesh(**{**vars(box(1, 1, 1)), "uv": uv, "texture": 0, "textures": (picture, picture.copy()), "paint": 0.5})
    meshes = MeshLibrary({"wall": wall, "unused": box(1, 1, 1)})
    engine, (instances, camera, lighting) = stand_in(tmp_path), scenes(1)
    only = InstanceBatch(torch.where(instances.mesh >= 0, 0, -1), instances.transform, instances.colour)
    engine.render(Scene3D(meshes, only, camera, lighting), SIZE)
    folder = Path(log(tmp_path)[1]["library"])
    (texture,) = folder.glob("*.png")
    assert sorted(path.name for path in folder.iterdir()) == sorted(["0.npz", texture.name])
    with np.load(folder / "0.npz") as file:
        assert file["textures"].tolist() == [texture.name, texture.name, ""] and file["paint"].tolist() == [0.5] * 24
        assert np.allclose(file["colour"], wall.surface().colour ** 2) and file["triangles"].shape == (12, 3)
    engine.close()
    assert not folder.exists()


def test_blender_itself_gets_its_arguments(tmp_path: Path) -> None:
    engine = stand_in(tmp_path, name="blender")
    engine.render(Scene3D(MESHES, *scenes(1)), SIZE)
    arguments = log(tmp_path)[0]["arguments"]
    assert arguments[0] == "--background" and arguments[-2:] == ["--python", str(SCRIPT)]
    engine.close()


def test_it_is_started_again_and_in_a_copy(tmp_path: Path) -> None:
    engine = stand_in(tmp_path, "dies once")
    first = engine.render(Scene3D(MESHES, *scenes(2)), SIZE)
    assert sum("arguments" in entry for entry in log(tmp_path)) == 2
    copy = pickle.loads(pickle.dumps(engine))
    assert torch.equal(copy.render(Scene3D(MESHES, *scenes(2)), SIZE).image, first.image)
    assert sum("arguments" in entry for entry in log(tmp_path)) == 3
    folder = Path(log(tmp_path)[-1]["library"]).parent
    assert folder.is_dir()
    del copy
    gc.collect()
    assert not folder.exists()
    engine.close()
    assert torch.equal(engine.render(Scene3D(MESHES, *scenes(2)), SIZE).image, first.image)
    engine.close()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("dies", r"failed after 2 tries: it ended with exit code 1: out of memory. It was started as: .*stand-in .*py"),
        ("sleeps", r"failed after 2 tries: it did not answer within 0.5 s"),
        ("reports", r"it reported: Cycles finds no device"),
        ("writes nothing", r"failed after 2 tries: .*image.exr"),
    ],
)
def test_failures_are_reported(tmp_path: Path, mode: str, message: str) -> None:
    engine, start = stand_in(tmp_path, mode, retries=1, timeout=0.5 if mode == "sleeps" else 30), time.monotonic()
    with pytest.raises(BlenderError, match=message):
        engine.render(Scene3D(MESHES, *scenes(1)), SIZE)
    assert time.monotonic() - start < 20
    engine.close()


def test_a_missing_blender_says_how_to_get_one() -> None:
    with pytest.raises(BlenderError, match=r"no program '/no/blender'. Set the engine's executable to .* install bpy"):
        Blender("/no/blender", rasteriser=WARP).render(Scene3D(MESHES, *scenes(1)), SIZE)


def test_an_interpreter_without_bpy_says_so(tmp_path: Path) -> None:
    """The script itself runs, with a bpy that cannot be imported, whether this interpreter has one or not."""
    (tmp_path / "bpy.py").write_text("raise ImportError('none here')", encoding="utf-8")
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    with pytest.raises(BlenderError, match=r"has no bpy \(none here\): install it there, or name another one"):
        Blender(str(wrapper), retries=0, rasteriser=WARP).render(Scene3D(MESHES, *scenes(1)), SIZE)


def street(engine: Blender | WarpEngine, size: tuple[int, int], number: int) -> tuple[World, SceneBatch]:
    world = open_model("driving3d", arguments=[f"--world.renderer.size={list(size)}"]).model.world
    assert isinstance(world.renderer, StreetView)
    world.renderer.engine = engine
    return world, world.sample_prior(number, rng(4))


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_a_set_is_resumed_and_rendered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name on the command line; amodal masks and normals need no path tracing."""
    stand_in(tmp_path)
    arguments = ["--world.renderer.size=[16, 52]", "--world.renderer.engine=Blender"]
    arguments += [f"--world.renderer.engine.executable={tmp_path / 'python-stand-in'}"]
    root = tmp_path / "set"

    def job() -> Job:
        return Job(open_model("driving3d", arguments=arguments), Plan(3, maps=("amodal", "normals")), root)

    assert generate(job(), progress=False)
    rendered = sum("file" in entry for entry in log(tmp_path))
    contents = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert rendered == 3 + 3 * num_first_scenes(job().world)  # the first scenes are checked before
    (root / "images" / "000001.png").unlink()
    assert generate(job(), progress=False)
    assert sum("file" in entry for entry in log(tmp_path)) == rendered + 1
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == contents
    assert render_record(root / "scenes" / "000001.json")[2]
    assert "Blender" in (root / "dataset.json").read_text(encoding="utf-8")


def test_what_blender_runs_is_part_of_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Blender(rasteriser=WARP)
    assert engine.source_files == (SCRIPT,)
    before = source_fingerprint([engine])
    changed = tmp_path / "script.py"
    changed.write_text("pass", encoding="utf-8")
    monkeypatch.setattr("ms2.render.engines.blender.engine.SCRIPT", changed)
    assert source_fingerprint([engine]) != before


# --- images ---


@pytest.mark.parametrize("value", [0.2, 0.85, 0.95, 1.3])
def test_display_values_are_the_rasteriser_s(value: float) -> None:
    """An empty scene shows the sky, whose linear light is the square of its colour."""
    instances, camera, lighting = scenes(1)
    sky = torch.full((1, 3), value)
    even = Lighting(**{**vars(lighting), "horizon": sky, "zenith": sky, "sun_colour": torch.zeros(1, 3)})
    nothing = InstanceBatch(torch.full_like(instances.mesh, -1), instances.transform, instances.colour)
    image = WARP.render(Scene3D(MESHES, nothing, camera, even), SIZE).image
    assert torch.allclose(image, display_values(torch.tensor(value**2)).expand_as(image), atol=1e-5)


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 4), st.booleans(), st.integers(-3, 3))
def test_exr_files_are_read(width: int, height: int, backwards: bool, corner: int) -> None:
    values = np.arange(2 * width * height, dtype=np.float32).reshape(2, height, width)
    namespace: dict[str, Any] = {}
    exec(WRITER, namespace)
    content = _Bytes()
    channels = {"b": values[0].tolist(), "a": values[1].tolist()}
    namespace["write_exr"](content, channels, width, height, [("name", "ü")], 0, (corner, -corner), backwards)
    image = read_exr(content.value)
    assert image.attributes["name"] == "ü" and sorted(image.channels) == ["a", "b"]
    assert np.array_equal(image.channels["b"], values[0]) and np.array_equal(image.channels["a"], values[1])
    for broken in (content.value[:-1], content.value[:30], b"", b"\x89PNG" + content.value[4:]):
        with pytest.raises(ValueError, match="EXR"):
            read_exr(broken)
    packed = _Bytes()
    namespace["write_exr"](packed, channels, width, height, compression=3)
    with pytest.raises(ValueError, match="compressed"):
        read_exr(packed.value)


class _Bytes:
    """A file in memory."""

    value = b""

    def write(self, content: bytes) -> None:
        self.value += content


# --- Blender itself ---


@pytest.fixture(scope="module")
def blender() -> Iterator[Blender]:
    engine = Blender(BLENDER or "", samples=4, rasteriser=WARP)
    yield engine
    engine.close()


@needs_blender
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_cycles_object_index_agrees_with_the_masks(blender: Blender) -> None:
    """Both sample the middle of each pixel; KITTI's frames show objects from a few pixels to a quarter of the image."""
    world, batch = street(WARP, (375, 1242), 2)
    assert isinstance(world.renderer, StreetView)
    made, labels = world.renderer.assemble(batch), world.renderer.render_labelled(batch)
    index = blender.object_index(made, (375, 1242))
    assert (index == labels.drawn).float().mean() > 0.999  # with the strips of the street
    large = small = 0
    for scene in range(len(batch)):
        for i in labels.instances[scene].unique().tolist():
            ours, theirs = labels.instances[scene] == i, index[scene] == i
            area, iou = int(ours.sum()), float((ours & theirs).sum() / (ours | theirs).sum())
            assert i < 0 or area < 100 or iou >= (0.98 if area >= 2500 else 0.9), (scene, i, area, iou)
            large, small = large + (i >= 0 and area >= 2500), small + (i >= 0 and 100 <= area < 2500)
    assert large >= 5 and small >= 10


@needs_blender
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_an_image_is_the_same_in_any_batch_and_after_a_restart(blender: Blender) -> None:
    world, batch = street(blender, (32, 104), 3)
    images = world.renderer.render(batch)
    assert torch.equal(world.renderer.render(batch[1:2])[0], images[1])
    blender.close()
    assert torch.equal(world.renderer.render(batch[torch.tensor([2, 0])]), images[[2, 0]])


@needs_blender
def test_light_is_the_rasteriser_s(blender: Blender) -> None:
    """A matt wall under even light and in the sun, haze in front of it, and the sky above, in closed form."""
    wall = Mesh(
        np.array([[-9.0, 0, -9], [9, 0, -9], [9, 0, 0], [-9, 0, 0]]), np.tile([0.0, -1.0, 0.0], (4, 1)),
        np.array([[0, 1, 2], [0, 2, 3]]), colour=(0.5, 0.7, 0.9), paint=0.5,
    )  # fmt: skip
    meshes, one = MeshLibrary({"wall": wall}), torch.ones(1, 3)
    instances = InstanceBatch(
        torch.zeros(1, 1, dtype=torch.long), torch.eye(4).expand(1, 1, 4, 4).clone(), torch.tensor([[[0.4, 0.8, 1.0]]])
    )
    instances.transform[0, 0, 1, 3] = 5.0
    camera = Camera.from_pinhole(torch.tensor([[20.0, 20.0]]), torch.tensor([[16.0, 8.0]]), 0.0)
    lighting = Lighting(
        torch.tensor([[0.0, -3.0, 4.0]]), one * 0.5, one * 0.3, one * 0.2, torch.tensor([0.02]), one * 0.8,
        one * 0.6, one * 0.6, torch.zeros(1),
    )  # fmt: skip
    engine = Blender(BLENDER or "", samples=256, denoise=False, bounces=0, rasteriser=WARP)
    found = engine.render(Scene3D(meshes, instances, camera, lighting), (16, 32)).image[0]
    ours = WARP.render(Scene3D(meshes, instances, camera, lighting), (16, 32)).image[0]
    engine.close()
    colour = torch.tensor([0.5, 0.7, 0.9]) ** 2 * (1 + 0.5 * (torch.tensor([0.4, 0.8, 1.0]) ** 2 - 1))
    light = 0.5 * 0.6 + 0.5 * (0.3 + 0.2)  # the sun at a slant, half of the sky and half of the ground
    clear = float(np.exp(-0.02 * 5))
    expected = display_values(colour * light * clear + 0.8**2 * (1 - clear))
    middle = (slice(None), slice(10, 12), slice(14, 18))
    assert torch.allclose(found[middle].mean((1, 2)), expected, atol=0.01)
    assert torch.allclose(ours[middle].mean((1, 2)), expected, atol=0.01)
    assert torch.allclose(found[:, :6], ours[:, :6], atol=0.005)  # the sky
