"""What the extractor reads in images without truth: counted by hand on an abacus, in results, figures and report."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, Beads, abacus, structure
from torch import Tensor

from ms2.core.typed_json import decode, encode
from ms2.evaluation.evaluation import Evaluation
from ms2.evaluation.plots import summary_figure
from ms2.evaluation.readings import read_images
from ms2.evaluation.writers import result_lines
from ms2.features.base import CountPrediction
from ms2.metrics.results import Results
from ms2.metrics.statistics import ObjectCount
from ms2.models.scene_model import SceneModel
from ms2.report.results import readings_section
from ms2.targets.base import Target

pytestmark = EXPECTED


class Photographs(Target, selectable=False):
    """Images of an abacus whose truth is unknown: one zero, and two ones."""

    def __init__(self, number: int = 60) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitems__(self, indices: Any) -> list[Tensor]:
        image = torch.zeros(10, 1, 1, dtype=torch.uint8)
        image[0], image[1] = 17, 34
        return [image for _ in indices]

    def fingerprint(self) -> str:
        return "photographs"


def readings(num_images: int = 40, features: Any = None, target: Target | None = None) -> Any:
    model = SceneModel(abacus(), structure())
    return read_images(features or Beads(), model, target or Photographs(), num_images, 0)


def test_target_prior_and_learned_model_are_read_alike() -> None:
    found = readings()
    assert found.result.num_images == 40 and found.result.num_target_images == 60
    assert found.result.objects["target"] == pytest.approx(3)
    assert found.result.classes["1"]["target"] == pytest.approx(2) and found.result.classes["2"]["target"] == 0
    assert 1 < found.result.objects["prior"] < 2, "uniform up to three"
    assert list(found.result.objects) == ["prior", "learned", "target"]
    count, classes = found.histograms
    assert count.shares["target"] == [0, 0, 0, 1, *[0] * (len(count.bins) - 4)]
    assert classes.shares["target"][:3] == pytest.approx([1 / 3, 2 / 3, 0], abs=1e-5)
    assert all(sum(share) == pytest.approx(1, abs=1e-4) for one in found.histograms for share in one.shares.values())
    assert all("READ by the extractor in 40 images" in one.title for one in found.histograms)


def test_all_images_are_read_where_there_are_few() -> None:
    assert readings(num_images=500).result.num_images == 60


class PresenceAlone(Beads, selectable=False):
    def predict_counts(self, images: Tensor) -> CountPrediction:
        return CountPrediction(images[..., 0, 0] > 0, None, None)


class SomeClasses(Beads, selectable=False):
    """Counts ones alone."""

    def predict_counts(self, images: Tensor) -> CountPrediction:
        counts = self(images)["classes"].clone()
        counts[:, [0, *range(2, 10)]] = torch.nan
        return CountPrediction(None, counts, counts[:, 1])


def test_an_extractor_that_counts_nothing_or_not_all() -> None:
    assert readings(features=PresenceAlone()) is None
    found = readings(features=SomeClasses()).result
    assert list(found.classes) == ["1"] and found.objects["target"] == pytest.approx(2)


def evaluated(target: Target, features: Any) -> Any:
    return Evaluation(num_scenes=50, num_images=40).measure(
        SceneModel(abacus(), structure()), target, features=features
    )


def test_known_targets_are_measured_and_not_read() -> None:
    from ms2.targets.synthetic import Synthetic
    from ms2.worlds.multimnist.priors import RandomDigits

    known = Synthetic(abacus(), RandomDigits(1, 3), num_images=20)
    assert evaluated(known, Beads()).results.readings is None
    assert evaluated(Photographs(), None).results.readings is None


def test_results_figure_terminal_and_report_mark_them_as_readings(tmp_path: Path) -> None:
    measurements = evaluated(Photographs(), Beads())
    results = measurements.results
    assert decode(Results, encode(results), tmp_path) == results
    assert results.summary["read_objects_mean_target"] == pytest.approx(3)
    assert results.summary["read_objects_mean"] == results.readings.objects["learned"]
    assert [one.name for one in measurements.histograms][-2:] == ["read_count", "read_class"]
    assert min(summary_figure("mine", measurements.histograms, {"target": torch.rand(4, 1, 9, 9)}).shape[:2]) > 500
    assert any(
        line.startswith("objects per image as the extractor reads them (estimates, 40 images each): prior ")
        and line.endswith("target 3.00")
        for line in result_lines(results)
    )
    section = readings_section(results)
    assert section is not None and section.explanation.startswith("Readings, not truth")
    assert "in 40 of the target's 60 images" in section.explanation
    assert section.means.head == ["", "prior", "learned", "target"]
    assert [row[0] for row in section.means.rows][:2] == ["all objects", "0"]
    assert readings_section(dataclasses.replace(results, readings=None)) is None


# --- statistics that replace the default ---


def test_statistics_that_are_given_replace_the_default_and_say_so() -> None:
    assert Evaluation().replaced_statistics == []
    assert Evaluation([ObjectCount()]).replaced_statistics == ["ClassFrequency"]
    assert Evaluation([ObjectCount("3", name="threes")]).replaced_statistics == ["ObjectCount", "ClassFrequency"]
