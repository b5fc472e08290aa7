"""The report of a run or a data set: what it shows, what it refuses, and how it behaves in a browser.

Tests in a browser want Chromium, and skip where there is none.
"""

import base64
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import EXPECTED, fit, images, learner
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.evaluation import measures as evaluation
from ms2.metrics.comparison import ComparisonResult, save_comparison
from ms2.report import write_report
from ms2.report.card import markdown
from ms2.report.charts import axis
from ms2.report.curves import smoothed
from ms2.report.learning import read_logs
from ms2.report.markup import VOID, Html, element, fragment
from ms2.report.tally import Tally, scene_names
from ms2.targets.folder import Folder
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

pytestmark = [
    *EXPECTED,
    # pycocotools 2.0 under NumPy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]
HOSTILE = ("<script>window.hacked = 1</script>", '"><img src=x onerror="window.hacked = 1">', "{{7*7}} & 'ε'")


# --- what is reported on ---


def digit_world() -> World:
    return World(MultiMNIST(), UniformDigits(8), UniformPlacement(), DigitCanvas(canvas_size=48, digit_size=12))


def make_set(folder: Path, scenes: int = 7, categories: list[str] | None = None, **about: Any) -> Path:
    """A data set of MultiMNIST in the layout that ms2 generate writes."""
    world = digit_world()
    categories = categories or list(world.classes)
    for name in ("images", "scenes"):
        (folder / name).mkdir(parents=True)
    drawn = world.renderer.render_labelled(world.sample_prior(scenes, generator(0, "set")))
    for i in range(scenes):
        labels, hidden = [], []
        for k, number in enumerate(drawn.classes[i].tolist()):
            mask = np.asfortranarray((drawn.instances[i] == k).numpy().astype(np.uint8))
            if number < 0 or not mask.any():
                continue
            runs = rle.encode(mask)
            known = {
                "object": k,
                "category": categories[number],
                "visibility": round(float(drawn.visibility[i, k]), 3),
                "bbox": rle.toBbox(runs).tolist(),
                "area": int(mask.sum()),
                "segmentation": {"size": list(mask.shape), "counts": runs["counts"].decode()},
            }
            (labels if known["visibility"] > 0.7 else hidden).append(known)
        file = f"images/{i:06d}.png"
        Image.fromarray((drawn.image[i, 0] * 255).byte().numpy()).save(folder / file)
        record = {
            "image": {"file": file, "width": 48, "height": 48, "bytes": (folder / file).stat().st_size},
            "provenance": {"index": i, "seed": 0, "ms2": "0.1.0", "grammar": "ab", "checkpoint": None, "device": "cpu"},
            "labels": labels,
            "hidden": hidden,
        }
        (folder / "scenes" / f"{i:06d}.json").write_text(json.dumps(record))
    settings = {"ms2": "0.1.0", "seed": 0, "num_scenes": scenes, "formats": ["coco"], "categories": categories} | about
    (folder / "dataset.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("# Digits\n\n| class | objects |\n|---|---|\n| 0 | 3 |\n\n- one\n- `two`\n")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_set(tmp_path_factory.mktemp("sets") / "digits", scenes=30)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fit(tmp_path_factory.mktemp("runs"), "tiny")
    write_report(folder)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The run, to be changed."""
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints", "report.html"))
    return tmp_path / "copy"


# --- reading pages without a browser ---


class Node:
    """An element of a page."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[Node | str] = []

    def all(self, tag: str = "", **attributes: str) -> list["Node"]:
        """Elements inside of it with that name and these words in their attributes."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                fits = all(v in child.attributes.get(k.rstrip("_"), "").split() for k, v in attributes.items())
                found += ([child] if tag in ("", child.tag) and fits else []) + child.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Reader(HTMLParser):
    """Builds the tree of a page, in which every element has to be closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open = [Node("", {})]
        self.feed(text)
        self.close()
        assert len(self.open) == 1, f"never closed: {[node.tag for node in self.open]}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attributes})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(text: str) -> Node:
    return Reader(text).open[0]


def page_of(folder: Path) -> Node:
    return parse(write_report(folder).read_text(encoding="utf-8"))


def chart(page: Node, title: str) -> Node:
    [found] = [node for node in page.all("figure", class_="chart") if node.all("strong")[0].text == title]
    return found


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text.replace("−", "-").replace(",", ""))]


# --- markup ---


@given(st.text(), st.text())
def test_text_stays_text(content: str, value: str) -> None:
    """Whatever is put into an element comes out of a parser again as it was, and as text."""
    assume("\r" not in content + value and "\0" not in content + value)  # parsers replace these
    page = parse(element("p", content, [content, None], data_tip=value))
    [node] = page.all()
    assert node.text == content + content
    assert node.attributes == {"data-tip": value}


def test_elements() -> None:
    assert element("p", "a", Html("<b>"), 3, 0.5, class_="x", hidden=True, id=None, lang=False) == (
        '<p class="x" hidden>a<b>30.5</p>'
    )
    assert element("br") == "<br>" and fragment("<", Html("<")) == "&lt;<"


# --- charts ---


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_an_axis_covers_its_values_in_few_round_steps(low: float, width: float) -> None:
    ticks = axis(low, low + width)
    slack = 1e-6 * max(abs(low), width, 1e-12)
    assert ticks[0] <= low + slack and ticks[-1] >= low + width - slack
    steps = np.diff(ticks)
    assert 2 <= len(ticks) <= 7 and steps.min() > 0
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    digits = f"{steps[0]:.6e}".partition("e")[0].rstrip("0").rstrip(".")
    assert digits in ("1", "2", "2.5", "5")


def test_smoothing_is_a_weighted_mean_of_what_came_before() -> None:
    values = np.random.default_rng(0).normal(size=60)
    keep = 1 - 2 / (1 + 60 / 12)
    expected = [np.average(values[: i + 1], weights=keep ** np.arange(i, -1, -1)) for i in range(60)]
    np.testing.assert_allclose(smoothed(values.tolist()), expected)
    assert smoothed([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]


def test_columns_are_as_high_as_shares(run: Path) -> None:
    """Read off the picture: heights over the highest label of the axis."""
    page = page_of(run)
    for told in json.loads((run / "histograms.json").read_text()):
        figure = chart(page, told["title"])
        top = max(numbers_in(label.text)[0] for label in figure.all("div", class_="y")[0].all("span")) / 100
        for who, shares in told["shares"].items():
            bars = figure.all("rect", class_=f"ink-{who}")
            heights = [float(bar.attributes["height"]) * top for bar in bars]
            np.testing.assert_allclose(heights, shares, atol=2e-5)
            ends = [float(bar.attributes["y"]) + float(bar.attributes["height"]) for bar in bars]
            np.testing.assert_allclose(ends, 1, atol=2e-5)
        rows = figure.all("tbody")[0].all("tr")
        assert [row.all("th")[0].text for row in rows] == told["bins"]
        shown = [[numbers_in(cell.text)[0] / 100 for cell in row.all("td")] for row in rows]
        np.testing.assert_allclose(np.transpose(shown), list(told["shares"].values()), rtol=6e-3, atol=1e-5)


def test_curves_go_through_what_was_logged(run: Path) -> None:
    """Points of the picture, scaled back by the labels of the axis, are those of the file."""
    [file] = run.glob("csv/*/metrics.csv")
    with file.open() as table:
        rows = [
            (float(row["step"]), float(row["train/entropy"])) for row in csv.DictReader(table) if row["train/entropy"]
        ]
    figure = chart(page_of(run), "Entropy")
    labels = [numbers_in(label.text)[0] for label in figure.all("div", class_="y")[0].all("span")]
    text = figure.all("polyline", class_="line")[0].attributes["points"]
    points = np.array([point.split(",") for point in text.split()], dtype=float)
    steps, values = np.transpose(rows)
    np.testing.assert_allclose(points[:, 0], 100 * (steps - steps[0]) / (steps[-1] - steps[0]), atol=0.01)
    np.testing.assert_allclose(
        labels[-1] - points[:, 1] / 100 * (labels[-1] - labels[0]), values, atol=2e-4 * (labels[-1] - labels[0])
    )
    [svg] = figure.all("svg")
    [data] = json.loads(svg.attributes["data-curves"])
    np.testing.assert_allclose([point[:2] for point in data["points"]], rows, rtol=1e-3)


# --- a run ---


def test_a_run_has_all_sections(run: Path) -> None:
    page = page_of(run)
    titles = [node.text for node in page.all("h2")]
    assert titles == [
        "Results", "Histograms", "Images", "Learning", "What moved", "What the features read", "Time", "Reproduce",
        "Configuration",
    ]  # fmt: skip
    assert [link.text for link in page.all("nav")[0].all("a")] == titles
    assert {link.attributes["href"][1:] for link in page.all("nav")[0].all("a")} == {
        node.attributes["id"] for node in page.all("main")[0].children if isinstance(node, Node)
    }
    charts = [node.all("strong")[0].text for node in page.all("figure", class_="chart")]
    assert charts == [
        "objects per scene", "classes of objects", "Score", "Distance to the target", "Deviation of the score",
        "Entropy", "Rejection rate", "Kernel sharpness", "Learning rate", "Loss of the extractor", "Pretraining",
        "Error of the number of objects",
    ]  # fmt: skip
    assert page.all("h1")[0].text == "tiny"
    assert (run / "config.yaml").read_text() in [node.text for node in page.all("code")]


def test_a_card_says_what_metrics_say(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    card = page_of(run).all("article", class_="card")[0]
    value, prior = metrics["count_tv"], metrics["count_tv_prior"]
    assert numbers_in(card.all("strong")[0].text) == [pytest.approx(value, abs=5e-4)]
    shown = {row.all("dt")[0].text: numbers_in(row.all("dd")[0].text) for row in card.all("dl")[0].all("div")}
    assert shown["prior"] == pytest.approx([prior, *metrics["count_tv_prior_interval"]], abs=5e-4)
    assert shown["best PCFG"][0] == pytest.approx(metrics["count_tv_pcfg_oracle"], abs=5e-4)
    assert shown["noise floor"] == [pytest.approx(metrics["count_tv_noise_floor"], abs=5e-4)]
    places = {node.attributes["class"]: float(node.attributes["cx"][:-1]) for node in card.all("circle")}
    assert places["fill-learned"] / places["fill-prior"] == pytest.approx(value / prior, rel=1e-2)


@pytest.mark.parametrize(
    ("learned", "floor", "kind", "words"),
    [
        ((0.2, 0.15, 0.25), 0.01, "good", "−60 % from the prior"),
        ((0.02, 0.005, 0.04), 0.01, "good", "−96 %, at the noise floor"),
        ((0.35, 0.25, 0.45), 0.01, "even", "−30 %, within the intervals"),
        ((0.6, 0.55, 0.65), 0.01, "even", "+20 %, within the intervals"),
        ((0.75, 0.7, 0.8), 0.01, "bad", "+50 % from the prior: worse"),
    ],
)
def test_intervals_decide_whether_it_got_better(
    copy: Path, learned: tuple[float, float, float], floor: float, kind: str, words: str
) -> None:
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics |= {"count_tv": learned[0], "count_tv_interval": learned[1:], "count_tv_noise_floor": floor}
    metrics |= {"count_tv_prior": 0.5, "count_tv_prior_interval": [0.4, 0.6]}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    badge = page_of(copy).all("article")[0].all("span", class_="badge")[0]
    assert (badge.attributes["class"], badge.text) == (f"badge {kind}", words)


def test_an_infinite_divergence_is_left_out(copy: Path) -> None:
    metrics = json.loads((copy / "metrics.json").read_text()) | {"count_kl": float("inf"), "class_tv": float("nan")}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    page = page_of(copy)
    assert len(page.all("article")) == 1
    assert "nan" not in " ".join(str(node.attributes) for node in page.all()).lower()


def test_kid_and_fid_are_shown_where_they_were_measured(copy: Path) -> None:
    more = {"kid": 0.0133, "kid_interval": [0.0128, 0.0138], "kid_prior": 0.0221, "kid_prior_interval": [0.02, 0.03]}
    metrics = json.loads((copy / "metrics.json").read_text()) | more | {"realism_features": "Some network"}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    page = page_of(copy)
    assert [card.all("h3")[0].text for card in page.all("article")][-1] == "KIDimages"
    assert page.all("article")[-1].all("strong")[0].text == "0.0133"
    assert "Some network" in page.all("section", id="results")[0].text


def compared(folder: Path, *seeds: dict[str, dict[str, float]], budget: dict[str, Any] | None = None) -> Path:
    """A run that was compared, with what was measured with each seed."""
    place = folder / "compare" / "0a1b"
    place.mkdir(parents=True)
    for seed, found in enumerate(seeds):
        save_comparison(place / f"seed{seed}.json", ComparisonResult(seed, found, budget or {}))
    return place


def test_detectors_are_compared_over_seeds(copy: Path) -> None:
    """Means and Student's intervals by hand: t = 12.7062 with one degree of freedom."""
    first = {"prior": {"AP car": 0.5, "KID": 20.0}, "learned structure": {"AP car": 0.6, "KID": 10.0}}
    second = {"prior": {"AP car": 0.7, "KID": 20.0}, "learned structure": {"AP car": 0.9, "KID": 12.0}}
    compared(copy, first, second, budget={"num_scenes": 200, "classes": ["car"], "progressive": False})
    section = page_of(copy).all("section", id="detectors")[0]
    rows = {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in section.all("tr")[1:]}
    assert rows == {
        "prior": ["0.600 ± 1.271", "20.0"],
        "learned structure": ["0.750 ± 1.906", "11.0 ± 12.7"],
        "learned structure - prior": ["0.150 ± 0.635", "-9.000 ± 12.7"],
    }
    assert [note.text for note in section.all("p", class_="note")][1] == "2 seeds; num scenes 200; classes car"


def test_what_moved_is_on_a_line_from_before_to_after(run: Path) -> None:
    with (run / "moved.csv").open() as table:
        rows = list(csv.DictReader(table))
    moves = page_of(run).all("section", id="what-moved")[0].all("div", class_="move")[1:]
    assert len(moves) == len(rows) > 0
    for move, row in zip(moves, rows, strict=True):
        assert move.all("span")[0].text == row["label"]
        places = {node.attributes["class"]: float(node.attributes["cx"][:-1]) / 100 for node in move.all("circle")}
        assert places["fill-learned"] == pytest.approx(float(row["after"]), abs=1e-4)
        assert ("fill-prior" in places) == bool(row["before"])
        if row["before"]:
            assert places["fill-prior"] == pytest.approx(float(row["before"]), abs=1e-4)


def test_a_run_without_numbers_of_its_histograms_shows_its_pictures(copy: Path) -> None:
    """As ms2 0.1.0 left them at first."""
    shutil.rmtree(copy / "examples")
    for name in ("histograms.json", "moved.csv"):
        (copy / name).unlink()
    page = page_of(copy)
    assert [node.text for node in page.all("h2")][:3] == ["Results", "Summary", "Learning"]
    for section, name in (("summary", "summary.png"), ("what-moved", "moved.png")):
        [image] = page.all("section", id=section)[0].all("img")
        with Image.open(decoded(image.attributes["src"])) as shown, Image.open(copy / name) as file:
            assert shown.size == file.size


def test_a_run_that_is_not_finished_shows_its_curves(copy: Path) -> None:
    for name in ("metrics.json", "histograms.json", "moved.csv", "moved.png", "summary.png"):
        (copy / name).unlink()
    shutil.rmtree(copy / "examples")
    (copy / "run.json").write_text('{"identity": "x", "finished": false}')
    page = page_of(copy)
    assert "has not finished" in page.all("p", class_="warning")[0].text
    assert [node.text for node in page.all("h2")] == ["Learning", "Reproduce", "Configuration"]
    shutil.rmtree(copy / "csv")
    with pytest.raises(UserError, match=r"neither results nor logs yet. Let it learn: ms2 fit --config .*config.yaml"):
        write_report(copy)


def test_logs_of_a_resumed_run_are_joined(tmp_path: Path) -> None:
    """What came after the checkpoint is done again; a test of the checkpoint counts no steps."""
    parts = {
        "version_2": "step,train/score,val/count_tv,final/count_tv\n5,1,,\n10,2,0.5,\n15,3,,\n",
        "version_10": "step,train/score,val/count_tv,final/count_tv\n15,4,,\n20,nan,0.25,\n25,6,,0.1\n30,",
        "version_11": "step,val/count_tv\n0,0.125\n",
    }
    for name, text in parts.items():
        (tmp_path / "csv" / name).mkdir(parents=True)
        (tmp_path / "csv" / name / "metrics.csv").write_text(text)
    logs = read_logs(tmp_path)
    assert set(logs) == {"train/score", "val/count_tv"}
    assert (logs["train/score"].steps, logs["train/score"].values) == ([5, 10, 15, 25], [1, 2, 4, 6])
    assert (logs["val/count_tv"].steps, logs["val/count_tv"].values) == ([10, 20], [0.5, 0.25])


# --- images with boxes ---


def decoded(uri: str) -> io.BytesIO:
    kind, _, content = uri.partition(",")
    assert re.fullmatch(r"data:image/(png|jpeg);base64", kind)
    return io.BytesIO(base64.b64decode(content))


def test_examples_are_the_sample_images_with_the_boxes_of_their_instances() -> None:
    model, data = learner(digit_world()), images(digit_world())
    found, plain = evaluation.examples(model, data.target, 5), evaluation.sample_images(model, data.target, 5)
    assert {who: len(some) for who, some in found.items()} == {"prior": 5, "learned": 5, "target": 5}
    for who, some in found.items():
        torch.testing.assert_close(torch.stack([one.image for one in some]), plain[who], atol=1 / 255, rtol=0)
    scenes = evaluation._sample_scenes(model, 5) | {"target": data.target._drawn[1][:5]}
    for who, some in found.items():
        drawn = model.world.renderer.render_labelled(scenes[who])
        for i, one in enumerate(some):
            expected = []
            for k, number in enumerate(drawn.classes[i].tolist()):
                rows, columns = (drawn.instances[i] == k).nonzero(as_tuple=True)
                if number >= 0 and len(rows):
                    (x, y), (right, bottom) = ([int(f(v)) for v in (columns, rows)] for f in (torch.min, torch.max))
                    box = [x, y, right + 1 - x, bottom + 1 - y]
                    expected.append((model.world.classes[number], box, float(drawn.visibility[i, k])))
            shown = [(label["category"], label["bbox"], label["visibility"]) for label in one.labels or ()]
            assert shown == [(name, box, pytest.approx(seen, abs=1e-3)) for name, box, seen in expected]
    assert sum(len(one.labels or ()) for some in found.values() for one in some) > 20


def test_nobody_knows_what_is_in_a_folder_of_images(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("L", (48, 48), 60 * i).save(tmp_path / f"{i}.png")
    found = evaluation.examples(learner(digit_world()), Folder(digit_world(), tmp_path), 16)
    assert [(one.labels, float(one.image.mean())) for one in found["target"]] == [
        (None, pytest.approx(60 * i / 255)) for i in range(3)
    ]


def test_a_run_shows_its_examples(run: Path) -> None:
    told = json.loads((run / "examples" / "examples.json").read_text())
    assert {who: len(some) for who, some in told.items()} == {"prior": 16, "learned": 16, "target": 16}
    groups = page_of(run).all("div", class_="groups")[0].all("section")
    assert [group.all("h3")[0].text for group in groups] == ["prior", "learned", "target"]
    for group, some in zip(groups, told.values(), strict=True):
        for tile, one in zip(group.all("button"), some, strict=True):
            with Image.open(decoded(tile.all("img")[0].attributes["src"])) as shown:
                pixels = np.asarray(shown)
            with Image.open(run / "examples" / one["file"]) as file:
                np.testing.assert_array_equal(pixels, np.asarray(file))
            drawn = [
                tuple(float(node.attributes[k]) for k in ("x", "y", "width", "height")) for node in tile.all("rect")
            ]
            assert Counter(drawn) == Counter(tuple(label["bbox"]) for label in one["labels"])
            names = Counter(node.text for node in tile.all("text"))
            assert names == Counter(label["category"] for label in one["labels"])


def test_masks_are_those_of_the_labels(dataset: Path) -> None:
    first = json.loads((dataset / "scenes" / "000000.json").read_text())
    [tile] = [
        node for node in page_of(dataset).all("button", class_="tile") if node.attributes["aria-label"][:6] == "000000"
    ]
    expected = {}
    for label in first["labels"]:
        mask = rle.decode(label["segmentation"]).astype(bool)
        expected[label["category"]] = mask | expected.get(label["category"], False)
    numbers = {node.all("text")[0].text: node.attributes["data-class"] for node in tile.all("g", class_="box")}
    shown = {node.attributes["data-class"]: node.attributes["href"] for node in tile.all("image")}
    assert len(shown) == len(expected) > 0
    for category, mask in expected.items():
        with Image.open(decoded(shown[numbers[category]])) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("RGBA"))[..., 3] > 0, mask)


def test_large_images_become_small_files(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=1)
    noise = np.random.default_rng(0).integers(0, 255, (900, 1800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "images/000000.png")
    [tile] = page_of(folder).all("button", class_="tile")
    with Image.open(decoded(tile.all("img")[0].attributes["src"])) as image:
        assert (image.format, image.size) == ("JPEG", (800, 400))
    assert tile.all("svg")[0].attributes["viewbox"] == "0 0 48 48", "boxes are in the pixels of the record"


# --- a data set ---


def test_counts_are_those_of_the_records(dataset: Path) -> None:
    records = [json.loads(path.read_text()) for path in sorted((dataset / "scenes").iterdir())]
    labels = [label for record in records for label in record["labels"]]
    objects = Counter(label["category"] for label in labels)
    page = page_of(dataset)
    facts = {node.all("dt")[0].text: node.all("dd")[0].text for node in page.all("dl", class_="chips")[0].all("div")}
    assert facts["images"] == "30" and facts["labelled objects"] == str(len(labels))
    assert facts["hidden objects, not labelled"] == str(sum(len(record["hidden"]) for record in records)) != "0"
    assert facts["images without objects"] == str(sum(not record["labels"] for record in records))
    assert facts["size"] == "48 × 48 px"
    for row in page.all("section", id="classes")[0].all("tbody")[0].all("tr"):
        name, cells = row.all("th")[0].text, [cell.text for cell in row.all("td")]
        sizes = [round((label["bbox"][2] * label["bbox"][3]) ** 0.5) for label in labels if label["category"] == name]
        assert cells[0] == str(objects[name]) and cells[1] == f"{objects[name] / 30:.2f}"
        assert cells[2] == f"{100 * sum(any(x['category'] == name for x in r['labels']) for r in records) / 30:.0f} %"
        quantiles = [np.quantile(sizes, q, method="inverted_cdf") for q in (0.05, 0.5, 0.95)]
        assert cells[4] == " / ".join(f"{q:.0f}" for q in quantiles)
    values = {
        title: [numbers_in(cell.text)[0] for cell in chart(page, title).all("tbody")[0].all("td")]
        for title in ("Objects per image", "Classes", "Size of boxes", "Visible share of objects")
    }
    expected = Counter(len(record["labels"]) for record in records)
    np.testing.assert_allclose(
        values["Objects per image"], [100 * expected[n] / 30 for n in range(max(expected) + 1)], rtol=6e-3
    )
    for title, shares in values.items():
        assert sum(shares) == pytest.approx(100, abs=0.5), title
    cells = chart(page, "Where objects are").all("rect")
    assert sum(numbers_in(cell.attributes["data-tip"])[0] for cell in cells) == len(labels)


def test_distances_of_a_world_in_three_dimensions(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    for path in (folder / "scenes").iterdir():
        record = json.loads(path.read_text())
        for label in record["labels"]:
            label |= {"truncation": 0.2, "box3d": [1, 1, 1, 0, 0, 34.0, 0]}
        path.write_text(json.dumps(record))
    page = page_of(folder)
    rows = chart(page, "Distance from the camera").all("tbody")[0].all("tr")
    assert [(row.all("th")[0].text, row.all("td")[0].text) for row in rows][-1] == ("30 to 40", "100 %")
    assert "objects reach out of the image" in page.all("section", id="classes")[0].text


def test_many_objects_share_bins(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=2)
    for number, path in zip((100, 161), sorted((folder / "scenes").iterdir()), strict=True):
        record = json.loads(path.read_text())
        label = {"category": "0", "bbox": [1, 2, 3, 4], "visibility": 1.0}
        path.write_text(json.dumps(record | {"labels": [label] * number, "hidden": []}))
    page = page_of(folder)
    [cell] = [
        node.attributes
        for node in chart(page, "Where objects are").all("rect")
        if node.attributes["data-tip"][0] != "0"
    ]
    assert (cell["x"], cell["y"], cell["data-tip"]) == ("1", "2", "261 (100 %)"), "2.5 and 4 of 48 pixels, in 24 cells"
    rows = chart(page, "Objects per image").all("tbody")[0].all("tr")
    shares = {row.all("th")[0].text: row.all("td")[0].text for row in rows}
    assert len(shares) <= 24 and [name for name, share in shares.items() if share == "50 %"] == [
        "100 to 102",
        "160 to 162",
    ]


def test_an_incomplete_set_is_said_to_be_one(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=3, num_scenes=10)
    assert "3 of 10 images are there" in page_of(folder).all("p", class_="warning")[0].text


def test_a_set_that_was_not_made_alike_is_said_to_be_one(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=3)
    path = folder / "scenes/000001.json"
    path.write_text(path.read_text().replace('"grammar": "ab"', '"grammar": "cd"'))
    page = page_of(folder).all("section", id="provenance")[0]
    assert page.all("p", class_="warning")[0].text.endswith("they differ in grammar.")
    assert "ab (2 images), cd (1 images)" in page.text


def test_half_a_character_does_no_harm(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=1, source="\ud83d", where=["car == 5", "x > 1"])
    facts = page_of(folder).all("dl", class_="chips")[0].text
    assert "made from?" in facts and "wherecar == 5 and x > 1" in facts


def test_a_set_without_objects(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=2)
    for path in (folder / "scenes").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": [], "hidden": []}))
    page = page_of(folder)
    assert [node.all("strong")[0].text for node in page.all("figure", class_="chart")] == ["Objects per image"]
    assert len(page.all("button", class_="tile")) == 2


def test_the_tally_keeps_samples_alone(dataset: Path) -> None:
    names = scene_names(dataset)
    tally = Tally({}, {names[3]})
    for name in names:
        tally.add(dataset / "scenes" / name)
    assert list(tally.samples) == [names[3]] and tally.images == 30


# --- the card ---


CARD = """\
# Title with `code`

A paragraph of *two*
lines, **bold _and_ more**, a [link](https://example.org/a_b) and 2 * 3 * 4 snake_case_names.

## Lists

- one
- two, which
  goes on
  - inner `x`
  - inner
- three

1. first
2. second

> quoted *text*

```python
a = "<b>"

# no heading
```

---

Last one.
"""


def events(text: str) -> list[str]:
    """Tags and words of HTML in order, without the paragraphs that some put into quotes and others don't."""
    found = []
    tree = parse(text)

    def walk(node: Node) -> None:
        for child in node.children:
            if isinstance(child, str):
                found.extend(child.split())
            else:
                found.append(f"<{child.tag} {child.attributes.get('href', '')}>")
                walk(child)
                found.append(f"</{child.tag}>")

    walk(tree)
    return found


def test_cards_read_as_another_library_reads_them() -> None:
    other = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    assert events(markdown(CARD, level=1)) == events(other.MarkdownIt("commonmark").render(CARD))


def test_tables_of_cards() -> None:
    other = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    text = "before\n\n| a | b |\n|---|--:|\n| `x` | 1 \\| 2 |\n| **y** | |\n\nafter"
    expected = other.MarkdownIt("commonmark").enable("table").render(text)
    ours = markdown(text)
    cells = [[cell.text for cell in row.all() if cell.tag in ("td", "th")] for row in parse(ours).all("tr")]
    assert cells == [[cell.text for cell in row.all() if cell.tag in ("td", "th")] for row in parse(expected).all("tr")]
    assert len(parse(ours).all("code")) == len(parse(ours).all("strong")) == 1


@given(st.text(alphabet="ab*_`[](){}<>#|-.1 \n\t>!~\\&\"'/:", max_size=80))
def test_no_card_can_bring_its_own_markup(text: str) -> None:
    """Every element is one of Markdown's own, every link goes to the web, and the words are still there."""
    tree = parse(markdown(text))
    allowed = {"p", "h3", "h4", "h5", "h6", "ul", "ol", "li", "code", "pre", "em", "strong", "hr", "blockquote", "a",
               "table", "thead", "tbody", "tr", "th", "td", "div"}  # fmt: skip
    assert {node.tag for node in tree.all()} <= allowed
    for node in tree.all("a"):
        assert re.match(r"https?://", node.attributes["href"])
    if "[" not in text and "|" not in text and "~" not in text and "`" not in text:
        assert set(re.findall(r"[ab]+", text)) == set(re.findall(r"[ab]+", tree.text))


@pytest.mark.parametrize(
    "text", ["> " * 3000 + "x", "- " * 3000, "*_" * 3000 + "x" + "_*" * 3000, "[" * 5000, "`" * 5001]
)
def test_a_card_that_is_nested_too_deep_does_no_harm(tmp_path: Path, text: str) -> None:
    folder = make_set(tmp_path / "set", scenes=1)
    (folder / "README.md").write_text(text)
    began = time.monotonic()
    page_of(folder)
    assert time.monotonic() - began < 5


# --- one file, and nothing of others' in it ---


def hostile_set(folder: Path) -> Path:
    names = [HOSTILE[i % 3] + str(i // 3) for i in range(10)]
    folder = make_set(folder, categories=names, source=HOSTILE[0], **{HOSTILE[1]: HOSTILE[0]})
    links = ["[x](javascript:window.hacked=1)", "![x](http://example.org/x.png)"]
    card = ["# " + HOSTILE[0], *HOSTILE, f"| a |\n|---|\n| {HOSTILE[1]} |", *links]
    (folder / "README.md").write_text("\n\n".join(card))
    path = folder / "scenes/000000.json"
    record = json.loads(path.read_text())
    record["provenance"]["grammar"] = HOSTILE[0]
    path.write_text(json.dumps(record))
    return folder


def hostile_run(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints", "report.html"))
    for name in ("histograms.json", "examples/examples.json"):
        text = (folder / name).read_text()
        for word in ("objects per scene", '"0"', '"1"'):
            text = text.replace(word, json.dumps(HOSTILE[0])[1:-1] if word[0] == "o" else json.dumps(HOSTILE[1]))
        (folder / name).write_text(text)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= {"command": f"ms2 {HOSTILE[0]}", "realism_features": HOSTILE[1], f"probe/{HOSTILE[0]}/bias_1": 1.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    moved = (folder / "moved.csv").read_text().replace("Scene", HOSTILE[0])
    (folder / "moved.csv").write_text(moved)
    config = (folder / "config.yaml").read_text().replace("name: tiny", f"name: {json.dumps(HOSTILE[1])}")
    (folder / "config.yaml").write_text(config + f"# {HOSTILE[0]}\n")
    compared(folder, {HOSTILE[0]: {HOSTILE[1]: 1.0}}, budget={HOSTILE[0]: HOSTILE[1]})
    return folder


@pytest.fixture(scope="module", params=["run", "set", "hostile run", "hostile set"])
def any_folder(
    request: pytest.FixtureRequest, run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("any") / "folder"
    if request.param in ("run", "set"):
        return run if request.param == "run" else dataset
    return hostile_set(folder) if request.param.endswith("set") else hostile_run(run, folder)


def test_a_page_is_one_file_with_one_script(any_folder: Path) -> None:
    path = write_report(any_folder)
    page = parse(path.read_text(encoding="utf-8"))
    [script] = page.all("script")
    assert script.attributes == {}
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
    assert path.stat().st_size < 1e6


def test_hostile_names_are_shown_as_they_are(run: Path, tmp_path: Path) -> None:
    for folder in (hostile_set(tmp_path / "set"), hostile_run(run, tmp_path / "run")):
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


def broken(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", '{"count_tv": 0.', "metrics.json: this is not JSON .* run the command that wrote it again"),
        ("metrics.json", "[1]", "metrics.json: holds a list, where a dict was expected"),
        ("config.yaml", "a: [", "config.yaml: this is not YAML"),
        ("histograms.json", '[{"name": "count", "title": "x", "bins": [1, 2], "shares": {"a": [1]}}]', "not as many"),
        ("histograms.json", "[3]", "histograms.json: not what ms2 writes .* ms2 test --config"),
        ("moved.csv", "label,before\na,b\n", "moved.csv: not what ms2 writes"),
        ("examples/examples.json", '{"prior": [{"file": "../../x.png", "labels": null}]}', "lies outside of it"),
        ("examples/examples.json", '{"prior": [{"file": "/etc/passwd", "labels": null}]}', "lies outside of it"),
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
        ("scenes/000001.json", "{}", "000001.json: this is not the record of a scene .*'image'.* ms2 generate again"),
        ("scenes/000001.json", '{"image": {"width": 0, "height": 5}, "labels": []}', "an image of 0 x 5 pixels"),
        (
            "scenes/000001.json",
            '{"image": {"file": "../../../etc/passwd", "width": 5, "height": 5}, "labels": []}',
            "lies outside of it",
        ),
        (
            "scenes/000001.json",
            '{"image": {"file": "images/x.png", "width": 5, "height": 5}, "labels": []}',
            "x.png: there is no such image, of which scenes/000001.json is the record",
        ),
        (
            "scenes/000001.json",
            '{"image": {"file": "a", "width": 5, "height": 5}, "labels": [{"category": "a", "bbox": [1, 2, NaN, 3]}]}',
            "000001.json: this is not the record of a scene",
        ),
    ],
)
def test_a_broken_set_names_the_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    folder = broken(make_set(tmp_path / "set", scenes=3), name, text)
    with pytest.raises(UserError, match=message):
        write_report(folder)


def test_a_set_without_scenes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no scenes/.*goes on where it stopped"):
        write_report(broken(tmp_path, "dataset.json", "{}"))


def test_where_the_page_goes(dataset: Path, tmp_path: Path) -> None:
    assert write_report(dataset) == dataset / "report.html"
    assert write_report(dataset, tmp_path) == tmp_path / "report.html"
    assert write_report(dataset, tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write .*page.html: .*--output"):
        write_report(dataset, tmp_path / "file" / "page.html")


def test_a_page_is_replaced_as_a_whole(dataset: Path, tmp_path: Path) -> None:
    """Whoever has the old one open goes on reading it."""
    path = tmp_path / "report.html"
    path.write_text("old")
    with path.open() as old:
        write_report(dataset, path)
        assert old.read() == "old"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>") and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_page(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self: Path, text: str, **_: str) -> None:
        with self.open("w") as file:
            file.write(text[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_report(dataset, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# --- in a browser ---


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
AS_3_AND_4 = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """Chromium without a window, driven over two pipes: messages of its DevTools protocol, with a zero after each."""

    def __init__(self, profile: Path) -> None:
        pipes = [os.pipe(), os.pipe()]
        self.to, self.come = pipes[0][1], pipes[1][0]
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (pipes[0][0], pipes[1][1])]
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", AS_3_AND_4, *map(str, ends), str(CHROMIUM), *options],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (*ends, pipes[0][0], pipes[1][1]):
            os.close(end)
        self.rest, self.number, self.events = b"", 0, list[dict[str, Any]]()
        self.session: dict[str, str] = {}
        self.scripts = True
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> Any:
        """What a method of the protocol returns."""
        self.number += 1
        self._send({"id": self.number, "method": method, "params": params})
        answer = self._wait(lambda message: message.get("id") == self.number)
        assert "error" not in answer, answer
        return answer["result"]

    def _send(self, message: dict[str, Any]) -> None:
        os.write(self.to, json.dumps(message | self.session).encode() + b"\0")

    def _wait(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while True:
            while b"\0" in self.rest:
                text, _, self.rest = self.rest.partition(b"\0")
                message = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            assert select.select([self.come], [], [], max(0, until - time.monotonic()))[0], "waited too long"
            part = os.read(self.come, 2**20)
            assert part, "Chromium has ended"
            self.rest += part

    def open(self, path: Path, width: int = 1280, scheme: str = "light") -> None:
        """Load a page, and forget what happened before."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 700)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self("Page.navigate", url=path.resolve().as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def allow_scripts(self, allowed: bool) -> None:
        """Whether pages may run scripts of their own."""
        self.scripts = allowed
        self("Emulation.setScriptExecutionDisabled", value=not allowed)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def point(self, selector: str, click: bool = False) -> None:
        """Move the pointer to the middle of an element."""
        x, y = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        if self.scripts:  # the page has to have heard of the scrolling
            self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=27 if key == "Escape" else 0,
            )

    def visible(self, selector: str) -> int:
        """Number of elements that are displayed."""
        return self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.getClientRects().length).length"
        )

    def complaints(self) -> list[str]:
        """Errors, warnings, and requests for anything but the page itself."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        found = [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        assert sum(url.startswith("file:") for url in asked) == 1
        return found + [url for url in asked if not url.startswith(("file:", "data:"))]

    def close(self) -> None:
        """End Chromium, and wait until it has."""
        self.session = {}
        self._send({"id": 0, "method": "Browser.close"})
        self.process.wait(30)
        os.close(self.to)
        os.close(self.come)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


@in_chromium
def test_a_page_opens_without_complaints_or_requests(browser: Browser, any_folder: Path) -> None:
    browser.open(write_report(any_folder))
    assert browser.run("document.compatMode") == "CSS1Compat"
    assert browser.run("window.hacked") is None
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.run("document.images.length") > 0 and browser.run(broken) == 0
    assert browser.run(
        "[...document.querySelectorAll('.chart')].every(c => c.offsetHeight > 120 && c.offsetWidth > 250)"
    )
    assert browser.complaints() == []


@in_chromium
def test_the_browser_itself_lets_nothing_else_run(browser: Browser, dataset: Path, tmp_path: Path) -> None:
    """Even if escaping failed: script and image of somebody else, written right into the page, do nothing."""
    text = write_report(dataset).read_text()
    foreign = '<script>window.hacked = 1</script><img src="http://127.0.0.1:9/x.png" onerror="window.hacked = 1">'
    (tmp_path / "page.html").write_text(text.replace("<main>", f"<main>{foreign}"))
    browser.open(tmp_path / "page.html")
    assert browser.run("window.hacked") is None
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


@in_chromium
def test_boxes_and_classes_can_be_hidden(browser: Browser, dataset: Path) -> None:
    browser.open(dataset / "report.html")
    boxes, masks = browser.visible(".groups .box rect"), browser.visible(".groups .masks image")
    records = [json.loads(path.read_text()) for path in sorted((dataset / "scenes").iterdir())]
    shown = [records[i * 30 // 24] for i in range(24)]
    assert boxes == sum(len(record["labels"]) for record in shown) and masks == 0
    browser.point("[name=boxes]", click=True)
    browser.point("[name=masks]", click=True)
    assert browser.visible(".groups .box rect") == 0
    assert browser.visible(".groups .masks image") == sum(len({x["category"] for x in r["labels"]}) for r in shown)
    browser.point("[name=boxes]", click=True)
    assert browser.visible(".groups .box rect") == boxes
    name = browser.run("document.querySelector('.classes label').childNodes[2].textContent")
    browser.point("[name=class]", click=True)
    others = sum(label["category"] != name for record in shown for label in record["labels"])
    assert browser.visible(".groups .box rect") == others < boxes
    assert browser.visible('.groups [data-class="0"]') == 0 < browser.visible(".groups .masks image")


@in_chromium
def test_boxes_can_be_hidden_without_scripts(browser: Browser, run: Path) -> None:
    browser.allow_scripts(False)
    try:
        browser.open(run / "report.html")
        assert browser.visible(".box rect") > 0
        browser.point("[name=boxes]", click=True)
        assert browser.visible(".box rect") == 0
    finally:
        browser.allow_scripts(True)


@in_chromium
def test_boxes_lie_on_their_images(browser: Browser, dataset: Path) -> None:
    """Pixels of the page: a rectangle's place over that of its image, times the image's size, is the box."""
    browser.open(dataset / "report.html")
    found = browser.run(
        """[...document.querySelectorAll('.groups .tile')].flatMap(tile => {
          const i = tile.querySelector('img').getBoundingClientRect(), k = 48 / i.width;
          return [...tile.querySelectorAll('.box rect')].map(r => { const b = r.getBoundingClientRect();
            return [[(b.x - i.x) * k, (b.y - i.y) * k, b.width * k, b.height * k],
                    ['x', 'y', 'width', 'height'].map(n => Number(r.getAttribute(n)))] }) })"""
    )
    places, boxes = np.array(found).swapaxes(0, 1)
    np.testing.assert_allclose(places, boxes, atol=0.8)  # the stroke is 1.5 pixels of about 200


@in_chromium
def test_pointing_tells_values(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html")
    told = json.loads((run / "histograms.json").read_text())[0]
    assert browser.run("document.getElementById('tip').hidden")
    browser.point("#histograms .hit")
    lines = browser.run("document.getElementById('tip').textContent").split("\n")
    assert lines[0] == told["bins"][0]
    assert {line.split(":")[0]: numbers_in(line.split(":")[1])[0] for line in lines[1:]} == {
        who: pytest.approx(100 * shares[0], rel=6e-3) for who, shares in told["shares"].items()
    }
    assert browser.visible("#tip") == 1
    browser.point("h1")
    assert browser.visible("#tip") == 0
    browser.point("#images .box")
    assert re.fullmatch(r"\d, \d+ % visible\n\d+ × \d+ px", browser.run("document.getElementById('tip').textContent"))


@in_chromium
def test_a_cursor_walks_along_a_curve(browser: Browser, run: Path) -> None:
    """By pointer, and by keys."""
    score = read_logs(run)["train/score"]
    browser.open(run / "report.html")
    browser.point("#learning svg")
    step, value = (
        numbers_in(line)[0] for line in browser.run("document.getElementById('tip').textContent").split("\n")
    )
    assert score.values[score.steps.index(int(step))] == pytest.approx(value, rel=1e-3)
    browser.run("document.querySelector('#learning svg').focus()")
    for wanted in (0, 1):
        browser.press("ArrowRight")
        text = browser.run("document.getElementById('tip').textContent")
        assert numbers_in(text) == [score.steps[wanted], pytest.approx(score.values[wanted], rel=1e-3)]
    assert browser.run("getComputedStyle(document.querySelector('#learning .cursor')).visibility") == "visible"


@in_chromium
def test_an_image_can_be_enlarged(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html")
    width = browser.run("document.querySelector('.groups .tile').clientWidth")
    assert browser.visible("dialog") == 0
    browser.point(".groups .tile", click=True)
    name = "document.querySelector('dialog p').textContent.split(':')[0]"
    assert browser.run("document.querySelector('dialog .tile').clientWidth") > 3 * width
    assert browser.run(name) == "prior 1"
    first = json.loads((run / "examples" / "examples.json").read_text())["prior"][0]
    assert browser.visible("dialog .box text") == len(first["labels"]) > 0 == browser.visible(".groups .box text")
    browser.press("ArrowLeft")
    assert browser.run(name) == "target 16"
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    assert browser.run(name) == "prior 2"
    browser.press("Escape")
    assert browser.visible("dialog") == 0
    assert browser.complaints() == []


@in_chromium
@pytest.mark.parametrize("width", [340, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, any_folder: Path, width: int) -> None:
    browser.open(write_report(any_folder), width)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width


CONTRAST = """
(() => {
  const channel = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const paper = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] === undefined || c[3] === 1) return c } return [255, 255, 255] };
  const worst = {};
  for (const e of document.querySelectorAll('main *, header *, nav *, footer *')) {
    if (e.closest('svg, dialog, style') || !e.getClientRects().length) continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(paper(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05), name = e.tagName + '.' + e.className;
    worst[name] = Math.min(worst[name] ?? 99, ratio);
  }
  return worst;
})()
"""


@in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, any_folder: Path, scheme: str) -> None:
    """Contrast of 4.5 to 1 at least, which WCAG 2.1 asks for at level AA."""
    browser.open(write_report(any_folder), scheme=scheme)
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(numbers_in(paper)[:3]) > 384) == (scheme == "light")
    ratios = browser.run(CONTRAST)
    assert len(ratios) > 10
    assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < 4.5} == {}
