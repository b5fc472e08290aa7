"""The notebooks run to their end, and are committed without outputs."""

import ast
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
KNOWN = {
    "02_train_multimnist": {  # the same parts, seeds and steps give the same result, step by step and in one call
        "results.summary['count_tv'] - result.summary['count_tv']": (0, 1e-9),
        "results.summary['class_tv'] - result.summary['class_tv']": (0, 1e-9),
    },
    "03_your_own_world": {  # distances of the prior's law to the hidden one, by hand, and how far samples may be off
        "result.results.structure['count'].distances['tv']['prior'].value": (0.4131, 0.03),
        "result.results.structure['class'].distances['tv']['prior'].value": (2 / 3 - 8 / 15, 0.01),
        "result.results.attributes['y'].distances['w1']['prior'].value": (0.15625, 0.005),
        "result.results.attributes['heading'].distances['w1']['prior'].value": (82.5, 2),
        "float(slope[0, 0] / difference)": (1, 0.01),
        # what breaks the contract that unused entries are not read
        "len([*__import__('ms2.contracts.images').contracts.images.unused_not_read(world, ms2.generator('nan'))])": (
            0,
            0,
        ),
    },
    "04_grammar_from_scenes": {  # means of the hidden distribution: Poisson(9) and Poisson(3)
        "float(drawn[0].double().mean())": (9, 0.7),
        "float(drawn[1].double().mean())": (3, 0.4),
        "len(learned.grammar.rules)": (6, 0),
    },
}
"""By notebook, expressions with values and tolerances that hold at its end, however few steps its stages have."""
MAX_IMPORTS = 5
"""Lines of imports that a world of one's own needs, from the first cell to the last."""
IMPORTS = (ast.Import, ast.ImportFrom)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


class ThisPython(AsyncKernelManager):
    """Starts kernels of the interpreter that runs the tests, whatever kernels are installed."""

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        return [sys.executable, "-m", "ipykernel_launcher", "-f", self.connection_file]


def run(path: Path, folder: Path, expressions: list[str], seconds: int) -> tuple[NotebookNode, dict[str, Any]]:
    """Run a notebook, each cell within a time limit; return it with its outputs, and the values of expressions."""
    notebook = nbformat.read(path, as_version=4)
    asked = ", ".join(f"{text!r}: {text}" for text in expressions)
    notebook.cells.append(new_code_cell(f"from IPython.display import JSON\nJSON({{{asked}}})"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the messages' transport; the notebook's own are in its outputs
        NotebookClient(notebook, timeout=seconds, kernel_manager_class=ThisPython).execute(cwd=str(folder))
    (result,) = (o for o in notebook.cells.pop().outputs if o.output_type == "execute_result")
    return notebook, result.data["application/json"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which notebooks write their files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # folder of runs, with their cached stages
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def test_there_are_notebooks() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]
    assert {path.stem for path in NOTEBOOKS} >= KNOWN.keys()


@every_notebook
def test_a_notebook_runs(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MS2_NOTEBOOK_STEPS", "2")
    known = KNOWN.get(path.stem, {})
    notebook, values = run(path, folder, list(known), 100)
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2
    for text, (value, tolerance) in known.items():
        assert values[text] == pytest.approx(value, abs=tolerance), text


@pytest.mark.skipif("MS2_NOTEBOOK_STEPS" not in os.environ, reason="MS2_NOTEBOOK_STEPS is not set; 60 take minutes")
def test_a_world_of_ones_own_is_learned(folder: Path) -> None:
    (path,) = (path for path in NOTEBOOKS if path.name.startswith("03"))
    _, values = run(path, folder, ["result.summary"], 600)
    metrics = values["result.summary"]
    assert metrics["count_tv"] < metrics["count_tv_prior"] / 3
    for name in ("y", "heading", "duckling_x", "duckling_y"):
        assert metrics[f"{name}_w1"] < metrics[f"{name}_w1_prior"] / 4, name


def test_a_world_of_ones_own_needs_few_imports() -> None:
    (path,) = (path for path in NOTEBOOKS if path.name.startswith("03"))
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    imports = [node for source in cells for node in ast.walk(ast.parse(source)) if isinstance(node, IMPORTS)]
    assert len(imports) <= MAX_IMPORTS
    assert "ms2" in {alias.name for node in imports for alias in node.names}


@every_notebook
def test_a_notebook_has_no_outputs(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
