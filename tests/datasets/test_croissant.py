"""Croissant metadata: valid for mlcroissant, which reads from it what the records say."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ms2.datasets.croissant import FILE
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.models.opening import open_model

SETTINGS = ["--world.renderer.canvas_size=24", "--world.renderer.digit_size=9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    source = open_model("multimnist", arguments=SETTINGS)
    assert generate(Job(source, Plan(5, formats=("coco", "yolo")), root), progress=False)
    return root


@pytest.fixture(scope="module")
def metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return found


def test_mlcroissant_reads_what_the_records_say(folder: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlcroissant's own dependencies
        data = mlcroissant.Dataset(folder / FILE)
        samples, records, objects = (list(data.records(name)) for name in ("samples", "records", "objects"))
    assert not data.metadata.issues.errors
    assert {w.partition('"')[2].partition('"')[0] for w in data.metadata.issues.warnings} == {
        "https://schema.org/datePublished"
    }
    scenes = [json.loads(path.read_text()) for path in sorted((folder / "scenes").iterdir())]
    assert sorted(row["samples/number"] for row in samples) == list(range(5))
    for row in samples:
        with Image.open(folder / "images" / f"{row['samples/number']:06d}.png") as image:
            assert np.array_equal(np.asarray(row["samples/image"].convert("L")), np.asarray(image))
    by_number = {row["records/number"]: row["records/file"].decode() for row in records}
    assert by_number == {i: scene["image"]["file"] for i, scene in enumerate(scenes)}
    labels = [(i, label) for i, scene in enumerate(scenes) for label in scene["labels"]]
    assert len(labels) > 5
    assert [(row["objects/image"], row["objects/box"], row["objects/area"]) for row in objects] == [
        (i, label["bbox"], label["area"]) for i, label in labels
    ]


def test_the_metadata_say_what_the_set_holds(folder: Path, metadata: dict[str, Any]) -> None:
    assert metadata["description"].startswith("5 synthetic images of 24 x 24 pixels with labels of 0, 1, 2")
    (instances,) = [one for one in metadata["distribution"] if one["@type"] == "cr:FileObject"]
    content = (folder / instances["contentUrl"]).read_bytes()
    assert instances["sha256"] == hashlib.sha256(content).hexdigest()
    sets = [one for one in metadata["distribution"] if one["@type"] == "cr:FileSet"]
    assert {one["@id"]: len(list(folder.glob(one["includes"]))) for one in sets} == {"images": 5, "scenes": 5}
    assert metadata["rai:dataBiases"] == ["Numbers and places of objects are those of a prior made by hand."]
    assert metadata["rai:personalSensitiveInformation"] == ["none"]
    assert "An object is labelled if at least 10% of its pixels" in metadata["rai:dataAnnotationProtocol"]


def test_a_set_without_coco_has_no_objects_in_its_metadata(tmp_path: Path) -> None:
    source = open_model("multimnist", arguments=SETTINGS)
    assert generate(Job(source, Plan(1, image="jpeg", formats=("yolo",)), tmp_path), progress=False)
    metadata = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert [one["@id"] for one in metadata["recordSet"]] == ["samples", "records"]
    assert [one.get("includes") for one in metadata["distribution"]] == ["images/*.jpg", "scenes/*.json"]
