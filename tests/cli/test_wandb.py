"""What a run logs: to Weights & Biases, offline and without an account, and to a CSV file."""

import csv
import json
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from helpers import EXPECTED, fit
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

pytestmark = EXPECTED


def records(path: Path) -> Iterator[Record]:
    """What a .wandb file holds: a LevelDB log, whose blocks of 32 kB hold pieces with 7 bytes of header."""
    content, at, data = path.read_bytes(), 7, b""  # the first 7 bytes name the format
    while at < len(content):
        if -at % 2**15 < 7:  # too little is left of the block for a header
            at += -at % 2**15
        size, kind = struct.unpack_from("<4xHB", content, at)
        data += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole of a record, or the last piece of one
            yield Record.FromString(data)
            data = b""


def read(path: Path) -> tuple[dict[str, list[Any]], Record]:
    """Values by name, in the order in which they were logged, and the record of the run itself."""
    history, run = defaultdict(list), Record()
    for record in records(path):
        if record.HasField("run"):
            run = record
        for item in record.history.item:
            history["/".join(item.nested_key)].append(json.loads(item.value_json))
    return dict(history), run


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with the default logging, on a machine that can't reach anything."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_API_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
        patch.setenv("NETRC", str(folder / "none"))
        yield fit(folder, "logged", without=["wandb"])
        wandb.finish()


@pytest.fixture(scope="module")
def history(logged: Path) -> dict[str, list[Any]]:
    wandb.finish()
    [path] = logged.glob("wandb/offline-run-*/run-*.wandb")
    until = time.monotonic() + 30  # wandb's own process writes the file, on busy cores with a delay
    while "final/count_tv" not in (found := read(path)[0]) and time.monotonic() < until:
        time.sleep(0.5)
    return found


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("extractor/loss", 2),
        ("pretraining/nll", 4),
        ("pretraining/val_nll", 2),
        ("pretraining/prior_entropy", 2),
        ("train/score", 4),
        ("train/score_deviation", 4),
        ("train/entropy", 4),
        ("train/rejection_rate", 4),
        ("train/lr", 4),
        ("kernel/classes_sharpness", 4),
        ("kernel/count_sharpness", 4),
        ("val/count_tv", 2),
        ("val/class_tv", 2),
        ("final/count_tv", 1),
        ("final/class_wasserstein_noise_floor", 1),
    ],
)
def test_numbers_are_logged(history: dict[str, list[Any]], name: str, number: int) -> None:
    assert len(history[name]) == number
    assert all(isinstance(value, float | int) for value in history[name])


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("who", ["prior", "learned", "target"])
def test_images_are_logged_at_each_validation(history: dict[str, list[Any]], logged: Path, who: str) -> None:
    assert history[f"images/{who}/_type"] == ["image-file"] * 2
    [files] = logged.glob("wandb/offline-run-*/files")
    for path in history[f"images/{who}/path"]:
        assert size(files / path) == (101, 101)  # four by four of 24 pixels, and five lines between them


@pytest.mark.parametrize("who", ["prior", "learned", "target"])
@pytest.mark.parametrize("statistic", ["objects per scene", "classes of objects"])
def test_histograms_are_logged_at_each_validation(history: dict[str, list[Any]], statistic: str, who: str) -> None:
    name = f"histograms/{statistic}/{who}"
    assert history[f"{name}/_type"] == ["histogram"] * 2
    for shares, edges in zip(history[f"{name}/values"], history[f"{name}/bins"], strict=True):
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert edges == [i - 0.5 for i in range(len(shares) + 1)]


def test_scores_are_logged_as_a_histogram(history: dict[str, list[Any]]) -> None:
    assert [sum(counts) for counts in history["train/score_histogram/values"]] == [16, 16]  # the size of a batch


def test_the_summary_is_logged(history: dict[str, list[Any]], logged: Path) -> None:
    [files] = logged.glob("wandb/offline-run-*/files")
    [[path]] = history["summary/filenames"]
    assert size(files / path) == size(logged / "summary.png")


def test_what_moved_is_logged(history: dict[str, list[Any]], logged: Path) -> None:
    [files] = logged.glob("wandb/offline-run-*/files")
    [[path]] = history["rule_changes/filenames"]
    assert size(files / path) == size(logged / "rule_changes.png")
    [path] = history["rule changes/path"]
    table = json.loads((files / path).read_text())
    rows = list(csv.reader((logged / "rule_changes.csv").read_text().splitlines()))
    assert table["columns"] == rows[0] and len(table["data"]) == len(rows) - 1


def test_the_run_is_offline_and_in_its_own_folder(logged: Path) -> None:
    [path] = logged.glob("wandb/offline-run-*/run-*.wandb")
    run = read(path)[1].run
    assert (run.project, run.display_name) == ("ms2", "logged")


def test_csv_has_the_same_numbers(logged: Path, history: dict[str, list[Any]]) -> None:
    check_csv(logged)
    for name in ("train/score", "pretraining/nll", "val/count_tv"):
        assert column(logged, name) == pytest.approx(history[name], rel=1e-5)


def test_without_wandb_there_is_csv_only(tmp_path: Path) -> None:
    run = fit(tmp_path, "quiet", wandb="disabled")
    assert not (run / "wandb").exists() and wandb.run is None
    check_csv(run)


def column(run: Path, name: str) -> list[float]:
    [path] = run.glob("csv/*/metrics.csv")
    with path.open() as table:
        return [float(row[name]) for row in csv.DictReader(table) if row[name]]


def check_csv(run: Path) -> None:
    assert len(column(run, "extractor/loss")) == 2
    assert len(column(run, "pretraining/nll")) == 4
    for name in ("score", "score_deviation", "entropy", "rejection_rate", "lr"):
        assert len(column(run, f"train/{name}")) == 4
    assert len(column(run, "kernel/count_sharpness")) == 4
    assert len(column(run, "val/count_tv")) == 2
    [final] = column(run, "final/count_tv")
    assert final == pytest.approx(json.loads((run / "metrics.json").read_text())["summary"]["count_tv"])
