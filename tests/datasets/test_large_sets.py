"""What sets of a million images need, at a thousandth of the size: files in parts, tar files, cards of some records."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from test_datasets import records, small, tree
from webdataset.tariterators import group_by_keys, tar_file_iterator

from ms2.datasets import job as job_module
from ms2.datasets.formats import coco as coco_module
from ms2.datasets.formats import shards as shards_module
from ms2.datasets.formats.coco import CocoSet
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.labelled_set import DataSetError
from ms2.datasets.plan import Plan

NUMBER = 70
EXPECTED_PARTS = {"instances_0000.json": 32, "instances_0001.json": 32, "instances_0002.json": 6}


def make(root: Path) -> Path:
    assert generate(Job(small("multimnist"), Plan(NUMBER, formats=("coco", "shards")), root), progress=False)
    return root


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_module, "IMAGES_PER_FILE", 32)
        patch.setattr(shards_module, "IMAGES_PER_SHARD", 30)
        patch.setattr(job_module, "MAX_CARD_RECORDS", 20)
        root = make(tmp_path_factory.mktemp("large") / "set")
        before = tree(root)
        make(root)  # nothing is missing
        assert tree(root) == before
        return root


@pytest.fixture(scope="module")
def usual(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("usual") / "set")


def test_coco_in_parts_is_the_same_set(large: Path, usual: Path) -> None:
    assert sorted(path.name for path in (large / "annotations").iterdir()) == sorted(EXPECTED_PARTS)
    parts = CocoSet(large / "images", large / "annotations" / "instances_*.json", masks=True)
    whole = CocoSet(usual / "images", usual / "annotations" / "instances.json", masks=True)
    assert len(parts) == NUMBER and parts.categories == whole.categories
    for (image, found), (same, expected) in zip(parts, whole, strict=True):
        assert torch.equal(image, same)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_each_part_is_a_coco_file_and_no_id_is_used_twice(large: Path) -> None:
    ids: list[int] = []
    for name, number in EXPECTED_PARTS.items():
        part = COCO(large / "annotations" / name)
        assert len(part.getImgIds()) == number
        ids += part.getAnnIds()
    assert ids == list(range(1, sum(len(record["labels"]) for record in records(large)) + 1))
    assert "objects" not in {one["@id"] for one in json.loads((large / "croissant.json").read_text())["recordSet"]}


def test_panoptic_annotations_in_parts_are_those_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, folder = Job(small("multimnist"), Plan(NUMBER, formats=("panoptic",)), tmp_path), tmp_path / "annotations"
    assert generate(made, progress=False)
    whole = json.loads((folder / "panoptic.json").read_text())
    monkeypatch.setattr(coco_module, "IMAGES_PER_FILE", 32)
    made.finish()
    parts = [json.loads((folder / f"panoptic_{i:04d}.json").read_text()) for i in range(3)]
    assert [len(part["images"]) for part in parts] == [32, 32, 6]
    for name in ("images", "annotations"):
        assert [one for part in parts for one in part[name]] == whole[name]
    assert all(part["categories"] == whole["categories"] for part in parts)


def test_parts_that_do_not_fit_are_refused(large: Path, tmp_path: Path) -> None:
    part = json.loads((large / "annotations" / "instances_0002.json").read_text())
    (tmp_path / "a_1.json").write_text(json.dumps(part))
    (tmp_path / "a_2.json").write_text(json.dumps(part))
    with pytest.raises(DataSetError, match=r"a_2.json has image 64, which is in another file of .*a_\*.json too"):
        CocoSet(large / "images", tmp_path / "a_*.json")
    (tmp_path / "a_2.json").write_text(json.dumps(part | {"categories": part["categories"][1:]}))
    with pytest.raises(DataSetError, match=r"a_2.json has other categories than .*a_1.json: read them as two sets"):
        CocoSet(large / "images", tmp_path / "a_*.json")
    with pytest.raises(DataSetError, match=r"there is no file .*b_\*.json: give the annotations of a COCO set"):
        CocoSet(large / "images", tmp_path / "b_*.json")


def samples(path: Path) -> list[dict[str, Any]]:
    """What WebDataset reads of a tar file; its own opener leaves files open."""
    with path.open("rb") as stream:
        members = [found | {"__url__": str(path)} for found in tar_file_iterator(stream)]
        return list(group_by_keys(members))


def test_shards_are_read_by_webdataset_and_by_tarfile(large: Path) -> None:
    paths = sorted((large / "shards").iterdir())
    assert [path.name for path in paths] == ["000000.tar", "000001.tar", "000002.tar"]
    found = [sample for path in paths for sample in samples(path)]
    expected = records(large)
    assert [sample["__key__"] for sample in found] == [f"{i:06d}" for i in range(NUMBER)]
    assert [json.loads(sample["json"]) for sample in found] == expected
    assert [sample["png"] for sample in found] == [(large / one["image"]["file"]).read_bytes() for one in expected]
    with tarfile.open(paths[2]) as file:
        assert len(file.getmembers()) == 2 * (NUMBER - 60)


def test_shards_hold_depth_and_maps(tmp_path: Path) -> None:
    plan = Plan(2, depth=True, maps=("panoptic", "float_depth"), formats=("shards",))
    assert generate(Job(small("driving3d"), plan, tmp_path / "set"), progress=False)
    with tarfile.open(tmp_path / "set" / "shards" / "000000.tar") as file:
        names = file.getnames()
        assert names[:5] == [
            f"000000{end}" for end in (".png", ".depth.png", ".float_depth.tiff", ".panoptic.png", ".json")
        ]
        content = file.extractfile("000001.panoptic.png")
        assert content is not None
        assert content.read() == (tmp_path / "set" / "panoptic" / "000001.png").read_bytes()
    sample, _ = samples(tmp_path / "set" / "shards" / "000000.tar")
    with Image.open(io.BytesIO(sample["depth.png"])) as depth:
        assert depth.size == (208, 64)


def test_the_card_is_counted_from_some_records(large: Path, usual: Path) -> None:
    card, counted = (large / "README.md").read_text(), records(large)[::4]
    assert "All numbers are those of 18 images at equal distances among the 70." in card
    number = round(sum(len(record["labels"]) for record in counted) * NUMBER / len(counted))
    assert card.startswith(f"# multimnist: 70 images, about {number} labelled objects")
    ones = sum(label["category"] == "1" for record in counted for label in record["labels"])
    assert f"| 1 | {ones} | {ones / 18:.2f} |" in card
    assert "at equal distances" not in (usual / "README.md").read_text()


def test_images_of_seven_digits_come_after_those_of_six(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "dataset.json").write_text('{"num_scenes": 3, "categories": ["car"]}')
    for name in ("1000000.json", "999999.json", "100001.json"):
        (tmp_path / "scenes" / name).touch()
    assert [path.stem for path in GeneratedSet(tmp_path).scenes] == ["100001", "999999", "1000000"]
