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


@pytest.mark.skipif("MS2_FIFTYONE" not in os.environ, reason="MS2_FIFTYONE names no Python that has fiftyone")
def test_fiftyone_reads_the_coco_set(made: Path, tmp_path: Path) -> None:
    (block,) = code("FiftyOne", made)
    block = block.replace("fiftyone.launch_app(data)", "")
    block += "import json\nprint('FOUND', json.dumps([len(data), data.count_values('detections.detections.label')]))"
    env = {
        "FIFTYONE_DATABASE_DIR": str(tmp_path / "database"),
        "FIFTYONE_DO_NOT_TRACK": "1",
        "PATH": os.environ["PATH"],
    }
    words = [os.environ["MS2_FIFTYONE"], "-c", block]
    done = subprocess.run(words, env=env | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number, counts = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
    labels = [label["category"] for record in records(made) for label in record["labels"]]
    assert (number, counts) == (NUMBER, {name: labels.count(name) for name in set(labels)})
