"""Tables of the downstream comparison: detectors trained on images of the prior, the learned model, ... (the rows)."""

from pathlib import Path
from typing import NamedTuple

from ms2.core.errors import UserError
from ms2.core.formatting import format_number
from ms2.metrics.comparison import (
    FEW_OBJECTS,
    column_title,
    comparison_files,
    load_comparison,
    notes_of,
    object_numbers,
    rests_on_few,
    summarise,
)
from ms2.metrics.intervals import Interval
from ms2.report.tables import Cell, Table


class ComparisonTable(NamedTuple):
    """Results of one comparison.

    Attributes:
        budget: Number of seeds and what every row may use, as text.
        table: A row for each source of training images, such as the prior, and for the gains over the first.
        notes: Explain values in brackets, and say what is special of the images.
    """

    budget: str
    table: Table
    notes: list[str]


def comparison_tables(run: Path) -> list[ComparisonTable]:
    """Build one table per comparison of a run: measurements of each row's detectors, and gains over the first row.

    Raises:
        UserError: If a file can't be read, or the files of a comparison have different rows.
    """
    return [_comparison_table(files) for files in comparison_files(run).values()]


def _comparison_table(files: list[Path]) -> ComparisonTable:
    results = [load_comparison(file) for file in files]
    try:
        summary = summarise(results)
    except UserError as error:
        raise UserError(f"{files[0].parent}: {error}") from error
    columns = list(dict.fromkeys(name for measured in summary.values() for name in measured))
    numbers = object_numbers(results)
    few = {name for name in columns if rests_on_few(name, numbers)}
    rows: list[list[Cell | str]] = [
        [title, *(_cell(row.get(name), name in few) for name in columns)] for title, row in summary.items()
    ]
    facts = [f"{name.replace('_', ' ')} {_setting(value)}" for name, value in results[0].budget.items() if value]
    seeds = f"{len(files)} seed{'s' if len(files) > 1 else ''}"
    head = ["", *(column_title(name, numbers) for name in columns)]
    return ComparisonTable("; ".join([seeds, *facts]), Table(head, rows), [FEW_OBJECTS] * bool(few) + notes_of(results))


def _cell(interval: Interval | None, few: bool) -> Cell:
    if interval is None:
        return Cell("")
    half, value = (interval.high - interval.low) / 2, format_number(interval.value)
    detail = f"± {format_number(half)}" if half > 0 else ""
    if few:
        return Cell(f"({value}", f"{detail})") if detail else Cell(f"({value})")
    return Cell(value, detail)


def _setting(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
