"""What labelled sets of a million and a billion images cost, scaled from a small one: the tables of docs/capacity.md.

    python benchmarks/capacity.py --world driving3d --images 256

CPU time is that of one process, without starting it; it does not depend on how busy other cores are.
"""

import argparse
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import torch

from ms2.datasets.blocks import BLOCK_SIZE
from ms2.datasets.card import write_card
from ms2.datasets.formats.coco import CocoFormat
from ms2.datasets.formats.shards import IMAGES_PER_SHARD, ShardsFormat
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import single_threaded
from ms2.models.opening import open_model

SIZES = {"1 million": 10**6, "1 billion": 10**9}
ENTRIES = 100_000
"""Files of the folder in which the size of a folder is measured."""


def cpu_seconds(task: Callable[[], object]) -> float:
    """Seconds of CPU time of a task."""
    start = time.process_time()
    task()
    return time.process_time() - start


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def json_memory(path: Path) -> int:
    """Bytes of memory that Python takes for the content of a JSON file."""
    tracemalloc.start()
    content = json.loads(path.read_bytes())
    found = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert content
    return found


def entry_bytes(root: Path) -> tuple[float, float]:
    """Bytes of a folder for each of its files, and CPU seconds of listing it, for each of its files."""
    root.mkdir()
    for i in range(ENTRIES):
        os.close(os.open(root / f"{i:06d}.png", os.O_CREAT))
    return root.stat().st_size / ENTRIES, cpu_seconds(lambda: list(os.scandir(root))) / ENTRIES


def measure(world: str, number: int, root: Path) -> dict[str, float]:
    """Measure a small set: CPU seconds, bytes, and files, for each image."""
    job = Job(open_model(world), Plan(number, formats=("coco", "shards")), root / "set")
    job.claim_folder()
    found: dict[str, float] = {}
    with single_threaded(), torch.no_grad():
        job.generate_block(job.blocks[-1])  # what is loaded on first use is loaded
        rest = len(job.blocks) - 1
        found["seconds: images and records"] = (
            cpu_seconds(lambda: [*map(job.generate_block, job.blocks[:-1])]) / rest / BLOCK_SIZE
        )
    found["seconds: checking what is there"] = cpu_seconds(lambda: job.all_complete(job.blocks)) / number
    given = (job.files, job.plan, job.categories, job.records)
    found["seconds: COCO"] = cpu_seconds(lambda: CocoFormat().write(*given)) / number
    found["seconds: shards"] = cpu_seconds(lambda: ShardsFormat().write(*given)) / number
    write_card(job.files, job.description(), [], job.label_filter, job.world, job.records)
    card = cpu_seconds(lambda: write_card(job.files, job.description(), [], job.label_filter, job.world, job.records))
    found["seconds: card, all records"] = card / number
    for name in ("images", "scenes", "annotations", "shards"):
        found[f"bytes: {name}"] = folder_bytes(root / "set" / name) / number
    found["memory: COCO's file in Python"] = json_memory(root / "set" / "annotations" / "instances.json") / number
    found["bytes: entry of a folder"], found["seconds: listing a folder"] = entry_bytes(root / "many")
    return found


def table(found: dict[str, float]) -> str:
    """Format what was measured, scaled, as Markdown."""
    lines = ["| | one image | " + " | ".join(SIZES) + " |", "|---|---|" + "---|" * len(SIZES)]
    for name, value in found.items():
        if name.startswith("seconds"):
            cells = [f"{value * 1e3:.3g} ms", *(f"{value * n / 3600:.3g} CPU h" for n in SIZES.values())]
        else:
            cells = [f"{value:.3g} B", *(f"{value * n / 1e9:.3g} GB" for n in SIZES.values())]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(f"| files, loose | 2 | {' | '.join(f'{2 * n:.3g}' for n in SIZES.values())} |")
    lines.append(f"| files, shards | | {' | '.join(f'{-(-n // IMAGES_PER_SHARD):.3g}' for n in SIZES.values())} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="driving3d", help="a world, a configuration or a run")
    parser.add_argument("--images", type=int, default=256, help="images of the small set: 64, 96, 128...")
    args = parser.parse_args()
    if args.images < 2 * BLOCK_SIZE or args.images % BLOCK_SIZE:
        parser.error(f"--images is {args.images}: give two or more blocks of {BLOCK_SIZE}, one of which warms up")
    with tempfile.TemporaryDirectory() as folder:
        print(table(measure(args.world, args.images, Path(folder))))


if __name__ == "__main__":
    main()
