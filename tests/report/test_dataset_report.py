"""The report of a data set: counts of its records, samples with masks, and what is said of incomplete ones."""

import base64
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from report_pages import figure, make_set, numbers_in, page_of, rows, spec

from ms2.report.counts import DataSetCounts, scene_names
from ms2.report.gallery import MAX_IMAGE_BYTES

# pycocotools 2.0 under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def decoded(uri: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(uri.partition(",")[2]))


def test_counts_are_those_of_the_records(dataset: Path) -> None:
    records = [json.loads(path.read_text()) for path in sorted((dataset / "scenes").iterdir())]
    labels = [label for record in records for label in record["labels"]]
    objects = Counter(label["category"] for label in labels)
    page = page_of(dataset)
    facts = {node.all("dt")[0].text: node.all("dd")[0].text for node in page.all("dl", class_="facts")[0].all("div")}
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
        title: [numbers_in(cell.text)[0] for cell in figure(page, title).all("tbody")[0].all("td")]
        for title in ("Objects per image", "Classes", "Size of boxes", "Visible fraction of objects")
    }
    expected = Counter(len(record["labels"]) for record in records)
    np.testing.assert_allclose(
        values["Objects per image"], [100 * expected[n] / 30 for n in range(max(expected) + 1)], rtol=6e-3
    )
    for title, shares in values.items():
        assert sum(shares) == pytest.approx(100, abs=0.5), title
    cells = spec(figure(page, "Positions of objects"))["datasets"]["points"]
    assert sum(cell["count"] for cell in cells) == len(labels)


def test_distances_of_a_world_in_three_dimensions(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    for path in (folder / "scenes").iterdir():
        record = json.loads(path.read_text())
        for label in record["labels"]:
            label |= {"truncation": 0.2, "box3d": [1, 1, 1, 0, 0, 34.0, 0]}
        path.write_text(json.dumps(record))
    page = page_of(folder)
    assert list(rows(figure(page, "Distance from the camera")).items())[-1] == ("30 to 40", ["100 %"])
    assert "objects reach out of the image" in page.all("section", id="classes")[0].text


def test_many_objects_share_bins(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=2)
    for number, path in zip((100, 161), sorted((folder / "scenes").iterdir()), strict=True):
        record = json.loads(path.read_text())
        label = {"object": 0, "category": "0", "bbox": [1, 2, 3, 4], "visibility": 1.0}
        path.write_text(json.dumps(record | {"labels": [label] * number, "hidden": []}))
    page = page_of(folder)
    [cell] = [one for one in spec(figure(page, "Positions of objects"))["datasets"]["points"] if one["count"]]
    assert (cell["x"], cell["y"], cell["tip"]) == (1, 2, "261 (100 %)"), "2.5 and 4 of 48 pixels, in 24 cells"
    shares = rows(figure(page, "Objects per image"))
    assert len(shares) <= 24
    assert [name for name, share in shares.items() if share == ["50 %"]] == ["100 to 102", "160 to 162"]


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
    folder = make_set(tmp_path / "set", scenes=1, source="\ud83d", conditions=["car == 5", "x > 1"])
    facts = page_of(folder).all("dl", class_="facts")[0].text
    assert "made from?" in facts and "conditionscar == 5 and x > 1" in facts


def test_a_set_without_objects(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=2)
    for path in (folder / "scenes").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": [], "hidden": []}))
    page = page_of(folder)
    assert [node.all("strong")[0].text for node in page.all("figure", class_="chart")] == ["Objects per image"]
    assert len(page.all("button", class_="tile")) == 2


def test_only_records_of_samples_are_kept(dataset: Path) -> None:
    names = scene_names(dataset)
    counts = DataSetCounts({}, {names[3]})
    for name in names:
        counts.add(dataset / "scenes" / name)
    assert list(counts.samples) == [names[3]] and counts.num_images == 30


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
        assert image.format == "JPEG" and image.size[0] == 2 * image.size[1] < 800
    assert len(tile.all("img")[0].attributes["src"]) < 4 / 3 * MAX_IMAGE_BYTES + 100
    assert tile.all("svg")[0].attributes["viewbox"] == "0 0 48 48", "boxes are in the pixels of the record"


def test_a_page_of_large_images_is_small(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", scenes=24)
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    for path in (folder / "images").iterdir():
        Image.fromarray(noise).save(path)
    page_of(folder)
    assert (folder / "report.html").stat().st_size < 3e6
