"""What a run's data is worth to detectors, as `ms2 compare` has measured it."""

from pathlib import Path

from ms2.core.errors import UserError
from ms2.metrics.comparison import comparison_files, load_comparison, summarise
from ms2.metrics.intervals import Interval
from ms2.report.markup import Html, element, fragment, table
from ms2.report.results import number


def detectors(folder: Path) -> Html:
    """A table for each comparison of a run: one row for each part that is learned, and their gains over the first.

    Raises:
        UserError: If a file of theirs can't be read.
    """
    found = [_comparison(files) for files in comparison_files(folder).values()]
    if not found:
        return Html()
    note = (
        "Detectors trained on images of each row, all with the same budget, and tested on images of the target; AP is "
        "the average precision at an overlap of 0.5. The last rows are paired differences to the first. With several "
        "seeds, means and 95 % intervals."
    )
    return fragment(element("p", note, class_="note"), found)


def _comparison(files: list[Path]) -> Html:
    results = [load_comparison(file) for file in files]
    try:
        summary = summarise(results)
    except UserError as error:
        raise UserError(f"{files[0].parent}: {error}") from error
    columns = list(next(iter(summary.values())))
    rows = [[title, *(_cell(row[key]) for key in columns)] for title, row in summary.items()]
    facts = [f"{what.replace('_', ' ')} {_told(value)}" for what, value in results[0].budget.items() if value]
    seeds = f"{len(files)} seed{'s' if len(files) > 1 else ''}"
    return fragment(element("p", "; ".join([seeds, *facts]), class_="note"), table(["", *columns], rows))


def _cell(interval: Interval) -> Html:
    half = (interval.high - interval.low) / 2
    return fragment(number(interval.value), element("small", f" ± {number(half)}") if half > 0 else None)


def _told(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
