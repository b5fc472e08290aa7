"""Parallel generation of a data set's blocks."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from ms2.core.errors import UserError
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.ray_executor import generate_blocks_by_ray
from ms2.datasets.rendering import single_threaded
from ms2.models.opened_mixture import Opened

Executor = Literal["processes", "ray"]
"""What generates the blocks: processes of this machine, or a Ray cluster."""


def generate(
    job: Job,
    workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
    executor: Executor = "processes",
) -> bool:
    """Generate the missing images of a data set, with several workers and machines.

    Machines that share a folder each generate a part of the blocks; the one that finishes last writes the format files.

    Args:
        job: The data set.
        workers: Number of processes that this command starts, one by default; or of blocks that a Ray cluster makes at
            a time, by default one for each of its cores, or GPUs.
        rank: Index of this command among those that share the data set, from 0; torchrun's ``RANK``.
        world_size: Number of commands that share the data set; torchrun's ``WORLD_SIZE``.
        progress: Whether to show a progress bar.
        executor: ``processes`` of this machine, or ``ray``: a Ray cluster whose machines all see the folder.

    Returns:
        Whether the data set is complete.

    Raises:
        UserError: If generation fails; files written before stay, and are not generated again.
    """
    job.claim_folder()
    mine = job.blocks[rank::world_size]
    total = sum(len(job.images.indices(block)) for block in mine)
    with tqdm(total=total, desc="generating", unit="image", disable=None if progress else True) as bar:
        generate_blocks = generate_blocks_by_ray if executor == "ray" else _generate_blocks
        for number in generate_blocks(job, mine, workers):
            bar.update(number)
    if not job.all_complete(block for block in job.blocks if block not in mine):
        return False
    job.finish()
    return True


def _generate_blocks(job: Job, blocks: Sequence[int], workers: int | None = None) -> Iterator[int]:
    """Generate blocks; yield the number of images of each one when it is complete."""
    workers = min(workers or 1, len(blocks))
    if workers <= 1:
        with single_threaded():
            yield from map(job.generate_block, blocks)
        return
    plan = replace(job.plan, formats=())  # workers write no formats, and do not know those of a script or a notebook
    context = multiprocessing.get_context("spawn")  # forks of a process with threads, or with a GPU, hang
    start = partial(_start_worker, job.source.recipe, plan, job.root, str(job.device))
    with ProcessPoolExecutor(workers, context, start) as pool:
        pending: list[Future[int]] = [pool.submit(_generate_block, block) for block in blocks]
        try:
            for future in as_completed(pending):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker was killed, perhaps for lack of memory: run the same command again, which goes on where it "
                "stopped, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_job: Job | None = None
"""The job of a worker process."""


def _start_worker(recipe: Callable[[], Opened], plan: Plan, root: Path, device: str) -> None:
    global _job  # noqa: PLW0603 - the initialiser passes it to the tasks of its process
    torch.set_num_threads(1)
    _job = Job(recipe(), plan, root, device)


def _generate_block(block: int) -> int:
    assert _job is not None
    return _job.generate_block(block)
