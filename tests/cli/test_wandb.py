"""What a run logs: to Weights & Biases, offline and without an account, and to a CSV file."""

import csv
import json
import struct
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from helpers import EXPECTED, fit
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.launch.sweeps import utils as sweep_utils

from ms2.cli import api
from ms2.cli.commands import main
from ms2.cli.run_folder import RunFolder
from ms2.cli.run_logger import MODEL_FILES, log_artifact, log_data_set

pytestmark = EXPECTED
ROOT = Path(__file__).parents[2]


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
            history["/".join(item.nested_key or [item.key])].append(json.loads(item.value_json))
    return dict(history), run


def files_of(run: Path) -> list[Path]:
    """What was logged by each command that worked on a run, in order."""
    return sorted(run.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.parent.name)


def logged_config(path: Path) -> dict[str, Any]:
    """The configuration of a run of Weights & Biases."""
    return {item.key: json.loads(item.value_json) for item in read(path)[1].run.config.update}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with the default logging, on a machine that can't reach anything."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_API_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
        patch.setenv("NETRC", str(folder / "none"))
        fit(folder, "logged", without=["wandb"], stage="extractor")  # then interrupted, as it were
        yield fit(folder, "logged", without=["wandb"])


@pytest.fixture(scope="module")
def history(logged: Path) -> dict[str, list[Any]]:
    before, path = files_of(logged)
    until = time.monotonic() + 30  # wandb's own process writes the file, on busy cores with a delay
    while "final/count_tv" not in (found := read(path)[0]) and time.monotonic() < until:
        time.sleep(0.5)
    return {**read(before)[0], **found}


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
    files = files_of(logged)[-1].parent / "files"
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
    files = files_of(logged)[-1].parent / "files"
    [[path]] = history["summary/filenames"]
    assert size(files / path) == size(logged / "summary.png")


def test_what_moved_is_logged(history: dict[str, list[Any]], logged: Path) -> None:
    files = files_of(logged)[-1].parent / "files"
    [[path]] = history["rule_changes/filenames"]
    assert size(files / path) == size(logged / "rule_changes.png")
    [path] = history["rule changes/path"]
    table = json.loads((files / path).read_text())
    rows = list(csv.reader((logged / "rule_changes.csv").read_text().splitlines()))
    assert table["columns"] == rows[0] and len(table["data"]) == len(rows) - 1


def test_the_run_is_offline_and_in_its_own_folder(logged: Path) -> None:
    run = read(files_of(logged)[-1])[1].run
    assert (run.project, run.display_name, run.job_type) == ("ms2", "logged", "fit")


def test_all_commands_that_train_a_run_log_to_one(logged: Path) -> None:
    """The stage before the interruption, and what came after it, which took that stage from the cache."""
    before, after = map(read, files_of(logged))
    assert before[1].run.run_id == after[1].run.run_id == json.loads((logged / "run.json").read_text())["wandb_id"]
    assert "extractor/loss" in before[0] and "train/score" not in before[0]
    assert "extractor/loss" not in after[0] and "train/score" in after[0] and "pretraining/nll" in after[0]


def test_all_settings_are_the_configuration(logged: Path) -> None:
    config = logged_config(files_of(logged)[-1])
    saved = yaml.safe_load((logged / "config.yaml").read_text())
    assert {key: config[key] for key in saved} == saved
    assert config["model"]["structure_learner"]["init_args"]["lr"] == 0.005


def test_numbers_of_the_summary(logged: Path, history: dict[str, list[Any]]) -> None:
    """Last values, the smallest of each distance, and seconds."""
    summary = {
        "/".join(item.nested_key or [item.key]): json.loads(item.value_json)
        for record in records(files_of(logged)[-1])
        for item in record.summary.update
    }
    results = json.loads((logged / "metrics.json").read_text())["summary"]
    assert summary["final/count_tv"] == pytest.approx(results["count_tv"])
    assert summary["seconds_total"] == pytest.approx(results["seconds_total"])
    found, logged_values = summary["val/count_tv"], history["val/count_tv"]
    if isinstance(found, dict):  # wandb computed it before the run ended
        assert found == {"last": logged_values[-1], "min": min(logged_values)}
    else:
        assert found == logged_values[-1]
    of_metrics = [record.metric for record in records(files_of(logged)[-1]) if record.HasField("metric")]
    [distances] = [metric.summary for metric in of_metrics if metric.glob_name == "val/*"]
    assert distances.min and distances.last, "which wandb sync computes"


def artifacts(folder: Path) -> dict[str, tuple[str, set[str]]]:
    """Type and files of the artifacts that were logged, by name."""
    [path] = folder.glob("wandb/offline-run-*/run-*.wandb")
    until = time.monotonic() + 30
    while not (found := [one.artifact for one in records(path) if one.HasField("artifact")]):
        assert time.monotonic() < until, "no artifact was logged"
        time.sleep(0.5)
    return {one.name: (one.type, {entry.path for entry in one.manifest.contents}) for one in found}


def test_the_model_is_an_artifact(logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is logged when online, to files here: all that is needed to use the model."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    with wandb.init(mode="offline", project="ms2", dir=tmp_path) as run:
        log_artifact(run, logged, "model", "model-x", MODEL_FILES)
    assert artifacts(tmp_path) == {"model-x": ("model", set(MODEL_FILES))}


def test_a_data_set_is_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    folder = api.generate("multimnist", tmp_path / "the digits", num_scenes=2)
    log_data_set(folder, mode="offline")
    kind, files = artifacts(tmp_path)["the_digits"]
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kind == "dataset" and files == written and len(written) > 4
    [path] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert logged_config(path)["num_scenes"] == 2


def test_a_trial_of_the_sweep_is_a_run_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that an agent makes of the sweep file is one of ms2, with the agent's name, ID and settings."""
    sweep = yaml.safe_load((ROOT / "examples" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    chosen = {key: one["values"][0] if "values" in one else one["min"] for key, one in sweep["parameters"].items()}
    trial = {"args": {key: {"value": value} for key, value in chosen.items()}}
    words = [
        word
        for part in sweep_utils.create_sweep_command(sweep["command"])
        for word in (sweep_utils.create_sweep_command_args(trial)["args"] if part == "${args}" else [part])
    ]
    program = tmp_path / "ms2"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    found = {"PATH": f"{tmp_path}:/usr/bin:/bin", "WANDB_RUN_ID": "trial7"}
    typed = subprocess.run(words, env=found, check=True, capture_output=True, text=True).stdout.splitlines()
    assert typed[typed.index("--name") + 1].endswith("trial7") and typed[typed.index("--wandb") + 1] == "online"
    with pytest.raises(SystemExit, match="0"):
        main([*typed, "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)
    for key, value in chosen.items():
        assert reduce(getitem, key.split("."), settings) == value
    (tmp_path / "trial").mkdir()
    assert RunFolder(tmp_path, "trial").wandb_id("trial7") == RunFolder(tmp_path, "trial").wandb_id() == "trial7"


def test_csv_has_the_same_numbers(logged: Path, history: dict[str, list[Any]]) -> None:
    check_csv(logged)
    for name in ("train/score", "pretraining/nll", "val/count_tv"):
        assert column(logged, name) == pytest.approx(history[name], rel=1e-5)


def test_without_wandb_there_is_csv_only(tmp_path: Path) -> None:
    run = fit(tmp_path, "quiet", wandb="disabled")
    assert not (run / "wandb").exists() and wandb.run is None
    check_csv(run)


def column(run: Path, name: str) -> list[float]:
    tables = [csv.DictReader(path.read_text().splitlines()) for path in sorted(run.glob("csv/*/metrics.csv"))]
    return [float(row[name]) for table in tables for row in table if row.get(name)]


def check_csv(run: Path) -> None:
    assert len(column(run, "extractor/loss")) == 2
    assert len(column(run, "pretraining/nll")) == 4
    for name in ("score", "score_deviation", "entropy", "rejection_rate", "lr"):
        assert len(column(run, f"train/{name}")) == 4
    assert len(column(run, "kernel/count_sharpness")) == 4
    assert len(column(run, "val/count_tv")) == 2
    [final] = column(run, "final/count_tv")
    assert final == pytest.approx(json.loads((run / "metrics.json").read_text())["summary"]["count_tv"])
