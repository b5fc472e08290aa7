"""Kept results of finished runs: folders ``results/CONFIG_seedSEED`` with metrics, histograms and settings."""

import re
from pathlib import Path

KEPT = Path(__file__).parent.parent / "results"


def kept_runs(config: str, file: str = "metrics.json", folder: Path = KEPT) -> dict[int, Path]:
    """Find the folders of a configuration's kept runs that hold a file, by seed, in ascending order.

    Args:
        config: Name of the configuration, with ``_mnist`` where real digits were used.
        file: Name of a file that a folder must hold.
        folder: Folder of all kept runs.
    """
    names = ((re.fullmatch(rf"{re.escape(config)}_seed(\d+)", path.name), path) for path in folder.glob("*_seed*"))
    found = {int(match[1]): path for match, path in names if match and (path / file).is_file()}
    return dict(sorted(found.items()))


def seed_names(seeds: list[int]) -> str:
    """Write seeds, ranges of three and more in short: ``0 to 3, 7``."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
