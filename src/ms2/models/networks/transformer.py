"""A causal Transformer with cached keys and values (Vaswani et al. 2017; layer norms come first, as in GPT-2)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ms2.core.bounds import Dimension
from ms2.core.errors import UserError
from ms2.models.networks.base import SequenceNetwork, State

MAX_WAVELENGTH = 10_000.0
"""Longest wavelength of the sinusoidal positions, over 2 pi, in steps."""


class Transformer(SequenceNetwork):
    """A causal Transformer that attends to the condition and to all steps so far.

    The condition is the first token. Positions are sinusoidal, so that sequences may have any length. Keys and values
    of earlier steps are kept in the state: one more step costs one query per layer.

    Args:
        hidden: Dimension of inputs, outputs and tokens; a multiple of 2 ``num_heads``.
        num_layers: Blocks of attention and perceptron.
        num_heads: Heads of the attention.

    Raises:
        UserError: If a number is below 1, or ``hidden`` is no multiple of 2 ``num_heads``.
    """

    def __init__(self, hidden: Dimension = 64, num_layers: Dimension = 2, num_heads: Dimension = 4) -> None:
        super().__init__(hidden)
        if hidden % (2 * num_heads):
            raise UserError(
                f"a Transformer's hidden must be a multiple of 2 * num_heads, and {hidden} is none of {2 * num_heads}"
            )
        with torch.random.fork_rng(devices=[]):
            self.blocks = nn.ModuleList(Block(hidden, num_heads) for _ in range(num_layers))
            self.norm = nn.LayerNorm(hidden)
        self.num_heads = num_heads

    def initial_state(self, condition: Float[Tensor, "n h"]) -> State:
        """Compute keys and values of the condition, the token at position 0."""
        n, layers, heads = len(condition), len(self.blocks), self.num_heads
        none = condition.new_zeros(n, layers, heads, 0, self.hidden // heads)
        return self.extend(condition[:, None], (none, none))[1]

    def extend(self, inputs: Float[Tensor, "n t h"], state: State) -> tuple[Float[Tensor, "n t h"], State]:
        """Attend from t more tokens to all tokens up to each of them."""
        past_keys, past_values = state  # [n layers heads past d] each
        past, t = past_keys.shape[3], inputs.shape[1]
        tokens = inputs + positions(torch.arange(past, past + t, device=inputs.device), self.hidden).to(inputs)
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            tokens, key, value = block(tokens, past_keys[:, layer], past_values[:, layer])
            keys.append(key)
            values.append(value)
        return self.norm(tokens), (torch.stack(keys, 1), torch.stack(values, 1))


class Block(nn.Module):
    """Causal self-attention and a perceptron, each added to its input.

    Args:
        hidden: Dimension of tokens.
        num_heads: Heads of the attention.
    """

    def __init__(self, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.project = nn.Linear(hidden, hidden)
        self.perceptron = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))

    def forward(
        self,
        tokens: Float[Tensor, "n t h"],
        past_key: Float[Tensor, "n heads past d"],
        past_value: Float[Tensor, "n heads past d"],
    ) -> tuple[Float[Tensor, "n t h"], Float[Tensor, "n heads _ d"], Float[Tensor, "n heads _ d"]]:
        """Update tokens; return them with the keys and values of all tokens so far."""
        t, past = tokens.shape[1], past_key.shape[2]
        merged = self.query_key_value(self.norm1(tokens))  # [n t 3h]
        query, key, value = merged.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [n heads t d] each
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)  # [n heads past+t d]
        # the token at position past + i attends to positions 0 .. past + i
        mask = torch.ones(t, past + t, dtype=torch.bool, device=tokens.device).tril(past)
        attended = F.scaled_dot_product_attention(query, key, value, mask)  # [n heads t d]
        tokens = tokens + self.project(attended.transpose(1, 2).flatten(2))  # [n t h]
        return tokens + self.perceptron(self.norm2(tokens)), key, value


def positions(index: Int[Tensor, " t"], hidden: int) -> Float[Tensor, "t h"]:
    """Compute sinusoidal embeddings of positions."""
    rate = torch.exp(-math.log(MAX_WAVELENGTH) * torch.arange(0, hidden, 2, device=index.device) / hidden)  # [h/2]
    angle = index[:, None] * rate  # [t h/2]
    return torch.cat([angle.sin(), angle.cos()], 1)
