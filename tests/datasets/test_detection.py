"""Labelled sets: what a detector is given, where boxes go when images are scaled and cut, what is said of bad ones."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.images import read_image
from ms2.datasets.formats.coco import CocoSet
from ms2.datasets.formats.kitti import KittiSet
from ms2.datasets.formats.kitti_files import read_labels
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.labelled_set import DataSetError, LabelledSet, collate
from ms2.datasets.masks import decode_mask
from ms2.datasets.resize_crop import ResizeCrop
from ms2.render.scene3d.calibration import KittiError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
HEIGHT, WIDTH = 20, 30
CAR = {
    "object": 0,
    "category": "car",
    "bbox": [2, 3, 6, 5],
    "amodal_bbox": [2, 3, 9.5, 5],
    "visibility": 0.6,
    "area": 30,
}
HOUSE = {"object": 1, "category": "house", "bbox": [20, 10, 10, 10], "amodal_bbox": [20, 10, 10, 10], "visibility": 1.0}
TREE = {"object": 2, "category": "tree", "bbox": [0, 0, 2, 2], "visibility": 0.05}
HIDDEN = {"object": 3, "category": "car", "visibility": 0.0}
EVERY = {
    "boxes": torch.float32,
    "labels": torch.int64,
    "ignore": torch.bool,
    "height": torch.float32,
    "occlusion": torch.int64,
    "truncation": torch.float32,
    "scale": torch.float32,
    "regions": torch.float32,
    "region_labels": torch.int64,
}


def with_mask(label: dict[str, Any]) -> dict[str, Any]:
    """The label with a mask that fills its box."""
    x, y, w, h = map(int, label["bbox"])
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[y : y + h, x : x + w] = 1
    packed = rle.encode(pixels)
    return label | {"segmentation": {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}}


def record(file: str, labels: list[dict[str, Any]], hidden: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "image": {"file": file, "width": WIDTH, "height": HEIGHT, "bytes": 0, "hash": ""},
        "provenance": {"index": 0, "block": 0, "seed": 0, "ms2": "", "device": "cpu"},
        "derivation": [],
        "scene": {"environment": {}, "objects": []},
        "labels": [with_mask(label) for label in labels],
        "hidden": hidden,
    }


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """Two scenes: a car, a house and a tree that is all but hidden; and nothing."""
    records = [
        record(
            "images/000000.png",
            [CAR | {"truncation": 0.25}, HOUSE],
            [TREE, HIDDEN],
        ),
        record("images/000001.png", [], []),
    ]
    (tmp_path / "images").mkdir()
    (tmp_path / "scenes").mkdir()
    for i, one in enumerate(records):
        pixels = np.full((HEIGHT, WIDTH, 3), [i, 100, 200], np.uint8)
        Image.fromarray(pixels).save(tmp_path / one["image"]["file"])
        (tmp_path / f"scenes/{i:06d}.json").write_text(json.dumps(one))
    about = {"num_scenes": 2, "categories": ["car", "house", "tree"], "size": [HEIGHT, WIDTH]}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    return tmp_path


@pytest.fixture
def coco(generated: Path) -> Path:
    """The same as a COCO file, with a crowd of houses, and an object that is to be ignored."""
    found = json.loads((generated / "scenes/000000.json").read_text())["labels"]
    kinds = {"automobile": 7, "house": 3}
    annotations = [
        {"id": 1, "image_id": 5, "category_id": 7, "iscrowd": 0, **found[0]},
        {"id": 2, "image_id": 5, "category_id": 3, "iscrowd": 1, **found[1]},
        {"id": 3, "image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [-3, 5, 8, 5], "area": 40, "ignore": 1,
         "segmentation": [[0, 5, 5, 5, 5, 10, 0, 10]]},
        {"id": 4, "image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [4, 4, 0, 5], "area": 0,
         "segmentation": [[4, 4, 4, 4, 4, 9, 4, 9]]},
    ]  # fmt: skip
    images = [{"id": 9, "file_name": "000001.png"}, {"id": 5, "file_name": "000000.png"}]
    images = [{**image, "width": WIDTH, "height": HEIGHT} for image in images]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in kinds.items()],
    }
    path = generated / "instances.json"
    path.write_text(json.dumps(content))
    return path


LINE = "{kind} {truncation} {occlusion} -1.56 {box} 1.61 1.66 3.20 -0.69 1.69 25.01 -1.59"


def line(kind: str, box: str, truncation: float = 0.0, occlusion: int = 0) -> str:
    return LINE.format(kind=kind, box=box, truncation=truncation, occlusion=occlusion)


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """Three frames of 400 x 100 pixels, of which the first holds objects of many kinds."""
    root = tmp_path / "kitti"
    for folder in ("training/image_2", "training/label_2", "ImageSets"):
        (root / folder).mkdir(parents=True)
    lines = [
        line("Car", "150 20 190 60", 0.1, 1),
        line("Van", "200 20 240 60", 0.0, 2),
        line("Pedestrian", "20 20 60 60"),
        line("Car", "80 20 120 60", 0.5),
        line("Misc", "300 20 340 60"),
        line("DontCare", "280 0 320 50", -1, -1),
    ]
    for frame in range(3):
        Image.new("RGB", (400, 100), (frame, 0, 0)).save(root / f"training/image_2/{frame:06d}.png")
        (root / f"training/label_2/{frame:06d}.txt").write_text("\n".join(lines if frame == 0 else []))
    (root / "ImageSets/train.txt").write_text("000002\n000000\n")
    (root / "ImageSets/official.txt").write_text("000000\n005555\n")
    return root


def test_a_generated_set(generated: Path) -> None:
    data = GeneratedSet(generated)
    assert len(data) == 2 and data.categories == ("car", "house", "tree")
    image, target = data[0]
    assert image.dtype == torch.uint8 and image.shape == (3, HEIGHT, WIDTH) and image[:, 0, 0].tolist() == [0, 100, 200]
    assert target["boxes"].tolist() == [[2, 3, 8, 8], [20, 10, 30, 20]] and target["labels"].tolist() == [1, 2]
    assert target["height"].tolist() == [5, 10] and target["occlusion"].tolist() == [1, 0]
    assert target["truncation"].tolist() == [0.25, 0] and target["ignore"].tolist() == [False, False]
    # the tree is hidden, and the other car all the more
    assert target["regions"].tolist() == [[0, 0, 2, 2]] and target["region_labels"].tolist() == [3]
    assert {name: value.dtype for name, value in target.items()} == EVERY


def test_an_image_without_objects(generated: Path) -> None:
    target = GeneratedSet(generated, masks=True)[1][1]
    assert {name: tuple(value.shape) for name, value in target.items()} == {
        "boxes": (0, 4), "labels": (0,), "ignore": (0,), "height": (0,), "occlusion": (0,), "truncation": (0,),
        "scale": (), "regions": (0, 4), "region_labels": (0,), "masks": (0, HEIGHT, WIDTH),
    }  # fmt: skip


def test_categories_are_numbered_as_they_are_named(generated: Path) -> None:
    target = GeneratedSet(generated, ["tree", "car"])[0][1]
    assert target["labels"].tolist() == [2] and target["region_labels"].tolist() == [1]


def test_masks_are_those_of_the_labels(generated: Path) -> None:
    masks = GeneratedSet(generated, ["house"], masks=True)[0][1]["masks"]
    assert masks.dtype == torch.uint8 and masks.shape == (1, HEIGHT, WIDTH)
    assert masks.sum() == 100 and masks[0, 10:, 20:].all()


def test_boxes_of_whole_objects_and_kittis_pixels(generated: Path) -> None:
    target = GeneratedSet(generated, amodal=True, kitti_scale=0.25)[0][1]
    assert target["boxes"].tolist() == [[2, 3, 11.5, 8], [20, 10, 30, 20]]
    assert target["height"].tolist() == [20, 40] and float(target["scale"]) == 0.25


def test_a_limit_takes_the_first(generated: Path) -> None:
    assert len(GeneratedSet(generated, limit=1)) == 1 and len(GeneratedSet(generated, limit=9)) == 2


def test_coco(coco: Path) -> None:
    data = CocoSet(coco.parent / "images", coco, category_map={"automobile": "car"}, masks=True)
    assert data.categories == ("car", "house") and len(data) == 2
    image, target = data[0]  # by number
    assert torch.equal(image, read_image(coco.parent / "images/000000.png"))
    assert target["boxes"].tolist() == [[2, 3, 8, 8], [0, 5, 5, 10]]  # cut, and the empty one left out
    assert target["labels"].tolist() == [1, 2] and target["ignore"].tolist() == [False, True]
    assert target["regions"].tolist() == [[20, 10, 30, 20]] and target["region_labels"].tolist() == [2]
    assert target["masks"].sum((1, 2)).tolist() == [30, 25]
    assert len(data[1][1]["boxes"]) == 0
    assert {name: value.dtype for name, value in target.items()} == EVERY | {"masks": torch.uint8}


def test_coco_brought_to_a_size(coco: Path) -> None:
    image, target = CocoSet(coco.parent / "images", coco, ["house"], size=(40, 40))[0]
    assert image.shape == (3, 40, 40)
    # twice as large, and 10 pixels cut off on the left and on the right
    assert target["regions"].tolist() == [[30, 20, 40, 40]] and target["boxes"].tolist() == []
    assert float(target["scale"]) == 2


def test_kitti_frames_keep_their_size(kitti: Path) -> None:
    data = KittiSet(kitti, ["car", "pedestrian"])
    image, target = data[0]
    assert len(data) == 3 and image.shape == (3, 100, 400)
    # KITTI's pixels have their centres at whole numbers, ours half a pixel from their edges
    boxes = [
        [150.5, 20.5, 190.5, 60.5],
        [200.5, 20.5, 240.5, 60.5],
        [20.5, 20.5, 60.5, 60.5],
        [80.5, 20.5, 120.5, 60.5],
    ]
    assert target["boxes"].tolist() == boxes
    assert target["labels"].tolist() == [1, 1, 2, 1] and target["ignore"].tolist() == [False, True, False, False]
    assert target["occlusion"].tolist() == [1, 2, 0, 0] and target["height"].tolist() == [40] * 4
    assert target["truncation"].tolist() == pytest.approx([0.1, 0, 0, 0.5])
    assert target["regions"].tolist() == [[280.5, 0.5, 320.5, 50.5]] and target["region_labels"].tolist() == [0]
    assert {name: value.dtype for name, value in target.items()} == EVERY
    assert len(data[1][1]["boxes"]) == 0


def test_kitti_frames_are_scaled_and_cut(kitti: Path) -> None:
    target = KittiSet(kitti, ["car", "pedestrian"], size=(50, 100))[0][1]
    # half as large; of 200 columns the middle 100 stay, so that 50 pixels are cut off on the left
    edges = [[25.25, 10.25, 45.25, 30.25], [50.25, 10.25, 70.25, 30.25], [0, 10.25, 10.25, 30.25]]
    assert target["boxes"].tolist() == edges
    assert target["labels"].tolist() == [1, 1, 1]  # the pedestrian is gone
    assert target["height"].tolist() == [40, 40, 40] and float(target["scale"]) == 0.5
    # of 20 columns of the last car 9.75 are cut off, and half of it was outside before
    assert target["truncation"].tolist() == pytest.approx([0.1, 0, 1 - 0.5 * 10.25 / 20])
    assert target["regions"].tolist() == [[90.25, 0.25, 100, 25.25]]


@settings(max_examples=30)
@given(
    own=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    size=st.tuples(st.integers(10, 60), st.integers(10, 60)),
    middle=st.tuples(st.floats(0.4, 0.6), st.floats(0.4, 0.6)),
)
def test_boxes_go_where_the_pixels_go(own: tuple[int, int], size: tuple[int, int], middle: tuple[float, float]) -> None:
    """A bright rectangle's box lies around what is bright once the picture was scaled and cut."""
    y, x = (round(share * side) for share, side in zip(middle, own, strict=True))
    y0, x0, y1, x1 = y - own[0] // 6, x - own[1] // 6, y + own[0] // 6, x + own[1] // 6
    pixels = np.zeros(own, np.uint8)
    pixels[y0:y1, x0:x1] = 255
    content = _png(pixels)
    image = read_image("bright.png", 1, size, content=content)[0].double() / 255
    left, top, right, bottom = ResizeCrop(own, size).clip_box(ResizeCrop(own, size).transform_box((x0, y0, x1, y1)))
    assert float(image.sum(1).max()) == pytest.approx(right - left, abs=1.2)
    assert float(image.sum(0).max()) == pytest.approx(bottom - top, abs=1.2)
    centre = [
        float((image.sum(axis) * (torch.arange(n) + 0.5)).sum() / image.sum())
        for axis, n in ((1, size[0]), (0, size[1]))
    ]
    assert centre == pytest.approx([(top + bottom) / 2, (left + right) / 2], abs=0.7)


def _png(pixels: np.ndarray) -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("more", "frames"),
    [
        ({}, [0, 1, 2]),
        ({"split": "train"}, [2, 0]),
        ({"exclude": "train"}, [1]),
        ({"split": "train", "exclude": "official"}, [2]),
        ({"limit": 2}, [0, 1]),
    ],
)
def test_frames_of_a_list_and_those_not_in_one(kitti: Path, more: dict[str, Any], frames: list[int]) -> None:
    data = KittiSet(kitti, **more)
    assert [int(data[i][0][0, 0, 0]) for i in range(len(data))] == frames


def test_other_types_and_neighbours(kitti: Path) -> None:
    with pytest.warns(UserWarning, match=r"not counted, as types maps them to no class: Van \(1\), Pedestrian \(1\)$"):
        data = KittiSet(kitti, ["thing"], types={"Car": "thing", "Misc": "thing"}, neighbours=["misc"])
    assert data[0][1]["ignore"].tolist() == [False, False, True]
    with pytest.raises(UserError, match=r"neighbours has 'Cra', which is none of the types\. Did you mean 'Car'"):
        KittiSet(kitti, neighbours=["Cra"])


def test_batches_are_lists(generated: Path) -> None:
    data = GeneratedSet(generated)
    images, targets = collate([data[0], data[1]])
    assert [len(target["boxes"]) for target in targets] == [2, 0] and len(images) == 2


@pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA, with the folder kitti, is not set")
def test_real_frames() -> None:
    root = Path(os.environ["MS2_DATA"], "kitti")
    data = KittiSet(root, size=(96, 312), limit=40)
    assert len(data) == 40 and len(KittiSet(root)) == 414
    with pytest.raises(KittiError, match="has no frames of split None that are not in train"):
        KittiSet(root, exclude="train")
    cars = 0
    for i in range(40):
        image, target = data[i]
        assert image.shape == (3, 96, 312)
        corner, other = target["boxes"].split(2, 1)
        assert bool((corner >= 0).all() and (other <= torch.tensor([312, 96])).all() and (other > corner).all())
        raw = [o for o in read_labels(root / "training/label_2" / f"{data.frames[i].stem}.txt") if o.type == "Car"]
        heights = target["height"][(target["labels"] == 1) & ~target["ignore"]]
        full = torch.tensor([car.box[3] - car.box[1] for car in raw])
        cars += len(raw)
        if len(heights) == len(full):  # none was cut off
            assert torch.allclose(heights, full, atol=1e-3)
    assert cars > 50


# --- errors ---


def damaged(folder: Path, change: Any) -> None:
    path = folder / "scenes/000000.json"
    one = json.loads(path.read_text())
    change(one)
    path.write_text(json.dumps(one))


def test_no_set_and_half_a_set(generated: Path) -> None:
    with pytest.raises(DataSetError, match=f"there is no folder {generated}/none: make a data set there with ms2 gen"):
        GeneratedSet(generated / "none")
    with pytest.raises(DataSetError, match=r"is no data set of ms2: it has no dataset\.json\. Make one with ms2"):
        GeneratedSet(generated / "images")
    (generated / "scenes/000001.json").unlink()
    with pytest.raises(DataSetError, match=r"is not complete: it holds 1 of 2 scenes\. Run the same ms2 generate"):
        GeneratedSet(generated)
    for text in ("[]", "{", '{"num_scenes": 2}', '{"num_scenes": "2", "categories": ["car"]}'):
        (generated / "dataset.json").write_text(text)
        with pytest.raises(DataSetError, match=r"dataset\.json .*damaged"):
            GeneratedSet(generated)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.pop("labels"),
        lambda one: one["image"].pop("file"),
        lambda one: one.update(image=[]),
        lambda one: one["labels"][0].update(bbox=[1, 2, 3]),
        lambda one: one["labels"][0].update(bbox="abcd"),
        lambda one: one["labels"][0].update(visibility=None),
        lambda one: one["labels"][0].pop("segmentation"),
        lambda one: one["labels"][0]["segmentation"].update(size=[5, 5]),
        lambda one: one["hidden"].append(3),
        lambda one: one["image"].update(width="48"),
        lambda one: one["image"].update(file=3),
        lambda one: one["labels"][0].update(category=3),
        lambda one: one["labels"][0].update(visibility="0.5"),
        lambda one: one["labels"][0]["segmentation"].pop("counts"),
        lambda one: one["provenance"].update(index="3"),
    ],
)
def test_a_broken_record_is_named(generated: Path, change: Any) -> None:
    damaged(generated, change)
    with pytest.raises(DataSetError, match=r"scenes/000000\.json is damaged, or has an unexpected format"):
        GeneratedSet(generated, masks=True)[0]


def test_a_record_may_say_more(generated: Path) -> None:
    """Keys that somebody has added change nothing."""
    before = GeneratedSet(generated, masks=True)[0]
    damaged(generated, lambda one: one["image"].update(weather="rain"))
    damaged(generated, lambda one: one["labels"][0].update(track=7))
    image, found = GeneratedSet(generated, masks=True)[0]
    assert torch.equal(image, before[0]) and all(torch.equal(found[name], value) for name, value in before[1].items())


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "images/../../secret.png"])
def test_images_lie_within_the_set(generated: Path, name: str) -> None:
    damaged(generated, lambda one: one["image"].update(file=name))
    with pytest.raises(DataSetError, match=r"is named as an image, but lies outside .*: do not trust this folder"):
        GeneratedSet(generated)[0]


def test_a_missing_image_is_named(generated: Path) -> None:
    (generated / "images/000000.png").unlink()
    with pytest.raises(UserError, match=r"000000\.png: not a file, or a link to a missing one"):
        GeneratedSet(generated)[0]


def test_unknown_categories(generated: Path, kitti: Path) -> None:
    with pytest.raises(UserError, match=r"has no category 'caar'. Did you mean 'car'\? Available: car, house, tree."):
        GeneratedSet(generated, ["caar"])
    with pytest.raises(UserError, match=r"types has no category 'bus'. Available: car, cyclist, pedestrian, truck."):
        KittiSet(kitti, ["bus"])
    for wrong in ([], ["car", "car"]):
        with pytest.raises(UserError, match="name one or more, each once"):
            GeneratedSet(generated, wrong)
    with pytest.raises(UserError, match="GeneratedSet: limit must be at least 1, not 0"):
        GeneratedSet(generated, limit=0)


def test_bad_coco_files(coco: Path) -> None:
    images = coco.parent / "images"
    with pytest.raises(UserError, match="masks are not scaled: leave size out, or masks"):
        CocoSet(images, coco, size=(40, 40), masks=True)
    with pytest.raises(DataSetError, match=r"there is no file .*none: give the annotations of a COCO set"):
        CocoSet(images, coco.parent / "none")
    content = json.loads(coco.read_text())
    content["images"][1]["file_name"] = "../../secret.png"
    coco.write_text(json.dumps(content))
    with pytest.raises(DataSetError, match="lies outside"):
        CocoSet(images, coco)[0]
    for text in ("[]", "{", '{"images": []}', '{"images": [], "categories": [{}]}', '{"images": 3, "categories": []}'):
        coco.write_text(text)
        with pytest.raises(DataSetError, match=r"instances\.json is damaged, or has an unexpected format"):
            CocoSet(images, coco)


def change_coco(coco: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(coco.read_text())
    change(content)
    coco.write_text(json.dumps(content))


COCO_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a box of NaN": (lambda c: c["annotations"][0].update(bbox=[1, 2, 1e999, 3]), "annotation 1: its bbox is .*finite"),
    "a negative side": (
        lambda c: c["annotations"][1].update(bbox=[20, 10, -10, 10]),
        "annotation 2: .*no side negative",
    ),
    "three numbers": (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotation 1: .*four numbers"),
    "no box": (lambda c: c["annotations"][0].pop("bbox"), "annotation 1: its bbox is None"),
    "an unknown category": (
        lambda c: c["annotations"][2].update(category_id=4),
        "annotation 3: there is no category 4",
    ),
    "no category": (lambda c: c["annotations"][2].pop("category_id"), "annotation 3: there is no category None"),
    "no file": (lambda c: c["images"][1].update(file_name=None), "image 5: it has no file_name"),
    "a width of 0": (lambda c: c["images"][1].update(width=0), r"image 5: width and height are \[0, 20\]"),
    "another size": (
        lambda c: c["images"][1].update(width=60, height=40),
        "30 x 20 pixels, but its annotations are of 60",
    ),
    "an id that is there": (lambda c: c["annotations"][2].update(id=1), "annotation 1: its id is there twice"),
    "a category in a list": (lambda c: c["annotations"][2].update(category_id=[3]), r"annotation 3: .* category \[3\]"),
    "a width in parts": (lambda c: c["images"][1].update(width=30.5), r"image 5: width and height are \[30\.5, 20\]"),
    "a missing picture": (lambda c: c["images"][1].update(file_name="none.png"), r"none\.png: not a file"),
}


@pytest.mark.parametrize(("change", "said"), COCO_FAULTS.values(), ids=COCO_FAULTS)
def test_a_faulty_annotation_is_named_or_its_image_left_out(coco: Path, change: Any, said: str) -> None:
    change_coco(coco, change)
    coco.write_text(coco.read_text().replace("Infinity", "1e999"))
    with pytest.raises(UserError, match=said):
        CocoSet(coco.parent / "images", coco)[0]
    with pytest.warns(UserWarning, match=rf"(?s){said}"):
        data = CocoSet(coco.parent / "images", coco, on_error="skip")
    assert data.images == [9] and data[0][0].shape == (3, HEIGHT, WIDTH)


def test_annotations_of_no_image_and_names_given_twice(coco: Path) -> None:
    change_coco(coco, lambda c: c["annotations"][0].update(image_id=6))
    with pytest.raises(DataSetError, match="annotation 1: there is no image 6"):
        CocoSet(coco.parent / "images", coco)
    with pytest.warns(UserWarning, match="annotation 1: there is no image 6"):
        assert len(CocoSet(coco.parent / "images", coco, on_error="skip")) == 2
    change_coco(coco, lambda c: c["annotations"].insert(0, 7))
    with pytest.raises(DataSetError, match="annotation number 0: it is 7, no object of JSON"):
        CocoSet(coco.parent / "images", coco)
    for change in (
        lambda c: c["images"][1].update(id=9),
        lambda c: c["categories"][1].update(id=7),
        lambda c: c["images"][0].update(id=[3]),
        lambda c: c.pop("annotations"),
        lambda c: c.update(images=[]),
    ):
        before = coco.read_text()
        change_coco(coco, change)
        with pytest.raises(DataSetError, match=r"instances\.json"):
            CocoSet(coco.parent / "images", coco)
        coco.write_text(before)
    coco.write_text(coco.read_text().replace("0.6", "NaN"))
    with pytest.raises(DataSetError, match="NaN is no number of JSON"):
        CocoSet(coco.parent / "images", coco)


def test_coco_s_categories_are_the_same_whatever_their_case(coco: Path) -> None:
    change_coco(coco, lambda c: c["categories"].append({"id": 8, "name": "Automobile"}))
    change_coco(coco, lambda c: c["annotations"][2].update(category_id=8))
    data = CocoSet(coco.parent / "images", coco, ["CAR"], category_map={"AutoMobile": "Car"})
    assert data.categories == ("Car",) and data[0][1]["labels"].tolist() == [1, 1]
    with pytest.raises(UserError, match=r"category_map has 'autmobile', but .* Did you mean '[Aa]utomobile'"):
        CocoSet(coco.parent / "images", coco, category_map={"autmobile": "car"})


@pytest.mark.parametrize(
    ("orientation", "pixels", "stated", "shown"),
    [
        (1, (20, 30), (20, 30), (20, 30)),
        (6, (30, 20), (20, 30), (20, 30)),  # annotated as it is shown
        (6, (20, 30), (20, 30), (20, 30)),  # annotated as it is stored
        (8, (30, 20), (20, 30), (20, 30)),
        (3, (20, 30), (20, 30), None),
        (2, (20, 30), (20, 30), None),
        (6, (20, 20), (20, 20), None),
        (6, (30, 20), (40, 60), None),
    ],
)
def test_exif_turns_an_image_only_if_its_annotations_say_so(
    coco: Path, orientation: int, pixels: tuple[int, int], stated: tuple[int, int], shown: tuple[int, int] | None
) -> None:
    """The corner that is bright when stored is where the annotations' orientation has it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = np.zeros((*pixels, 3), np.uint8)
    picture[:8, :8] = 255
    Image.fromarray(picture).save(coco.parent / "images/turned.jpg", exif=exif, quality=95)
    change_coco(coco, lambda c: c["images"][1].update(file_name="turned.jpg", height=stated[0], width=stated[1]))
    data = CocoSet(coco.parent / "images", coco)
    if shown is None:
        with pytest.raises(
            DataSetError, match=r"turned\.jpg (is turned by its EXIF data|has 20 x 30 pixels|has 30 x 20)"
        ):
            data[0]
        return
    image = data[0][0].float().mean(0)
    assert image.shape == shown
    corners = {name: float(image[rows, columns]) > 200 for name, rows, columns in CORNERS}
    bright = "top left" if pixels == shown else {6: "top right", 8: "bottom left"}[orientation]
    assert corners == {name: name == bright for name in corners}


CORNERS = [(f"{v} {h}", r, c) for v, r in (("top", 3), ("bottom", -4)) for h, c in (("left", 3), ("right", -4))]
MASKS = {
    "of another size": {"size": [HEIGHT, WIDTH + 1], "counts": "0"},
    "of a million pixels squared": {"size": [10**6, 10**6], "counts": "0"},
    "of a million pixels squared, in numbers": {"size": [10**6, 10**6], "counts": [10**12]},
    "of too many pixels": {"size": [HEIGHT, WIDTH], "counts": [0, 10**12]},
    "of too few pixels": {"size": [HEIGHT, WIDTH], "counts": [5, 5]},
    "of negative runs": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 5, -5]},
    "of runs that are no numbers": {"size": [HEIGHT, WIDTH], "counts": [0.5, 1.5]},
    "of no runs": {"size": [HEIGHT, WIDTH], "counts": None},
    "of broken runs": {"size": [HEIGHT, WIDTH], "counts": "P"},
    "of other letters": {"size": [HEIGHT, WIDTH], "counts": "~~~"},
    "of no size": {"counts": "0"},
    "of a size of one number": {"size": HEIGHT, "counts": "0"},
    "of nothing": None,
}
POLYGONS = {
    "far away": [[0, 0, 10**9, 0, 10**9, 10**9]],
    "endless": [[0, 0, 1e999, 0, 5, 5]],
    "of two corners": [[0, 0, 5, 5]],
    "of one number too few": [[0, 0, 5, 5, 7, 8, 9]],
    "of words": [["a"] * 6],
    "of a number": [5],
    "of none": [],
}


@pytest.mark.parametrize("mask", [*MASKS.values(), *POLYGONS.values()], ids=[*MASKS, *POLYGONS])
def test_a_mask_that_is_not_of_the_image_is_refused_by_every_reader(coco: Path, mask: Any) -> None:
    """Before memory is taken for it: pycocotools crashes."""
    with pytest.raises(ValueError, match=r"mask|polygon"):
        decode_mask(mask, (HEIGHT, WIDTH))
    if mask is not None:
        damaged(coco.parent, lambda one: one["labels"][0].update(segmentation=mask))
        with pytest.raises(UserError, match=r"scenes/000000\.json is damaged"):
            GeneratedSet(coco.parent, masks=True)[0]
    change_coco(coco, lambda c: c["annotations"][0].update(segmentation=mask))
    coco.write_text(coco.read_text().replace("Infinity", "1e999"))
    with pytest.raises(DataSetError, match=r"instances\.json, annotation 1: .*(mask|polygon)"):
        CocoSet(coco.parent / "images", coco, masks=True)[0]
    with pytest.warns(UserWarning, match="1 of 2 labelled images are left out"):
        assert len(CocoSet(coco.parent / "images", coco, masks=True, on_error="skip")) == 1


def test_a_record_of_an_image_of_another_size_is_refused(generated: Path) -> None:
    """However well its masks fit to what it says."""
    size = [10**6, 10**6]
    damaged(generated, lambda one: one["image"].update(width=10**6, height=10**6))
    damaged(generated, lambda one: one["labels"][0].update(segmentation={"size": size, "counts": [10**12]}))
    with pytest.raises(DataSetError, match=r"of 1000000 x 1000000 pixels, but images/000000\.png has 30 x 20"):
        GeneratedSet(generated, masks=True)[0]


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_masks_are_decoded_as_pycocotools_does(height: int, width: int, data: st.DataObject) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(pixels).reshape(height, width)
    packed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = [len(list(run)) for _, run in itertools.groupby(mask.T.reshape(-1).tolist())]
    for form in (packed["counts"], packed["counts"].decode(), [0] * int(mask[0, 0]) + counts):
        assert np.array_equal(decode_mask({"size": [height, width], "counts": form}, (height, width)), mask)


def test_bad_kitti_folders(kitti: Path) -> None:
    with pytest.raises(KittiError, match=r"none\.txt: there is no such list of frames to exclude"):
        KittiSet(kitti, exclude="none")
    with pytest.raises(KittiError, match="lists 1 of 2 frames that have no image"):
        KittiSet(kitti, split="official")
    (kitti / "training/label_2/000000.txt").unlink()
    with pytest.raises(KittiError, match="there is no such label file"):
        KittiSet(kitti)[0]
    shutil.rmtree(kitti / "training")
    with pytest.raises(KittiError, match="is not KITTI's object detection set"):
        KittiSet(kitti)


def test_all_sets_give_the_same_fields(generated: Path, coco: Path, kitti: Path) -> None:
    sets: list[LabelledSet] = [GeneratedSet(generated), CocoSet(generated / "images", coco), KittiSet(kitti)]
    for data in sets:
        for i in range(len(data)):
            image, target = data[i]
            assert isinstance(image, Tensor) and {name: value.dtype for name, value in target.items()} == EVERY
