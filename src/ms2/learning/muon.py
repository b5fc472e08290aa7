"""Muon: AdamW, but with orthogonalised momentum for the weights of hidden layers."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.bounds import Fraction, PositiveFloat

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the polynomial of odd degree whose iteration brings singular values near 1 (Jordan et al., 2024)."""
NUM_ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """AdamW, but for weights of hidden layers, whose steps are their momentum, orthogonalised (Jordan et al., 2024).

    All directions of such a step are equally large, also those along which gradients are small: small networks need
    some two thirds of the steps. Biases, norms, and the weights of the first and the last layer are AdamW's.

    Args:
        module: The module to train; its first and last layers are those of its first and last weights.
        lr: Learning rate of AdamW.
        matrix_lr: Learning rate of hidden layers' weights, which are taken as matrices: outputs by all inputs.
        momentum: Momentum of these weights.
    """

    def __init__(
        self, module: nn.Module, lr: PositiveFloat, matrix_lr: PositiveFloat, momentum: Fraction = 0.95
    ) -> None:
        trained = [weight for weight in module.parameters() if weight.requires_grad]
        hidden = [weight for weight in trained if weight.ndim > 1][1:-1]
        shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
        for weight in hidden:
            shapes.setdefault((len(weight), weight[0].numel()), []).append(weight)
        self.momentum = momentum
        ids = {id(weight) for weight in hidden}
        groups: list[dict[str, Any]] = [{"params": [weight for weight in trained if id(weight) not in ids], "lr": lr}]
        groups += [{"params": same, "lr": matrix_lr, "is_hidden": True} for same in shapes.values()]
        super().__init__(groups, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; gradients of hidden layers' weights are cleared, since AdamW's part must not see them."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group.get("is_hidden"):
                self._step_hidden([weight for weight in group["params"] if weight.grad is not None], group)
        super().step()
        return loss

    def _step_hidden(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Take a step of weights of the same shape."""
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:  # AdamW's names of a state without squares of gradients, which it can load
                self.state[weight] = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight)}
        momenta = [self.state[weight]["exp_avg"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - self.momentum)
        torch._foreach_lerp_(gradients, momenta, self.momentum)  # Nesterov's
        steps = orthogonalised(torch.stack([gradient.flatten(1) for gradient in gradients]))
        steps = steps * max(1, steps.shape[1] / steps.shape[2]) ** 0.5
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        shaped = [step.view_as(weight) for step, weight in zip(steps.unbind(), weights, strict=True)]
        torch._foreach_add_(weights, shaped, alpha=-group["lr"])
        for weight in weights:
            weight.grad = None


def orthogonalised(matrices: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    """Compute matrices of the same singular vectors, whose singular values are all near 1 (0.7 to 1.2)."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    found = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(NUM_ITERATIONS):
        square = found @ found.mT
        polynomial = torch.baddbmm(square, square, square, beta=third, alpha=fifth)
        found = torch.baddbmm(found, polynomial, found, beta=first)
    return found
