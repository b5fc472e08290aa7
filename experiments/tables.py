"""Markdown tables of what is kept in results/: means over seeds with 95 % intervals."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from running import KEPT, Kept
from studies import PAPER, Study, combinations, other_end, ranking

from ms2.features.channel import reading_quality
from ms2.learning.probe import READING_COLUMNS, reading_cells, shown
from ms2.metrics.intervals import mean_interval
from ms2.metrics.results import LEARNED, NOISE_FLOOR, PRIOR, Results, load_results, summary_key

BOTH = {
    PRIOR: ("prior", "prior"),
    "learned_parameters": ("prior", "learned"),
    "learned_structure": ("learned", "prior"),
    LEARNED: ("learned", "learned"),
}
"""Where structure and parameters come from in each row of results."""
PARAMETERS_ALONE = {PRIOR: ("prior", "prior"), LEARNED: ("prior", "learned")}
"""The same where parameters alone are learned."""
READING_VALUES = (
    "bias",
    "deviation",
    "correlation",
    "information",
    "entropy",
    "structure_information",
    "structure_entropy",
)
"""What is averaged over runs of the accuracy of readings."""


def line(*cells: object) -> str:
    """Format a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*titles: str) -> list[str]:
    """Format the head of a Markdown table."""
    return [line(*titles), "|---" * len(titles) + "|"]


def mean_cell(values: Sequence[float]) -> str:
    """Format the mean of values, with the 95 % interval where there are several; empty where there are none."""
    if not values:
        return ""
    interval = mean_interval(values)
    return f"{interval.value:.3f}" + (f" ± {interval.high - interval.value:.3f}" if len(values) > 1 else "")


# -- worlds --------------------------------------------------------------------------------------------


def run_name(world: str, config: str, seed: int, mnist: str | None) -> str:
    """Name a run of a world's table."""
    return f"{world}_{config}{'_mnist' if mnist else ''}_seed{seed}"


def finished(world: str, config: str, seeds: Sequence[int], mnist: str | None) -> list[Results]:
    """Read the results of a configuration's finished runs."""
    files = [KEPT / run_name(world, config, seed, mnist) / "metrics.json" for seed in seeds]
    return [load_results(file) for file in files if file.exists()]


def number(results: Results, column: str, row: str) -> float | None:
    """Return a number of a run: ``count.tv``, ``cars.mean`` or ``kid`` of a row; None if it was not measured."""
    return results.summary.get(summary_key(column.replace(".", "_"), row))


def measured(results: Results, column: str, row: str) -> float:
    """Return a number of a run, which must have been measured."""
    return results.summary[summary_key(column.replace(".", "_"), row)]


def cell(found: Sequence[Results], column: str, row: str) -> str:
    """Format the mean and the 95 % interval of a number over seeds; empty if it was not measured."""
    return mean_cell([value for results in found if (value := number(results, column, row)) is not None])


def seconds(found: Sequence[Results]) -> str:
    """Format the mean duration of runs."""
    return f"{sum(results.seconds['total'] for results in found) / len(found):.0f}"


def row_titles(table: Mapping[str, Any]) -> dict[str, str]:
    """Return the titles of a world's configurations that learn structure."""
    return {**table["experiments"], **table.get("large", {})}


def world_tables(
    world: str, table: Mapping[str, Any], configs: Sequence[str], mnist: str | None
) -> dict[str, list[str]]:
    """Format all tables of a world: that of structure, whose name is empty, and others by name."""
    found: dict[str, list[str]] = {}
    of_structure = [config for config in configs if config not in table["parameters"]]
    if of_structure:
        found[""] = structure_table(world, table, of_structure, mnist)
    for config in configs:
        if config in table["parameters"]:
            found[config] = parameter_table(world, table, config)
    for config in configs if "numbers" in table else ():
        runs = finished(world, config, list(table["seeds"]), mnist)
        if runs:
            found[f"{config} by class"] = number_table(runs, table["numbers"])
            found[f"{config} readings"] = reading_table(runs, table["numbers"])
    return {name: lines for name, lines in found.items() if len(lines) > 2}


def structure_table(world: str, table: Mapping[str, Any], configs: Sequence[str], mnist: str | None) -> list[str]:
    """Format the runs that learned structure: a row for each configuration, below those that every run measures."""
    columns: Mapping[str, str] = table["columns"]
    lines = head("", *columns, "seconds", "seeds")
    for config in configs:
        found = finished(world, config, list(table["seeds"]), mnist)
        if found and len(lines) == 2:
            for row, title in table["references"].items():
                lines.append(line(title, *(cell(found, column, row) for column in columns.values()), "", len(found)))
        if found:
            cells = [cell(found, column, LEARNED) for column in columns.values()]
            lines.append(line(row_titles(table)[config], *cells, seconds(found), len(found)))
    return lines


def number_table(found: Sequence[Results], names: Sequence[str]) -> list[str]:
    """Format distances of numbers one by one: means with intervals, and the worst run's."""
    titles = [f"{space}: {row}" for space in ("there", "visible") for row in ("prior", "learned", "worst", "floor")]
    lines = head("", *titles)
    worse: dict[str, int] = dict.fromkeys(("there", "visible"), 0)
    for name in [*names, "mean"]:
        cells = []
        for space, prefix in (("there", ""), ("visible", "visible_")):
            column = f"{prefix or 'structure_'}mean.tv" if name == "mean" else f"{prefix}{name}.tv"
            learned, prior = ([measured(one, column, row) for one in found] for row in (LEARNED, PRIOR))
            if name != "mean":
                worse[space] += sum(one > other for one, other in zip(learned, prior, strict=True))
            cells += [cell(found, column, PRIOR), cell(found, column, LEARNED), f"{max(learned):.3f}"]
            cells.append(cell(found, column, NOISE_FLOOR))
        lines.append(line(name, *cells))
    total = len(names) * len(found)
    ends = ", ".join(f"{count} of {total} of what is {space}" for space, count in worse.items())
    return [*lines, "", f"Farther from the target than the prior: {ends}."]


def reading_table(found: Sequence[Results], names: Sequence[str]) -> list[str]:
    """Format what extractors read of numbers, means over runs, and in how many it is called what."""
    lines = head("", *READING_COLUMNS, "")
    readings = [shown(next(iter(one.stages["extractor"].probes.values())).readings) for one in found]
    for key, name in zip(readings[0], names, strict=True):
        some = [one[key] for one in readings]
        mean = replace(some[0], **{v: sum(getattr(one, v) for one in some) / len(some) for v in READING_VALUES})
        fractions = ((one.structure_information / one.structure_entropy, one.information / one.entropy) for one in some)
        called = Counter(reading_quality(*pair) for pair in fractions)
        lines.append(line(name, *reading_cells(mean), ", ".join(f"{what} in {n}" for what, n in called.items())))
    return lines


def parameter_table(world: str, table: Mapping[str, Any], config: str) -> list[str]:
    """Format the runs that learned parameters, in the shape of the paper's Tables 1 and 2."""
    found = finished(world, config, list(table["seeds"]), None)
    if not found:
        return []
    of_structure: Mapping[str, str] = table["columns"]
    columns = {**of_structure, **table["attributes"]}
    columns = {title: column for title, column in columns.items() if cell(found, column, LEARNED)}
    lines = head("structure", "parameters", *columns)
    both = any("learned_structure" in s.distances[s.main] for s in found[0].attributes.values())
    for row, (structure, parameters) in (BOTH if both else PARAMETERS_ALONE).items():
        # structure does not depend on how parameters are drawn
        rows = [(PRIOR if structure == "prior" else LEARNED) if title in of_structure else row for title in columns]
        cells = [cell(found, column, own) for column, own in zip(columns.values(), rows, strict=True)]
        if any(text for title, text in zip(columns, cells, strict=True) if title not in of_structure):
            lines.append(line(structure, parameters, *cells))
    return [*lines, "", f"{len(found)} seed{'s' * (len(found) > 1)}, {seconds(found)} seconds each."]


# -- studies -------------------------------------------------------------------------------------------


def study_tables(study: Study, kept: Kept) -> dict[str, list[str]]:
    """Format the table of each part that has results, by name of the part."""
    found = {}
    for part, settings in study.parts.items():
        rows = search_rows(part, settings, kept) if "rounds" in settings else ablation_lines(study, part, kept)
        if rows:
            found[part] = rows
    return found


def references(part: str, settings: Mapping[str, Any], kept: Kept, seeds: Sequence[int], blanks: int) -> list[str]:
    """Format prior and noise floor, each a mean over seeds, which all rows of a part share."""
    lines = []
    for row in (PRIOR, NOISE_FLOOR):
        cells = []
        for column in settings["columns"].values():
            key = summary_key(column, row)
            by_seed = [kept.of_seed(part, seed) for seed in seeds]
            values = [[one[key] for one in runs if key in one] for runs in by_seed]
            cells.append(mean_cell([sum(some) / len(some) for some in values if some]))
        lines.append(line(row.replace("_", " "), *cells, *[""] * blanks))
    return lines


def ablation_lines(study: Study, part: str, kept: Kept) -> list[str]:
    """Format a part of the ablation: a row for each of its rows with results."""
    settings, columns = study.parts[part], study.parts[part]["columns"]
    rows = list(dict.fromkeys(run.row for run in study.runs(part, kept)))
    found = {row: runs for row in rows if (runs := kept.of(part, row))}
    if not found:
        return []
    reach = settings["reach"]["below"]
    lines = head("", *columns, f"steps to {reach:g}", f"seconds to {reach:g}", "seconds in all", "seeds")
    lines += references(part, settings, kept, settings["seeds"], 4)
    for row, every in found.items():
        runs, number = finished_of(every)
        cells = [mean_cell([one[column] for one in runs]) for column in columns.values()]
        total = f"{sum(one['seconds'] for one in runs) / len(runs):.0f}" if runs else ""
        title = f"**{row}**" if row in (PAPER, other_end(settings)) else row
        lines.append(line(title, *cells, *reached_cells(runs), total, number))
    return lines


def finished_of(runs: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], str]:
    """Return the runs that did not diverge, and how many there are and did."""
    found = [one for one in runs if not one.get("diverged")]
    diverged = len(runs) - len(found)
    return found, f"{len(runs)}, of which {diverged} diverged" if diverged else str(len(runs))


def reached_cells(runs: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Format mean steps and seconds to the first good validation, over the runs that had one."""
    there = [one for one in runs if one["reached"] is not None]
    if not there:
        return "not reached", ""
    some = "" if len(there) == len(runs) else f" ({len(there)} of {len(runs)} seeds)"
    steps = sum(one["reached"] for one in there) / len(there)
    time = sum(one["seconds"] * one["reached"] / one["steps"] for one in there) / len(there)
    return f"{steps:.0f}{some}", f"{time:.0f}{some}"


def search_rows(part: str, settings: Mapping[str, Any], kept: Kept) -> list[str]:
    """Format the best combinations of each method, those of its last round with results, the best first."""
    columns, grid, last = settings["columns"], combinations(settings["grid"]), settings["rounds"][-1]["seeds"]
    lines = head("method", "settings", *columns, "seeds")
    lines += [f"| {text[2:]}" for text in _shifted(references(part, settings, kept, last, 1))]
    best = []
    for method in settings["methods"]:
        order = ranking(part, method, grid, last, kept)
        most = max((len(kept.of(part, f"{method}: {title}")) for title in order), default=0)
        order = [title for title in order if len(kept.of(part, f"{method}: {title}")) == most]
        for title in order[: settings["rounds"][0]["keep"]]:
            runs, number = finished_of(kept.of(part, f"{method}: {title}"))
            cells = [mean_cell([one[column] for one in runs]) for column in columns.values()]
            lines.append(line(method, title, *cells, number))
        best += [f"{method} ({order[0]})"] if order else []
    return [*lines, "", f"The best: {'; '.join(best)}."] if best else []


def _shifted(lines: Sequence[str]) -> list[str]:
    """Insert an empty second cell into rows of a table."""
    return [re.sub(r"^\| ([^|]*) \|", r"| \1 |  |", text) for text in lines]


# -- pages ---------------------------------------------------------------------------------------------


def write_tables(pages: Sequence[Path], tables: Mapping[str, Sequence[str]]) -> list[str]:
    """Put tables between the markers of their names in pages, and return the names that a page has.

    The markers are comments on lines of their own: ``<!-- table: ablation multimnist -->`` and ``<!-- end -->``.
    """
    written = []

    def replaced(match: re.Match[str]) -> str:
        name = match[2]
        if name not in tables:
            return match[0]
        written.append(name)
        return f"{match[1]}\n\n" + "\n".join(tables[name]) + f"\n\n{match[4]}"

    for page in pages:
        text = page.read_text(encoding="utf-8")
        new = re.sub(r"^(<!-- table: (.+?) -->)\n(.*?)^(<!-- end -->)", replaced, text, flags=re.M | re.S)
        if new != text:
            page.write_text(new, encoding="utf-8")
    return written
