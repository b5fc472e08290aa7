"""Labelled sets become tables of objects; sets from which nothing can be learned are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ms2
from ms2.core.errors import UserError
from ms2.learning.induction.sources import read_source


def coco(path: Path, annotations: list[Any], num_images: int = 2) -> Path:
    """A COCO file of images of 100 x 50 pixels; an annotation is an image, a category and a box."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 50} for i in range(num_images)],
        "categories": [{"id": 7, "name": "traffic light"}, {"id": 9, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box}
            for i, (image, category, box) in enumerate(annotations, 1)
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_coco(tmp_path: Path) -> None:
    table = read_source(coco(tmp_path / "a.json", [(1, 9, [0, 0, 50, 25]), (0, 7, [10, 10, 20, 5])]))
    assert table.classes == ("traffic light", "car") and table.num_scenes == 2
    assert table.scene.tolist() == [0, 1] and table.label.tolist() == [0, 1] and table.parent.tolist() == [-1, -1]
    assert table.boxes is not None and not table.parents_known
    expected = torch.tensor([[0.1, 0.2, 0.3, 0.3], [0, 0, 0.5, 0.5]], dtype=torch.double)
    torch.testing.assert_close(table.boxes, expected)


def test_kitti(tmp_path: Path) -> None:
    folder = tmp_path / "training" / "label_2"
    folder.mkdir(parents=True)
    rest = "1.5 1.6 3.9 1 2 10 0.1"
    (folder / "000001.txt").write_text(f"Car 0 0 0 621 187.5 1242 375 {rest}\nDontCare -1 -1 -10 0 0 5 5 {rest}\n")
    (folder / "000002.txt").write_text("")
    table = read_source(tmp_path)
    assert table.classes == ("car",) and table.num_scenes == 2
    assert table.boxes is not None and table.boxes.tolist() == [[0.5, 0.5, 1.0, 1.0]]


def test_yolo(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}\n")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "labels" / "b.txt").write_text("")
    table = read_source(tmp_path)
    assert table.classes == ("cat", "dog") and table.label.tolist() == [1]
    assert table.boxes is not None and table.boxes[0].tolist() == pytest.approx([0.4, 0.3, 0.6, 0.7])
    (tmp_path / "labels" / "b.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    with pytest.raises(UserError, match=r"b\.txt is damaged.*class 2 is not one of the 2"):
        read_source(tmp_path)


def test_records(tmp_path: Path) -> None:
    """Of a set of ms2 generate; parents that are not labelled are passed over."""
    world = ms2.load("aerial2d").world
    ms2.generate("aerial2d", tmp_path / "set", 3, seed=4, classes=["Road", "car"])
    table = read_source(tmp_path / "set")
    assert table.num_scenes == 3 and set(table.classes) == {"Road", "car"} and table.parents_known
    cars = table.label == table.classes.index("car")
    assert cars.any() and bool((table.label[table.parent[cars]] == table.classes.index("Road")).all())
    assert table.boxes is not None and float((table.boxes[~cars, 2] - table.boxes[~cars, 0]).min()) > 0.99
    inside = table.boxes[cars] - table.boxes[table.parent[cars]]
    assert float(inside[:, 1].min()) > -0.02, "a car's box begins no higher than its road's"
    ms2.generate("aerial2d", tmp_path / "cars", 3, seed=4, classes=["car"])
    alone = read_source(tmp_path / "cars")
    assert not alone.parents_known and len(alone) == int(cars.sum()) and world.classes[1] == "car"


def test_contradictory_parents_are_named(tmp_path: Path) -> None:
    ms2.generate("aerial2d", tmp_path / "set", 3, seed=4)
    path = next(file for file in sorted((tmp_path / "set" / "scenes").iterdir()) if '"car"' in file.read_text())
    record = json.loads(path.read_text(encoding="utf-8"))
    objects = record["scene"]["objects"]
    car = next(one for one in objects if one["parent"] >= 0)
    objects[car["parent"]]["parent"] = objects.index(car)
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match="parent"):
        read_source(tmp_path / "set")


def test_sets_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 1 scene: what all scenes have in common takes at least two"):
        read_source(coco(tmp_path / "one.json", [(0, 9, [0, 0, 5, 5])], num_images=1))
    with pytest.raises(UserError, match=r"the 2 scenes of .*none\.json have no objects"):
        read_source(coco(tmp_path / "none.json", []))
    with pytest.raises(UserError, match="is no labelled set that can be read: give the JSON file of a COCO set"):
        read_source(tmp_path)


def test_faulty_annotations_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="faulty annotations of 1 images"):
        read_source(coco(tmp_path / "a.json", [(0, 9, [0, 0, -5, 5])]))
