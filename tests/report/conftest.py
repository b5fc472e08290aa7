"""Runs and data sets that several test files report."""

import shutil
from pathlib import Path

import pytest
from report_pages import hostile_run, hostile_set, make_run, make_set

from ms2.report import write_report


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_set(tmp_path_factory.mktemp("sets") / "digits", scenes=30)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "tiny")
    write_report(folder)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The run, to be changed."""
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("report.html"))
    return tmp_path / "copy"


@pytest.fixture(scope="session", params=["run", "set", "hostile run", "hostile set"])
def any_folder(
    request: pytest.FixtureRequest, run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("any") / "folder"
    if request.param in ("run", "set"):
        return run if request.param == "run" else dataset
    return hostile_set(folder) if request.param.endswith("set") else hostile_run(folder)
