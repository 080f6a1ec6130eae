"""Adamax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.foreach import add_ratio_, bias_correction
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adamax"]


class Adamax(Optimizer):
    """Adam with the largest gradient so far in place of the root mean square (Kingma & Ba, 2014, section 7.1).

    `m = beta_1 * m + (1 - beta_1) * g; u = max(beta_2 * u, |g|);
    w -= learning_rate / (1 - beta_1^t) * m / (u + epsilon)`.

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1: how much of the old mean of the gradients stays at each step.
        beta_2: how much of the largest gradient stays.
        epsilon: added to the largest gradient.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.Adamax(0.1).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()
    tensor([0.9000])
    """

    arguments = ("beta_1", "beta_2", "epsilon")

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._m: list[Tensor] = []
        self._u: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """Means and largest gradients, weight by weight."""
        self._m, self._u = self.add_optimizer_variables(params, ["momentum", "norm"])

    def updates_rows(self) -> bool:
        return True

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights by the means over the largest gradients."""
        means, largest = self.state_of(self._m, params), self.state_of(self._u, params)
        torch._foreach_lerp_(means, gradients, 1 - self.beta_1)
        torch._foreach_mul_(largest, self.beta_2)
        torch._foreach_maximum_(largest, torch._foreach_abs(gradients))
        rate = learning_rate / bias_correction(self.beta_1, self.step_number())
        add_ratio_(params, means, torch._foreach_add(largest, self.epsilon), -rate)
