"""Data sets are read by Hugging Face datasets and FiftyOne as docs/load_data_sets.md shows, which is run here."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_datasets import records, small

from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan

PAGE = Path(__file__).parents[2] / "docs" / "load_data_sets.md"
NUMBER = 6


@pytest.fixture(scope="module", params=["multimnist", "driving3d"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets") / "set"
    assert generate(Job(small(request.param), Plan(NUMBER, formats=("coco", "shards")), root), progress=False)
    return root


def code(section: str, folder: Path) -> list[str]:
    """Blocks of Python of a section, with another folder."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [found.replace("data/digits", str(folder)) for found in re.findall(r"```python\n(.*?)```", text, re.S)]


def test_hugging_face_reads_records_and_tar_files(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # before it is imported
    config = pytest.importorskip("datasets").config
    for name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
        monkeypatch.setattr(config, name, tmp_path / name)
    names: dict[str, Any] = {}
    for block in code("Hugging Face datasets", made):
        exec(block, names)
    expected = records(made)
    rows = names["data"]
    assert len(rows) == NUMBER
    for row, record in zip(rows, expected, strict=True):
        assert row["provenance"]["index"] == record["provenance"]["index"]
        assert row["pixels"].size == (record["image"]["width"], record["image"]["height"])
        found = [(label["category"], label["bbox"]) for label in row["labels"]]
        assert found == [(label["category"], label["bbox"]) for label in record["labels"]]
    samples = list(names["stream"])
    assert [sample["json"]["provenance"]["index"] for sample in samples] == list(range(NUMBER))
    assert [sample["png"].size for sample in samples] == [row["pixels"].size for row in rows]


IMPORTER = """
import json
importer = COCODetectionDatasetImporter(ARGUMENTS)
with importer:
    found = [(path, label["detections"].detections, label["segmentations"].detections) for path, _, label in importer]
read = [(path, [(o.label, o.bounding_box, o.visibility) for o in some], [o.mask.sum() for o in masks])
        for path, some, masks in found]
print("FOUND", json.dumps(read, default=int))
"""
"""Reads with what `Dataset.from_dir` reads with, without the database that it writes to."""


@pytest.mark.skipif("MS2_FIFTYONE" not in os.environ, reason="MS2_FIFTYONE names no Python that has fiftyone")
def test_fiftyone_imports_the_coco_set(made: Path) -> None:
    (block,) = code("FiftyOne", made)
    (words,) = re.findall(r"from_dir\(\n(.*?)\n\)", block, re.S)
    given = words.replace("dataset_type=fiftyone.types.COCODetectionDataset,", "")
    script = "from fiftyone.utils.coco import COCODetectionDatasetImporter\n" + IMPORTER.replace("ARGUMENTS", given)
    python = [os.environ["MS2_FIFTYONE"], "-c", script]
    env = os.environ | {"FIFTYONE_DO_NOT_TRACK": "1", "PYTHONPATH": ""}
    done = subprocess.run(python, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
    assert len(found) == NUMBER
    for (path, objects, areas), record in zip(found, records(made), strict=True):
        width, height = record["image"]["width"], record["image"]["height"]
        assert Path(path) == made / record["image"]["file"]
        assert areas == [label["area"] for label in record["labels"]]
        for (name, box, visibility), label in zip(objects, record["labels"], strict=True):
            assert (name, visibility) == (label["category"], label["visibility"])
            assert [box[0] * width, box[1] * height, box[2] * width, box[3] * height] == pytest.approx(label["bbox"])
