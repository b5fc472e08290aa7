"""The results tables: runs what is missing through the command line, then prints the tables.

Usage: python experiments/results.py multimnist|aerial2d|driving|kitti|digits [CONFIG ...] [OPTIONS]
       python experiments/results.py ablation|search [PART ...] [OPTIONS], see --help

What is run and shown stands in experiments/tables.yaml, ablation.yaml and search.yaml. A seed stands for everything
that is drawn: the target's images (and its hidden distribution, where that is drawn too), the extractor's training,
pretraining, and learning. What tables need of finished runs is kept in results/: those runs are not run again, unless
it is removed there.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import claims
from running import KEPT, RUNS, Kept, WorldRun, check_run, run_all, run_study, run_world
from studies import Chosen, Study
from tables import row_titles, run_name, study_tables, world_tables, write_tables

from ms2.core.configurations import merge, read
from ms2.core.errors import UserError, suggest

HERE = Path(__file__).parent
REAL_DIGITS, IMAGE_DISTANCES = HERE / "real_digits.yaml", HERE / "image_distances.yaml"
STUDIES = ("ablation", "search")


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables; return 1 if a run failed."""
    worlds = read(HERE / "tables.yaml")
    args = arguments(list(worlds)).parse_args(words)
    try:
        work = study if args.table in STUDIES else world
        failed, tables = work(args, worlds)
    except UserError as error:
        print(f"results: {error}", file=sys.stderr)
        return 2
    for name, lines in tables.items():
        print(f"\n{name}\n", *lines, sep="\n")
    if args.write:
        written = write_tables(sorted((HERE.parent / "docs").rglob("*.md")), tables)
        claims.main()
        print(f"\nwritten into docs: {', '.join([*written, 'claims.md'])}")
    print(*(f"failed: {what}" for what in failed), sep="\n", file=sys.stderr, end="\n" if failed else "")
    return int(bool(failed))


def arguments(worlds: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("table", choices=[*worlds, *STUDIES], help="a world's table, or a study")
    add(
        "names", nargs="*", metavar="NAME", help="some of a world's configurations, or parts of a study; all by default"
    )
    add("--mnist", help="folder that holds MNIST/raw: use the real MNIST digits")
    add("--seeds", nargs="*", type=int, help="run these seeds only")
    add("--rows", nargs="*", default=[], metavar="PATTERN", help="run these rows of a study only, such as 'default*'")
    add("--jobs", type=int, default=1, help="runs at a time, each with one thread")
    add("--check", action="store_true", help="only check the settings of a study's rows, without any training")
    add("--table-only", action="store_true", help="only print the tables of the runs there are")
    add("--write", action="store_true", help="write the tables between their markers in docs, and the page of claims")
    return parser


def study(args: argparse.Namespace, worlds: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Run what is missing of a study, until nothing more is wanted; return what failed, and the tables."""
    kept = Kept(KEPT / f"{args.table}.json")
    found = Study(args.table, Chosen(args.names, args.rows, args.seeds))
    runs = found.wanted(kept)
    if args.check:
        first = list({(run.part, run.row): run for run in reversed(runs)}.values())[::-1]
        print(f"checking {len(first)} rows", flush=True)
        return run_all(first, check_run), {}
    failed: list[str] = []
    while not args.table_only and not failed and not all(map(kept.has, runs)):
        failed = run_study(runs, kept, args.jobs)
        runs = found.wanted(kept)  # results may decide what is run next
    every = Study(args.table, Chosen(args.names))
    return failed, {f"{args.table} {part}": lines for part, lines in study_tables(every, kept).items()}


def world(args: argparse.Namespace, worlds: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Run what is missing of a world's table; return what failed, and the table."""
    table = worlds[args.table]
    known = [*row_titles(table), *table["parameters"]]
    for name in args.names:
        if name not in known:
            raise UserError(f"the table of {args.table} has no configuration {name!r}. {suggest(name, known)}")
    configs = args.names or list(table["experiments"]) or table["parameters"]
    failed: list[str] = []
    if not args.table_only:
        runs = [
            world_run(args.table, table, config, seed, args.mnist)
            for config in configs
            for seed in (table["seeds"] if args.seeds is None else args.seeds)
        ]
        failed = run_all(runs, partial(run_world, folder=RUNS, kept=KEPT), args.jobs)
    source = [args.table, *(["mnist"] if args.mnist else [])]
    tables = world_tables(args.table, table, known, args.mnist)  # of all that is kept
    return failed, {" ".join([*source, name]).strip(): lines for name, lines in tables.items()}


def world_run(world: str, table: Mapping[str, Any], config: str, seed: int, mnist: str | None) -> WorldRun:
    """Return the run of a configuration with a seed."""
    configs, settings = [f"{world}_{config}"], table["seeds"][seed]
    if mnist:
        configs.append(str(REAL_DIGITS))
        settings = merge(settings, {"world": {"renderer": {"init_args": {"mnist_root": mnist}}}})
    if config in table["parameters"] and "MS2_DATA" in os.environ:
        configs.append(str(IMAGE_DISTANCES))
    return WorldRun(run_name(world, config, seed, mnist), configs, seed, settings)


if __name__ == "__main__":
    sys.exit(main())
