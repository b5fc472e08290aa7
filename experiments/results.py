"""The results tables: every configuration of a world with several seeds, each run through the command line.

Usage: python experiments/results.py multimnist|aerial2d|driving|kitti|digits [CONFIG ...] [OPTIONS], see --help

What is run and shown stands in experiments/tables.yaml. A seed stands for everything that is drawn: the target's images
(and its hidden distribution, where that is drawn too), the extractor's training, pretraining, and learning. The numbers
and settings of finished runs are kept in results/, which tables are built from; those runs are not run again, unless
their folder there is removed.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ms2.core.configurations import read
from ms2.features.channel import reading_quality
from ms2.learning.probe import READING_COLUMNS, reading_cells, shown
from ms2.metrics.intervals import mean_interval
from ms2.metrics.results import LEARNED, NOISE_FLOOR, PRIOR, Results, load_results, summary_key

HERE = Path(__file__).parent
RUNS, KEPT = Path("runs"), HERE.parent / "results"
FILES = ("metrics.json", "histograms.json", "config.yaml")
"""Files of a finished run that are kept."""
REAL_DIGITS, IMAGE_DISTANCES = HERE / "real_digits.yaml", HERE / "image_distances.yaml"
BOTH = {
    PRIOR: ("prior", "prior"),
    "learned_parameters": ("prior", "learned"),
    "learned_structure": ("learned", "prior"),
    LEARNED: ("learned", "learned"),
}
"""Where structure and parameters come from in each row of results."""
PARAMETERS_ALONE = {PRIOR: ("prior", "prior"), LEARNED: ("prior", "learned")}
"""The same where parameters alone are learned."""


def words(settings: Mapping[str, Any], key: str = "-") -> Iterator[str]:
    """Yield nested settings as words of a command line."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from words(value, f"{key}{'.' if key != '-' else '-'}{name}")
        else:
            yield from (f"{key}{'.' if key != '-' else '-'}{name}", str(value))


def run(world: str, table: Mapping[str, Any], config: str, seed: int, mnist: str | None) -> None:
    """Train a configuration with a seed, and keep its results, unless they are kept."""
    name = run_name(world, config, seed, mnist)
    if (KEPT / name / FILES[0]).exists():
        return
    configs = [f"{world}_{config}"]
    if mnist:
        configs.append(str(REAL_DIGITS))
    if config in table["parameters"] and "MS2_DATA" in os.environ:
        configs.append(str(IMAGE_DISTANCES))
    command = [
        *(sys.executable, "-m", "ms2", "fit", *(word for path in configs for word in ("--config", path))),
        *("--name", name, "--seed_everything", str(seed)),
        *words(table["seeds"][seed]),
        *(("--world.renderer.init_args.mnist_root", mnist) if mnist else ()),
    ]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copy(RUNS / name / file, KEPT / name / file)


def run_name(world: str, config: str, seed: int, mnist: str | None) -> str:
    """Name a run."""
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
    values = [value for results in found if (value := number(results, column, row)) is not None]
    if not values:
        return ""
    interval = mean_interval(values)
    return f"{interval.value:.3f}" + (f" ± {interval.high - interval.value:.3f}" if len(values) > 1 else "")


def seconds(found: Sequence[Results]) -> str:
    """Format the mean duration of runs."""
    return f"{sum(results.seconds['total'] for results in found) / len(found):.0f}"


def line(*cells: object) -> str:
    """Format a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def structure_table(world: str, table: Mapping[str, Any], configs: Sequence[str], mnist: str | None) -> list[str]:
    """Format the runs that learned structure: a row for each configuration, below those that every run measures."""
    columns: Mapping[str, str] = table["columns"]
    lines = [line("", *columns, "seconds", "seeds"), "|---" * (len(columns) + 3) + "|"]
    for config in configs:
        found = finished(world, config, list(table["seeds"]), mnist)
        if found and len(lines) == 2:
            for row, title in table["references"].items():
                lines.append(line(title, *(cell(found, column, row) for column in columns.values()), "", len(found)))
        if found:
            cells = [cell(found, column, LEARNED) for column in columns.values()]
            lines.append(line(table["experiments"][config], *cells, seconds(found), len(found)))
    return lines


def number_table(found: Sequence[Results], names: Sequence[str]) -> list[str]:
    """Format distances of numbers one by one: means with intervals, and the worst run's."""
    titles = [f"{space}: {row}" for space in ("there", "visible") for row in ("prior", "learned", "worst", "floor")]
    lines = [line("", *titles), "|---" * (len(titles) + 1) + "|"]
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
    lines = [line("", *READING_COLUMNS, ""), "|---" * (len(READING_COLUMNS) + 2) + "|"]
    readings = [shown(next(iter(one.stages["extractor"].probes.values())).readings) for one in found]
    for key, name in zip(readings[0], names, strict=True):
        some = [one[key] for one in readings]
        values = (
            "bias",
            "deviation",
            "correlation",
            "information",
            "entropy",
            "structure_information",
            "structure_entropy",
        )
        mean = replace(some[0], **{value: sum(getattr(one, value) for one in some) / len(some) for value in values})
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
    lines = [line("structure", "parameters", *columns), "|---" * (len(columns) + 2) + "|"]
    both = any("learned_structure" in s.distances[s.main] for s in found[0].attributes.values())
    for row, (structure, parameters) in (BOTH if both else PARAMETERS_ALONE).items():
        # structure does not depend on how parameters are drawn
        rows = [(PRIOR if structure == "prior" else LEARNED) if title in of_structure else row for title in columns]
        cells = [cell(found, column, own) for column, own in zip(columns.values(), rows, strict=True)]
        if any(text for title, text in zip(columns, cells, strict=True) if title not in of_structure):
            lines.append(line(structure, parameters, *cells))
    return [*lines, "", f"{len(found)} seeds, {seconds(found)} seconds each."]


def main() -> None:
    """Run what is missing, then print the tables."""
    tables = read(HERE / "tables.yaml")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=list(tables), help="whose table")
    parser.add_argument("configs", nargs="*", help="some of quick, paper, mmd, parameters, rotated, translated")
    parser.add_argument("--mnist", help="folder that holds MNIST/raw: use the real MNIST digits")
    parser.add_argument("--seeds", nargs="*", type=int, help="run these seeds only")
    parser.add_argument("--table-only", action="store_true", help="only print the tables of the runs there are")
    args = parser.parse_args()
    table = tables[args.world]
    configs = args.configs or list(table["experiments"]) or table["parameters"]
    if not args.table_only:
        for config in configs:
            for seed in table["seeds"] if args.seeds is None else args.seeds:
                run(args.world, table, config, seed, args.mnist)
    for config in configs:
        if config in table["parameters"]:
            print(*parameter_table(args.world, table, config), "", sep="\n")
    of_structure = [config for config in configs if config not in table["parameters"]]
    if of_structure:
        print(*structure_table(args.world, table, of_structure, args.mnist), sep="\n")
    for config in of_structure if "numbers" in table else ():
        runs = finished(args.world, config, list(table["seeds"]), args.mnist)
        if runs:
            print("", *number_table(runs, table["numbers"]), "", *reading_table(runs, table["numbers"]), sep="\n")


if __name__ == "__main__":
    main()
