"""``ms2 induce RUN``: from an extractor's readings of images to a configuration that ``ms2 fit`` goes on from."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CONFIGS, EXPECTED, command, ms2

from ms2.core.configurations import load
from ms2.features.base import FeatureExtractor
from ms2.learning.induction.object_table import ObjectTable
from ms2.learning.induction.readings import Measures
from ms2.targets.synthetic import Synthetic
from ms2.world import World

pytestmark = EXPECTED
OF_OTHERS = ("world.structure_prior.init_args.max_roads", "world.structure_prior.init_args.max_cars")
"""Tiny settings of the hand-written structure prior."""


def perfect_readings(features: FeatureExtractor, target: Synthetic, world: World, measures: Measures) -> ObjectTable:
    """What a perfect extractor reads: all objects of the target's scenes, scenery too."""
    scenes = target.scenes
    mask, centres = scenes.mask, world.renderer.centres(scenes)
    assert centres is not None
    label = scenes.classes[mask]
    half = measures.sizes[label] / 2
    boxes = torch.cat([centres[mask] - half, centres[mask] + half], 1).double()
    scene = mask.nonzero()[:, 0]
    return ObjectTable(world.classes, len(scenes), scene, label, torch.full_like(scene, -1), boxes)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose extractor is trained on independent objects, for two steps."""
    more: dict[str, Any] = {"data__target__init_args__num_images": 300, "extractor__num_probe_images": 8}
    ms2([*command(tmp_path, CONFIGS / "aerial2d_images.yaml", OF_OTHERS, **more), "--stage", "extractor"])
    return tmp_path / "aerial2d_images"


def test_a_run_goes_on_from_what_is_read(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ms2.cli.read_images.read_target", perfect_readings)
    out = tmp_path / "induced"
    ms2(["induce", str(run), "--output", str(out)])
    assert "Cars, list of car in each Road: mean" in capsys.readouterr().out
    fit = load(out / "fit.yaml")
    assert fit["name"] == "induced_fit" and fit["data"] == load(run / "config.yaml")["data"]
    placement = fit["world"]["parameter_prior"]["init_args"]
    assert list(placement["ranges"]) == ["Road", "car", "house", "tree"] and placement["ascending"]["Road"] == "y"
    assert ["Road", "tree"] in placement["apart"] and ["car", "car"] in placement["apart"]
    assert "car" in fit["model"]["features"]["init_args"]["parents_per_class"]
    ms2(["fit", "--config", str(out / "fit.yaml"), "--dry_run", "true"])
    assert "extractor: 2 steps" in capsys.readouterr().out


def test_an_extractor_has_to_be_trained_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run.parent / "cache")
    with pytest.raises(SystemExit):
        ms2(["induce", str(run), "--output", str(run.parent / "induced")])
    assert "is not trained by these settings and this version: run 'ms2 fit --config" in capsys.readouterr().err


def test_ranges_of_attributes_have_to_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("base: multimnist_quick\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        ms2(["induce", str(tmp_path / "run"), "--output", str(tmp_path / "induced")])
    assert "is UniformPlacement, which gives no ranges of attributes" in capsys.readouterr().err
