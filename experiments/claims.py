"""The page of claims: each claim of README and docs with its command, seeds, what was chosen on what, and its numbers.

Usage: python experiments/claims.py

Writes docs/claims.md from experiments/claims.yaml and the kept results in results/. Numbers are computed from those
results and are never typed; a claim without kept results reads "not measured by this version yet".
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from kept import KEPT, kept_runs, seed_names

from ms2.core.configurations import read
from ms2.core.errors import UserError
from ms2.metrics.intervals import Interval, mean_interval
from ms2.metrics.results import load_results, summary_key

HERE = Path(__file__).parent
CLAIMS, PAGE = HERE / "claims.yaml", HERE.parent / "docs" / "claims.md"
EXACT_NUMBERS = "exact_numbers.json"
NOT_MEASURED = "Not measured by this version yet."
Values = Mapping[int, float]
"""A number by seed."""


@dataclass(frozen=True)
class Claim:
    """A claim and how it was measured.

    Attributes:
        title: Heading.
        claim: What is claimed.
        said_in: Links to where it is said, relative to the page.
        command: What makes the results.
        seeds: Seeds that are to be reported, all of them.
        chosen: What was chosen on what.
        numbers: Key of the summary, without its row, by title.
        rows: Where each row's numbers are kept, by title: a configuration and a row of its results; or a file of
            studies and ``PART / ROW``, where ``*`` stands for any text: the best of those rows, of most seeds.
        lower: Title of the row that a row is claimed to be lower than, by title.
    """

    title: str
    claim: str
    said_in: Mapping[str, str]
    command: str
    seeds: Sequence[int]
    chosen: str
    numbers: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    lower: Mapping[str, str] = field(default_factory=dict)


def read_claims(path: Path = CLAIMS) -> tuple[str, list[Claim]]:
    """Read the introduction and the claims.

    Raises:
        UserError: If a claim compares rows that it does not have.
    """
    content = read(path)
    claims = [Claim(**one) for one in content["claims"]]
    for claim in claims:
        unknown = {*claim.lower, *claim.lower.values()} - set(claim.rows)
        if unknown:
            raise UserError(f"{path}: {claim.title!r} compares {', '.join(sorted(unknown))}, which are no rows of it")
    return content["introduction"], claims


def values(kept: Path, source: Sequence[str], number: str) -> Values:
    """Read a number of a row by seed; empty where nothing is kept, or the row does not have it."""
    name, row = source
    if name == EXACT_NUMBERS:
        path = kept / name
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        summary = {"mean": lambda numbers: sum(numbers) / len(numbers), "max": max}[number]
        return {int(seed): float(summary(list(numbers.values()))) for seed, numbers in found.items()}
    if name.endswith(".json"):
        return {seed: one[number] for seed, one in study_row(kept / name, row).items() if number in one}
    summaries = {seed: summary_of(run / "metrics.json") for seed, run in kept_runs(name, folder=kept).items()}
    key = summary_key(number, row)
    return {seed: summary[key] for seed, summary in summaries.items() if key in summary}


@cache
def summary_of(path: Path) -> Mapping[str, float]:
    """Read the summary of a run, once for all of its numbers."""
    return load_results(path).summary


def study_row(path: Path, pattern: str) -> dict[int, Mapping[str, float]]:
    """Read the kept numbers of a study's row by seed: of most seeds, then of the lowest mean score."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}
    rows: dict[str, dict[int, Mapping[str, float]]] = {}
    for key, numbers in runs.items():
        row, _, seed = key.rpartition(" / ")
        if fnmatchcase(row, pattern):
            rows.setdefault(row, {})[int(seed)] = numbers
    return min(rows.values(), key=lambda one: (-len(one), sum(n["score"] for n in one.values()) / len(one)), default={})


def page(kept: Path = KEPT, path: Path = CLAIMS) -> str:
    """Write the page."""
    introduction, claims = read_claims(path)
    lines = [
        "# What we claim and how it was measured",
        "",
        "<!-- Written by experiments/claims.py from experiments/claims.yaml and results/: change those. -->",
        "",
        introduction.strip(),
    ]
    for claim in claims:
        lines += ["", *section(claim, kept)]
    return "\n".join(lines) + "\n"


def section(claim: Claim, kept: Path) -> Iterator[str]:
    """Yield the lines of a claim."""
    yield from (f"## {claim.title}", "", claim.claim.strip(), "")
    yield f"- Said in {', '.join(f'[{name}]({link})' for name, link in claim.said_in.items())}."
    yield f"- Command: `{claim.command}`"
    yield f"- Chosen on what: {claim.chosen.strip()}"
    found = {
        row: {title: values(kept, source, number) for title, number in claim.numbers.items()}
        for row, source in claim.rows.items()
    }
    if not any(one for row in found.values() for one in row.values()):
        yield f"- {NOT_MEASURED} Seeds to be reported: {seed_names(list(claim.seeds))}."
        return
    check(claim, found)
    yield f"- Seeds: {measured_seeds(claim, found)}."
    yield from ("", *table(claim, found))


def measured_seeds(claim: Claim, found: Mapping[str, Mapping[str, Values]]) -> str:
    """Say which seeds are measured and which are not; of each configuration, where they differ."""
    seeds: dict[str, set[int]] = {}
    for row, (name, study) in claim.rows.items():
        source = row if study and name.endswith(".json") else name
        seeds.setdefault(source, set()).update(seed for one in found[row].values() for seed in one)

    def said(some: set[int]) -> str:
        missing = set(claim.seeds) - some
        if not some:
            return "none yet"
        rest = f"not measured yet: {seed_names(list(missing))}" if missing else "all of them"
        return f"{seed_names(list(some))}, {rest}"

    if len({frozenset(some) for some in seeds.values()}) == 1:
        return said(next(iter(seeds.values())))
    return "; ".join(f"{source}: {said(some)}" for source, some in seeds.items())


def check(claim: Claim, found: Mapping[str, Mapping[str, Values]]) -> None:
    """Check that rows with results have all numbers that are compared, of seeds that are to be reported.

    Raises:
        UserError: If one is missing, or a seed is kept that is not to be reported.
    """
    for row in {*claim.lower, *claim.lower.values()}:
        for title, one in found[row].items():
            if not one:
                raise UserError(f"{claim.title!r}: there are kept results, but none has {title!r} of the row {row!r}")
    extra = {seed for row in found.values() for one in row.values() for seed in one} - set(claim.seeds)
    if extra:
        raise UserError(f"{claim.title!r}: seeds {seed_names(list(extra))} are kept, and are not among its seeds")


def table(claim: Claim, found: Mapping[str, Mapping[str, Values]]) -> Iterator[str]:
    """Yield a table of means with intervals, with the worst seed of rows that are claimed to be lower than others."""
    columns = [title for row in claim.rows for title in ([row, f"{row}: worst"] if row in claim.lower else [row])]
    columns += [f"{row} below {other}" for row, other in claim.lower.items()]
    yield f"| | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for title in claim.numbers:
        cells = [title]
        for row in claim.rows:
            one = found[row][title]
            cells += [cell(one), *([shown(max(one.values())) if one else ""] if row in claim.lower else [])]
        cells += [verdict(found[row][title], found[other][title]) for row, other in claim.lower.items()]
        yield f"| {' | '.join(cells)} |"


def cell(one: Values) -> str:
    """Format the mean and the interval of a number over seeds; empty if there is none."""
    if not one:
        return ""
    interval = interval_of(one)
    return shown(interval.value) + (f" ± {shown(interval.high - interval.value)}" if len(one) > 1 else "")


def shown(number: float) -> str:
    """Format a number with three digits behind the point, fewer where it is large."""
    return f"{number:.3f}" if abs(number) < 10 else f"{number:.2f}" if abs(number) < 100 else f"{number:.0f}"


def verdict(ours: Values, other: Values) -> str:
    """Say in how many of the seeds that both have a number is lower, and whether both intervals are apart."""
    both = sorted(set(ours) & set(other))
    said = f"{sum(ours[seed] < other[seed] for seed in both)} of {len(both)} seeds"
    if len(ours) < 2 or len(other) < 2:
        return said
    mine, theirs = interval_of(ours), interval_of(other)
    if theirs.high < mine.low:
        return f"{said}, intervals apart the other way"
    return f"{said}, intervals {'apart' if mine.high < theirs.low else 'overlap'}"


def interval_of(one: Values) -> Interval:
    """Compute the mean and the 95 % interval over seeds."""
    return mean_interval([one[seed] for seed in sorted(one)])


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
