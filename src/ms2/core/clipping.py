"""Clipping of the gradient norm."""

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def clip_gradient(weights: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale the gradients of weights in place, so that their norm together is at most ``max_norm``.

    Does not wait for the device, and takes few operators however many weights there are.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if gradients:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_div_(gradients, (norm / max_norm).clamp(min=1))
