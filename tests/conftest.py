"""For all tests: shapes checked at run time, reproducible hypothesis, one thread, and two grammars.

Nothing here may import ms2 before the hook is installed.
"""

import gc

import pytest
import shapes
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

gc.disable()  # until the tests are collected: what is imported stays, and looking through it takes seconds
install_import_hook("ms2", "shapes.check_first_calls")

from ms2.grammar.grammar import Grammar  # noqa: E402

settings.register_profile("ms2", deadline=None, derandomize=True)
settings.load_profile("ms2")
torch.set_num_threads(1)

FAST = ("core", "grammar", "scene", "metrics", "objectives", "gradients", "priors")
"""Folders of tests that take seconds, of the lower layers: they run first, so that faults there are found first."""


def pytest_configure(config: pytest.Config) -> None:
    # beartype looks at one item of a container, which it picks with Python's random module, also while a strategy
    # calls ms2; hypothesis, which seeds that module for every example, warns of it.
    config.addinivalue_line(
        "filterwarnings",
        "ignore:Do not use the `random` module inside strategies:hypothesis.errors.HypothesisDeprecationWarning",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in FAST)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what was imported, which collections of garbage then need not look through
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # so that it is collected at the end: compiled modules report what is not


@pytest.fixture(autouse=True)
def check_shapes_anew() -> None:
    shapes.check_again()


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Networks start from the same weights in every run, in whatever order the tests come."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits() -> Grammar:
    """MultiMNIST with two classes. Rules: 0 scene, 1 one more, 2 end, 3 zero, 4 one."""
    return Grammar("Scene -> bg Digits\nDigits -> Digit Digits | ε\nDigit -> zero | one")


@pytest.fixture(scope="session")
def aerial() -> Grammar:
    """Aerial 2D. Rules: 0 scene, 1 one more road, 2 no more roads, 3 road, 4 one more car, 5 no more cars."""
    return Grammar(
        "Scene -> Roads\nRoads -> Road Roads | ε\nRoad -> Cars\nCars -> car Cars | ε", renderable=["Road", "car"]
    )
