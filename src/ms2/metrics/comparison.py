"""Typed results of the downstream comparison: one file per seed, and means over seeds (the paper's Tables 1 and 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ms2.core.errors import UserError
from ms2.core.files import write_json
from ms2.core.typed_json import decode, encode, read_versioned
from ms2.metrics.average_precision import MIN_KITTI_OBJECTS
from ms2.metrics.intervals import Interval, mean_interval

SCHEMA_VERSION = 1
"""Version of the fields of a comparison's files."""
HOW_TO_RECREATE = "remove it and run 'ms2 compare' again"
Measurements = Mapping[str, float]
"""Values by the measure's name, such as ``AP mean``, ``count TV`` or ``FID``."""


@dataclass(frozen=True)
class ComparisonResult:
    """Measurements of all rows of a run with one seed.

    Attributes:
        seed: Seed of data sets and detectors.
        rows: Measurements by the row's title; all rows after the first are compared with the first.
        budget: Settings that all rows share, such as the number of training images.
        num_objects: Objects that KITTI's average precisions rest on, by the measure's name.
        notes: What has to be known of the images, for below the table.
    """

    seed: int
    rows: Mapping[str, Measurements]
    budget: Mapping[str, Any]
    num_objects: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


class ObjectNumbers(NamedTuple):
    """Numbers of objects that an average precision rests on, over several seeds."""

    fewest: int
    most: int

    def __str__(self) -> str:
        """Format them, such as ``37 objects``."""
        number = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        return f"{number} object{'s' if self.most != 1 else ''}"

    @property
    def few(self) -> bool:
        """Whether they are too few for KITTI's average precision to be reliable, with any seed."""
        return self.fewest < MIN_KITTI_OBJECTS


FEW_OBJECTS = (
    f"In brackets: average precision on fewer than {MIN_KITTI_OBJECTS} objects, which is unreliable, and not that of "
    "KITTI's own program."
)
"""Note below tables that hold such values."""


def save_comparison(path: Path, result: ComparisonResult) -> None:
    """Write the results of one seed atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema_version": SCHEMA_VERSION} | encode(result))


def load_comparison(path: Path) -> ComparisonResult:
    """Read the results of one seed.

    Raises:
        UserError: If the file can't be read, is cut off, or has another schema.
    """
    found: ComparisonResult = decode(ComparisonResult, read_versioned(path, SCHEMA_VERSION, HOW_TO_RECREATE), path)
    if not found.rows:
        raise UserError(f"{path}: holds no rows; {HOW_TO_RECREATE}")
    return found


def comparison_files(run: Path) -> dict[Path, list[Path]]:
    """List the files of a run's comparisons, by the folder of each comparison."""
    files = sorted((run / "compare").glob("*/seed*.json"), key=lambda file: (str(file.parent), len(file.name), file))
    return {
        folder: [file for file in files if file.parent == folder] for folder in {file.parent: None for file in files}
    }


def summarise(results: Sequence[ComparisonResult]) -> dict[str, dict[str, Interval]]:
    """Compute means and 95 % intervals over seeds of every row, and of each row's gain over the first row.

    Returns:
        By the row's title, and by ``TITLE - FIRST`` for gains, whose intervals are those of paired differences. A
        measure that some seeds lack is left out: a test set may show no object of a class.

    Raises:
        UserError: If the results have different rows.
    """
    titles = list(results[0].rows)
    if any(list(one.rows) != titles for one in results):
        listed = "; ".join(f"seed {one.seed}: {', '.join(one.rows)}" for one in results)
        raise UserError(f"these results have different rows ({listed}), so they have no means: {HOW_TO_RECREATE}")
    first, *others = titles
    found = {title: _means([one.rows[title] for one in results]) for title in titles}
    for title in others:
        pairs = [(one.rows[title], one.rows[first]) for one in results]
        gains = [{key: value - base[key] for key, value in row.items() if key in base} for row, base in pairs]
        found[f"{title} - {first}"] = _means(gains)
    return found


def object_numbers(results: Sequence[ComparisonResult]) -> dict[str, ObjectNumbers]:
    """Collect the numbers of objects that average precisions rest on, by the measure's name, of the seeds that say."""
    names = dict.fromkeys(name for one in results for name in one.num_objects)
    numbers = {name: [one.num_objects[name] for one in results if name in one.num_objects] for name in names}
    return {name: ObjectNumbers(min(some), max(some)) for name, some in numbers.items()}


def notes_of(results: Sequence[ComparisonResult]) -> list[str]:
    """Return the notes of all seeds, each once."""
    return list(dict.fromkeys(note for one in results for note in one.notes))


def column_title(measure: str, numbers: Mapping[str, ObjectNumbers]) -> str:
    """Format a measure's name with the number of objects that it rests on, such as ``AP car/easy (37 objects)``."""
    return f"{measure} ({numbers[measure]})" if measure in numbers else measure


def rests_on_few(measure: str, numbers: Mapping[str, ObjectNumbers]) -> bool:
    """Return whether a measure rests on so few objects that it is shown in brackets."""
    return measure in numbers and numbers[measure].few


def markdown_table(
    summary: Mapping[str, Mapping[str, Interval]],
    numbers: Mapping[str, ObjectNumbers] = MappingProxyType({}),
    notes: Sequence[str] = (),
) -> str:
    """Format means and half the width of their intervals as a Markdown table, a line per row.

    Args:
        summary: Means and intervals by row and measure, see `summarise`.
        numbers: Numbers of objects by measure, see `object_numbers`: measures that rest on few stand in brackets.
        notes: Notes below the table.
    """
    columns = list(dict.fromkeys(name for found in summary.values() for name in found))
    titles = [column_title(name, numbers) for name in columns]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(columns) + 1) + "|"]
    for title, found in summary.items():
        cells = [_cell(found[name], rests_on_few(name, numbers)) if name in found else "" for name in columns]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    few = [FEW_OBJECTS] if any(rests_on_few(name, numbers) for name in columns) else []
    for note in (*few, *notes):
        lines += ["", note]
    return "\n".join(lines)


def _cell(found: Interval, few: bool) -> str:
    half = (found.high - found.low) / 2
    text = f"{found.value:.3f} ± {half:.3f}" if half > 0 else f"{found.value:.3f}"
    return f"({text})" if few else text


def _means(measured: Sequence[Measurements]) -> dict[str, Interval]:
    common = [key for key in measured[0] if all(key in one for one in measured)]
    return {key: mean_interval([one[key] for one in measured]) for key in common}
