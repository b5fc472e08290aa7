"""The JSON Schema of configurations: it accepts what ms2 accepts, and finds what an editor is to mark."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from ms2.cli.commands import main
from ms2.core import configurations
from ms2.core.registry import KINDS, registered

FILES = sorted(configurations.folder().rglob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema that the command prints."""
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", printed.append)
        main(["schema"])
    found: dict[str, Any] = json.loads(printed[0])
    return found


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(validator: Draft202012Validator, settings: Any) -> list[str]:
    """Where an editor marks settings."""
    return [error.json_path for error in validator.iter_errors(json.loads(json.dumps(settings)))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_configuration_is_accepted(validator: Draft202012Validator, path: Path) -> None:
    """As it stands, with the key ``base``, and with its bases merged in."""
    assert not faults(validator, configurations.read(path))
    assert not faults(validator, configurations.load(path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_all_settings_of_a_run_are_accepted(
    validator: Draft202012Validator, capsys: pytest.CaptureFixture[str]
) -> None:
    """As config.yaml in a run's folder has them, defaults and dotted names of classes included."""
    with pytest.raises(SystemExit):
        main(["fit", "--config", "multimnist_parameters", "--print_config"])
    assert not faults(validator, yaml.safe_load(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("place", "value", "marked"),
    [
        ("data.batch_sise", 16, "$.data"),  # misspelt
        ("data.batch_size", 0, "$.data.batch_size"),
        ("data.batch_size", "many", "$.data.batch_size"),
        ("pretraining.lr", -1, "$.pretraining.lr"),
        ("model.structure_learner.objective", "KDD", "$.model.structure_learner"),
        (
            "model.structure_learner",
            {"class_path": "StructureLearner", "init_args": {"rate": 1}},
            "$.model.structure_learner",
        ),
        ("data.target", {"class_path": "Folder", "init_args": {"rot": "photographs"}}, "$.data.target"),
        ("wandb", "sometimes", "$.wandb"),
        ("base", "multimnist_quik", "$.base"),
        ("base", ["base", 3], "$.base"),
    ],
)
def test_a_fault_is_marked(validator: Draft202012Validator, place: str, value: Any, marked: str) -> None:
    settings = deepcopy(configurations.read(configurations.find("multimnist_quick")))
    inner = settings
    *above, last = place.split(".")
    for key in above:
        inner = inner.setdefault(key, {})
    inner[last] = value
    assert set(faults(validator, settings)) == {marked}


@pytest.mark.parametrize("base", ["multimnist", "worlds/aerial2d", "mine.yaml", ["base", "../rooms/world.yaml"]])
def test_bases_are_names_or_files(validator: Draft202012Validator, base: Any) -> None:
    assert not faults(validator, {"base": base})


def test_every_objective_is_named(schema: dict[str, Any]) -> None:
    names = {name for one in schema["$defs"]["Objective"]["anyOf"] for name in one.get("enum", ()) if "." not in name}
    assert names == set(registered(KINDS["objectives"])) and "KDE" in names
