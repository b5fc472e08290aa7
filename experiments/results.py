"""The results tables of the README: every configuration of a world with three seeds, each run through the command line.

Usage: python experiments/results.py multimnist|aerial2d|driving|kitti [CONFIG ...] [OPTIONS], see --help

A seed stands for everything that is drawn: the target's images (and its hidden distribution, where that is drawn too),
the extractor's training, pretraining, and learning. Runs that are finished are not run again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ms2.metrics.intervals import mean_interval

SEEDS = (0, 1, 2)
RUNS = Path("runs")


class Experiment(NamedTuple):
    """What is run on a world, and what is told of it.

    Attributes:
        configs: Titles of the rows by the ending of their configuration's name.
        columns: Titles by the key in ``metrics.json``.
        references: Titles of rows that every run measures, by the ending of their keys.
        settings: Further settings of each seed's run.
        attributes: Titles of further columns of runs that learn parameters, by the key in ``metrics.json``.
    """

    configs: Mapping[str, str]
    columns: Mapping[str, str]
    references: Mapping[str, str]
    settings: Mapping[int, Mapping[str, str]]
    attributes: Mapping[str, str] = {}


MNIST = {
    "world.renderer.source": "mnist",
    "world.renderer.digit_size": "10",
    "world.renderer.canvas_size": "128",
    "extractor.max_steps": "6000",
    "extractor.parameter_prior": "UniformPlacement",
    "extractor.parameter_prior.row_fraction": "0.5",
}
"""Real digits are harder to read than scikit-learn's: at 8 pixels they are taken for one another, and extractors that
never saw a row of them miscount those that stand side by side."""

EXPERIMENTS = {
    "multimnist": Experiment(
        configs={"quick": "default", "paper": "paper mode", "mmd": "batch MMD (Fig. 7)"},
        columns={"count_tv": "count TV", "class_tv": "class TV"},
        references={"_prior": "prior", "_pcfg_oracle": "best PCFG (sees the labels)", "_noise_floor": "noise floor"},
        # irregular hidden distributions, far from the prior in number and class
        settings={
            s: {"data.target.init_args.seed": str(s), "data.target.init_args.structure_prior.init_args.seed": str(t)}
            for s, t in ((0, 13), (1, 3), (2, 4))
        },
        attributes={"x_w1": "x", "y_w1": "y"},
    ),
    "aerial2d": Experiment(
        configs={"quick": "default", "paper": "paper mode", "mmd": "batch MMD"},
        columns={
            "roads_tv": "roads TV",
            "cars_road1_mean": "cars on road 1",
            "cars_other_mean": "cars on others",
            "cars_road1_tv": "road 1 TV",
            "cars_other_tv": "others TV",
            "joint_distance": "joint distance",
        },
        references={
            "_target": "target",
            "_prior": "prior",
            "_pcfg_oracle": "best PCFG (sees the labels)",
            "_noise_floor": "noise floor",
        },
        settings={seed: {"data.target.init_args.seed": str(seed)} for seed in SEEDS},
        attributes={"heading_w1": "heading (°)", "gap_w1": "gap (m)"},
    ),
    "driving": Experiment(
        configs={"quick": "default"},
        columns={
            f"{things}_tv": f"{things} TV"
            for things in ("cars", "trucks", "pedestrians", "trees", "buildings", "class")
        },
        references={"_prior": "prior", "_pcfg_oracle": "best PCFG (sees the labels)", "_noise_floor": "noise floor"},
        settings={
            s: {"data.target.init_args.seed": str(s), "data.target.init_args.structure_prior.init_args.seed": str(t)}
            for s, t in ((0, 1), (1, 2), (2, 3))
        },
        attributes={f"{name}_w1": name for name in ("exposure", "contrast", "saturation", "haze")},
    ),
    "kitti": Experiment(
        configs={"quick": "default"},
        columns={"cars_tv": "cars TV", "cars_mean": "cars", "kid": "KID", "fid": "FID"},
        references={"_target": "KITTI", "_prior": "prior", "_noise_floor": "noise floor"},
        settings={seed: {} for seed in SEEDS},
    ),
    "digits": Experiment(
        configs={"rotated": "turned", "translated": "turned and moved"},
        columns={},
        references={},
        settings={seed: {"data.target.init_args.seed": str(seed)} for seed in SEEDS},
        attributes={"angle_w1": "angle (°)", "x_w1": "x", "y_w1": "y"},
    ),
}
PARAMETERS = ("parameters", "rotated", "translated")
"""Configurations that learn parameters, and have a table of their own: a row for each part that is learned."""
ROWS = {
    "_prior": ("prior", "prior"),
    "_learned_parameters": ("prior", "learned"),
    "_learned_structure": ("learned", "prior"),
    "": ("learned", "learned"),
}
"""Where structure and parameters come from, by the ending of the keys in ``metrics.json``."""
ALONE = {"_prior": ("prior", "prior"), "": ("prior", "learned")}
"""The same where parameters alone are learned."""
REALISM = {
    "class_path": "ImageDistances",
    "init_args": {
        "features": {
            "class_path": "Backbone",
            "init_args": {
                "architecture": "squeezenet1_1",
                "layer": "features.12",
                "weights": "$MS2_DATA/weights/squeezenet1_1_imagenet.pt",
            },
        },
        "num_images": 500,
    },
}
"""What KID and FID are measured with where parameters are learned, if the weights are there."""


def run(world: str, config: str, seed: int, mnist: str | None) -> None:
    """One run, unless it is there."""
    settings = dict(EXPERIMENTS[world].settings[seed])
    if mnist:
        settings |= MNIST | {"world.renderer.mnist_root": mnist}
    if config == "parameters" and "MS2_DATA" in os.environ:
        settings["model.image_distances"] = json.dumps(REALISM)
    command = [
        *(sys.executable, "-m", "ms2", "fit", "--config", f"{world}_{config}"),
        *("--name", run_name(world, config, seed, mnist), "--seed_everything", str(seed)),
        *(word for key, value in settings.items() for word in (f"--{key}", value)),
    ]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def run_name(world: str, config: str, seed: int, mnist: str | None) -> str:
    """Name of a run."""
    return f"table_{world}_{config}{'_mnist' if mnist else ''}_seed{seed}"


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over seeds."""
    found = mean_interval(values)
    return f"{found.value:.3f}" + (f" ± {found.high - found.value:.3f}" if len(values) > 1 else "")


def table(world: str, configs: list[str], mnist: str | None) -> str:
    """Markdown of the finished runs."""
    experiment = EXPERIMENTS[world]
    lines: list[str] = []
    for config in (config for config in configs if config in PARAMETERS):
        lines += [*parameter_table(world, config), ""]
    configs = [config for config in configs if config not in PARAMETERS]
    if not configs:
        return "\n".join(lines)
    lines += [
        f"| | {' | '.join(experiment.columns.values())} | seconds | seeds |",
        "|---" * (len(experiment.columns) + 3) + "|",
    ]
    for config in configs:
        files = [RUNS / run_name(world, config, seed, mnist) / "metrics.json" for seed in SEEDS]
        found = [json.loads(file.read_text()) for file in files if file.exists()]
        if not found:
            continue
        if config == configs[0]:
            lines += [row(title, found, experiment, ending) for ending, title in experiment.references.items()]
        lines.append(row(experiment.configs[config], found, experiment))
    return "\n".join(lines)


def parameter_table(world: str, config: str) -> list[str]:
    """Markdown of runs that learned parameters: the shape of the paper's Tables 1 and 2."""
    experiment = EXPERIMENTS[world]
    files = [RUNS / run_name(world, config, seed, None) / "metrics.json" for seed in SEEDS]
    found = [json.loads(file.read_text()) for file in files if file.exists()]
    if not found:
        return []
    columns = {**experiment.columns, **experiment.attributes, "kid": "KID", "fid": "FID"}
    columns = {key: title for key, title in columns.items() if key in found[0]}
    lines = [f"| structure | parameters | {' | '.join(columns.values())} |", "|---" * (len(columns) + 2) + "|"]
    both = any(key.endswith("_learned_structure") for key in found[0])
    for ending, (structure, parameters) in (ROWS if both else ALONE).items():
        cells = []
        for key in columns:
            # what structure is like does not depend on parameters
            of_structure = key in experiment.columns
            own = ("_prior" if structure == "prior" else "") if of_structure else ending
            known = [m[key + own] for m in found if key + own in m]
            cells.append(interval(known) if known else "")
        if any(cells[len(experiment.columns) :]):
            lines.append(f"| {structure} | {parameters} | {' | '.join(cells)} |")
    seconds = sum(m["seconds_total"] for m in found) / len(found)
    return [*lines, "", f"{len(found)} seeds, {seconds:.0f} seconds each."]


def row(title: str, found: list[dict[str, Any]], experiment: Experiment, ending: str = "") -> str:
    """One row: mean and interval of each column, where it was measured."""
    cells = [
        interval([m[key + ending] for m in found]) if key + ending in found[0] else "" for key in experiment.columns
    ]
    seconds = "" if ending else f"{sum(m['seconds_total'] for m in found) / len(found):.0f}"
    return f"| {title} | {' | '.join(cells)} | {seconds} | {len(found)} |"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=list(EXPERIMENTS), help="whose table")
    parser.add_argument("configs", nargs="*", help="some of quick, paper, mmd, parameters")
    parser.add_argument("--mnist", help="folder that holds MNIST/raw: use the real MNIST digits")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS, help="run these seeds only")
    parser.add_argument("--table-only", action="store_true", help="only print the table of the runs there are")
    args = parser.parse_args()
    configs = args.configs or list(EXPERIMENTS[args.world].configs)
    if not args.table_only:
        for config in configs:
            for seed in args.seeds:
                run(args.world, config, seed, args.mnist)
    print(table(args.world, configs, args.mnist))


if __name__ == "__main__":
    main()
