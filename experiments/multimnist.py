"""The results table of MultiMNIST: every configuration with three seeds, each run through the command line.

Usage: python experiments/multimnist.py [CONFIG ...] [--mnist FOLDER] [--seeds SEED ...] [--table-only]

A seed stands for everything that is drawn: the hidden target distribution, its images, the extractor's training,
pretraining, and learning. Runs that are finished are not run again.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

TARGETS = {0: 13, 1: 3, 2: 4}
"""Seed of the hidden distribution by seed of the run: irregular ones, far from the prior in number and class."""

CONFIGS = {"quick": "default", "paper": "paper mode", "mmd": "batch MMD (Fig. 7)"}
RUNS = Path("runs")
T_95 = 4.303
"""Student's t for a 95 % interval of the mean of three."""


def run(config: str, seed: int, mnist: str | None) -> None:
    """One run, unless it is there."""
    name = run_name(config, seed, mnist)
    digits = ["--world.renderer.digits", "mnist", "--world.renderer.digits_root", mnist] if mnist else []
    command = [
        *(sys.executable, "-m", "ms2", "fit", "--config", f"configs/multimnist_{config}.yaml", "--name", name),
        *("--seed_everything", str(seed), "--data.target.init_args.seed", str(seed)),
        *("--data.target.init_args.prior.init_args.seed", str(TARGETS[seed])),
        *digits,
    ]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def run_name(config: str, seed: int, mnist: str | None) -> str:
    """Name of a run."""
    return f"table_{config}{'_mnist' if mnist else ''}_seed{seed}"


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over seeds."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return f"{mean:.3f} ± {(T_95 if len(values) == 3 else 1.96) * deviation / math.sqrt(len(values)):.3f}"


def table(configs: list[str], mnist: str | None) -> str:
    """Markdown of the finished runs."""
    lines = ["| | count TV | class TV | seconds | seeds |", "|---|---|---|---|---|"]
    for config in configs:
        files = [RUNS / run_name(config, seed, mnist) / "metrics.json" for seed in TARGETS]
        found = [json.loads(file.read_text()) for file in files if file.exists()]
        if not found:
            continue
        if len(lines) == 2:
            for row, ending in (("prior", "_prior"), ("noise floor", "_noise_floor")):
                count, classes = ([m[f"{what}_tv{ending}"] for m in found] for what in ("count", "class"))
                lines.append(f"| {row} | {interval(count)} | {interval(classes)} | | {len(found)} |")
        count, classes, seconds = ([m[key] for m in found] for key in ("count_tv", "class_tv", "seconds_total"))
        time = f"{sum(seconds) / len(seconds):.0f}"
        lines.append(f"| {CONFIGS[config]} | {interval(count)} | {interval(classes)} | {time} | {len(found)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=list(CONFIGS), help=f"some of {', '.join(CONFIGS)}")
    parser.add_argument("--mnist", help="folder that holds MNIST/raw: use the real MNIST")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(TARGETS), help="run these seeds only")
    parser.add_argument("--table-only", action="store_true", help="only print the table of the runs there are")
    args = parser.parse_args()
    if not args.table_only:
        for config in args.configs:
            for seed in args.seeds:
                run(config, seed, args.mnist)
    print(table(args.configs, args.mnist))


if __name__ == "__main__":
    main()
