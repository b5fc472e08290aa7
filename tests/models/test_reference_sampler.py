"""The benchmarks' plain Python sampler and scorer follow the same law as the model: else their speeds don't compare."""

import sys
from pathlib import Path

import pytest
import torch
from oracles import fit, unpadded

from ms2.grammar.derivations import pad
from ms2.grammar.grammar import Grammar
from ms2.models.networks.recurrent import GRU, LSTM
from ms2.models.structure import StructureModel

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import reference

SETTINGS = [{}, {"network": GRU, "context": False}, {"num_latents": 3}]
"""Of the model: each thing that the reference does by itself, in both ways."""


@pytest.fixture(params=SETTINGS, ids=str)
def model(request: pytest.FixtureRequest, digits: Grammar) -> StructureModel:
    """Random weights, large enough for context and latents to matter, and such that some draws are too long."""
    torch.manual_seed(1)
    settings = dict(request.param)
    model = StructureModel(digits, 8, settings.pop("network", LSTM)(16), **settings)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(2)
        model.head.bias[1] += 1  # one more digit
    return model


def test_reference_and_model_draw_from_the_same_law(model: StructureModel) -> None:
    every = list(model.grammar.enumerate_derivations(model.t_max))
    law = dict(zip(every, model.log_prob(pad(model.grammar, every)).exp().tolist(), strict=True))
    assert len(law) == 15 and 0.3 < sum(law.values()) < 0.9, "some draws, but not most, must be rejected"
    draw = torch.Generator().manual_seed(2)
    assert fit([tuple(reference.sample(model, draw)) for _ in range(300)], law) > 0.001
    assert fit(unpadded(model.grammar, model.sample(5000, draw).rules), law) > 0.001


def test_reference_and_model_give_the_same_scores_and_gradients(model: StructureModel) -> None:
    every = list(model.grammar.enumerate_derivations(model.t_max))
    ours = model.log_prob(pad(model.grammar, every))
    theirs = torch.stack([reference.score(model, rules) for rules in every])
    torch.testing.assert_close(theirs, ours)
    weight = torch.linspace(-1, 1, len(every))
    gradients = [torch.autograd.grad(weight @ scores, list(model.parameters())) for scores in (theirs, ours)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
