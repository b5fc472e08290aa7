"""The short way in from Python: public names, their examples, and `ms2.fit` beside the command line."""

import ast
import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, metrics_of, trainer
from helpers import ms2 as command
from PIL import Image

import ms2
from ms2.cli.api import as_tuple, choose_t_max
from ms2.models.networks import LSTM

pytestmark = EXPECTED
NAMES = sorted(name for names in ms2.PUBLIC.values() for name in names)
TINY: dict[str, Any] = {
    "batch_size": 16,
    "stages": {
        "extractor": {"max_steps": 2, "batch_size": 8, "num_probe_images": 40},
        "pretraining": {"max_steps": 4, "batch_size": 16, "num_validation": 50, "val_check_interval": 2},
        "autoencoding": {"max_steps": 2, "batch_size": 8},
    },
    "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
}


@pytest.fixture(scope="module")
def world() -> ms2.World:
    from ms2.worlds.multimnist import DigitCanvas, MultiMNIST, UniformDigits, UniformPlacement

    return ms2.World(MultiMNIST(), UniformDigits(3), UniformPlacement(), DigitCanvas(canvas_size=24, digit_size=8))


@pytest.fixture(scope="module")
def target(world: ms2.World) -> ms2.Synthetic:
    from ms2.worlds.multimnist import RandomDigits

    return ms2.Synthetic(world, RandomDigits(1, 3), num_images=40)


# --- names ---


def test_importing_the_package_imports_none_of_its_parts() -> None:
    code = "import ms2, sys; print(*[m for m in sys.modules if m.startswith('ms2') or m == 'torch'])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["ms2"]


def test_names_for_type_checkers_are_those_that_can_be_imported() -> None:
    tree = ast.parse(Path(ms2.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        str(node.module).removeprefix("ms2."): [alias.name for alias in node.names]
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert typed == ms2.PUBLIC


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_offered_and_found(name: str) -> None:
    found = getattr(ms2, name)
    assert found.__name__ == name and name in dir(ms2)
    assert found.__module__ in {f"ms2.{module}" for module, names in ms2.PUBLIC.items() if name in names}


def test_other_names_are_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'ms2' has no attribute 'Wordl'"):
        ms2.Wordl  # noqa: B018


class Lenient(doctest.OutputChecker):
    """Compares output where an example shows some."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture
def names(world: ms2.World, target: ms2.Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an example finds: all public names, and small parts under the names that examples use."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    for i in range(4):
        Image.new("L", (30, 30), 60 * i).save(tmp_path / "photographs" / f"{i}.png")
    found = {name: getattr(ms2, name) for name in NAMES} | {"ms2": ms2, "torch": torch, "ROWS": rows()}
    features = ms2.DenseCounts(1, world.classes, widths=(4, 4, 4))
    structure = ms2.StructureModel(world.grammar, t_max=12, network=LSTM(8))
    real = features(world.renderer.render(world.sample_prior(8, ms2.generator(0, "real"))))
    model = ms2.MetaSim2(world, structure, features, ms2.StructureLearner(ms2.KDE(0.5), ms2.Normalised()))
    parameters = ms2.ParameterModel(world, hidden=8)
    found |= {"world": world, "target": target, "features": features, "structure": structure, "real": real}
    found |= {"model": model, "parameters": parameters, "tiny": TINY, "tmp_path": tmp_path}
    from ms2.metrics.statistics import ObjectCount
    from ms2.worlds.multimnist import RandomDigits

    found |= {"ObjectCount": ObjectCount, "RandomDigits": lambda seed: RandomDigits(seed, 3)}
    few = {"limit_val_batches": 1, "val_check_interval": 1}
    return found | {"Trainer": lambda max_steps, **more: trainer(tmp_path, min(2, max_steps), **few, **more)}


def rows() -> object:
    from ms2.models.scene_model import ROWS

    return ROWS


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example_that_runs(name: str, names: dict[str, Any]) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(ms2, name), name, globs=names)
    assert test.examples, "no example in the docstring"
    said: list[str] = []
    runner = doctest.DocTestRunner(Lenient(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)


# --- fit, generate, load ---


@pytest.fixture(scope="module")
def run(world: ms2.World, target: ms2.Synthetic, tmp_path_factory: pytest.TempPathFactory) -> ms2.FitResult:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return ms2.fit(world, target, max_steps=4, folder=folder, seed=3, **TINY)


def test_a_result_has_metrics_a_picture_a_model_and_scenes(run: ms2.FitResult) -> None:
    assert run.summary == json.loads((run.folder / "metrics.json").read_text())["summary"]
    assert run.results.structure["count"].distances["tv"]["prior"].value >= 0
    assert run.figure.width > 100
    scenes, images, labels = run.scenes(5), run.images(5), run.labelled(5)
    assert torch.equal(labels.image, images) and torch.equal(labels.classes, scenes.classes)
    assert not torch.equal(run.images(5, row="prior"), images)
    assert repr(run).startswith("FitResult(") and "count_tv" in repr(run)


def test_the_same_fit_is_not_trained_again(
    world: ms2.World, target: ms2.Synthetic, run: ms2.FitResult, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != "config.yaml"}
    again = ms2.fit(world, target, max_steps=4, folder=run.folder, seed=3, **TINY)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != "config.yaml"} == before
    assert torch.equal(again.images(4), run.images(4))


def test_the_command_line_measures_the_same(run: ms2.FitResult) -> None:
    """It finds the run by the configuration that was written, and makes all parts of it anew.

    The results of another version are replaced, as the error about them advises.
    """
    found = metrics_of(run.folder)
    (run.folder / "metrics.json").write_text('{"count_tv": 0.1}')
    command(["test", "--config", str(run.folder / "config.yaml"), "--wandb", "disabled"])
    assert metrics_of(run.folder) == found != {}


def test_a_run_is_loaded_and_generated_from(run: ms2.FitResult, tmp_path: Path) -> None:
    model = ms2.load(run.folder)
    draw = ms2.generator(0, "scenes")
    assert torch.equal(model.world.renderer.render(model.sample(4, draw)), run.images(4))
    one, other = (ms2.generate(source, tmp_path / str(i), 3) for i, source in enumerate((run, run.folder)))
    assert {path.name for path in one.rglob("*")} == {path.name for path in other.rglob("*")}
    images = [path for path in one.rglob("*.png") if path.name != "sample.png"]
    assert len(images) == 3
    assert all(path.read_bytes() == (other / path.relative_to(one)).read_bytes() for path in images)


def test_several_runs_are_mixed(run: ms2.FitResult, tmp_path: Path) -> None:
    """With the priors of the same world here, of which only the run's own configuration knows the settings."""
    sources = [run, run.folder / "config.yaml"]
    folder = ms2.generate(sources, tmp_path / "set", 6, mix=[2, 1])
    about = json.loads((folder / "dataset.json").read_text())
    assert about["mix"] == {"first-1": 2, "first-2": 1}
    model = ms2.load([run.folder, run.folder / "config.yaml"], mix="even")
    assert model.weights == (1, 1) and model.images(4, ms2.generator(0, "scenes")).shape == (4, 1, 24, 24)
    with pytest.raises(ms2.UserError, match=r"2 sources: say how many scenes .* \(in Python, mix='even'\)"):
        ms2.generate(sources, tmp_path / "other", 6)


def test_a_folder_of_images_is_a_target(world: ms2.World, tmp_path: Path) -> None:
    for i in range(6):
        Image.new("L", (30, 30), 40 * i).save(tmp_path / f"{i}.png")
    result = ms2.fit(world, tmp_path, max_steps=1, **TINY)
    assert not result.results.structure and result.images(2).shape == (2, 1, 24, 24)


def test_other_settings_keep_the_earlier_run(
    world: ms2.World, target: ms2.Synthetic, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps in (1, 2):
        ms2.fit(world, target, max_steps=steps, folder=tmp_path / "run", **TINY)
    assert (tmp_path / "run.1" / "metrics.json").exists()
    assert "is kept as" in capsys.readouterr().out


def test_derivations_may_be_half_as_long_again_as_the_priors(world: ms2.World) -> None:
    assert choose_t_max(world) == (2 + 2 * 3) * 3 // 2


def test_what_is_wrong_is_said_in_one_line() -> None:
    with pytest.raises(ms2.UserError, match="Did you mean 'multimnist'"):
        ms2.load("multimnst")


def test_a_misspelt_stage_is_an_error(world: ms2.World, target: ms2.Synthetic, tmp_path: Path) -> None:
    with pytest.raises(ms2.UserError, match=r"no 'extracter'\. Did you mean 'extractor'"):
        ms2.fit(world, target, max_steps=1, folder=tmp_path, stages={"extracter": {"max_steps": 2}})


@pytest.mark.parametrize("given", ["multimnist", None, ms2.World])
def test_a_world_that_is_none_is_an_error(given: Any, target: ms2.Synthetic) -> None:
    fit = inspect.unwrap(ms2.fit)  # without the checks of types, which users do not have
    with pytest.raises(ms2.UserError, match=r"ms2\.load\(NAME\)\.world makes one"):
        fit(given, target)


def test_every_argument_of_the_functions_is_documented() -> None:
    for function in (ms2.fit, ms2.generate, ms2.load):
        text = inspect.getdoc(function) or ""
        assert all(f"    {name}: " in text for name in inspect.signature(function).parameters)


def test_one_name_is_not_its_characters() -> None:
    assert as_tuple("coco") == as_tuple(["coco"]) == ("coco",) and as_tuple([]) == ()
