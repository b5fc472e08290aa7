"""Options and fixtures of all benchmarks: device, one thread, and the models that are measured."""

import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from measuring import Place

from ms2.cli.fit import CLI
from ms2.core.seeding import generator
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"], help="where to measure")


def pytest_configure(config: pytest.Config) -> None:
    Place.device = torch.device(config.getoption("--device"))
    if Place.device.type == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(
            f"--device cuda: torch {torch.__version__} finds no GPU on this machine (nvidia-smi shows whether there is "
            "one). Leave --device out to measure on the CPU"
        )


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add the GPU with its driver, for the table."""
    if Place.device.type == "cuda":
        machine_info["gpu"] = {"name": torch.cuda.get_device_name(), "driver": driver(), "torch": torch.__version__}


def driver() -> str:
    """Return the version of NVIDIA's driver, or of the CUDA that torch was built for."""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, encoding="utf-8", check=False).stdout.split()
        if found:
            return f"driver {found[0]}"
    return f"CUDA {torch.version.cuda}"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pretrain(model: StructureModel, world: World, steps: int = 200) -> None:
    """Pretrain the model on the prior, since the cost of a scene depends on the length of its derivation."""
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    draw = generator("benchmark", device=Place.device)
    for _ in range(steps):
        loss = -model.log_prob(world.structure_prior.sample(world.grammar, 128, draw)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="session")
def structure() -> StructureModel:
    """A pretrained structure model of MultiMNIST: the number of digits is uniform in 0 ... 10."""
    grammar = MultiMNIST()
    torch.manual_seed(0)
    model = StructureModel(grammar, t_max=24, network=LSTM(64))
    model.to(Place.device)
    pretrain(model, World(grammar, UniformDigits(), UniformPlacement(), DigitCanvas(canvas_size=64, digit_size=12)))
    return model


@pytest.fixture(scope="session")
def quick() -> CLI:
    """The program of `make demo`, with a pretrained structure model and fewer target images."""
    return program("multimnist_quick")


def program(config: str) -> CLI:
    """Instantiate a configuration, with a pretrained structure model and fewer target images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ms2"])  # Lightning warns where there are pytest's own arguments besides
        patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6 calls what jsonargparse 5 will drop
        cli = CLI(["--config", config, "--data.target.init_args.num_images", "512"], run=False)
    cli.model.to(Place.device)
    pretrain(cli.model.structure, cli.model.world)
    with warnings.catch_warnings():  # the extractor is untrained, which costs the same time
        warnings.filterwarnings("ignore", ".* of the target images hold more than block")
        cli.model.target_features = cli.model.embed(cli.datamodule)
    cli.model.setup("fit")
    return cli
