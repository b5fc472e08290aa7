"""For all benchmarks: one thread, measurements with a comparison, and the models that are measured."""

import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.cli import CLI
from ms2.seeding import generator
from ms2.structure import StructureModel
from ms2.world import World
from ms2.worlds.multimnist import DigitCanvas, MultiMNIST, UniformDigits, UniformPlacement

QUICK = Path(__file__).parents[1] / "configs" / "multimnist_quick.yaml"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Reference:
    """What a task is compared with.

    Attributes:
        task: What to time.
        text: The ratio in words, such as "{} times as fast as one scene at a time".
        faster: Whether the ratio is of speeds; of times otherwise.
    """

    task: Callable[[], object]
    text: str
    faster: bool


Measure = Callable[..., None]
"""The fixture `measure`."""


@pytest.fixture
def measure(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Measure:
    """Times a task that does ``count`` units of work; leaves what `table.py` prints in the benchmark's JSON.

    The reference is timed before each round of the task, by the same clock, so that both see the same machine.
    """
    clock = pkgutil.resolve_name(pytestconfig.getoption("benchmark_timer"))

    def run(
        task: Callable[[], object], title: str, count: float, unit: str, rounds: int = 15, to: Reference | None = None
    ) -> None:
        others: list[float] = []

        def time_reference() -> None:
            if to is not None:
                start = clock()
                to.task()
                others.append(clock() - start)

        benchmark.pedantic(task, setup=time_reference, rounds=rounds, warmup_rounds=1)
        if benchmark.stats is None:  # --benchmark-disable only tries whether it runs
            return
        seconds = benchmark.stats.stats.median
        benchmark.extra_info.update(title=title, unit=unit, per_second=count / seconds)
        if to is not None:
            other = median(others[1:])  # without the warm-up
            ratio = other / seconds if to.faster else seconds / other
            benchmark.extra_info.update(ratio=ratio, ratio_text=to.text, reference_seconds=other)

    return run


def pretrain(model: StructureModel, world: World, steps: int = 200) -> None:
    """Bring the model near the prior: how long derivations are decides how much there is to do for each scene."""
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    draw = generator("benchmark")
    for _ in range(steps):
        loss = -model.log_prob(world.prior.sample(world.grammar, 128, draw)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="session")
def structure() -> StructureModel:
    """A structure model of MultiMNIST after pretraining: 0 to 10 digits, all numbers alike."""
    grammar = MultiMNIST()
    model = StructureModel(grammar, t_max=24, hidden=64)
    pretrain(model, World(grammar, UniformDigits(), UniformPlacement(), DigitCanvas(canvas=64, digit=12)))
    return model


@pytest.fixture(scope="session")
def quick() -> CLI:
    """All that `make demo` runs, as its configuration makes it; pretrained, and with fewer target images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ms2"])  # Lightning warns where there are pytest's own arguments besides
        patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6 calls what jsonargparse 5 will drop
        cli = CLI(["--config", str(QUICK), "--data.target.init_args.num_images", "512"], run=False)
    pretrain(cli.model.structure, cli.model.world)
    cli.model.embed_target(cli.datamodule)
    return cli
