"""Fixtures of all benchmarks: one thread, and the models that are measured."""

import sys
import warnings
from collections.abc import Iterator

import pytest
import torch

from ms2.cli.fit import CLI
from ms2.core.seeding import generator
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pretrain(model: StructureModel, world: World, steps: int = 200) -> None:
    """Pretrain the model on the prior, since the cost of a scene depends on the length of its derivation."""
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    draw = generator("benchmark")
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
    pretrain(cli.model.structure, cli.model.world)
    with warnings.catch_warnings():  # the extractor is untrained, which costs the same time
        warnings.filterwarnings("ignore", ".* of the target images hold more than block")
        cli.model.target_features = cli.model.embed(cli.datamodule)
    cli.model.setup("fit")
    return cli
