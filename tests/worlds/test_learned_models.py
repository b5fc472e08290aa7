"""The learned models that come with worlds: they open by name, and draw what was measured of them."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2_contingency

import ms2
from ms2.cli.commands import main
from ms2.core.configurations import LEARNED_SUFFIX, learned_models, learned_name, worlds
from ms2.core.errors import UserError
from ms2.core.parsing import ArgumentParser
from ms2.core.yaml_files import load_yaml
from ms2.metrics.results import HistogramResult, load_histograms, load_results
from ms2.metrics.statistics import ObjectCount, StructureStatistic
from ms2.models.checkpoints import STRUCTURE, read_checkpoint
from ms2.models.opening import OpenedModel, open_model, parse_settings
from ms2.models.scene_model import LEARNED, LEARNED_STRUCTURE, PRIOR, ROWS, Row

ROOT = Path(__file__).parents[2]
MODELS = learned_models()
FILES = {"README.md", "checkpoints/last.ckpt", "config.yaml", "histograms.json", "metrics.json", "run.json"}
MAX_BYTES = 3_000_000
"""What all learned models together may take of the wheel."""
NUM_SCENES = 1000
LEAST_P = 1e-5
"""Least p-value of one of some twenty comparisons. Scenes depend on the seed alone: no test fails by chance."""
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def opened() -> dict[str, OpenedModel]:
    return {name: open_model(name) for name in MODELS}


def own_worlds() -> list[str]:
    """The worlds of ms2 itself, whether or not packages with others are installed."""
    return sorted(name for name, file in worlds().items() if file.name != "world.yaml")


# --- files ---


def test_one_comes_with_each_world_of_ms2() -> None:
    assert {name + LEARNED_SUFFIX for name in own_worlds()} <= set(MODELS)
    assert all(folder.parent.name == learned.removesuffix(LEARNED_SUFFIX) for learned, folder in MODELS.items())


def test_together_they_are_small() -> None:
    sizes = [file.stat().st_size for folder in MODELS.values() for file in folder.rglob("*") if file.is_file()]
    assert sum(sizes) < MAX_BYTES


@every_model
def test_a_folder_has_the_files_of_a_finished_run_and_the_wheel_takes_them(name: str) -> None:
    folder = MODELS[name]
    assert {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} == FILES
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["finished"] is True
    if sys.version_info >= (3, 11):
        import tomllib

        declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        globs = declared["tool"]["setuptools"]["package-data"]["*"]
        assert {file for file in FILES if any((folder / file) in folder.parent.glob(one) for one in globs)} == FILES


@every_model
def test_nothing_is_stored_but_weights_of_what_was_learned(name: str) -> None:
    checkpoint = read_checkpoint(MODELS[name] / "checkpoints" / "last.ckpt")
    assert set(checkpoint) == {"state_dict", "grammar"}
    assert all(key.startswith(STRUCTURE) for key in checkpoint["state_dict"])
    texts = [(MODELS[name] / file).read_text(encoding="utf-8") for file in FILES if not file.endswith(".ckpt")]
    assert not any(re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", text) for text in texts)


@every_model
def test_the_card_states_distances_seed_target_and_licence(name: str, opened: dict[str, OpenedModel]) -> None:
    card = (MODELS[name] / "README.md").read_text(encoding="utf-8")
    results, renderer = load_results(MODELS[name] / "metrics.json"), opened[name].model.world.renderer
    assert card.startswith(f"# {name}\n") and f'ms2.load("{name}")' in card and "runs/" not in card
    assert renderer.licence in card and f"| seed | {results.measured_with.seed} |" in card
    assert all(one.title in card for one in results.structure.values())
    target = load_yaml((MODELS[name] / "config.yaml").read_text(encoding="utf-8"))["data"]["target"]
    assert load_yaml(re.findall(r"```yaml\n(.*?)```", card, re.S)[0]) == target
    assert "summary.png" not in card, "a picture that does not come along"


# --- scenes ---


def statistics_of(name: str) -> list[StructureStatistic]:
    """The statistics of structure that the run was measured by."""
    configuration = load_yaml((MODELS[name] / "config.yaml").read_text(encoding="utf-8"))
    parser = ArgumentParser()
    parser.add_argument("--statistics", type=list[StructureStatistic] | None)
    _, made = parse_settings(parser, {"statistics": configuration["evaluation"]["statistics"]})
    return made.statistics or [ObjectCount()]


def p_values(name: str, opened: OpenedModel, row: Row) -> dict[str, float]:
    """Chi-squared test of drawn scenes against the learned row of ``histograms.json``, by statistic of counts.

    Only statistics of which each scene adds one count are compared: those of several are not independent.
    """
    num_recorded = load_results(MODELS[name] / "metrics.json").measured_with.num_scenes
    recorded = {one.name: one for one in load_histograms(MODELS[name] / "histograms.json")}
    scenes = opened.model.sample(NUM_SCENES, ms2.generator(0, "learned models"), row)
    found = {}
    for statistic in statistics_of(name):
        counts = statistic.measure(scenes, opened.model.world.classes)
        if statistic.name in recorded and bool((counts.sum(1) == 1).all()):
            found[statistic.name] = p_value(counts.sum(0), recorded[statistic.name], num_recorded)
    return found


def p_value(counts: torch.Tensor, recorded: HistogramResult, num_recorded: int) -> float:
    """Chi-squared test of two samples; bins that were rarely hit are joined."""
    share = torch.tensor(recorded.shares["learned"])
    width = max(len(share), len(counts))
    table = torch.zeros(2, width)
    table[0, : len(counts)], table[1, : len(share)] = counts.float(), share * num_recorded
    often = table.sum(0) >= 0.01 * table.sum()
    joined = torch.cat([table[:, often], table[:, ~often].sum(1, keepdim=True)], 1)
    return float(chi2_contingency(joined[:, joined.sum(0) > 0].numpy()).pvalue)


@every_model
def test_scenes_have_the_distribution_that_was_measured(name: str, opened: dict[str, OpenedModel]) -> None:
    found = p_values(name, opened[name], LEARNED)
    assert found and min(found.values()) > LEAST_P, found


@every_model
def test_scenes_of_the_prior_have_not(name: str, opened: dict[str, OpenedModel]) -> None:
    """The test above tells them apart, so it would fail if the weights were not those that were measured."""
    found = p_values(name, opened[name], PRIOR)
    assert min(found.values()) < LEAST_P, found


@every_model
def test_it_is_learned_and_depends_on_the_seed_alone(name: str, opened: dict[str, OpenedModel]) -> None:
    model = opened[name].model
    assert opened[name].name == name and model.learned == LEARNED_STRUCTURE
    again = open_model(name).model
    first, second, other = (
        one.derivations(50, ms2.generator(seed, "again")).rules for one, seed in ((model, 1), (again, 1), (model, 2))
    )
    assert first.equal(second) and not first.equal(other)


@every_model
def test_every_scene_is_rendered_with_labels(name: str, opened: dict[str, OpenedModel]) -> None:
    """Each row's scenes are ones that the renderer can draw; the images show something."""
    model = opened[name].model
    for row in ROWS.values():
        labelled = model.labelled(2, ms2.generator(3, "labels"), row)
        assert labelled.image.shape[-2:] == model.world.renderer.size
        assert 0 <= float(labelled.image.min()) < float(labelled.image.max()) <= 1


# --- names ---


def test_a_world_is_answered_with_its_learned_model() -> None:
    assert learned_name("multimnist") == "multimnist_learned"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("multimnst", "not the name of a world.*Did you mean 'multimnist'.*Available: aerial2d, driving3d, multimnist"),
        ("runs/first", "leave out --learned for a run"),
        ("multimnist_learned", "is learned already: leave out --learned"),
        ("teapots", "no learned model comes with the world teapots: learn one with 'ms2 fit'.*Available: aerial2d"),
    ],
)
def test_another_name_is_refused(given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_teapots(tmp_path, monkeypatch)
    with pytest.raises(UserError, match=said):
        learned_name(given)


def install_teapots(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with a world; return its folder."""
    package = path / "acme_pots" / "teapots"
    package.mkdir(parents=True)
    (package / "world.yaml").write_text("# Teapots.\nworld: {grammar: Teapots}\n", encoding="utf-8")
    info = path / "acme_pots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-pots\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[ms2.plugins]\nteapots = acme_pots.teapots\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(path))
    return package


def test_a_package_may_bring_the_learned_model_of_its_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install_teapots(tmp_path, monkeypatch) / "teapots_learned"
    assert "teapots_learned" not in learned_models()
    folder.mkdir()
    (folder / "config.yaml").write_text("world: {}\n", encoding="utf-8")
    assert learned_models()["teapots_learned"] == folder and learned_name("teapots") == "teapots_learned"


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'aerial2d_learned'"):
        open_model("aerial2d_lerned")
    with pytest.raises(UserError, match="take multimnist_learned, name the folder of a run"):
        open_model("multimnist", "learned")


# --- commands ---


def test_a_data_set_seconds_after_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["generate", "multimnist", "--learned", "--num_scenes", "2", "--workers", "1"])
    assert "prior" not in capsys.readouterr().out, "it says so where structure is drawn from the prior"
    made = json.loads((tmp_path / "data" / "multimnist_learned" / "dataset.json").read_text(encoding="utf-8"))
    assert made["structure"] == "learned" and made["source"] == "multimnist_learned"


def test_a_report_is_written_beside_the_reader_and_not_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["report", "multimnist_learned"])
    assert capsys.readouterr().out == "multimnist_learned.html\n" and (tmp_path / "multimnist_learned.html").is_file()
    assert not (MODELS["multimnist_learned"] / "report.html").exists()


# --- how they are made ---


def test_each_picture_is_above_the_command_that_makes_it() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "learned_models.py"))
    page = (ROOT / "docs" / "worlds_gallery.md").read_text(encoding="utf-8")
    found = re.findall(r"^!\[.*\]\(images/learned_(\w+)\.png\)\n\n```\n(.*)\n```$", page, re.M)
    assert sorted(found) == [(world, tool["command"](world)) for world in own_worlds()]


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "learned_models.py"))
    (tmp_path / "run.json").write_text('{"finished": false}', encoding="utf-8")
    with pytest.raises(UserError, match="not the folder of a finished run: go on with 'ms2 fit'"):
        tool["make"](tmp_path, "")
