"""Recurrent sequence networks of one layer, whose initial hidden state is the condition."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.bounds import Dimension
from ms2.models.networks.base import SequenceNetwork, State


class LSTM(SequenceNetwork):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), a recurrent network as the paper's.

    Args:
        hidden: Dimension of inputs, outputs and hidden state.

    Example:
        >>> structure = StructureModel(world.grammar, t_max=24, network=LSTM(hidden=32))
    """

    def __init__(self, hidden: Dimension = 64) -> None:
        super().__init__(hidden)
        with torch.random.fork_rng(devices=[]):
            self.cell = nn.LSTM(hidden, hidden, batch_first=True)

    def initial_state(self, condition: Float[Tensor, "n h"]) -> State:
        """Return the condition as hidden state, and zeros as cell state."""
        return condition, torch.zeros_like(condition)

    def extend(self, inputs: Float[Tensor, "n t h"], state: State) -> tuple[Float[Tensor, "n t h"], State]:
        """Run the recurrence for t more steps."""
        hidden, cell = state
        outputs, (hidden, cell) = self.cell(inputs, (hidden[None], cell[None]))  # nn.LSTM counts layers first
        return outputs, (hidden[0], cell[0])

    def project(self, inputs: Float[Tensor, "n h"]) -> Float[Tensor, "n p"]:
        """Compute the input's part of the gates, with both biases."""
        weight, _, bias, recurrent_bias = self.cell.all_weights[0]
        return F.linear(inputs, weight, bias + recurrent_bias)

    def step_projected(self, projected: Float[Tensor, "n p"], state: State) -> tuple[Float[Tensor, "n h"], State]:
        """Run the recurrence for one more step."""
        hidden, cell = state
        gates = torch.addmm(projected, hidden, self.cell.all_weights[0][1].T)
        add, keep, _, show = gates.sigmoid().chunk(4, 1)
        cell = torch.addcmul(keep * cell, add, gates.chunk(4, 1)[2].tanh())
        hidden = show * cell.tanh()
        return hidden, (hidden, cell)


class GRU(SequenceNetwork):
    """Gated recurrent unit (Cho et al. 2014): a quarter fewer weights than an LSTM.

    Args:
        hidden: Dimension of inputs, outputs and hidden state.
    """

    def __init__(self, hidden: Dimension = 64) -> None:
        super().__init__(hidden)
        with torch.random.fork_rng(devices=[]):
            self.cell = nn.GRU(hidden, hidden, batch_first=True)

    def initial_state(self, condition: Float[Tensor, "n h"]) -> State:
        """Return the condition as hidden state."""
        return (condition,)

    def extend(self, inputs: Float[Tensor, "n t h"], state: State) -> tuple[Float[Tensor, "n t h"], State]:
        """Run the recurrence for t more steps."""
        outputs, hidden = self.cell(inputs, state[0][None])
        return outputs, (hidden[0],)

    def project(self, inputs: Float[Tensor, "n h"]) -> Float[Tensor, "n p"]:
        """Compute the input's part of the gates, with its biases."""
        weight, _, bias, _ = self.cell.all_weights[0]
        return F.linear(inputs, weight, bias)

    def step_projected(self, projected: Float[Tensor, "n p"], state: State) -> tuple[Float[Tensor, "n h"], State]:
        """Run the recurrence for one more step."""
        (hidden,), width = state, 2 * self.hidden
        _, weight, _, bias = self.cell.all_weights[0]
        recurrent = F.linear(hidden, weight, bias)
        reset, keep = (projected[:, :width] + recurrent[:, :width]).sigmoid().chunk(2, 1)
        new = torch.addcmul(projected[:, width:], reset, recurrent[:, width:]).tanh()
        hidden = torch.lerp(new, hidden, keep)
        return hidden, (hidden,)
