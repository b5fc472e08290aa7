"""``ms2 probe``, and extractors that consist of others on the command line."""

from pathlib import Path

import pytest
import yaml
from helpers import CONFIGS, EXPECTED, STREETS, command, ms2

from ms2.cli.probe import detector_counts
from ms2.core.errors import UserError
from ms2.features.backbone import Backbone
from ms2.features.detection.height_recall import RecallByHeight

pytestmark = EXPECTED
DETECTED = (
    '{"min_score": 0.02, "max_count": 200, "detector": {"class_path": "TorchvisionDetector", "init_args": '
    '{"architecture": "ssdlite320_mobilenet_v3_large", "weights": null}}}'
)
TRAINED = '{"class_path": "DenseCounts", "init_args": {"widths": [4, 4, 4], "max_count": {"tree": 9}}}'
MIXED = (
    '{"class_path": "MixedCounts", "init_args": {"detected": {"class_path": "DetectorCounts", "init_args": '
    f'{DETECTED}}}, "trained": {TRAINED}}}}}'
)


def configuration(folder: Path) -> Path:
    """A file of a tiny street with mixed counts."""
    path = folder / "mine.yaml"
    path.write_text(f"base: driving_quick\nname: mine\nmodel:\n  features: {MIXED}\n", encoding="utf-8")
    return path


def test_heights_and_scores_are_chosen_and_their_reasons_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = [word for key, value in STREETS.items() for word in (f"--{key}", str(value))]
    ms2(["probe", str(configuration(tmp_path)), "--num_images", "4", *world])
    shown = capsys.readouterr().out
    assert shown.startswith("4 renders of mine; no image of the target is read")
    assert "fewer than 30 objects of every height" in shown
    settings = yaml.safe_load(shown.split("Settings of DetectorCounts:\n")[1].replace("and, to", "# and, to"))
    classes = {"car", "truck", "cyclist", "pedestrian"}
    assert settings["min_height"] == dict.fromkeys(settings["min_height"], 64)
    assert {*settings["min_height"]} == {*settings["min_score"]} == classes
    RecallByHeight(**settings["recall"]).check(list(classes))


def test_classes_that_renders_show_alike_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ms2(["probe", str(configuration(tmp_path)), "--alike", "car", "trck"])
    assert "--alike names 'trck', which is not counted. Did you mean 'truck'?" in capsys.readouterr().err


def test_other_extractors_have_nothing_to_choose(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.features is Backbone, which has no scores and heights to choose"):
        detector_counts(Backbone("squeezenet1_1", "features.0", None))


def test_mixed_counts_get_the_worlds_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"model__features": MIXED, "model__structure_learner__credit_assignment": "null", "dry_run": "true"}
    without = ["model.features.init_args.widths"]
    ms2(command(tmp_path, CONFIGS / "driving_quick.yaml", without, name="mixed", **settings))
    assert "extractor" in capsys.readouterr().out
