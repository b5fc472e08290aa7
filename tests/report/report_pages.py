"""Runs and data sets to report, written without training, and pages read without a browser."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ms2.core.seeding import generator
from ms2.datasets.records import ImageFile, ImageRecord, ObjectLabel, Provenance
from ms2.metrics.comparison import ComparisonResult, save_comparison
from ms2.metrics.results import (
    Estimate,
    HistogramResult,
    ImageResult,
    ProbeResult,
    Results,
    RunProvenance,
    StageRecord,
    StatisticResult,
    save_histograms,
    save_results,
)
from ms2.report import write_report
from ms2.scene.records import SceneRecord
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

HOSTILE = ("<script>window.hacked = 1</script>", '"><img src=x onerror="window.hacked = 1">', "{{7*7}} & 'ε' </script>")
VOID = {"br", "col", "hr", "img", "input", "link", "meta"}


# --- what is reported ---


def digit_world() -> World:
    return World(MultiMNIST(), UniformDigits(8), UniformPlacement(), DigitCanvas(canvas_size=48, digit_size=12))


def labelled_images(scenes: int, categories: Sequence[str]) -> list[tuple[Image.Image, list[ObjectLabel]]]:
    """Images of MultiMNIST with what the record of a data set says of their objects."""
    world = digit_world()
    drawn = world.renderer.render_labelled(world.sample_prior(scenes, generator(0, "set")))
    found = []
    for i in range(scenes):
        labels = []
        for k, number in enumerate(drawn.classes[i].tolist()):
            mask = np.asfortranarray((drawn.instances[i] == k).numpy().astype(np.uint8))
            if number < 0 or not mask.any():
                continue
            runs = rle.encode(mask)
            label = ObjectLabel(
                object=k,
                category=categories[number],
                visibility=round(float(drawn.visibility[i, k]), 3),
                bbox=rle.toBbox(runs).tolist(),
                area=int(mask.sum()),
                segmentation={"size": list(mask.shape), "counts": runs["counts"].decode()},
            )
            labels.append(label)
        found.append((Image.fromarray((drawn.image[i, 0] * 255).byte().numpy()), labels))
    return found


def record(
    index: int, labels: Sequence[ObjectLabel] = (), hidden: Sequence[ObjectLabel] = (), **image: Any
) -> dict[str, Any]:
    """The record of an image, as JSON data."""
    file = {"file": f"images/{index:06d}.png", "width": 48, "height": 48, "bytes": 100, "hash": "0"} | image
    fingerprints = {"grammar": "ab", "checkpoint": None}
    provenance = Provenance(index, block=0, seed=0, ms2="0.1.0", device="cpu", fingerprints=fingerprints)
    return ImageRecord(ImageFile(**file), provenance, [], SceneRecord({}, []), labels, hidden).to_json()


def make_set(folder: Path, scenes: int = 7, categories: list[str] | None = None, **description: Any) -> Path:
    """A data set of MultiMNIST in the layout that ms2 generate writes."""
    categories = categories or list(digit_world().classes)
    for name in ("images", "scenes"):
        (folder / name).mkdir(parents=True)
    for i, (image, labels) in enumerate(labelled_images(scenes, categories)):
        image.save(folder / f"images/{i:06d}.png")
        hidden = [one for one in labels if one.visibility <= 0.7]
        made = record(i, [one for one in labels if one.visibility > 0.7], hidden)
        (folder / "scenes" / f"{i:06d}.json").write_text(json.dumps(made))
    settings = {"ms2": "0.1.0", "seed": 0, "num_scenes": scenes, "formats": ["coco"], "categories": categories}
    (folder / "dataset.json").write_text(json.dumps(settings | description))
    (folder / "README.md").write_text("# Digits\n\n| class | objects |\n|---|---|\n| 0 | 3 |\n\n- one\n- `two`\n")
    return folder


def estimate(value: float, half: float = 0.0) -> Estimate:
    return Estimate(value, value - half, value + half) if half else Estimate(value)


def make_results() -> Results:
    """Results with a number in every place."""
    count = StatisticResult(
        "objects per scene",
        {
            "tv": {
                "learned": estimate(0.12, 0.03), "prior": estimate(0.58, 0.05), "best_pcfg": estimate(0.09, 0.03),
                "noise_floor": estimate(0.05),
            },
            "kl": {"learned": estimate(0.4, 0.1), "prior": estimate(math.inf)},
        },
        {"learned": 3.1, "prior": 4.2, "target": 3.0},
    )  # fmt: skip
    classes = {"tv": {"learned": estimate(0.2, 0.05), "prior": estimate(0.3, 0.1)}}
    position = {"w1": {"learned": estimate(1.5, 0.2), "prior": estimate(4.0, 0.2)}}
    probe = ProbeResult(
        {"presence_accuracy": 0.9, "count_accuracy": 0.8, "class_error": 0.1},
        {0: 0.1, 1: -0.2, 2: 0.5},
        {"0": {0: 0.1, 1: -0.3}},
    )
    return Results(
        RunProvenance(2000, 0, "Synthetic", 600, command="ms2 fit --config x.yaml", versions={"ms2": "0.1.0"}),
        {"count": count, "class": StatisticResult("classes of objects", classes)},
        {"position": StatisticResult("position", position, {}, "m")},
        None,
        None,
        {"extractor": StageRecord(60.0, True, probes={"prior": probe}), "pretraining": StageRecord(12.0)},
        {"training": 93.0, "total": 181.0},
    )


IMAGE_RESULT = ImageResult(
    "Some network",
    500,
    1000,
    {"kid": {"learned": estimate(0.0133, 0.0005), "prior": estimate(0.0221, 0.001)}},
)
HISTOGRAMS = [
    HistogramResult(
        "count",
        "objects per scene",
        ["0", "1", "2"],
        {"prior": [0.25, 0.25, 0.5], "learned": [0.125, 0.375, 0.5], "target": [0.0, 0.3333, 0.6667]},
    ),
    HistogramResult("class", "classes of objects", ["0", "one"], {"prior": [0.5, 0.5], "learned": [0.25, 0.75]}),
]
CHANGES = """\
label,before,after,visits_before,visits_after,after_low,after_high
Digit 1 → 0,0.0909,0.3143,0.73,0.58,0.186,0.48
Scene · Digits: one more Digit after 1,0.7045,0.5143,0.73,0.58,0.356,0.67
Scene · Digits: one more Digit after 9,,0.25,0,0.1,0.1,0.4
"""
CHANGES_FILE = "rule_changes.csv"


def make_run(folder: Path, name: str = "tiny") -> Path:
    """A run in the layout that ms2 fit writes."""
    folder.mkdir(parents=True)
    save_results(folder / "metrics.json", make_results())
    save_histograms(folder / "histograms.json", HISTOGRAMS)
    (folder / CHANGES_FILE).write_text(CHANGES)
    (folder / "run.json").write_text('{"fingerprint": "x", "finished": true}')
    (folder / "config.yaml").write_text(
        f"name: {name}\nseed_everything: 0\ntrainer:\n  max_steps: 600\nworld:\n  grammar:\n"
        "    class_path: ms2.worlds.multimnist.grammar.MultiMNIST\n"
    )
    write_log(folder / "csv" / "version_0" / "metrics.csv")
    write_examples(folder / "examples")
    return folder


def write_log(path: Path) -> None:
    """What Lightning's CSV logger writes: training at every step, validation at every tenth."""
    draw = np.random.default_rng(0)
    lines = ["step,train/score,train/entropy,val/count_tv,val/class_tv,pretraining/nll,other"]
    for step in range(40):
        lines.append(f"{step},{draw.normal():.6f},{5 - step / 40:.6f},,,,{draw.normal():.6f}")
        if step % 10 == 0:
            lines.append(f"{step},,,{0.6 - step / 100:.6f},{0.4 - step / 100:.6f},{9 - step / 10:.6f},")
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines))


def write_examples(folder: Path, num_images: int = 4) -> None:
    """Examples of three rows; the target's labels are known too."""
    folder.mkdir()
    index: dict[str, list[dict[str, Any]]] = {}
    drawn = iter(labelled_images(3 * num_images, list(digit_world().classes)))
    for row in ("prior", "learned", "target"):
        index[row] = []
        for i, (image, labels) in zip(range(num_images), drawn, strict=False):
            image.save(folder / f"{row}_{i:02d}.png")
            kept = [{"category": one.category, "bbox": one.bbox, "visibility": one.visibility} for one in labels]
            index[row].append({"file": f"{row}_{i:02d}.png", "labels": kept})
    (folder / "examples.json").write_text(json.dumps(index))


def compared(folder: Path, *seeds: Mapping[str, Mapping[str, float]], budget: Mapping[str, Any] | None = None) -> Path:
    """Add a comparison to a run, with the measurements of each seed."""
    place = folder / "compare" / "0a1b"
    for seed, found in enumerate(seeds):
        save_comparison(place / f"seed{seed}.json", ComparisonResult(seed, found, budget or {}))
    return place


def hostile_set(folder: Path) -> Path:
    """A data set in which every text is markup."""
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


def hostile_run(folder: Path) -> Path:
    """A run in which every text is markup."""
    make_run(folder, json.dumps(HOSTILE[1]))
    for name in ("histograms.json", "examples/examples.json", "metrics.json"):
        text = (folder / name).read_text()
        for word, hostile in (("objects per scene", HOSTILE[0]), ("classes of objects", HOSTILE[2]), ("0", HOSTILE[1])):
            if word != "0" or name != "metrics.json":  # where true numbers are keys
                text = text.replace(json.dumps(word), json.dumps(hostile))
        (folder / name).write_text(text.replace('"Synthetic"', json.dumps(HOSTILE[0])))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["measured_with"] |= {"command": f"ms2 {HOSTILE[0]}", "versions": {HOSTILE[0]: HOSTILE[1]}}
    metrics["stages"]["extractor"]["probes"] = {HOSTILE[0]: metrics["stages"]["extractor"]["probes"]["prior"]}
    metrics["stages"][HOSTILE[2]] = metrics["stages"]["pretraining"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / CHANGES_FILE).write_text(CHANGES.replace("Scene", HOSTILE[0]))
    log = folder / "csv" / "version_0" / "metrics.csv"
    log.write_text(log.read_text().replace("other", HOSTILE[0]))
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + f"# {HOSTILE[0]}\n")
    compared(folder, {HOSTILE[0]: {HOSTILE[1]: 1.0}}, budget={HOSTILE[0]: HOSTILE[1]})
    return folder


# --- pages ---


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
        if tag not in VOID:
            assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(text: str) -> Node:
    return Reader(text).open[0]


def page_of(folder: Path) -> Node:
    return parse(write_report(folder).read_text(encoding="utf-8"))


def figure(page: Node, title: str) -> Node:
    """The figure of a chart."""
    [found] = [node for node in page.all("figure", class_="chart") if node.all("strong")[0].text == title]
    return found


def spec(node: Node) -> dict[str, Any]:
    """The only chart's specification inside of an element."""
    [script] = node.all("script", class_="spec")
    found: dict[str, Any] = json.loads(script.text)
    return found


def rows(node: Node) -> dict[str, list[str]]:
    """Cells of a table by the row's header."""
    return {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in node.all("tbody")[0].all("tr")}


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text.replace("−", "-").replace(",", ""))]
