"""Whether learning takes as much memory after 2,000 steps as at first: resident memory of a run by its steps.

Usage: python experiments/memory.py [STEPS]
       python experiments/memory.py driving [SCENES]    memory while 5,000 driving scenes are drawn with their labels
"""

import csv
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

RUN = Path("runs/memory")
EVERY = 200
CONFIGURATION = Path(__file__).with_suffix(".yaml")


def main() -> None:
    """One or the other."""
    if sys.argv[1:2] == ["driving"]:
        draw(int(sys.argv[2]) if len(sys.argv) > 2 else 5000)
    else:
        learn()


def draw(number: int, batch: int = 25, rows: int = 10) -> None:
    """Draw so many driving scenes, other ones each time, and print memory at intervals."""
    from ms2.core.seeding import generator
    from ms2.priors.structure import MixturePrior
    from ms2.world import World
    from ms2.worlds.driving3d.grammar import Driving
    from ms2.worlds.driving3d.layout import StreetLayout
    from ms2.worlds.driving3d.priors import Rural, Suburban, Urban
    from ms2.worlds.driving3d.renderer import StreetView

    world = World(Driving(), MixturePrior([Rural(), Suburban(), Urban()]), StreetLayout(), StreetView((128, 416)))
    rng, every = generator("memory", "driving"), max(batch, number // rows // batch * batch)
    print("| scenes | MiB |\n|---:|---:|")
    for done in range(0, number + 1, batch):
        if done:
            world.renderer.render_labelled(world.sample_prior(batch, rng))
        if done % every == 0:
            print(f"| {done} | {resident(os.getpid()) / 2**20:.0f} |", flush=True)


def learn() -> None:
    """Run, watch, and print."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    settings = ("--config", CONFIGURATION, "--trainer.max_steps", steps, "--trainer.val_check_interval", EVERY)
    run = subprocess.Popen([sys.executable, "-m", "ms2", "fit", *map(str, settings)])
    seen: dict[int, int] = {}
    while run.poll() is None:
        step, memory = last_step(), resident(run.pid)
        if memory:
            seen[step // EVERY * EVERY] = max(seen.get(step // EVERY * EVERY, 0), memory)
        time.sleep(1)
    print("\n| from step | most MiB |\n|---:|---:|")
    for step, memory in sorted(seen.items()):
        print(f"| {step} | {memory / 2**20:.0f} |")
    sys.exit(run.returncode)


def last_step() -> int:
    """The last step in the run's log, 0 before there is one."""
    logs = sorted(RUN.glob("csv/*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return 0
    with logs[-1].open(encoding="utf-8") as file:
        learned = [row for row in csv.DictReader(file) if row.get("train/score")]
    return int(learned[-1]["step"]) if learned else 0


def resident(process: int) -> int:
    """Bytes of memory that a process holds, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main()
