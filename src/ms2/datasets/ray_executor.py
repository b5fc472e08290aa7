"""Generation of a data set's blocks by the machines of a Ray cluster: a block is a task."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ms2.core.errors import UserError, missing_extra
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.models.opened_mixture import Opened

ADDRESS_VARIABLE = "RAY_ADDRESS"
MAX_RETRIES = 5
"""Times that a block is tried again after its worker or machine died: a block that kills every worker has to end."""
TASKS_PER_SLOT = 2
"""Submitted tasks for each core or GPU, one that runs and one that waits: a set of a million images has 31,250 blocks,
which would fill the memory of the cluster's scheduler."""
CONNECT_SECONDS = 5
"""Seconds to wait for a cluster's machine to answer; Ray itself tries for minutes."""


def generate_blocks_by_ray(job: Job, blocks: Sequence[int], workers: int | None = None) -> Iterator[int]:
    """Generate blocks on a Ray cluster; yield the number of images of each one when it is complete.

    Ray starts a block again whose worker or machine died. If the job's device is a GPU, it assigns a GPU to each task.
    The environment variable ``RAY_ADDRESS`` names the cluster: by default that of this machine; ``local`` starts one.

    Args:
        job: The data set. All machines have to see its folder, which has been claimed.
        blocks: Numbers of the blocks.
        workers: Number of blocks at a time; by default one for each core, or GPU, of the cluster.

    Raises:
        UserError: If Ray is not installed, there is no cluster, it has no GPU for a job of GPUs, a machine does not see
            the folder, generation fails, or the workers of a block died again and again.
    """
    try:
        import ray
    except ImportError as error:
        raise missing_extra("--executor ray", "ray", extra="ray") from error
    with _connected(ray):
        yield from _run_tasks(ray, job, blocks, workers)


def _run_tasks(ray: ModuleType, job: Job, blocks: Sequence[int], workers: int | None) -> Iterator[int]:
    """Submit as many tasks as there are slots for; yield what they return; cancel the others when one fails."""
    resource = "CPU" if job.device.type == "cpu" else "GPU"
    if not ray.cluster_resources().get(resource):
        advice = "start workers with some" if resource == "CPU" else "give --device cpu, or start workers with some"
        raise UserError(f"the Ray cluster has no {resource}s: {advice}")
    options = {"num_cpus": int(resource == "CPU"), "num_gpus": int(resource == "GPU"), "max_retries": MAX_RETRIES}
    task = ray.remote(_generate_block).options(**options)
    # as in other processes, formats are written by this one alone; in a list, as Ray would fetch it before each task
    shared = [ray.put((job.source.recipe, replace(job.plan, formats=()), job.root.absolute(), job.device.type))]
    left, waiting = iter(blocks), list[Any]()
    try:
        while True:  # machines come and go meanwhile
            limit = workers or max(1, TASKS_PER_SLOT * int(ray.cluster_resources().get(resource, 0)))
            waiting += [task.remote(shared, block) for block in islice(left, max(0, limit - len(waiting)))]
            if not waiting:
                return
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None
    except ray.exceptions.RayError as error:
        raise UserError(
            "workers of the Ray cluster died again and again, perhaps for lack of memory: run the same command again, "
            f"which goes on where it stopped, with fewer --workers. ({str(error).splitlines()[0]})"
        ) from error
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


@contextlib.contextmanager
def _connected(ray: ModuleType) -> Iterator[None]:
    """Connect to the cluster, unless this process is connected already.

    Raises:
        UserError: If there is none.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get(ADDRESS_VARIABLE) or "auto"
    _check_answers(address)
    try:
        started_here: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **started_here)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, str(error).partition("\n")[0]) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise an error if a cluster's machine does not answer, for which Ray waits for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> UserError:
    where = "on this machine" if address == "auto" else f"at {ADDRESS_VARIABLE}={address}"
    return UserError(
        f"there is no Ray cluster {where}: start one with `ray start --head`, give the address of another "
        f"({ADDRESS_VARIABLE}=HOST:6379), or use this machine alone ({ADDRESS_VARIABLE}=local). ({reason})"
    )


# -- in the cluster's workers ----------------------------------------------------------------------------

_jobs: dict[Any, Job] = {}
"""The job of a worker process, which Ray uses for many tasks."""


def _generate_block(shared: list[Any], block: int) -> int:
    """Generate a block, a task."""
    import ray

    if shared[0] not in _jobs:
        _jobs.clear()
        _jobs[shared[0]] = _start_worker(*ray.get(shared[0]))
    return _jobs[shared[0]].generate_block(block)


def _start_worker(recipe: Callable[[], Opened], plan: Plan, root: Path, device: str) -> Job:
    """Build the job in a worker process.

    Raises:
        UserError: If this machine does not see the data set's folder.
    """
    if not (root / "dataset.json").is_file():
        raise UserError(
            f"the machine {socket.gethostname()} of the Ray cluster does not see {root}: give --output on a disk that "
            "all of its machines share"
        )
    torch.set_num_threads(1)
    return Job(recipe(), plan, root, device)
