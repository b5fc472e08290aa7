"""Interface of sequence networks: a vector in and a vector out at each step, each depending on all steps before."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.bounds import Dimension
from ms2.core.registry import Plugin

State = tuple[Float[Tensor, "n ..."], ...]
"""What a network remembers of n sequences; the first dimension of every tensor is the sequence."""


class SequenceNetwork(Plugin, nn.Module, ABC, kind="networks"):
    """A causal network over sequences of vectors, conditioned on one vector per sequence.

    A subclass implements `initial_state` and `extend`. `step` and `forward` follow from these, so that sampling step by
    step and scoring in one pass give the same outputs. `project` and `step_projected` may be overridden together, to
    make steps cheaper.

    Subclasses make their layers within `torch.random.fork_rng`: the weights are drawn by `reset_parameters`, which the
    structure model calls after it has drawn its embeddings.

    Args:
        hidden: Dimension h of inputs, outputs and condition.

    Example:
        >>> network = LSTM(hidden=64)
        >>> outputs = network(inputs, condition)  # teacher-forced: [n t h], [n h] -> [n t h]
        >>> state = network.initial_state(condition)
        >>> output, state = network.step(inputs[:, 0], state)  # equals outputs[:, 0]
    """

    def __init__(self, hidden: Dimension = 64) -> None:
        super().__init__()
        self.hidden = hidden

    @abstractmethod
    def initial_state(self, condition: Float[Tensor, "n h"]) -> State:
        """Compute the state before the first step."""

    @abstractmethod
    def extend(self, inputs: Float[Tensor, "n t h"], state: State) -> tuple[Float[Tensor, "n t h"], State]:
        """Compute the outputs of t more steps, and the state after them."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights anew from torch's global random numbers."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and callable(reset):
                reset()

    def step(self, inputs: Float[Tensor, "n h"], state: State) -> tuple[Float[Tensor, "n h"], State]:
        """Compute the output of one more step, and the state after it."""
        return self.step_projected(self.project(inputs), state)

    def project(self, inputs: Float[Tensor, "n h"]) -> Float[Tensor, "n p"]:
        """Apply the affine map of inputs that a step begins with; the identity by default.

        Where inputs are sums of embeddings, a sampler needs the projections of the embeddings alone, for all steps.
        """
        return inputs

    def step_projected(self, projected: Float[Tensor, "n p"], state: State) -> tuple[Float[Tensor, "n h"], State]:
        """Compute the output of one more step from its projected input, and the state after it."""
        outputs, state = self.extend(projected[:, None], state)
        return outputs[:, 0], state

    def forward(self, inputs: Float[Tensor, "n t h"], condition: Float[Tensor, "n h"]) -> Float[Tensor, "n t h"]:
        """Compute the outputs of whole sequences in one teacher-forced pass."""
        return self.extend(inputs, self.initial_state(condition))[0]
