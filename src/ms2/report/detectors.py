"""What a run's data is worth to detectors, as `ms2 compare` has measured it."""

from pathlib import Path

from ms2.core.errors import UserError
from ms2.evaluation.detectors.comparison import summarise
from ms2.metrics.intervals import Interval
from ms2.report.markup import Html, element, fragment, table
from ms2.report.reading import read_json
from ms2.report.results import number


def detectors(folder: Path) -> Html:
    """A table for each comparison of a run: one row for each part that is learned, and their gains over the first.

    Raises:
        UserError: If a file of theirs can't be read.
    """
    places = sorted({file.parent for file in (folder / "compare").glob("*/seed*.json")})
    found = [_comparison(place) for place in places]
    if not found:
        return Html()
    note = (
        "Detectors trained on images of each row, all with the same budget, and tested on images of the target; AP is "
        "the average precision at an overlap of 0.5. The last rows are paired differences to the first. With several "
        "seeds, means and 95 % intervals."
    )
    return fragment(element("p", note, class_="note"), found)


def _comparison(place: Path) -> Html:
    files = sorted(place.glob("seed*.json"))
    measured = [read_json(file, dict) for file in files]
    try:
        summary = summarise(
            [{title: {key: float(v) for key, v in row.items()} for title, row in one.items()} for one in measured]
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{place}: its results don't belong together, or were edited ({error!r}). Remove {files[0].name} and its "
            "like, and run ms2 compare again"
        ) from error
    columns = list(next(iter(summary.values())))
    rows = [[title, *(_cell(row[key]) for key in columns)] for title, row in summary.items()]
    budget = read_json(place / "budget.json", dict, {})
    facts = [f"{what.replace('_', ' ')} {_told(value)}" for what, value in budget.items() if value]
    seeds = f"{len(files)} seed{'s' if len(files) > 1 else ''}"
    return fragment(element("p", "; ".join([seeds, *facts]), class_="note"), table(["", *columns], rows))


def _cell(interval: Interval) -> Html:
    half = (interval.high - interval.low) / 2
    return fragment(number(interval.value), element("small", f" ± {number(half)}") if half > 0 else None)


def _told(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
