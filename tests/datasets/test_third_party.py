"""A package of someone else adds a world: examples/shapes, installed, trained on by name, and held to the contracts."""

import gc
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import test_contracts as contracts
import torch
import yaml

from ms2.contracts import check_world
from ms2.core.errors import UserError
from ms2.core.registry import available
from ms2.priors.structure import ListLengthPrior
from ms2.render.base import Renderer
from ms2.scene.batch import SceneBatch
from ms2.world import World

EXAMPLE = Path(__file__).parents[2] / "examples" / "shapes"
TINY = {
    "world.renderer": "ShapeCanvas",
    "world.renderer.side": 7,  # the configuration has 9
    "world.renderer.canvas": 24,
    "data.target.num_images": 64,
    "data.batch_size": 32,
    "extractor.max_steps": 2,
    "pretraining.max_steps": 4,
    "evaluation.num_scenes": 100,
    "trainer.max_steps": 2,
    "trainer.val_check_interval": 2,
    "trainer.accelerator": "cpu",
    "wandb": "disabled",
}

# --- installed ---


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example is installed, and beside it a package whose plug-in cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    copy = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "shapes")  # building leaves files behind
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--target", str(folder)]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-build-isolation", str(copy)], check=True)
    broken = folder / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[ms2.plugins]\nteapots = broken_teapots\n")
    (folder / "broken_teapots.py").write_text("import a_library_that_is_not_installed\n")
    return folder


def ms2(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command line, with the packages in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "ms2", *map(str, words)],
        cwd=site,
        env=os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "plug-in 'teapots' (broken_teapots) did not load: ModuleNotFoundError" in done.stderr
    return done


def test_plugins_of_an_installed_package_are_listed_and_a_broken_one_is_named(site: Path) -> None:
    lines = ms2(site, "list", "grammars", "parameter_priors", "renderers").stdout.splitlines()
    kinds = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith(" ")}
    assert kinds["Shapes"] == "Any number of squares and discs; n of them take 2 + 2 n steps."
    assert kinds["Scatter"] == "Shapes anywhere on the canvas."
    assert kinds["ShapeCanvas"] == "Draws shapes of one size, the later over the earlier."


def test_a_run_names_the_package_s_classes_and_sets_their_arguments(site: Path, tmp_path: Path) -> None:
    words = [word for key, value in TINY.items() for word in (f"--{key}", value)]
    ms2(site, "fit", "--config", EXAMPLE / "shapes.yaml", "--runs_dir", tmp_path, *words)
    run = tmp_path / "shapes"
    world = yaml.safe_load((run / "config.yaml").read_text())["world"]
    assert world["grammar"] == {"class_path": "acme_shapes.Shapes"}
    assert world["renderer"] == {"class_path": "acme_shapes.ShapeCanvas", "init_args": {"canvas": 24, "side": 7}}
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["measured_with"]["steps"] == 2
    assert all(
        0 <= metrics["summary"][name] <= 1 for name in ("count_tv", "class_tv", "count_tv_prior", "class_tv_prior")
    )
    assert (run / "summary.png").stat().st_size > 0


# --- its classes ---


@pytest.fixture(scope="module")
def acme() -> Iterator[ModuleType]:
    """The example's module, forgotten afterwards: its classes are plug-ins as long as they exist."""
    before = set(available(Renderer))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE / "src"))
        patch.setattr(sys, "dont_write_bytecode", True)
        yield importlib.import_module("acme_shapes")
    del sys.modules["acme_shapes"]
    gc.collect()
    assert set(available(Renderer)) <= before | {"ShapeCanvas"}


WORLD_TESTS = [
    test
    for name, test in vars(contracts).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["world"]
]


def example_world(acme: ModuleType) -> World:
    prior = ListLengthPrior({"Shapes": [1, 1, 1, 1, 1, 1]})
    return World(acme.Shapes(), prior, acme.Scatter(), acme.ShapeCanvas(canvas=30, side=9))


@pytest.mark.parametrize("test", WORLD_TESTS, ids=lambda test: test.__name__.removeprefix("test_"))
def test_the_example_passes_the_tests_of_worlds(acme: ModuleType, test: Callable[[World], None]) -> None:
    test(example_world(acme))


def test_the_example_keeps_every_contract(acme: ModuleType) -> None:
    outcomes = list(check_world(example_world(acme)))
    assert [outcome for outcome in outcomes if not outcome.passed] == []
    assert {"boxes", "unused_not_read"} <= {outcome.name for outcome in outcomes}


def test_a_disc_over_a_square(acme: ModuleType) -> None:
    """A disc of 10 pixels covers the right half of a square of 10 pixels; counted by hand."""
    x, y = torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0, 0.0]])
    scene = SceneBatch(torch.tensor([[0, 1]]), torch.tensor([[-1, -1]]), {"x": x, "y": y})
    labels = acme.ShapeCanvas(canvas=20, side=10).render_labelled(scene)
    assert (labels.instances[0] == 1).sum(1).tolist() == [4, 8, 8, 10, 10, 10, 10, 8, 8, 4, *[0] * 10]
    assert labels.boxes[0].tolist() == [[5, 0, 15, 10], [10, 0, 20, 10]]
    assert labels.visible_boxes[0, 1].tolist() == [10, 0, 20, 10]
    assert labels.visibility[0].tolist() == pytest.approx([0.6, 1])
    square, round_, background = acme.SHADES
    assert labels.image[0, 0, 5, [5, 12, 19]].tolist() == pytest.approx([square, round_, round_])
    assert labels.image[0, 0, 15].unique().tolist() == pytest.approx([background])


def test_a_shape_that_does_not_fit_is_refused(acme: ModuleType) -> None:
    with pytest.raises(UserError, match="a shape of 50 pixels does not fit onto a canvas of 48: give 2 to 48"):
        acme.ShapeCanvas(side=50)
