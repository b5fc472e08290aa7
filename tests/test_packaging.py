"""What is declared to installers: dependencies, extras, and versions of Python."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from ms2.core.yaml_files import load_yaml

if sys.version_info < (3, 11):
    pytest.skip("tomllib is new in Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parents[1]
CARD = {
    "pytorch-lightning",
    "torch",
    "torchvision",
    "torchmetrics",
    "numpy",
    "wandb",
    "pillow",
    "jsonargparse",
    "pytest",
}
"""Packages that requirements.txt has to name."""


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name_of(requirement: str) -> str:
    """The package of a requirement, spelt as indices do."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement)[0]).lower()


def names_of(requirements: list[str]) -> set[str]:
    return {name_of(requirement) for requirement in requirements}


def modules() -> Iterator[tuple[Path, ast.AST]]:
    for file in (ROOT / "src" / "ms2").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield file, node


def test_a_checkout_needs_the_dependencies_and_pytest(pyproject: dict[str, Any]) -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    (pytests,) = (text for text in pyproject["project"]["optional-dependencies"]["dev"] if name_of(text) == "pytest")
    assert sorted(listed) == sorted([*pyproject["project"]["dependencies"], pytests])
    assert names_of(listed) >= CARD


def test_no_tool_of_development_is_installed_with_the_wheel(pyproject: dict[str, Any]) -> None:
    needed = names_of(pyproject["project"]["dependencies"])
    assert "pytest" not in needed and not needed & names_of(pyproject["project"]["optional-dependencies"]["dev"])


def test_what_the_package_imports_is_declared_and_nothing_else(pyproject: dict[str, Any]) -> None:
    """Dependencies are imported somewhere, and what is imported is a dependency or in an extra for users."""
    imported: set[str] = set()
    for _, node in modules():
        match node:
            case ast.Import(names=names):
                imported |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                imported.add(module.partition(".")[0])
    packages = packages_distributions()
    imported -= {*sys.stdlib_module_names, "ms2"}
    used = {name_of(packages[module][0]) for module in imported if module in packages}
    project = pyproject["project"]
    extras = {key: value for key, value in project["optional-dependencies"].items() if key not in ("dev", "docs")}
    declared = names_of(project["dependencies"])
    assert used <= declared | {name for requirements in extras.values() for name in names_of(requirements)}
    assert declared <= used


def test_an_error_about_an_extra_names_one_that_installs_the_package(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    found = set()
    for file, node in modules():
        match node:
            case ast.Call(
                func=ast.Name(id="missing_extra"),
                args=[_, ast.Constant(value=str(package))],
                keywords=[ast.keyword(arg="extra", value=ast.Constant(value=str(extra)))],
            ):
                assert name_of(package) in names_of(extras[extra]), file
                found.add(extra)
            case ast.Call(func=ast.Name(id="missing_extra")):
                pytest.fail(f"{file}: name package and extra in the call")
    assert found == {key for key in extras if key not in ("dev", "docs")}


def test_the_same_versions_of_python_are_stated_everywhere(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    (oldest,) = re.findall(r"^>=3\.(\d+)$", project["requires-python"])
    stated = [int(minor) for text in project["classifiers"] for minor in re.findall(r":: 3\.(\d+)$", text)]
    assert stated == list(range(int(oldest), max(stated) + 1))
    workflow = load_yaml((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["checks"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in stated]
    assert f"(3, {oldest})" in (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in ("README.md", "docs/training.md"):
        assert f"Python 3.{oldest} to 3.{max(stated)}" in " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_the_citation_is_of_this_version(pyproject: dict[str, Any]) -> None:
    citation = load_yaml((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = pyproject["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["references"][0]["url"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_hooks_run_programs_of_the_environment(pyproject: dict[str, Any]) -> None:
    """Those that `make lint` and `make types` run, so that a commit and the checks judge alike."""
    hooks = load_yaml((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    programs = [Path(hook["entry"].split()[0]) for hook in hooks]
    assert all(path.parent == Path(".venv/bin") for path in programs)
    assert {path.name for path in programs} <= names_of(pyproject["project"]["optional-dependencies"]["dev"])


def test_notebooks_are_kept_without_outputs() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name
