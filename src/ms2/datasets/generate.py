"""Generates data sets: the blocks of a job, by several processes and machines."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ms2.core.errors import UserError
from ms2.datasets.job import BLOCK, Job
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import one_thread
from ms2.models.opening import Learned, build


def generate(job: Job, workers: int = 1, rank: int = 0, world_size: int = 1, progress: bool = True) -> bool:
    """Generate what is missing of a data set.

    Several machines that share a folder may each do a part of the blocks; whoever is last writes the formats' files.

    Args:
        job: The data set.
        workers: Processes on this machine.
        rank: Number of this machine.
        world_size: Number of machines.
        progress: Whether to show a bar.

    Returns:
        Whether the data set is finished.

    Raises:
        UserError: If it can't be done; what was written before stays, and is not done again.
    """
    job.take_folder()
    mine = job.blocks[rank::world_size]
    total = sum(min(BLOCK, job.plan.num_scenes - block * BLOCK) for block in mine)
    with tqdm(total=total, desc="generating", unit="image", disable=None if progress else True) as bar:
        for done in _made(job, mine, min(workers, len(mine))):
            bar.update(done)
    if not all(job.is_done(i) for block in job.blocks if block not in mine for i in _indices(job, block)):
        return False
    job.finish()
    return True


def _indices(job: Job, block: int) -> range:
    return range(block * BLOCK, min((block + 1) * BLOCK, job.plan.num_scenes))


def _made(job: Job, blocks: range, workers: int) -> Iterator[int]:
    """Make blocks, and give the number of images of each one that is done."""
    if workers <= 1:
        with one_thread():
            yield from map(job.make, blocks)
        return
    begin = partial(_begin, job.source.configuration, job.source.weights, job.source.name, job.source.learned)
    plan = replace(job.plan, formats=())  # workers write none, nor do they know those of a script or a notebook
    context = multiprocessing.get_context("spawn")  # forks of a process with threads, or with a GPU, hang
    with ProcessPoolExecutor(workers, context, begin, (plan, job.root, str(job.device))) as pool:
        pending: list[Future[int]] = [pool.submit(_make, block) for block in blocks]
        try:
            for future in as_completed(pending):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker was killed, perhaps for want of memory: run the same command again, which goes on where it "
                "stopped, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_job: Job | None = None
"""A worker's own."""


def _begin(
    configuration: dict[str, Any],
    weights: Path | None,
    name: str,
    learned: Learned,
    plan: Plan,
    root: Path,
    device: str,
) -> None:
    global _job  # noqa: PLW0603 - what an initialiser leaves for the tasks of its process
    torch.set_num_threads(1)
    from ms2.core.registry import load_entry_points

    load_entry_points()
    _job = Job(build(configuration, weights, name, learned), plan, root, device)


def _make(block: int) -> int:
    assert _job is not None
    return _job.make(block)
