"""Data sets by two Ray workers on this machine, against two plain processes: images a second, starts left out.

    python benchmarks/ray_workers.py --images 256

Both make a set of some blocks and one of four times as many; the time of what the larger one has more is that of its
images, without starting processes or a cluster. Wall-clock time: run it on two idle cores.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from ms2.datasets.generate import Executor, generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.models.opening import open_model

EXECUTORS: tuple[Executor, ...] = ("processes", "ray")


def seconds(world: str, number: int, workers: int, executor: Executor) -> float:
    """Seconds in which a set is made in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(open_model(world), Plan(number), Path(folder) / "set")
        start = time.perf_counter()
        generate(job, workers, progress=False, executor=executor)
        return time.perf_counter() - start


def main() -> None:
    """Measure both in turns, and print their speeds and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="driving3d", help="a world, a configuration or a run")
    parser.add_argument("--images", type=int, default=256, help="images of the small set, a multiple of 32 workers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ.setdefault("RAY_ADDRESS", "local")
    found: dict[Executor, list[float]] = {executor: [] for executor in EXECUTORS}
    for _ in range(args.rounds):
        for executor in EXECUTORS:
            small, large = (seconds(args.world, n * args.images, args.workers, executor) for n in (1, 4))
            print(f"{executor}: {small:.1f} s, {large:.1f} s", flush=True)
            if large < 1.5 * small:
                raise SystemExit("starting takes most of the time: give more --images")
            found[executor].append(3 * args.images / (large - small))
    speeds = {executor: median(values) for executor, values in found.items()}
    for executor, speed in speeds.items():
        print(f"{args.workers} workers, {executor}: {speed:.1f} images/s")
    print(f"Ray against plain processes: {speeds['ray'] / speeds['processes']:.2f}")


if __name__ == "__main__":
    main()
