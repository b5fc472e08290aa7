"""Configurations in layers: how they are found, read and merged, in a checkout and in a wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from ms2.core import configurations
from ms2.core.configurations import experiments, find, folder, load, load_all, merge, read, worlds
from ms2.core.errors import UserError

ROOT = Path(__file__).parents[2]
EVERY = sorted(folder().rglob("*.yaml"))


# --- merging ---


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
    ids=str,
)
def test_mappings_are_merged_and_anything_else_is_replaced(below: Any, above: Any, expected: Any) -> None:
    before = str((below, above))
    assert merge(below, above) == expected
    assert str((below, above)) == before


KDE = {"class_path": "KDE", "init_args": {"bandwidth": 1.0, "relative_bandwidth": True}}


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        (
            KDE,
            {"init_args": {"bandwidth": 2.0}},
            {"class_path": "KDE", "init_args": {"bandwidth": 2.0, "relative_bandwidth": True}},
        ),
        (KDE, {"class_path": "BatchMMD"}, {"class_path": "BatchMMD"}),
        (
            KDE,
            {"class_path": "BatchMMD", "init_args": {"bandwidth": 3.0}},
            {"class_path": "BatchMMD", "init_args": {"bandwidth": 3.0}},
        ),
        (KDE, "BatchMMD", "BatchMMD"),
        (KDE, "KDE", KDE),
        (
            KDE,
            {"class_path": "ms2.objectives.kde.KDE", "init_args": {"bandwidth": 2.0}},
            {"class_path": "ms2.objectives.kde.KDE", "init_args": {"bandwidth": 2.0, "relative_bandwidth": True}},
        ),
        ("KDE", {"init_args": {"bandwidth": 2.0}}, {"class_path": "KDE", "init_args": {"bandwidth": 2.0}}),
        ("KDE", KDE, KDE),
        ({"t_max": 3}, {"class_path": "Other", "init_args": {}}, {"class_path": "Other", "init_args": {}}),
        ({"t_max": 3, "hidden": 8}, {"t_max": 4}, {"t_max": 4, "hidden": 8}),
    ],
    ids=str,
)
def test_another_class_brings_its_own_arguments_and_the_same_keeps_them(below: Any, above: Any, expected: Any) -> None:
    assert merge(below, above) == expected
    assert merge({"x": below}, {"x": above}) == {"x": expected}


# --- files ---


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_bases_are_merged_in_order_and_may_have_bases(tmp_path: Path) -> None:
    write(
        tmp_path,
        first="a: 1\nb: 1\nc: 1\nd: 1\n",
        second="base: first.yaml\nb: 2\nc: 2\nd: 2\n",
        third="c: 3\nd: 3\n",
        last="base: [second.yaml, third.yaml]\nd: 4\n",
    )
    assert load(tmp_path / "last.yaml") == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert load_all([tmp_path / "third.yaml", tmp_path / "first.yaml"]) == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_a_file_of_ones_own_may_be_based_on_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, mine="base: multimnist_quick\nmodel: {objective: BatchMMD}\n")
    quick = load("multimnist_quick")
    assert load("mine.yaml") == {**quick, "model": {**quick["model"], "objective": "BatchMMD"}}


def test_a_configuration_cannot_be_based_on_itself(tmp_path: Path) -> None:
    write(tmp_path, one="base: two.yaml\n", two="base: one.yaml\n")
    with pytest.raises(UserError, match=r"is based on itself: one.yaml > two.yaml > one.yaml"):
        load(tmp_path / "one.yaml")


def test_bases_that_share_bases_are_read_once(tmp_path: Path) -> None:
    files = {f"c{i}": f"base: [c{i + 1}.yaml, c{i + 1}.yaml]\n" for i in range(40)}
    write(tmp_path, **files, c40="a: 1\n")
    assert load(tmp_path / "c0.yaml") == {"a": 1}


def test_a_chain_of_bases_is_bounded(tmp_path: Path) -> None:
    write(tmp_path, **{f"c{i}": f"base: c{i + 1}.yaml\n" for i in range(60)}, c60="a: 1\n")
    with pytest.raises(UserError, match="more than 50 configurations are based on each other"):
        load(tmp_path / "c0.yaml")


def test_a_folder_is_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path / "run", config="a: 1\n")
    (tmp_path / "multimnist_quick").mkdir()
    with pytest.raises(UserError, match=r"run is a folder, not a configuration: its settings are in .*config.yaml"):
        find(str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    assert find("multimnist_quick") == experiments()["multimnist_quick"]
    with pytest.raises(UserError, match="no configuration called '': give a name or a file"):
        find("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "can't be read as a configuration"),
        ("- a\n", "must hold settings by name"),
        ("false\n", "must hold settings by name"),
        ("1: a\n", "must hold settings by name"),
        ("name: a\nworld: {a: 1}\nname: b\n", r"bad.yaml .*line 3 gives the key 'name' again, given in line 1"),
        ("a: &a [*a]\n", r"bad.yaml .*the alias \*a contains itself"),
        ("base: 3\n", r"bad.yaml: base must be the name of a configuration, or a list of names, not 3"),
        ("base: [[a]]\n", "base must be the name of a configuration"),
        ("base: {a: b}\n", "base must be the name of a configuration"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, bad=text)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "bad.yaml")


def test_files_are_read_safely(tmp_path: Path) -> None:
    write(tmp_path, bad=f"a: !!python/object/apply:pathlib.Path.touch ['{tmp_path}/made']\n")
    with pytest.raises(UserError, match="could not determine a constructor"):
        load(tmp_path / "bad.yaml")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["3e-3", "3E-3", "0.003", "+3e-3", "30.e-4", ".3e-2"])
def test_numbers_with_an_exponent_are_numbers(tmp_path: Path, text: str) -> None:
    write(tmp_path, numbers=f"a: {text}\n")
    assert read(tmp_path / "numbers.yaml") == {"a": 0.003}


@pytest.mark.parametrize("text", ["e3", "3e", "1e3b", "v1e3"])
def test_words_are_no_numbers(tmp_path: Path, text: str) -> None:
    write(tmp_path, words=f"a: {text}\n")
    assert read(tmp_path / "words.yaml") == {"a": text}


# --- names ---


def test_names_are_found_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, path in experiments().items():
        assert find(name) == find(f"experiments/{name}") == find(str(path)) == path
    assert find("base") == folder() / "base.yaml"
    assert find("worlds/multimnist") == worlds()["multimnist"]


def test_an_unknown_name_is_answered_with_the_nearest_and_all_names() -> None:
    with pytest.raises(UserError) as caught:
        find("multimnist_quik")
    assert "no configuration called 'multimnist_quik'. Did you mean 'multimnist_quick'?" in str(caught.value)
    assert all(name in str(caught.value) for name in experiments())
    with pytest.raises(UserError, match=r"Did you mean 'worlds/multimnist'\?"):
        find("worlds/multimnst")
    with pytest.raises(
        UserError, match=r"there is no configuration file missing.yaml. Names that need no file: aerial2d"
    ):
        find("missing.yaml")


def test_the_world_of_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "acme_worlds" / "teapots"
    package.mkdir(parents=True)
    (package / "world.yaml").write_text("# Teapots.\nworld: {grammar: Teapots}\n")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    info = tmp_path / "acme_worlds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-worlds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ms2.plugins]\nteapots = acme_worlds.teapots\nother = no_such_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert worlds()["teapots"] == package / "world.yaml"
    assert find("worlds/teapots") == package / "world.yaml"


# --- those that come along ---


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(folder())))
def test_a_configuration_says_what_it_is_for(path: Path) -> None:
    line = configurations.first_comment(path)
    assert line.endswith((".", "?")) and not line[0].islower()


def settings_of(content: Any, key: str = "") -> dict[str, Any]:
    """Settings by their dotted keys; lists, and classes without arguments, are single settings."""
    if isinstance(content, dict) and set(content) == {"class_path"}:
        content = content["class_path"]
    if not isinstance(content, dict):
        return {key: content}
    return {
        name: value for part, inner in content.items() for name, value in settings_of(inner, f"{key}.{part}").items()
    }


@pytest.mark.parametrize("path", experiments().values(), ids=experiments())
def test_an_experiment_holds_its_differences_alone(path: Path) -> None:
    """No setting repeats that of its bases, save where another class or its arguments are named anew."""
    own = read(path)
    bases = own.pop("base")
    below = load_all([bases] if isinstance(bases, str) else bases)
    repeated = {key for key, value in settings_of(own).items() if settings_of(below).get(key, ...) == value}
    assert {key for key in repeated if not key.endswith(".class_path") and ".init_args." not in key} == set()
    assert own["name"] == path.stem
    assert not [line for line in path.read_text().splitlines() if len(line) > 120]


def test_the_base_holds_training_and_logging_and_worlds_hold_no_run() -> None:
    assert set(load("base")) == {"trainer"}
    for path in (folder() / "worlds").glob("*.yaml"):
        assert not set(load(path)) & {"trainer", "name", "pretraining"}


# --- where they are ---


def test_a_checkout_reads_the_folder_at_its_top() -> None:
    assert folder() == ROOT / "configs"
    assert not (ROOT / "src" / "ms2" / "configs").exists(), "there is one copy only"


def test_a_wheel_carries_them(tmp_path: Path) -> None:
    """Built without a network, unpacked, and read from an empty folder."""
    source = tmp_path / "source"
    source.mkdir()
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    for part in ("src", "configs"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path / "wheel",
    ]
    subprocess.run([*map(str, command), str(source)], check=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(tmp_path / "installed")
    expected = {str(path.relative_to(ROOT / "configs")) for path in EVERY}
    installed = tmp_path / "installed" / "ms2" / "configs"
    assert {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()} == expected
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    words = [sys.executable, "-m", "ms2", "configs", "multimnist_quick"]
    said = subprocess.run(words, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=True)
    assert yaml.safe_load(said.stdout)["name"] == "multimnist_quick"
