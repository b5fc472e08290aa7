"""Learns structure from images alone, grammar included: extractor, 'ms2 induce', 'ms2 fit', and what it ends at.

Beside it, the same distances of the experiment with the hand-written grammar, where its run is there.

Usage: python experiments/from_images.py aerial2d|multimnist [SEED ...]
"""

import sys
from pathlib import Path

from running import RUNS

from ms2.cli.commands import main
from ms2.metrics.results import load_results

MEASURED = {"aerial2d": "joint_energy", "multimnist": "count_tv"}
"""By world, the distance that is compared."""


def learn(world: str, seed: int) -> Path:
    """Run all three commands; return the folder of the last run."""
    read, induced = f"{world}_images_seed{seed}", f"{world}_induced_seed{seed}"
    common = ["--seed_everything", str(seed), "--runs_dir", str(RUNS), "--wandb", "disabled"]
    for words in (
        ["fit", "--config", f"{world}_images", "--name", read, "--stage", "extractor", *common],
        ["induce", str(RUNS / read), "--output", str(RUNS / induced / "world")],
        ["fit", "--config", str(RUNS / induced / "world" / "fit.yaml"), "--name", f"{induced}_fit", *common],
    ):
        sys.argv = ["ms2", *words]
        main(words)
    return RUNS / f"{induced}_fit"


if __name__ == "__main__":
    world, *seeds = sys.argv[1:] or ["aerial2d"]
    key = MEASURED[world]
    for seed in [int(word) for word in seeds] or [0, 1, 2]:
        found = {"induced": learn(world, seed), "hand-written": RUNS / f"{world}_quick"}
        for name, folder in found.items():
            if (folder / "metrics.json").exists():
                summary = load_results(folder / "metrics.json").summary
                print(f"seed {seed}: {name:12} {key} {summary[f'{key}_prior']:.3f} -> {summary[key]:.3f}")
