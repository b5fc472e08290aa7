"""The notebooks run to their end, and are committed without outputs."""

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
    "03_your_own_world": {  # distances of the prior's law to the hidden one, by hand, and how far samples may be off
        "metrics['count_tv_prior']": (0.4131, 0.03),
        "metrics['class_tv_prior']": (2 / 3 - 8 / 15, 0.01),
        "metrics['y_w1_prior']": (0.15625, 0.005),
        "metrics['heading_w1_prior']": (82.5, 2),
        "float(slope[0, 0] / difference)": (1, 0.01),
    },
}
"""By notebook, what is known of values that are there at its end, however short its stages."""
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


class ThisPython(AsyncKernelManager):
    """Kernels of the interpreter that runs the tests, whatever kernels are installed."""

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        return [sys.executable, "-m", "ipykernel_launcher", "-f", self.connection_file]


def run(path: Path, folder: Path, expressions: list[str], seconds: int) -> tuple[NotebookNode, dict[str, Any]]:
    """The notebook with its outputs, and the values of expressions at its end. None of its cells may take longer."""
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
    """An empty folder, in which notebooks keep what they leave."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where stages are kept, which would else be found done
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def test_there_are_notebooks() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03"]
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
    _, values = run(path, folder, ["metrics"], 600)
    metrics = values["metrics"]
    assert metrics["count_tv"] < metrics["count_tv_prior"] / 3
    for name in ("y", "heading", "duckling_x", "duckling_y"):
        assert metrics[f"{name}_w1"] < metrics[f"{name}_w1_prior"] / 4, name


@every_notebook
def test_a_notebook_has_no_outputs(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
