"""Comparing rows on equal budgets: tables of known numbers, and a whole comparison in small."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torchvision
import yaml
from helpers import Abacus, abacus
from PIL import Image
from scipy import stats
from torchvision.transforms.functional import pil_to_tensor

from ms2.core import settings
from ms2.core.errors import UserError
from ms2.datasets.job import Job
from ms2.datasets.labelled_set import LabelledSet
from ms2.datasets.records import ObjectLabel
from ms2.evaluation.detectors.budget import DetectorBudget
from ms2.evaluation.detectors.compared_run import learned_rows, open_mixed_runs, open_run
from ms2.evaluation.detectors.comparison import compare_rows, compare_runs, comparison_folder
from ms2.evaluation.detectors.data_set_distances import record_scenes
from ms2.evaluation.detectors.detector import Detector, load_detector
from ms2.evaluation.detectors.rows import check_shares, row_stages, train_row
from ms2.metrics.average_precision import KittiAP
from ms2.metrics.comparison import ComparisonResult, load_comparison, markdown_table, object_numbers, summarise
from ms2.metrics.fid import fid
from ms2.metrics.intervals import mean_interval
from ms2.metrics.kid import kid
from ms2.models.checkpoints import CheckpointError, grammar_metadata
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.targets.synthetic import Synthetic
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits

WORLD = {
    "grammar": "MultiMNIST",
    "structure_prior": {"class_path": "UniformDigits", "init_args": {"max_digits": 4}},
    "parameter_prior": "UniformPlacement",
    "renderer": {"class_path": "DigitCanvas", "init_args": {"canvas_size": 40, "digit_size": 12}},
}
TARGET = {
    "class_path": "Synthetic",
    "init_args": {
        "num_images": 20,
        "structure_prior": {"class_path": "RandomDigits", "init_args": {"max_digits": 4}},
        "parameter_prior": "LinePlacement",
    },
}
SMALL = DetectorBudget(num_train_images=6, train_steps=2, num_test_images=5, batch_size=2, classes=("3", "8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run whose structure model has not learned a thing."""
    grammar = MultiMNIST()
    model = StructureModel(grammar, t_max=12, network=LSTM(8), max_length={"Digits": 4})
    configuration = {
        "world": WORLD,
        "data": {"target": TARGET},
        "model": {
            "structure": {
                "t_max": 12,
                "network": {"class_path": "LSTM", "init_args": {"hidden": 8}},
                "max_length": {"Digits": 4},
            }
        },
    }
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    weights = {f"structure.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights, "grammar": grammar_metadata(grammar)}, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.mark.parametrize("values", [[0.1, 0.4], [1.0, 2.0, 4.0], [0.0, 0.0, 0.0, 1.0]])
def test_the_interval_of_a_mean_is_students(values):
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_a_single_measurement_has_no_interval():
    assert mean_interval([0.3]) == mean_interval([0.3], 0.5)
    assert markdown_table({"prior": {"AP": mean_interval([0.3])}}).splitlines()[-1] == "| prior | 0.300 |"


def test_gains_are_paired_by_seed():
    """Seeds differ by a lot, rows by the same amount with each: the gain is certain, the rows are not."""
    measured = [{"prior": {"AP car": x}, "learned": {"AP car": x + 0.125}} for x in (0.25, 0.5, 0.75)]
    found = summarise([ComparisonResult(seed, rows, {}) for seed, rows in enumerate(measured)])
    gain = found["learned - prior"]["AP car"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.125, 0.125, 0.125))
    assert found["prior"]["AP car"].high - found["prior"]["AP car"].low > 0.5
    lines = markdown_table(found).splitlines()
    assert lines[0] == "| | AP car |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| prior", "| learned", "| learned - prior"]


def test_values_on_few_objects_stand_in_brackets():
    """Where any seed's test set has fewer than 41; beside the number, and with a note of what that means."""
    rows = {"prior": {"AP car/easy": 0.2, "AP car/hard": 0.3, "KID": 1.0}}
    numbers = [{"AP car/easy": 41, "AP car/hard": 90}, {"AP car/easy": 40, "AP car/hard": 90}]
    few = object_numbers([ComparisonResult(seed, rows, {}, found) for seed, found in enumerate(numbers)])
    head, _, values, _, note = markdown_table(summarise([ComparisonResult(0, rows, {})]), few).splitlines()
    assert head == "| | AP car/easy (40 to 41 objects) | AP car/hard (90 objects) | KID |"
    assert values == "| prior | (0.200) | 0.300 | 1.000 |"
    assert note.startswith("In brackets: average precision on fewer than 41 objects")
    enough = object_numbers([ComparisonResult(0, rows, {}, numbers[0])])
    assert len(markdown_table(summarise([ComparisonResult(0, rows, {})]), enough).splitlines()) == 3


def test_objects_of_kittis_test_set_are_kept_with_the_results(run, monkeypatch):
    detector = mock.Mock(spec=Detector, categories=SMALL.classes)
    monkeypatch.setattr("ms2.evaluation.detectors.comparison.train_row", lambda *_: detector)
    monkeypatch.setattr(
        "ms2.evaluation.detectors.comparison.evaluate_detector",
        lambda *_, **__: {"3/easy": KittiAP(0.25, 0.0, 1.0, 7), "8/easy": KittiAP(math.nan, math.nan, math.nan, 0)},
    )
    table = compare_runs([str(run)], [0], SMALL, [])[1].splitlines()
    assert table[0].startswith("| | AP 3/easy (7 objects) | ") and table[2].startswith("| prior | (0.250) | ")
    assert load_comparison(next((run / "compare").glob("*/seed0.json"))).num_objects == {"AP 3/easy": 7}


def test_a_comparison_in_small(run, monkeypatch):
    summary, text = compare_runs([str(run)], [0, 1], SMALL, [])
    assert list(summary) == ["prior", "learned structure", "learned structure - prior"]
    assert (
        {"AP mean", "count TV", "class TV"}
        < set(summary["prior"])
        <= {"AP 3", "AP 8", "AP mean", "count TV", "class TV"}
    )
    assert all(0 <= i.value <= 1 for key, i in summary["prior"].items() if key.endswith("TV"))
    # what was measured is not measured again
    monkeypatch.setattr("ms2.evaluation.detectors.comparison.compare_rows", None)
    assert compare_runs([str(run)], [0, 1], SMALL, [])[1] == text
    (first, second) = sorted((run / "compare").glob("*/seed*.json"))
    assert [load_comparison(file).seed for file in (first, second)] == [0, 1]
    assert load_comparison(first).budget["train_steps"] == SMALL.train_steps


def test_a_comparison_of_mixed_runs(run, monkeypatch):
    """Three images of each run in each row; what is measured lies in the last run's folder, apart from its own."""
    other = shutil.copytree(run, run.parent / "other")
    configuration = yaml.safe_load((other / "config.yaml").read_text())
    configuration["world"]["structure_prior"]["init_args"]["max_digits"] = 2  # which the target does not depend on
    (other / "config.yaml").write_text(yaml.safe_dump(configuration))
    runs = [str(run), str(other)]
    summary, _ = compare_runs(runs, [0], SMALL, [], mix="even")
    assert list(summary) == ["prior", "learned structure", "learned structure - prior"]
    (file,) = (other / "compare").glob("*/seed0.json")
    assert load_comparison(file).budget["mix"] == "1 run, 1 other" and not (run / "compare").exists()
    for row in ("prior", "learned_structure"):
        records = sorted((file.parent / "seed0" / row / "data" / "scenes").iterdir())
        names = [json.loads(path.read_text())["provenance"]["run"] for path in records]
        assert sorted(names) == ["other"] * 3 + ["run"] * 3
    shares = [comparison_folder(other, open_mixed_runs(runs, mix), SMALL) for mix in ("even", ["2", "1"])]
    assert shares[0] == file.parent != shares[1]


def test_runs_of_other_targets_are_not_mixed(run):
    other = shutil.copytree(run, run.parent / "other")
    configuration = yaml.safe_load((other / "config.yaml").read_text())
    configuration["data"]["target"]["init_args"]["num_images"] = 30
    (other / "config.yaml").write_text(yaml.safe_dump(configuration))
    with pytest.raises(UserError, match=r"on the target of all, and it is not one: target.num_images: 20 in .*, 30 in"):
        open_mixed_runs([str(run), str(other)], "even")
    with pytest.raises(UserError, match="mix gives 2 weights for 1 run"):
        compare_runs([str(run)], [0], SMALL, [], mix=[2, 1])


def test_rows_differ_in_structure_alone(run):
    rows = open_run(str(run))
    assert rows.rows["prior"].model.structure is None
    assert rows.rows["learned structure"].model.structure is not None
    assert type(rows.target.hidden.structure_prior).__name__ == "RandomDigits"
    assert type(rows.target.hidden.parameter_prior).__name__ == "LinePlacement"
    hashes = [source.fingerprints() for source in rows.rows.values()]
    assert hashes[0]["renderer"] == hashes[1]["renderer"]
    assert hashes[0]["checkpoint"] is None
    assert hashes[1]["checkpoint"] is not None


def test_settings_of_the_run_may_be_typed(run):
    rows = open_run(str(run), ["--world.renderer.canvas_size=60"])
    assert rows.rows["prior"].model.world.renderer.size == rows.target.world.renderer.size == (60, 60)


def test_what_cannot_be_compared_is_said(run):
    with pytest.raises(UserError, match="2 runs need as many --seeds, one each, not 3"):
        compare_runs([str(run), str(run)], [0, 1, 2], SMALL, [])
    with pytest.raises(UserError, match="has no trained model to compare"):
        open_run("multimnist")
    pictures = run.parent / "pictures"
    pictures.mkdir()
    for number in range(2):
        Image.new("L", (40, 40), number).save(pictures / f"{number}.png")
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    configuration["data"]["target"] = {"class_path": "Folder", "init_args": {"root": str(pictures)}}
    (run / "config.yaml").write_text(yaml.safe_dump(configuration))
    with pytest.raises(UserError, match="the target's images have no labels \\(Folder\\)"):
        compare_runs([str(run)], [0], SMALL, [])


def test_fid_and_kid_are_those_of_the_rows_images(run):
    """As of the image files and of the target's images, read and embedded by hand."""
    weights = run.parent / "weights.pt"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), weights)
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    features = {"architecture": "squeezenet1_1", "layer": "features.3", "weights": str(weights)}
    realism = {"features": {"class_path": "Backbone", "init_args": features}, "num_images": 12, "batch_size": 7}
    configuration["evaluation"] = {"image_distances": realism}
    (run / "config.yaml").write_text(yaml.safe_dump(configuration))
    rows = open_run(str(run))
    found = compare_rows(rows, 0, replace(SMALL, num_train_images=20), run / "compare").rows

    def embedded(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return rows.image_distances.select_block(rows.image_distances.features(pixels.float() / 255))

    real = embedded(rows.target.preview(20))
    for title, folder in (("prior", "prior"), ("learned structure", "learned_structure")):
        files = sorted((run / "compare" / "seed0" / folder / "data" / "images").iterdir())
        ours = embedded(torch.stack([pil_to_tensor(Image.open(file)) for file in files]))
        assert (found[title]["FID"], found[title]["KID"]) == pytest.approx((fid(ours, real), kid(ours, real)), rel=1e-3)
    assert found["prior"]["FID"] != found["learned structure"]["FID"]


def test_later_rows_may_go_on_from_earlier_ones(run):
    """With a learning rate that changes nothing, the second row is the first one's detector, and not a new one."""
    rows, still = open_run(str(run)), replace(SMALL, lr=1e-12, train_steps=4)
    place = run / "compare" / "seed0"
    compare_rows(rows, 7, replace(still, fine_tune_previous=True), run / "compare")
    (place / "prior").mkdir(parents=True)
    shutil.copy(run / "compare" / "seed7" / "prior" / "stage1.pt", place / "prior")  # no new one of seed 0
    found = {}
    for progressive in (True, False):
        compare_rows(rows, 0, replace(still, fine_tune_previous=progressive), run / "compare")
        first, second = (load_detector(place / row) for row in ("prior/stage1.pt", "learned_structure/detector.pt"))
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        found[progressive] = all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)
        (place / "learned_structure" / "detector.pt").unlink()
    assert found == {True: True, False: False}


ALL_ROWS = ["prior", "learned parameters", "learned structure", "learned structure and parameters"]


def test_stages_of_rows_that_are_fine_tuned():
    """Each row from one of which one part less is learned, and all with equally many stages."""
    prior, parameters, structure, both = ALL_ROWS
    assert [row_stages(row, ALL_ROWS, True) for row in ALL_ROWS] == [
        [prior, prior, prior],
        [prior, parameters, parameters],
        [prior, structure, structure],
        [prior, structure, both],
    ]
    assert row_stages(structure, ALL_ROWS[::2], True) == [prior, structure]
    assert row_stages(both, ALL_ROWS, False) == [both]
    assert row_stages("real images with labels", ["prior", "real images with labels"], True) == [
        "real images with labels"
    ]


class Numbers(LabelledSet):
    """Images of one pixel, the image's number."""

    categories = ("3",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int):
        return torch.full((3, 1, 1), index, dtype=torch.uint8), {}


def test_no_row_is_trained_for_longer_or_on_more_images_than_another(tmp_path, monkeypatch):
    """Though one of them goes through three data sets, and another through one; and no stage is trained twice."""
    trained: dict[Path, tuple[Path | None, int, list[int]]] = {}

    def detector(categories, fine_tune_from, max_steps, **_):
        return mock.Mock(spec=Detector, fine_tune_from=fine_tune_from, max_steps=max_steps)

    def train(model, images, file):
        assert file not in trained
        numbers = [int(images[i][0][0]) for i in range(len(images))]
        trained[file] = model.fine_tune_from, model.max_steps, numbers

    def load(file):
        if file not in trained:
            raise CheckpointError("none yet")
        return mock.Mock(spec=Detector)

    for name, function in (("Detector", detector), ("train_detector", train), ("load_detector", load)):
        monkeypatch.setattr(f"ms2.evaluation.detectors.rows.{name}", function)
    budget = replace(SMALL, num_train_images=20, train_steps=31, fine_tune_previous=True)
    sets = {title: Numbers(20) for title in ALL_ROWS}
    for title in ALL_ROWS:
        train_row(title, sets, budget, 0, tmp_path, {})
        steps, images, file = 0, list[int](), tmp_path / title.replace(" ", "_") / "detector.pt"
        while file is not None:
            file, more, numbers = trained[file]
            steps, images = steps + more, numbers + images
        assert steps == 31 and images == list(range(20)), title
    assert len(trained) == 8, "the prior's stages 1 to 3, two each of one part learned, and one of both"
    with pytest.raises(UserError, match="train_steps is 2, too few for the 3 stages of fine_tune_previous"):
        check_shares(replace(budget, train_steps=2), 3)


def test_the_rows_of_a_run_are_all_combinations_of_what_is_learned():
    """Also Meta-Sim's: the prior's structure with learned parameters."""
    assert list(learned_rows({"parameters": {}})) == ["prior", "learned structure"]
    assert list(learned_rows({"parameters": {"class_path": "GraphNetwork"}})) == ALL_ROWS
    alone = {"parameters": {"class_path": "GraphNetwork"}, "turns": {"parameter_fraction": 1}}
    assert list(learned_rows(alone)) == ["prior", "learned parameters"]


def test_other_targets_and_measures_are_measured_anew(run):
    """And not taken for what was measured with the run's own."""
    places = {
        comparison_folder(run, open_run(str(run), words), SMALL)
        for words in ([], ["--target.init_args.structure_prior.init_args.seed=3"], ["--statistics=[ClassFrequency]"])
    }
    assert len(places) == 3


class EditedDigits(RandomDigits):
    """The hidden prior of a plug-in."""


def test_a_target_whose_code_was_edited_is_measured_anew(run, monkeypatch):
    opened, source = open_run(str(run)), settings._source
    opened = opened._replace(target=Synthetic(opened.target.world, EditedDigits(max_digits=4), num_images=20))
    before = comparison_folder(run, opened, SMALL)
    assert comparison_folder(run, opened, SMALL) == before
    monkeypatch.setattr(
        settings, "_source", lambda module: f"{source(module)}{'# edited' if module == __name__ else ''}"
    )
    assert comparison_folder(run, opened, SMALL) != before


def test_a_class_that_one_test_set_lacks_is_left_out_of_means():
    measured = [{"prior": {"AP a": 0.5, "AP b": 0.1}, "learned": {"AP a": 0.7, "AP b": 0.2}},
                {"prior": {"AP a": 0.3}, "learned": {"AP a": 0.5, "AP b": 0.3}}]  # fmt: skip
    for some in (measured, measured[::-1]):
        found = summarise([ComparisonResult(seed, rows, {}) for seed, rows in enumerate(some)])
        assert found["prior"].keys() == found["learned - prior"].keys() == {"AP a"}
        assert found["learned - prior"]["AP a"].value == pytest.approx(0.2)


def test_runs_that_learned_other_parts_are_refused(run, monkeypatch):
    one = open_run(str(run))
    other = one._replace(rows={**one.rows, "learned structure and parameters": one.rows["prior"]})
    monkeypatch.setattr(
        "ms2.evaluation.detectors.comparison.open_run", lambda name, arguments: {"a": one, "b": other}[name]
    )
    with pytest.raises(UserError, match="a has prior, learned structure; b has prior, learned structure, learned"):
        compare_runs(["a", "b"], [0, 1], SMALL, [])


@pytest.mark.parametrize(("least", "kept"), [(0, [[3, 5, 7]]), (8, [[3, 7]])])
def test_labels_that_are_too_low_for_an_annotator_do_not_count(monkeypatch, least, kept):
    heights = {"3": 8.0, "5": 7.9, "7": 20.0}
    labels = [
        ObjectLabel(object=i, category=name, visibility=1.0, amodal_bbox=[0.0, 0.0, 4.0, height])
        for i, (name, height) in enumerate(heights.items())
    ]
    job = mock.Mock(spec=Job, source=mock.Mock())
    job.source.model.world = abacus()
    monkeypatch.setattr(Abacus, "min_height", least)
    job.records.return_value = [mock.Mock(labels=labels, **{"scene.objects": []})]
    assert record_scenes(job, annotated=True).classes.tolist() == kept


def test_structure_is_counted_by_all_labels_where_it_was_annotated(run):
    """Of objects that nobody detects as well: cyclists, where cars are detected."""
    rows = open_run(str(run))
    rows.target.annotated = True
    compare_rows(rows, 0, SMALL, run / "compare")
    place = run / "compare" / "seed0" / "prior"
    assert json.loads((place / "data" / "dataset.json").read_text())["categories"] == list("0123456789")
    assert tuple(load_detector(place / "detector.pt").categories) == SMALL.classes
