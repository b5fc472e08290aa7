"""Pages of runs and data sets: one file that loads nothing, text that stays text, and errors that name the file."""

import base64
import errno
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from report_pages import CHANGES_FILE, HOSTILE, compared, hostile_run, hostile_set, make_set, page_of, parse, record

from ms2.core.errors import UserError
from ms2.report import write_report

MAX_BYTES = 3_000_000


def test_a_page_is_one_file_with_one_script(any_folder: Path) -> None:
    path = write_report(any_folder)
    page = parse(path.read_text(encoding="utf-8"))
    data = page.all("script", type="application/json")
    [script] = [node for node in page.all("script") if node.attributes != data[0].attributes and node not in data]
    assert script.attributes == {"type": "module"}
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    [policy] = [node.attributes["content"] for node in page.all("meta") if "http-equiv" in node.attributes]
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    for node in page.all():
        assert not [name for name in node.attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action", "poster"):
            value = node.attributes.get(name, "#")
            assert re.match(r"#|data:(image/(png|jpeg);base64)?,", value), value[:60]
    for style in page.all("style"):
        assert "url(" not in style.text and "@import" not in style.text
    ids = [node.attributes["id"] for node in page.all() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    for node in data:
        json.loads(node.text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert path.stat().st_size < MAX_BYTES


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    for folder in (hostile_set(tmp_path / "set"), hostile_run(tmp_path / "run")):
        words = page_of(folder).text
        assert HOSTILE[0] in words and HOSTILE[1] in words


# --- errors ---


def test_neither_a_run_nor_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a run nor a data set: it has no metrics.json .* ms2 fit --config"):
        write_report(tmp_path)


def test_the_nearest_folder_is_named(run: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*tinny. Did you mean 'tiny'"):
        write_report(run.with_name("tinny"))
    with pytest.raises(UserError, match=r"holds several .* tiny"):
        write_report(run.parent)
    with pytest.raises(UserError, match="is a file: give the folder"):
        write_report(run / "metrics.json")
    with pytest.raises(UserError, match="Nor is there"):
        write_report(run / "no" / "thing")


LABEL = {"object": 0, "category": "a", "bbox": [1, 2, 1, 3], "visibility": 1.0}
OUTSIDE = "is named as an image, but lies outside"
NO_RECORD = "000001.json: this is not the record of an image"


def scene(labels: Any = (), **image: Any) -> str:
    """The record of an image as text."""
    return json.dumps(record(1, **image) | {"labels": labels})


def metrics(**stage: Any) -> str:
    """The results of a run as text, of one stage with these fields."""
    measured = {"num_scenes": 1, "seed": 0, "target": "x"}
    return json.dumps({"schema_version": 1, "measured_with": measured, "stages": {"extractor": {"seconds": 1} | stage}})


def histograms(**fields: Any) -> str:
    """The histograms of a run as text, of one statistic with some of its fields."""
    one = {"name": "count", "title": "x", "bins": ["1"], "shares": {"a": [1]}} | fields
    return json.dumps({"schema_version": 1, "histograms": [one]})


def broken(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", '{"count_tv": 0.', "metrics.json: this is not JSON .*'ms2 test'"),
        ("metrics.json", "[1]", "metrics.json: holds a list, where an object was expected"),
        ("metrics.json", '{"count_tv": 0.1}', "metrics.json: has no schema_version"),
        ("metrics.json", '{"schema_version": 1}', "metrics.json: lacks the field measured_with"),
        ("config.yaml", "a: [", "config.yaml: this is not YAML"),
        (
            "metrics.json",
            metrics(probes={"prior": {"count_error": {"few": 1}}}),
            "key 'few', where a whole number",
        ),
        ("histograms.json", histograms(bins=["1", "2"], shares={"a": [1]}), "not as many shares .*ms2 test --config"),
        ("histograms.json", histograms(bins=["1"], shares={"a": [None]}), "a share that is not a number"),
        ("histograms.json", histograms(bins=3), r"histograms.json: histograms.0..bins is 3"),
        (CHANGES_FILE, "label,before\na,b\n", f"{CHANGES_FILE}: not what ms2 writes"),
        (
            CHANGES_FILE,
            "label,before,after,after_low,after_high,visits_before,visits_after\na,0.1,nan,0,1,2,3\n",
            f"{CHANGES_FILE}: not what ms2 writes .*nan cannot be shown",
        ),
        (
            "examples/examples.json",
            '{"prior": [{"file": "../../x.png", "labels": null}]}',
            OUTSIDE,
        ),
        (
            "examples/examples.json",
            '{"prior": [{"file": "/etc/passwd", "labels": null}]}',
            OUTSIDE,
        ),
        ("examples/examples.json", '{"prior": [{}]}', "examples.json: not what ms2 writes"),
        ("examples/prior_00.png", "no image", "prior_00.png: can't be read as an image"),
        ("compare/0a1b/seed0.json", "{", "seed0.json: this is not JSON"),
        (
            "compare/0a1b/seed1.json",
            '{"schema_version": 1, "seed": 1, "rows": {"prior": {"KID": 1}}, "budget": {}}',
            "0a1b: these results have different rows .*ms2 compare",
        ),
        (
            "compare/0a1b/seed0.json",
            '{"schema_version": 1, "seed": 0, "rows": {"prior": [1]}, "budget": {}}',
            "seed0.json: rows.prior is .1.",
        ),
    ],
)
def test_a_broken_run_names_the_file(copy: Path, name: str, text: str, message: str) -> None:
    compared(copy, {"prior": {"AP car": 0.5}, "learned structure": {"AP car": 0.6}})
    with pytest.raises(UserError, match=message):
        write_report(broken(copy, name, text))
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dataset.json", "{", "dataset.json: this is not JSON"),
        ("scenes/000001.json", '{"image":', "000001.json: this is not JSON"),
        ("scenes/000001.json", "{}", "000001.json: this is not the record of an image .*image.* ms2 generate again"),
        ("scenes/000001.json", scene(width=0), "an image of 0 x 48 pixels"),
        ("scenes/000001.json", scene(file="../../../etc/passwd"), OUTSIDE),
        ("scenes/000001.json", scene(file="images/\0.png"), "is named as an image, but is no path"),
        (
            "scenes/000001.json",
            scene(file="images/x.png"),
            "x.png: there is no such image, of which scenes/000001.json is the record",
        ),
        ("scenes/000001.json", scene(labels=[LABEL | {"bbox": [1, 2, math.nan, 3]}]), NO_RECORD),
        ("scenes/000001.json", scene(labels=[LABEL | {"bbox": [1, 2, 3]}]), NO_RECORD),
        ("scenes/000001.json", scene(labels=[LABEL | {"bbox": None}]), f"{NO_RECORD}.*without a box"),
        ("scenes/000001.json", scene(labels=[LABEL | {"visibility": "all"}]), NO_RECORD),
        ("scenes/000001.json", scene(labels=[LABEL | {"category": 3}]), NO_RECORD),
        ("scenes/000001.json", scene(labels=3), NO_RECORD),
        ("scenes/000001.json", scene(labels=[LABEL | {"visibility": "0.5"}]), f"{NO_RECORD}.*visibility is '0.5'"),
        ("scenes/000001.json", scene(labels=[LABEL | {"segmentation": {"size": [48, 48]}}]), NO_RECORD),
        ("scenes/000001.json", scene().replace('"width": 48', '"width": "48"'), f"{NO_RECORD}.*width is '48'"),
    ],
)
def test_a_broken_set_names_the_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    folder = broken(make_set(tmp_path / "set", scenes=3), name, text)
    with pytest.raises(UserError, match=message):
        write_report(folder)


def test_a_set_without_scenes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no scenes/.*continues where it stopped"):
        write_report(broken(tmp_path, "dataset.json", "{}"))


def test_where_the_page_goes(dataset: Path, tmp_path: Path) -> None:
    assert write_report(dataset) == dataset / "report.html"
    assert write_report(dataset, tmp_path) == tmp_path / "report.html"
    assert write_report(dataset, tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write .*page.html: .*--output"):
        write_report(dataset, tmp_path / "file" / "page.html")


def test_a_page_is_replaced_as_a_whole(dataset: Path, tmp_path: Path) -> None:
    """A file that is open keeps the old page."""
    path = tmp_path / "report.html"
    path.write_text("old")
    with path.open() as old:
        write_report(dataset, path)
        assert old.read() == "old"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>") and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_page(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_report(dataset, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
