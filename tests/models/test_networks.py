"""Sequence networks: steps against whole passes, causality, the condition, and each against a plain implementation."""

import copy
import math

import pytest
import torch
from helpers import rng
from oracles import NETWORKS
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.registry import available
from ms2.grammar.grammar import Grammar
from ms2.models.networks import GRU, LSTM, SequenceNetwork, Transformer
from ms2.models.networks.transformer import positions
from ms2.models.structure import StructureModel

N, STEPS, HIDDEN = 5, 7, 8
every_network = pytest.mark.parametrize("name", NETWORKS)


def make(name: str) -> SequenceNetwork:
    torch.manual_seed(3)
    network = NETWORKS[name](HIDDEN)
    network.reset_parameters()
    return network.double()


def data() -> tuple[Tensor, Tensor]:
    draw = rng(1)
    return (
        torch.randn(N, STEPS, HIDDEN, generator=draw, dtype=torch.double),
        torch.randn(N, HIDDEN, generator=draw, dtype=torch.double),
    )


def test_every_network_is_tested():
    assert {cls.__name__.lower() for cls in available(SequenceNetwork).values()} == set(NETWORKS)


# -- step, extend and forward ----------------------------------------------------------------------------------


@every_network
def test_steps_give_the_outputs_of_a_whole_pass(name: str):
    network, (inputs, condition) = make(name), data()
    whole = network(inputs, condition)
    assert whole.shape == (N, STEPS, HIDDEN)
    state = network.initial_state(condition)
    for t in range(STEPS):
        output, state = network.step(inputs[:, t], state)
        torch.testing.assert_close(output, whole[:, t])


@every_network
def test_steps_may_be_taken_several_at_once(name: str):
    network, (inputs, condition) = make(name), data()
    first, state = network.extend(inputs[:, :3], network.initial_state(condition))
    rest, _ = network.extend(inputs[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), network(inputs, condition))


@every_network
def test_states_of_some_sequences_are_rows_of_the_state(name: str):
    network, (inputs, condition) = make(name), data()
    _, state = network.extend(inputs[:, :3], network.initial_state(condition))
    index = torch.tensor([4, 0, 4])
    some, _ = network.extend(inputs[index, 3:], tuple(part[index] for part in state))
    torch.testing.assert_close(some, network(inputs, condition)[index, 3:])


@every_network
def test_outputs_depend_on_all_inputs_so_far_and_on_no_later_one(name: str):
    network, (inputs, condition) = make(name), data()
    inputs.requires_grad_()
    condition.requires_grad_()
    output = network(inputs, condition)
    for t in range(STEPS):
        # a random direction: layer norms make the sum over features constant
        direction = torch.randn(HIDDEN, generator=rng(t), dtype=torch.double)
        value = output[2, t] @ direction
        by_input, by_condition = torch.autograd.grad(value, (inputs, condition), retain_graph=True)
        assert (by_input[2].abs().sum(1) > 0).tolist() == [s <= t for s in range(STEPS)]
        assert by_condition[2].abs().sum() > 0
        others = [row for row in range(N) if row != 2]
        assert not by_input[others].any() and not by_condition[others].any()


# -- weights ---------------------------------------------------------------------------------------------------


@every_network
def test_making_a_network_draws_nothing_from_the_global_generator(name: str):
    before = torch.get_rng_state()
    NETWORKS[name](HIDDEN)
    assert torch.get_rng_state().equal(before)


@every_network
def test_weights_are_drawn_anew_by_a_reset(name: str):
    network = make(name)
    torch.manual_seed(3)
    network.reset_parameters()
    before = copy.deepcopy(network.state_dict())
    network.reset_parameters()
    drawn = [key for key, value in before.items() if not value.equal(network.state_dict()[key])]
    assert drawn, "nothing was drawn"
    torch.manual_seed(3)
    network.reset_parameters()
    for value, again in zip(before.values(), network.state_dict().values(), strict=True):
        assert again.equal(value)


@every_network
def test_weights_of_a_structure_model_depend_on_the_seed_alone(name: str):
    grammar = Grammar("S -> a S | ε")
    early = NETWORKS[name](HIDDEN)
    torch.manual_seed(5)
    first = StructureModel(grammar, 6, early)
    torch.manual_seed(5)
    second = StructureModel(grammar, 6, NETWORKS[name](HIDDEN))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize(("network", "theirs"), [(LSTM, torch.nn.LSTM), (GRU, torch.nn.GRU)])
def test_recurrent_weights_are_drawn_as_torch_draws_them(network: type[LSTM | GRU], theirs: type[torch.nn.RNNBase]):
    torch.manual_seed(5)
    model = StructureModel(Grammar("S -> a S | ε"), 6, network(HIDDEN), context=False)
    torch.manual_seed(5)
    torch.nn.Embedding(3, HIDDEN)
    expected = theirs(HIDDEN, HIDDEN, batch_first=True)
    assert isinstance(model.network, (LSTM, GRU))
    for one, other in zip(model.network.cell.parameters(), expected.parameters(), strict=True):
        assert one.equal(other)


# -- the Transformer against plain loops -----------------------------------------------------------------------


def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    return (x - x.mean()) / (x.var(correction=0) + layer.eps).sqrt() * layer.weight + layer.bias


@torch.no_grad()
def test_the_transformer_against_loops_over_tokens_and_heads():
    torch.manual_seed(3)
    network, (inputs, condition) = Transformer(HIDDEN, num_layers=2, num_heads=2).double(), data()
    d = HIDDEN // 2
    rates = [10_000 ** (-2 * i / HIDDEN) for i in range(HIDDEN // 2)]
    tokens = []
    for position, x in enumerate([condition[0], *inputs[0]]):
        waves = [math.sin(position * rate) for rate in rates] + [math.cos(position * rate) for rate in rates]
        tokens.append(x + torch.tensor(waves, dtype=torch.double))
    for block in network.blocks:
        parts = [block.query_key_value(norm(x, block.norm1)).split(HIDDEN) for x in tokens]
        new = []
        for i, x in enumerate(tokens):
            heads = []
            for at in (slice(0, d), slice(d, HIDDEN)):
                weights = torch.stack([parts[i][0][at] @ parts[j][1][at] / d**0.5 for j in range(i + 1)]).softmax(0)
                heads.append(sum(w * parts[j][2][at] for j, w in enumerate(weights)))
            x = x + block.project(torch.cat(heads))
            new.append(x + block.perceptron(norm(x, block.norm2)))
        tokens = new
    expected = torch.stack([norm(x, network.norm) for x in tokens[1:]])
    torch.testing.assert_close(network(inputs, condition)[0], expected, rtol=1e-5, atol=1e-5)


def test_positions_differ():
    waves = positions(torch.arange(200), HIDDEN)
    assert waves.shape == (200, HIDDEN)
    assert float(torch.pdist(waves).min()) > 0.1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((6, 2, 4), "hidden must be a multiple of 2 \\* num_heads, and 6 is none of 8"),
        ((9, 1, 3), "hidden must be a multiple of 2 \\* num_heads, and 9 is none of 6"),
        ((8, 0, 1), "num_layers must be at least 1, not 0"),
        ((8, 1, 0), "num_heads must be at least 1, not 0"),
        ((0, 1, 1), "hidden must be at least 1, not 0"),
    ],
)
def test_a_transformer_of_impossible_size_is_refused(settings: tuple[int, int, int], said: str):
    with pytest.raises(UserError, match=said):
        Transformer(*settings)
