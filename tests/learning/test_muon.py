"""Muon: steps of hidden layers are orthogonalised, all others are AdamW's; it resumes from its state."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from ms2.learning.muon import Muon, orthogonalised


def network() -> nn.Sequential:
    torch.manual_seed(0)
    sizes = (1, 6, 6, 6, 3)
    return nn.Sequential(*(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(sizes)))


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        model(images).square().mean().backward()
        optimizer.step()


def all_weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize("shape", [(2, 5, 9), (1, 9, 5)])
def test_orthogonalised_matrices_keep_singular_vectors_and_lose_singular_values(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrices)
    values = torch.linalg.svdvals(found)
    assert found.shape == matrices.shape
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ found @ v.mT  # diagonal where singular vectors are the same
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


def test_hidden_layers_take_orthogonal_steps_and_all_other_weights_those_of_adamw() -> None:
    model, other = network(), network()
    before = model[1].weight.detach().clone()
    model(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert ours.grad is not None
        theirs.grad = ours.grad.clone()  # computed again, convolutions may round otherwise
    Muon(model, 1e-2, 1e-3).step()
    torch.optim.AdamW(other.parameters(), 1e-2, fused=True).step()
    moved = (model[1].weight - before * (1 - 1e-3 * 1e-2)).detach().flatten(1)
    values = torch.linalg.svdvals(moved) / 1e-3
    assert values.min() > 0.6
    assert values.max() < 1.3
    for layer, hidden in ((0, False), (1, True), (2, True), (3, False)):
        assert torch.equal(model[layer].bias, other[layer].bias)
        assert torch.equal(model[layer].weight, other[layer].weight) != hidden


def test_training_resumes_from_the_state() -> None:
    model = network()
    optimizer = Muon(model, 1e-2, 1e-2)
    take_steps(model, optimizer, 0, 2)
    resumed, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    take_steps(model, optimizer, 2, 4)
    again = Muon(resumed, 1e-2, 1e-2)
    again.load_state_dict(state)
    take_steps(resumed, again, 2, 4)
    assert torch.equal(all_weights(resumed), all_weights(model))


def test_a_closure_is_evaluated_before_the_step() -> None:
    model = network()
    optimizer, before = Muon(model, 1e-2, 1e-2), all_weights(model).detach().clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(torch.ones(1, 1, 8, 8)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    assert not torch.equal(all_weights(model), before)
