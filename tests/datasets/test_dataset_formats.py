"""Every world in every format, read by those who know nothing of ms2: pycocotools, torchvision; and by ms2 itself."""

import contextlib
import dataclasses
import importlib
import json
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
import torchvision.datasets
import yaml
from helpers import ms2
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_datasets import SMALL, changed_files, small, tree

from ms2.core.configurations import worlds
from ms2.datasets.formats.kitti import KittiFormat, _box_text
from ms2.datasets.formats.kitti_files import read_labels
from ms2.datasets.formats.yolo import _interval
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.masks import decode_mask
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageFile, ImageRecord
from ms2.datasets.rendering import check_renderable, depth_arrays, render_record
from ms2.grammar.derivations import is_valid
from ms2.render.base import Rendering
from ms2.render.scene3d.calibration import read_projection
from ms2.render.scene3d.camera import Camera
from ms2.scene.batch import scenes_from_derivations
from ms2.scene.records import SceneRecord, from_record
from ms2.targets.folder import Folder
from ms2.targets.kitti import Kitti
from ms2.world import World
from ms2.worlds.driving3d.renderer import Rendering3D, StreetView

pytestmark = [
    # pycocotools 2.0.11 decodes masks by NumPy's older protocol
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]
NUMBER = 36
"""Images of each set: a whole block, and a part of one."""


@dataclass
class Made:
    """A data set in all formats, and how it was made."""

    name: str
    job: Job

    @property
    def root(self) -> Path:
        return self.job.root

    @property
    def world(self) -> World:
        return self.job.source.model.world

    @property
    def solid(self) -> bool:
        """Whether the world is three-dimensional."""
        return self.name == "driving3d"

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.root.glob("scenes/*"))]

    @cached_property
    def coco(self) -> COCO:
        return COCO(self.root / "annotations" / "instances.json")

    @cached_property
    def renderings(self) -> list[Rendering]:
        """Every scene drawn again, by itself."""
        renderer = self.world.renderer
        scenes = [from_record(SceneRecord.from_json(record["scene"]), self.world.classes) for record in self.records]
        return [renderer.render_labelled(check_renderable(scene, renderer)) for scene in scenes]

    def annotations(self, image: int) -> list[dict[str, Any]]:
        """An image's COCO annotations, in their order."""
        found: list[dict[str, Any]] = self.coco.loadAnns(self.coco.getAnnIds(imgIds=[image]))
        return found


@pytest.fixture(scope="module", params=worlds())
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Each of the worlds that come along."""
    name = request.param
    plan = Plan(NUMBER, seed=1, depth=name == "driving3d", formats=("coco", "kitti", "yolo"))
    job = Job(small(name), plan, tmp_path_factory.mktemp(name) / "set")
    assert generate(job, progress=False)
    return Made(name, job)


def test_every_world_has_a_small_version() -> None:
    assert set(SMALL) == set(worlds()) == {"multimnist", "aerial2d", "driving3d"}


def test_all_files_and_no_others(made: Made) -> None:
    numbers = [f"{i:06d}" for i in range(NUMBER)]
    expected = {"README.md", "croissant.json", "sample.png", "dataset.json", "data.yaml", "annotations/instances.json"}
    expected |= {"ImageSets/train.txt", *(f"training/image_2/{n}.png" for n in numbers)}
    for folder, ending in (("images", "png"), ("scenes", "json"), ("labels", "txt"), ("training/label_2", "txt")):
        expected |= {f"{folder}/{n}.{ending}" for n in numbers}
    if made.solid:
        expected |= {f"training/calib/{n}.txt" for n in numbers} | {f"depth/{n}.png" for n in numbers}
    assert set(tree(made.root)) == expected


def test_numbers_are_numbers(made: Made) -> None:
    """JSON has neither NaN nor infinity, which Python writes and reads all the same."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} in {path}")

    for path in made.root.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)
    values = [v for r in made.records for found in r["labels"] + r["hidden"] for v in found.values()]
    assert None not in values and all(None not in value for value in values if isinstance(value, list))


# --- images and records ---


def test_records_hold_what_the_image_shows(made: Made) -> None:
    """The derivation makes the scene's objects, and the scene, drawn anew, the image."""
    for index, (record, rendering) in enumerate(zip(made.records, made.renderings, strict=True)):
        about = record["provenance"]
        assert (about["index"], about["block"], about["seed"]) == (index, index // 32, 1)
        rules = torch.tensor([record["derivation"]])
        assert is_valid(made.world.grammar, rules).all()
        objects = record["scene"]["objects"]
        structure = scenes_from_derivations(made.world.grammar, rules)
        names = [made.world.classes[number] for number in structure.classes[0][structure.mask[0]].tolist()]
        assert names == [thing["class"] for thing in objects][: len(names)]
        assert all(thing["class"] in made.world.parameter_prior.scenery for thing in objects[len(names) :])
        with Image.open(made.root / record["image"]["file"]) as image:
            assert (image.width, image.height) == (record["image"]["width"], record["image"]["height"])
            pixels = np.asarray(image).reshape(image.height, image.width, -1)
        drawn = (rendering.image[0].permute(1, 2, 0) * 255).round().byte().numpy()
        assert np.array_equal(pixels, drawn)


def test_records_are_read_and_written_the_same(made: Made) -> None:
    """To the byte, with each key in its place."""
    for path in sorted((made.root / "scenes").iterdir()):
        record = ImageRecord.from_json(orjson.loads(path.read_bytes()))
        assert orjson.dumps(record.to_json(), option=orjson.OPT_APPEND_NEWLINE) == path.read_bytes()
        assert f"{record.stem}.json" == path.name


def test_provenance_is_the_source_s(made: Made) -> None:
    hashes = made.job.source.fingerprints()
    assert set(hashes) == {"grammar", "checkpoint", "structure_prior", "parameter_prior", "renderer"}
    for record in made.records:
        assert hashes.items() <= record["provenance"].items()
    about = json.loads((made.root / "dataset.json").read_text())
    assert hashes.items() <= about.items()


def test_every_image_can_be_drawn_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """One from settings alone, the others by the source at hand, which takes no time to make."""
    assert render_record(made.root / "scenes" / "000007.json")[2]
    monkeypatch.setattr(importlib.import_module("ms2.datasets.rendering"), "build_model", lambda *_: made.job.source)
    for record in made.records:
        content, name, same = render_record(made.root / "scenes" / f"{record['provenance']['index']:06d}.json")
        assert same and content == (made.root / "images" / name).read_bytes()


def test_what_is_lost_is_made_again(made: Made, tmp_path: Path) -> None:
    """Images and records that are missing or cut short, also where another name still shows the damage."""
    whole = tree(made.root)
    copy = Job(made.job.source, made.job.plan, tmp_path / "copy")
    for name, content in whole.items():
        path = copy.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    lost = torch.randperm(NUMBER, generator=torch.Generator().manual_seed(0)).tolist()
    for index in lost[:5]:
        (copy.root / copy.record_files.image_name(index)).unlink()
    for index in lost[5:10]:
        (copy.root / copy.record_files.record_name(index)).unlink()
    for index in lost[10:15]:
        for name in (copy.record_files.image_name(index), f"training/image_2/{index:06d}.png"):
            os.truncate(copy.root / name, 40)
    for index in lost[15:20]:
        os.truncate(copy.root / copy.record_files.record_name(index), 200)
    if made.solid:
        (copy.root / copy.record_files.depth_name(lost[20])).unlink()
        os.truncate(copy.root / copy.record_files.depth_name(lost[21]), 100)
    (copy.root / "labels" / f"{lost[22]:06d}.txt").unlink()
    (copy.root / "training" / "label_2" / f"{lost[23]:06d}.txt").write_text("")
    (copy.root / "training" / "image_2" / f"{lost[24]:06d}.png").unlink()
    (copy.root / "annotations" / "instances.json").unlink()
    os.truncate(copy.root / "README.md", 10)
    (copy.root / "data.yaml").unlink()
    assert generate(copy, progress=False)
    assert changed_files(tree(copy.root), whole) == []


def test_images_are_linked_rather_than_copied(made: Made) -> None:
    for record in made.records:
        image = made.root / record["image"]["file"]
        assert image.samefile(made.root / "training" / "image_2" / image.name)


def test_the_target_folder_reads_the_images(made: Made) -> None:
    target = Folder(made.world, made.root / "images")
    target.verify()
    assert [path.name for path in target.images.paths] == [f"{i:06d}.png" for i in range(NUMBER)]
    for i, rendering in enumerate(made.renderings):
        assert torch.equal(target.images[i], (rendering.image[0] * 255).round().byte())


def test_depth_is_in_metres_along_the_axis(made: Made) -> None:
    if not made.solid:
        assert not (made.root / "depth").exists()
        return
    for i, rendering in enumerate(made.renderings):
        assert isinstance(rendering, Rendering3D)
        with Image.open(made.root / "depth" / f"{i:06d}.png") as image:
            assert image.mode.startswith("I;16")
            metres = np.asarray(image).astype(np.float64) / 256
        truth = rendering.depth[0].double().numpy()
        sky, far = np.isinf(truth), truth * 256 >= 65535.5  # KITTI's depth images end before 256 m
        assert (metres[far] == 0).all() and sky.any()
        assert (metres[~far] > 0).all()
        assert np.abs(metres - truth)[~far].max() <= 0.5 / 256 + 1e-9


def test_depth_ends_before_256_m_as_kitti_s_does(made: Made) -> None:
    if not made.solid:
        return
    metres = [0.0, 0.002, 1.5, 255.99, 65535 / 256, 255.9979, 255.999, 256.0, 300.0, 1e30, math.inf, math.nan]
    rendering = made.renderings[0]
    assert isinstance(rendering, Rendering3D)
    depth = torch.zeros_like(rendering.depth)
    depth[0, 0, : len(metres)] = torch.tensor(metres)
    arrays = depth_arrays(dataclasses.replace(rendering, depth=depth))
    assert arrays is not None
    assert arrays[0][0, : len(metres)].tolist() == [0, 1, 384, 65533, 65535, 65535, 0, 0, 0, 0, 0, 0]


# --- COCO ---


def test_coco_is_read_by_pycocotools(made: Made) -> None:
    coco = made.coco
    assert coco.getImgIds() == list(range(NUMBER))
    assert coco.getCatIds() == list(range(1, len(made.job.categories) + 1))
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == list(made.job.categories)
    assert coco.getAnnIds() == list(range(1, len(coco.anns) + 1)), "unique, and none is 0"
    assert len(coco.anns) == len(coco.dataset["annotations"]) == sum(len(r["labels"]) for r in made.records) > NUMBER
    height, width = made.world.renderer.size
    for image in coco.loadImgs(coco.getImgIds()):
        assert (image["height"], image["width"]) == (height, width)
        assert (made.root / "images" / image["file_name"]).is_file()


def test_coco_s_masks_are_the_renderer_s_instances(made: Made) -> None:
    """And boxes, areas and visible shares follow from them."""
    for image, (record, rendering) in enumerate(zip(made.records, made.renderings, strict=True)):
        annotations = made.annotations(image)
        instances = rendering.instances[0].numpy()
        assert len(annotations) == len(record["labels"])
        for found, kept in zip(annotations, record["labels"], strict=True):
            i = kept["object"]
            mask = made.coco.annToMask(found).astype(bool)
            assert np.array_equal(mask, instances == i) and np.array_equal(
                mask, decode_mask(found["segmentation"], instances.shape)
            )
            assert made.job.categories[found["category_id"] - 1] == record["scene"]["objects"][i]["class"]
            rows, columns = np.nonzero(mask)
            x, y, w, h = found["bbox"]
            assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert found["area"] == mask.sum() >= made.job.plan.min_pixels
            assert found["visibility"] == pytest.approx(float(rendering.visibility[0, i]), abs=5.01e-4)  # 3 digits
            assert found["visibility"] >= made.job.plan.min_visibility - 5e-4
            assert found["iscrowd"] == 0
        listed = {found["object"] for found in record["labels"] + record["hidden"]}
        things = record["scene"]["objects"]
        assert listed == {i for i, thing in enumerate(things) if thing["class"] in made.job.categories}


def test_coco_s_boxes_lie_within_the_image(made: Made) -> None:
    height, width = made.world.renderer.size
    for image in range(NUMBER):
        for found in made.annotations(image):
            for key in ("bbox", "amodal_bbox"):
                x, y, w, h = found[key]
                assert w > 0 and h > 0 and x >= 0 and y >= 0
                assert x + w <= width + 1e-9 and y + h <= height + 1e-9
            (x, y, w, h), (ax, ay, aw, ah) = found["bbox"], found["amodal_bbox"]
            assert ax <= x and ay <= y and ax + aw >= x + w - 1e-9 and ay + ah >= y + h - 1e-9


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_whoever_finds_all_labels_has_full_marks_by_coco_s_evaluation(made: Made, kind: str) -> None:
    answers = [found | {"score": 0.9} for found in made.coco.dataset["annotations"]]
    evaluation = COCOeval(made.coco, made.coco.loadRes(answers), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


# --- YOLO ---


def test_yolo_s_boxes_are_coco_s(made: Made) -> None:
    about = yaml.safe_load((made.root / "data.yaml").read_text())
    assert about["names"] == dict(enumerate(made.job.categories))
    assert (made.root / about["train"]).is_dir() and (made.root / about["val"]).is_dir()
    height, width = made.world.renderer.size
    for image in range(NUMBER):
        lines = (made.root / "labels" / f"{image:06d}.txt").read_text().splitlines()
        annotations = made.annotations(image)
        assert len(lines) == len(annotations)
        for line, found in zip(lines, annotations, strict=True):
            number, *box = line.split()
            assert int(number) == found["category_id"] - 1
            cx, cy, w, h = map(float, box)
            ends = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            assert all(0 <= v <= 1 for v in (cx, cy, w, h, *ends))
            edges = ((cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height)
            assert edges == pytest.approx(found["bbox"], abs=2e-6 * max(height, width))


@given(st.integers(1, 5000), st.data())
def test_yolo_s_boxes_lie_within_the_image(side: int, data: st.DataObject) -> None:
    """Whatever is read from the digits, in doubles and in floats, lies in [0, 1] and equals the box to the digits."""
    places = st.one_of(st.integers(0, side), st.floats(0, side), st.sampled_from([0, side]))
    low, high = sorted(data.draw(st.tuples(places, places)))
    middle, length = _interval(low, high, side)
    for read, tolerance in ((float, 0.51e-6), (np.float32, 1e-6)):
        ends = read(middle) - read(length) / 2, read(middle) + read(length) / 2
        assert ends[0] >= 0 and ends[1] <= 1
        assert ends == pytest.approx((low / side, high / side), abs=tolerance)


# --- KITTI ---


@given(st.integers(1, 2000), st.integers(1, 600), st.data())
def test_kitti_s_boxes_are_read_back(width: int, height: int, data: st.DataObject) -> None:
    """Half a pixel is cut off at the image's edges, which KITTI's 0 .. width - 1 do not reach."""
    x0, x1 = sorted(data.draw(st.tuples(st.floats(0, width), st.floats(0, width))))
    y0, y1 = sorted(data.draw(st.tuples(st.floats(0, height), st.floats(0, height))))
    text = _box_text((x0, y0, x1 - x0, y1 - y0), ImageFile("", width, height, 0, ""))
    found = [float(word) for word in text.split()]
    assert all(0 <= place <= side - 1 for place, side in zip(found, (width, height) * 2, strict=True))
    for place, edge, side in zip(found, (x0, y0, x1, y1), (width, height) * 2, strict=True):
        assert place + 0.5 == pytest.approx(min(max(edge, 0.5), side - 0.5), abs=0.0051)


def kitti_box(box: list[float], record: dict[str, Any]) -> tuple[float, ...]:
    """Left, top, right and bottom from 0 to side - 1: KITTI's pixels have their centres at whole numbers."""
    x, y, w, h = box
    width, height = record["image"]["width"], record["image"]["height"]
    places = ((x, width), (y, height), (x + w, width), (y + h, height))
    return tuple(min(max(place - 0.5, 0), side - 1) for place, side in places)


def test_kitti_s_labels_are_the_records_(made: Made) -> None:
    """Read by ms2's own reader."""
    for index, record in enumerate(made.records):
        things = read_labels(made.root / "training" / "label_2" / f"{index:06d}.txt")
        shown = [found for found in record["hidden"] if "bbox" in found]
        assert len(things) == len(record["labels"]) + len(shown)
        for thing, found in zip(things, record["labels"], strict=False):
            assert thing.type == found["category"].capitalize()
            assert thing.box == pytest.approx(kitti_box(found["amodal_bbox"], record), abs=0.0051)
            assert thing.truncation == pytest.approx(found.get("truncation", 0), abs=0.0051)
            visible = found["visibility"]
            assert thing.occlusion == (0 if visible >= 0.8 else 1 if visible >= 0.5 else 2)
            if not made.solid:
                assert (thing.size, thing.position, thing.yaw) == ((-1, -1, -1), (-1000, -1000, -1000), -10)
                continue
            height, width, length, *place, turn = found["box3d"]
            assert thing.size == pytest.approx((height, width, length), abs=0.0051)
            assert thing.position == pytest.approx(place, abs=0.0051)
            assert thing.yaw == pytest.approx(turn, abs=0.0051) and -math.pi <= turn <= math.pi
            seen = thing.yaw - math.atan2(thing.position[0], thing.position[2]) - thing.alpha
            assert abs(math.remainder(seen, 2 * math.pi)) < 0.03 and abs(thing.alpha) <= 3.145
        for thing, found in zip(things[len(record["labels"]) :], shown, strict=True):
            assert thing.type == "DontCare" and thing.box == pytest.approx(kitti_box(found["bbox"], record))
            assert (thing.truncation, thing.occlusion) == (-1, -1)


CORNERS = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-1.0, 0.0) for z in (-0.5, 0.5)])
"""Corners of a box by length, height and width, from the middle of its foot."""


def projected(record: dict[str, Any], found: dict[str, Any], root: Path) -> torch.Tensor | None:
    """The box in the image around a 3D box, from edge to edge; None if some of it is not before the camera."""
    height, width, length, *place, turn = found["box3d"]
    local = CORNERS * torch.tensor([length, height, width])
    c, s = math.cos(turn), math.sin(turn)
    turned = local @ torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]).T + torch.tensor(place)
    p2 = read_projection(root / "training" / "calib" / f"{record['provenance']['index']:06d}.txt")
    points = torch.cat([turned, torch.ones(8, 1)], 1) @ p2.T
    if points[:, 2].min() < 0.5:
        return None
    pixels = points[:, :2] / points[:, 2:] + 0.5  # KITTI's pixels have their middles at whole numbers
    size = torch.tensor([record["image"]["width"], record["image"]["height"]]).repeat(2)
    return torch.cat([pixels.amin(0), pixels.amax(0)]).clamp(min=0).minimum(size)


def test_3d_boxes_projected_with_p2_are_around_the_objects(made: Made) -> None:
    """A box is around the model, hence its picture is around the model's; and little wider for what is like a box."""
    if not made.solid:
        assert not (made.root / "training" / "calib").exists()
        return
    overlaps: dict[str, list[float]] = {}
    for record in made.records:
        for found in record["labels"]:
            box = projected(record, found, made.root)
            if box is None:
                continue
            x, y, w, h = found["amodal_bbox"]
            ours = torch.tensor([x, y, x + w, y + h])
            # cameras are pitched a little, which KITTI's boxes can't be; and whole pixels reach out of outlines
            assert (box[:2] <= ours[:2] + 2).all() and (box[2:] >= ours[2:] - 2).all(), found
            overlaps.setdefault(found["category"], []).append(float(w * h / (box[2:] - box[:2]).prod()))
    assert sum(map(len, overlaps.values())) > 500
    for name in ("car", "truck", "building"):
        assert np.mean(overlaps[name]) > 0.75, name


def test_kitti_s_boxes_lie_where_its_calibration_puts_the_meshes(made: Made) -> None:
    """Of objects that are whole in the image: the files of the set agree to much less than half a pixel."""
    if not made.solid:
        return
    renderer = made.world.renderer
    assert isinstance(renderer, StreetView)
    tables = renderer._tables_on(torch.device("cpu"))
    meshes, shifts = list(tables.library.meshes.values()), []
    for index, record in list(enumerate(made.records))[:12]:
        scene = from_record(SceneRecord.from_json(record["scene"]), made.world.classes)
        objects = renderer._objects(scene, tables)
        of = scene.environment
        pose = Camera.from_pinhole(
            torch.ones(1, 2), torch.zeros(1, 2), of["camera_height"], of["pitch"], of["camera_yaw"]
        ).pose[0]
        p2 = read_projection(made.root / "training" / "calib" / f"{index:06d}.txt")
        things = read_labels(made.root / "training" / "label_2" / f"{index:06d}.txt")
        for thing, found in zip(things, record["labels"], strict=False):
            i = found["object"]
            vertices = torch.from_numpy(meshes[objects.mesh[0, i]].vertices).float()
            world = vertices @ objects.transform[0, i, :3, :3].T + objects.transform[0, i, :3, 3]
            camera = world @ pose[:, :3].T + pose[:, 3]
            if thing.truncation > 0 or camera[:, 2].min() < 0.5:
                continue
            pixels = torch.cat([camera, torch.ones(len(camera), 1)], 1) @ p2.T
            pixels = pixels[:, :2] / pixels[:, 2:]
            errors = torch.tensor(thing.box) - torch.cat([pixels.amin(0), pixels.amax(0)])
            assert errors.abs().max() < 1.02, "boxes are around whole pixels where these reach out of the outline"
            shifts.append(errors.view(2, 2).mean(0))
    assert len(shifts) > 100 and torch.stack(shifts).mean(0).abs().max() < 0.05


def test_kitti_is_read_by_the_target_of_that_name(made: Made) -> None:
    types = {name.capitalize(): name for name in made.world.grammar.classes}
    target = Kitti(made.world, made.root, types=types)
    scenery = made.world.parameter_prior.scenery
    target.verify()
    assert len(target.images) == NUMBER
    with pytest.warns(UserWarning, match="are not counted") if scenery else contextlib.nullcontext():
        assert target.truth is not None
    own = made.world.grammar.classes
    for row, record in zip(target.truth.classes, made.records, strict=True):
        # without what is too low in the images to be seen, see Renderer.seen
        seen = [found for found in record["labels"] if found["amodal_bbox"][3] >= made.world.renderer.min_height]
        labelled = Counter(found["category"] for found in seen if found["category"] in own)
        assert Counter(own[number] for number in row[row >= 0].tolist()) == labelled


# --- the card ---


def snippets(root: Path) -> dict[str, str]:
    """Python in the card, by the library's class that it uses."""
    found = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.S)
    return {re.findall(r"import (\w+)", code)[-1]: code for code in found}


def run(code: str) -> Any:
    """What a snippet calls ``data``."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names["data"]


def test_the_card_s_lines_read_the_coco_set(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.root)
    data = run(snippets(made.root)["CocoDetection"])
    assert isinstance(data, torchvision.datasets.CocoDetection) and len(data) == NUMBER
    for index, record in enumerate(made.records):
        image, target = data[index]
        assert image.mode == "RGB" and image.size == (record["image"]["width"], record["image"]["height"])
        assert [found["bbox"] for found in target] == [found["bbox"] for found in record["labels"]]


def test_the_card_s_lines_read_the_kitti_set(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also when they are run a second time."""
    names = ("training", "README.md")
    for name in names:  # the lines leave a link behind
        (tmp_path / name).symlink_to(made.root / name)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        data = run(snippets(made.root)["Kitti"])
    assert isinstance(data, torchvision.datasets.Kitti) and len(data) == NUMBER
    place = {Path(image).stem: i for i, image in enumerate(data.images)}  # in whatever order the folder lists them
    for index, record in enumerate(made.records):
        image, target = data[place[f"{index:06d}"]]
        image.close()  # torchvision leaves it open
        assert image.size == (record["image"]["width"], record["image"]["height"])
        labelled = [found["category"].capitalize() for found in record["labels"]]
        assert [thing["type"] for thing in target if thing["type"] != "DontCare"] == labelled
        assert all(len(thing["bbox"]) == 4 and len(thing["dimensions"]) == 3 for thing in target)


def test_the_card_s_commands(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """One renders an image again; the other is another library's, whose file is there."""
    card = (made.root / "README.md").read_text()
    [command] = re.findall(r"^ms2 (render .*)$", card, re.M)
    monkeypatch.chdir(made.root)
    ms2(command.split())
    again = made.root / command.split()[-1]
    assert again.read_bytes() == (made.root / "images" / "000000.png").read_bytes()
    again.unlink()
    [file] = re.findall(r"^yolo detect train data=(\S+)$", card, re.M)
    assert (made.root / file).is_file()


def test_the_card_counts_right(made: Made) -> None:
    card = (made.root / "README.md").read_text()
    labels = [[found["category"] for found in record["labels"]] for record in made.records]
    hidden = Counter(found["category"] for record in made.records for found in record["hidden"])
    total = Counter(name for row in labels for name in row)
    assert card.startswith(f"# {made.name}: {NUMBER} images, {total.total()} labelled objects\n")
    rows = [re.split(r" *\| *", line)[1:-1] for line in card.splitlines() if line.startswith("| ")]
    table = {name: rest for name, *rest in rows if name in made.job.categories}
    assert list(table) == list(made.job.categories)
    for name, (objects, per_image, share, out_of_sight) in table.items():
        assert int(objects) == total[name] and int(out_of_sight) == hidden[name]
        assert float(per_image) == pytest.approx(total[name] / NUMBER, abs=0.0051)
        images = sum(name in row for row in labels)
        assert share == f"{images / NUMBER:.0%}"
    numbers, shares = re.findall(r"```\n( *\d.*?)```", card, re.S)
    by_number = {}
    for line in numbers.splitlines():
        span, count = line.split()[0], int(line.split()[-1])
        low, high = (int(v) for v in (span.split("-") * 2)[:2])
        by_number[low, high] = count
    assert (
        by_number == {(low, high): sum(low <= len(row) <= high for row in labels) for low, high in by_number}
        and sum(by_number.values()) == NUMBER
    )
    visible = [found["visibility"] for record in made.records for found in record["labels"]]
    tenths = [int(line.split()[-1]) for line in shares.splitlines()]
    assert tenths == np.histogram(visible, np.arange(11) / 10)[0].tolist()


def test_the_card_says_where_it_all_comes_from(made: Made) -> None:
    card = (made.root / "README.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (\S+) \|$", card, re.M))
    hashes = {name: value for name, value in made.job.source.fingerprints().items() if value}
    assert hashes.items() <= rows.items() and rows["seed"] == "1" and rows["device"] == "cpu"
    assert made.world.renderer.licence in card
    with Image.open(made.root / "sample.png") as sample:
        height, width = made.world.renderer.size
        assert sample.width > 4 * width and sample.height > 4 * height


# --- what can't be had ---


def test_kitti_s_images_are_png() -> None:
    with pytest.raises(ValueError, match="the format kitti has PNG images: leave --image jpeg out"):
        KittiFormat().check(Plan(image="jpeg"))
