"""Examples in docstrings do what they say."""

import doctest
import importlib
import sys

import pytest
import torch

MODULES = [
    "ms2.core.distributed",
    "ms2.gradients.advantages",
    "ms2.learning.turns",
    "ms2.objectives.energy",
    "ms2.objectives.forward_kl",
    "ms2.objectives.kde",
    "ms2.objectives.mmd",
    "ms2.objectives.sliced_wasserstein",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = sys.modules.get(name) or importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0
