"""Measure a task on a device, and compare it with a reference."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from pytest_benchmark.fixture import BenchmarkFixture


class Place:
    """Where benchmarks run: ``--device``, the CPU by default."""

    device = torch.device("cpu")


def finished(task: Callable[[], object]) -> Callable[[], None]:
    """Return a task that also waits until the device has finished it, before the clock is read."""

    def run() -> None:
        task()
        if Place.device.type == "cuda":
            torch.cuda.synchronize(Place.device)

    return run


@dataclass
class Reference:
    """The reference that a task is compared with.

    Attributes:
        task: The function to time.
        text: Format of the ratio, such as "{} × as fast as one scene at a time".
        faster: Whether the ratio is of speeds; of times otherwise.
    """

    task: Callable[[], object]
    text: str
    faster: bool


def measure(
    benchmark: BenchmarkFixture,
    task: Callable[[], object],
    title: str,
    count: float,
    unit: str,
    rounds: int = 15,
    to: Reference | None = None,
) -> None:
    """Time a task that does ``count`` units of work; store what `table.py` prints in the benchmark's JSON.

    The reference is timed before each round of the task, by the same clock, so that both see the same machine. The
    first call is timed apart, as kernels are compiled in it.
    """
    clock, others, task = benchmark._timer, [], finished(task)

    def time_reference() -> None:
        if to is not None:
            start = clock()
            finished(to.task)()
            others.append(clock() - start)

    start = clock()
    task()
    first = clock() - start
    time_reference()
    benchmark.pedantic(task, setup=time_reference, rounds=rounds)
    if benchmark.stats is None:  # --benchmark-disable only tries whether it runs
        return
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(title=title, unit=unit, per_second=count / seconds, first_seconds=first)
    if to is not None:
        other = median(others[1:])  # without the warm-up
        ratio = other / seconds if to.faster else seconds / other
        benchmark.extra_info.update(ratio=ratio, ratio_text=to.text, reference_seconds=other)
