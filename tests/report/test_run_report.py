"""The report of a run: all its numbers, and what it leaves out where a file is missing."""

import base64
import dataclasses
import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import EXPECTED, fit
from PIL import Image
from report_pages import (
    CHANGES_FILE,
    HISTOGRAMS,
    IMAGE_RESULT,
    Node,
    compared,
    estimate,
    figure,
    make_results,
    numbers_in,
    page_of,
    rows,
    spec,
)

from ms2.core.errors import UserError
from ms2.metrics.comparison import ComparisonResult, save_comparison
from ms2.metrics.results import Results, StatisticResult, save_results
from ms2.report import write_report
from ms2.report.learning import learning_curves, read_logs
from ms2.report.line_charts import Curve

pytestmark = EXPECTED
SECTIONS = [
    "Results", "Histograms", "Images", "Learning", "Rule changes", "Features", "Time", "Reproduce", "Configuration",
]  # fmt: skip


def section(page: Node, name: str) -> Node:
    [found] = page.all("section", id=name)
    return found


def with_count(learned: Any, prior: Any, floor: float) -> Results:
    """Results in which the count has these distances."""
    results = make_results()
    distances = {"learned": learned, "prior": prior, "noise_floor": estimate(floor)}
    return dataclasses.replace(results, structure={"count": StatisticResult("objects per scene", {"tv": distances})})


def test_a_run_has_all_sections(run: Path) -> None:
    page = page_of(run)
    titles = [node.text for node in page.all("h2")]
    assert titles == SECTIONS
    assert [link.text for link in page.all("nav")[0].all("a")] == titles
    assert {link.attributes["href"][1:] for link in page.all("nav")[0].all("a")} == {
        node.attributes["id"] for node in page.all("main")[0].children if isinstance(node, Node)
    }
    charts = [node.all("strong")[0].text for node in page.all("figure", class_="chart")]
    assert charts == [
        "objects per scene", "classes of objects", "Score", "Distance to the target", "Entropy", "Pretraining", "other",
        "Error of the number of objects",
    ]  # fmt: skip
    assert page.all("h1")[0].text == "tiny"
    assert (run / "config.yaml").read_text() in [node.text for node in page.all("code")]
    facts = {node.all("dt")[0].text: node.all("dd")[0].text for node in page.all("dl", class_="facts")[0].all("div")}
    assert facts == {
        "world": "MultiMNIST", "steps": "600", "seed": "0", "scenes measured": "2,000", "duration": "3 min 01 s",
        "ms2": "0.1.0",
    }  # fmt: skip


def test_a_page_of_a_run_of_ms2_fit(tmp_path: Path) -> None:
    """What the command writes is what the report reads."""
    page = page_of(fit(tmp_path, "tiny"))
    assert [node.text for node in page.all("h2")] == SECTIONS
    assert [card.all("h3")[0].text for card in page.all("article")] == [
        "objects per scene total variation", "classes of objects total variation",
    ]  # fmt: skip
    charts = [node.all("strong")[0].text for node in page.all("figure", class_="chart")]
    assert {"objects per scene", "Score", "Entropy", "Loss of the extractor", "Pretraining"} <= {*charts}
    assert not [title for title in charts if "/" in title], "every logged value has a chart with a title"


def test_a_card_shows_the_results(run: Path) -> None:
    card = page_of(run).all("article", class_="card")[0]
    assert card.all("h3")[0].text == "objects per scene total variation"
    assert card.all("p", class_="figure")[0].all("strong")[0].text == "0.120"
    shown = {row.all("dt")[0].text: row.all("dd")[0].text for row in card.all("dl")[0].all("div")}
    assert shown == {
        "learned": "0.120 0.0900 to 0.150",
        "prior": "0.580 0.530 to 0.630",
        "best PCFG": "0.0900 0.0600 to 0.120",
        "noise floor": "0.0500",
    }
    points = spec(card)["datasets"]["points"]
    assert [(point["name"], point["value"], point["low"], point["high"]) for point in points] == [
        ("learned", 0.12, pytest.approx(0.09), pytest.approx(0.15)),
        ("prior", 0.58, pytest.approx(0.53), pytest.approx(0.63)),
        ("best_pcfg", 0.09, pytest.approx(0.06), pytest.approx(0.12)),
        ("noise_floor", 0.05, 0.05, 0.05),
    ]
    assert card.all("p", class_="note")[-1].text == "mean: prior 4.20, learned 3.10, target 3.00"
    described = card.all("div", class_="plot")[0].attributes["aria-label"]
    numbers = "learned 0.120, 95 % interval 0.0900 to 0.150; prior"
    assert described.startswith(f"objects per scene, total variation. {numbers}")


def test_units_are_those_of_the_statistic(run: Path) -> None:
    card = page_of(run).all("article", class_="card")[2]
    assert card.all("h3")[0].text == "position Wasserstein distance in m"


def test_all_distances_are_in_a_table_without_infinite_ones(run: Path) -> None:
    page = page_of(run)
    found = rows(section(page, "results").all("details")[0])
    assert found["objects per scene, KL divergence"] == ["0.400 0.300 to 0.500", "", "", ""]
    assert found["position, Wasserstein distance in m"][:2] == ["1.500 1.300 to 1.700", "4.000 3.800 to 4.200"]
    assert list(found) == [
        "objects per scene, total variation", "objects per scene, KL divergence", "classes of objects, total variation",
        "position, Wasserstein distance in m",
    ]  # fmt: skip


def test_the_most_important_metrics_are_below_the_title(run: Path) -> None:
    [lead] = page_of(run).all("div", class_="lead")
    lines = [" ".join(line.text.split()) for line in lead.all("li")]
    assert lines[0] == ("objects per scene, total variation: 0.580 → 0.120 (noise floor 0.0500) −79 % from the prior")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("learned", "floor", "kind", "words"),
    [
        ((0.2, 0.05), 0.01, "good", "−60 % from the prior"),
        ((0.02, 0.015), 0.01, "good", "−96 %, at the noise floor"),
        ((0.35, 0.1), 0.01, "even", "−30 %, within the intervals"),
        ((0.6, 0.05), 0.01, "even", "+20 %, within the intervals"),
        ((0.75, 0.05), 0.01, "bad", "+50 % from the prior: worse"),
    ],
)
def test_intervals_decide_the_verdict(
    copy: Path, learned: tuple[float, float], floor: float, kind: str, words: str
) -> None:
    save_results(copy / "metrics.json", with_count(estimate(*learned), estimate(0.5, 0.1), floor))
    badge = page_of(copy).all("article")[0].all("span", class_="badge")[0]
    assert (badge.attributes["class"], badge.text) == (f"badge {kind}", words)


def test_a_metric_that_is_not_finite_is_left_out(copy: Path) -> None:
    save_results(copy / "metrics.json", with_count(estimate(float("nan")), estimate(0.5, 0.1), 0.01))
    page = page_of(copy)
    assert [card.all("h3")[0].text.split()[0] for card in page.all("article")] == ["position"]
    assert "nan" not in " ".join(str(node.attributes) for node in page.all()).lower()


def test_an_unknown_target_has_no_distances(copy: Path) -> None:
    save_results(copy / "metrics.json", dataclasses.replace(make_results(), structure={}, attributes={}))
    page = page_of(copy)
    assert "The structure of the target is not known" in section(page, "results").text
    assert not page.all("article") and not page.all("div", class_="lead")


def test_kid_and_fid_are_shown_where_they_were_measured(copy: Path) -> None:
    save_results(copy / "metrics.json", dataclasses.replace(make_results(), images=IMAGE_RESULT))
    page = page_of(copy)
    assert page.all("article")[-1].all("h3")[0].text == "KID"
    assert page.all("article")[-1].all("strong")[0].text == "0.0133"
    assert "500 generated images with 1,000 of the target, by Some network" in section(page, "results").text


def test_histograms_show_the_shares(run: Path) -> None:
    page = page_of(run)
    for told in HISTOGRAMS:
        node = figure(page, told.title)
        bars = spec(node)["datasets"]["bars"]
        for who, shares in told.shares.items():
            assert [bar["share"] for bar in bars if bar["series"] == who] == list(shares)
        shown = rows(node)
        assert list(shown) == list(told.bins)
        percents = [[numbers_in(cell)[0] / 100 for cell in cells] for cells in shown.values()]
        np.testing.assert_allclose(np.transpose(percents), list(told.shares.values()), rtol=6e-3, atol=1e-5)
        assert [entry.text for entry in node.all("ul", class_="legend")[0].all("li")] == list(told.shares)
    caption = figure(page, "objects per scene").all("figcaption")[0].all("span")[0].text
    assert caption == "total variation to the target: 0.120, of the prior: 0.580"
    axes = [spec(figure(page, told.title))["layer"][0]["encoding"] for told in HISTOGRAMS]
    assert axes[0]["x"]["field"] == axes[1]["y"]["field"] == "bin", "numbers make columns, names make rows"


def test_curves_show_the_log(run: Path) -> None:
    logs, page = read_logs(run), page_of(run)
    drawn = spec(figure(page, "Entropy"))["datasets"]["smoothed"]
    assert [row["x"] for row in drawn] == logs["train/entropy"].steps
    np.testing.assert_allclose([row["value"] for row in drawn], logs["train/entropy"].values, rtol=1e-3)
    distances = spec(figure(page, "Distance to the target"))["datasets"]["marked"]
    assert {row["series"] for row in distances} == {"objects per scene", "classes of objects"}
    assert [row["value"] for row in distances if row["series"] == "objects per scene"] == [0.6, 0.5, 0.4, 0.3]
    table = rows(figure(page, "Distance to the target"))
    assert table["objects per scene"] == ["0.6", "0.3", "0.3", "0.6"]


def test_curves_of_one_title_are_told_apart() -> None:
    """Such as gaps on a lane and gaps on a road: curves of one name would be drawn as one."""
    logs = {f"val/{name}_w1": Curve(name, [1, 2], [0.2, 0.1]) for name in ("gap", "lane_gap", "x")}
    [chart] = learning_curves(logs, {"gap": "x to the next car", "lane_gap": "x to the next car", "x": "x of cars"})
    expected = ["x to the next car (gap)", "x to the next car (lane_gap)", "x of cars"]
    assert [entry.name for entry in chart.legend] == expected


def test_rule_changes_are_on_a_line_from_prior_to_learned(run: Path) -> None:
    found = section(page_of(run), "rule-changes")
    points = spec(found)["datasets"]["points"]
    assert [(point["label"], point["prior"], point["learned"], point["change"]) for point in points] == [
        ("Digit 1 → 0", 0.0909, 0.3143, "0.091 → 0.314"),
        ("Scene · Digits: one more Digit after 1", 0.7045, 0.5143, "0.705 → 0.514"),
        ("Scene · Digits: one more Digit after 9", None, 0.25, "new → 0.250"),
    ]
    assert rows(found)["Digit 1 → 0"] == ["0.091", "0.314", "0.186 to 0.480", "0.73 → 0.58"]


def test_only_the_largest_rule_changes_are_shown(copy: Path) -> None:
    head, *lines = (copy / CHANGES_FILE).read_text().splitlines()
    (copy / CHANGES_FILE).write_text("\n".join([head, *[lines[0]] * 230]))
    found = section(page_of(copy), "rule-changes")
    specs = [json.loads(node.text) for node in found.all("script", class_="spec")]
    assert [len(one["datasets"]["points"]) for one in specs] == [16, 184]
    assert "30 smaller changes are in" in found.text


def test_the_probe_tells_how_well_features_count(run: Path) -> None:
    found = section(page_of(run), "features")
    assert rows(found)["prior"] == ["0.900", "0.800", "0.100"]
    points = spec(found)["datasets"]["marked"]
    assert [(point["x"], point["value"]) for point in points] == [(0, 0.1), (1, -0.2), (2, 0.5)]
    assert rows(found.all("details")[-1]) == {"0": ["−0.30 at a true number of 1"]}


def test_times_of_stages(run: Path) -> None:
    found = section(page_of(run), "time")
    points = spec(found)["datasets"]["points"]
    assert [(point["tip"], point["seconds"], point["opacity"]) for point in points] == [
        ("feature extractor: 1 min 00 s, reused from an earlier run", 60.0, 0.4),
        ("pretraining: 12 s", 12.0, 1),
        ("learning: 1 min 33 s", 93.0, 1),
    ]
    assert "The command took 3 min 01 s in total" in found.text


def test_commands_repeat_the_run(run: Path) -> None:
    codes = [node.text for node in section(page_of(run), "reproduce").all("code")]
    assert codes[0] == "ms2 fit --config x.yaml"
    assert f"ms2 fit --config {run / 'config.yaml'} --name tiny_again" in codes and f"ms2 report {run}" in codes


def test_detectors_are_compared_over_seeds(copy: Path) -> None:
    """Means and Student's intervals by hand: t = 12.7062 with one degree of freedom."""
    first = {"prior": {"AP car": 0.5, "KID": 20.0}, "learned structure": {"AP car": 0.6, "KID": 10.0}}
    second = {"prior": {"AP car": 0.7, "KID": 20.0}, "learned structure": {"AP car": 0.9, "KID": 12.0}}
    compared(copy, first, second, budget={"num_scenes": 200, "classes": ["car"], "progressive": False})
    found = section(page_of(copy), "detectors")
    assert rows(found) == {
        "prior": ["0.600 ± 1.271", "20.0"],
        "learned structure": ["0.750 ± 1.906", "11.0 ± 12.7"],
        "learned structure - prior": ["0.150 ± 0.635", "-9.000 ± 12.7"],
    }
    assert [note.text for note in found.all("p", class_="note")][1:] == ["2 seeds; num scenes 200; classes car"]


def test_average_precision_on_few_objects_stands_in_brackets(copy: Path) -> None:
    row = {"AP car/easy": 0.5, "AP car/hard": 0.25}
    for seed, easy in enumerate((0.5, 0.75)):
        result = ComparisonResult(
            seed, {"prior": row | {"AP car/easy": easy}}, {}, {"AP car/easy": 12, "AP car/hard": 41}
        )
        save_comparison(copy / "compare" / "0a1b" / f"seed{seed}.json", result)
    found = section(page_of(copy), "detectors")
    assert [node.text for node in found.all("th")][1:3] == ["AP car/easy (12 objects)", "AP car/hard (41 objects)"]
    assert rows(found) == {"prior": ["(0.625 ± 1.588)", "0.250"]}
    assert found.all("p", class_="note")[-1].text.startswith("In brackets: average precision on fewer than 41 objects")


def test_a_run_without_numbers_of_its_histograms_shows_its_figures(copy: Path) -> None:
    shutil.rmtree(copy / "examples")
    for name in ("histograms.json", CHANGES_FILE):
        (copy / name).unlink()
    for name in ("summary.png", "rule_changes.png"):
        Image.new("RGB", (30, 20)).save(copy / name)
    page = page_of(copy)
    assert [node.text for node in page.all("h2")][:4] == ["Results", "Summary", "Learning", "Rule changes"]
    for name in ("summary", "rule-changes"):
        [image] = section(page, name).all("img")
        with Image.open(decoded(image.attributes["src"])) as shown:
            assert shown.size == (30, 20) and image.attributes["alt"]


def test_a_run_that_is_not_finished_shows_its_curves(copy: Path) -> None:
    for name in ("metrics.json", "histograms.json", CHANGES_FILE):
        (copy / name).unlink()
    shutil.rmtree(copy / "examples")
    (copy / "run.json").write_text('{"fingerprint": "x", "finished": false}')
    page = page_of(copy)
    assert "has not finished" in page.all("p", class_="warning")[0].text
    assert [node.text for node in page.all("h2")] == ["Learning", "Reproduce", "Configuration"]
    shutil.rmtree(copy / "csv")
    with pytest.raises(UserError, match=r"neither results nor logs yet. Start it: ms2 fit --config .*config.yaml"):
        write_report(copy)


def test_logs_of_a_resumed_run_are_joined(tmp_path: Path) -> None:
    """Steps after the checkpoint are repeated; a test of the checkpoint counts no steps."""
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


# --- images ---


def decoded(uri: str) -> io.BytesIO:
    kind, _, content = uri.partition(",")
    assert re.fullmatch(r"data:image/(png|jpeg);base64", kind)
    return io.BytesIO(base64.b64decode(content))


def test_a_run_shows_its_examples(run: Path) -> None:
    told = json.loads((run / "examples" / "examples.json").read_text())
    assert {who: len(some) for who, some in told.items()} == {"prior": 4, "learned": 4, "target": 4}
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


def test_images_of_unknown_content_have_no_boxes(copy: Path) -> None:
    told = json.loads((copy / "examples" / "examples.json").read_text())
    told["target"] = [one | {"labels": None} for one in told["target"]]
    (copy / "examples" / "examples.json").write_text(json.dumps(told))
    found = section(page_of(copy), "images")
    assert "Boxes are not known of: target." in found.text
    assert not found.all("section")[2].all("rect") and found.all("section")[0].all("rect")


def test_groups_and_images_have_the_titles_of_their_rows(copy: Path) -> None:
    path = copy / "examples" / "examples.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({"learned_structure": [one | {"labels": None} for one in told["prior"]]} | told))
    found = section(page_of(copy), "images")
    assert found.all("h3")[0].text == "learned structure"
    assert found.all("button", class_="tile")[0].attributes["aria-label"] == "learned structure 1"
    assert "Boxes are not known of: learned structure." in found.text
