"""``ms2 report``: a self-contained HTML page of a run or data set."""

from pathlib import Path

from ms2.core.errors import UserError, suggest
from ms2.core.files import write_text
from ms2.report.dataset import report_dataset
from ms2.report.run import report_run

__all__ = ["write_report"]


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report of a run of ``ms2 fit``, or of a data set of ``ms2 generate``.

    Args:
        folder: The folder of either.
        output: The file to write, ``report.html`` in the folder by default; a folder gets a ``report.html``.

    Returns:
        The file.

    Raises:
        UserError: If the folder is neither, a file in it can't be read, or the page can't be written.
    """
    text = report_dataset(folder) if _is_dataset(folder) else report_run(folder)
    path = output or folder / "report.html"
    if path.is_dir():
        path = path / "report.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text, errors="replace")  # JSON may hold halves of characters
    except OSError as error:
        raise UserError(
            f"can't write {path.absolute()}: {error.strerror or error}. Make room or permission there, or give another "
            "file with --output"
        ) from error
    return path


def _is_dataset(folder: Path) -> bool:
    """Whether a folder is that of a data set, or else of a run.

    Raises:
        UserError: If it is neither.
    """
    if (folder / "dataset.json").exists():
        return True
    if (folder / "metrics.json").exists() or (folder / "config.yaml").exists():
        return False
    if not folder.exists():
        above = folder.parent
        near = suggest(folder.name, _reportable(above)) if above.is_dir() else f"Nor is there {above.absolute()}."
        raise UserError(f"there is no folder {folder.absolute()}. {near}")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: give the folder of the run or the data set that it belongs to")
    inner = _reportable(folder)
    if inner:
        raise UserError(f"{folder} holds several runs or data sets, of which one can be reported: {', '.join(inner)}")
    raise UserError(
        f"{folder} is neither a run nor a data set: it has no metrics.json or config.yaml, which ms2 fit leaves in a "
        "run's folder, and no dataset.json, which ms2 generate leaves in a data set's. Make one first: "
        "ms2 fit --config FILE"
    )


def _reportable(folder: Path) -> list[str]:
    """Names of the runs and data sets in a folder."""
    marks = ("dataset.json", "metrics.json", "config.yaml")
    return sorted({path.parent.name for mark in marks for path in folder.glob(f"*/{mark}")})
