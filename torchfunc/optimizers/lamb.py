"""Lamb."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.foreach import add_scaled_, bias_correction
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Lamb"]


class Lamb(Optimizer):
    """Adam whose step for each weight is as long as the weight itself, times the rate.

    You et al., 2019, arXiv:1904.00962. `s = m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon);
    w -= learning_rate * |w| / |s| * s`. Where one of the norms is 0, the step is not scaled.

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1: how much of the old mean of the gradients stays at each step.
        beta_2: how much of the old mean of their squares stays.
        epsilon: added to the root.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizers.Lamb(0.1).apply([torch.tensor([2.0, 0.0])], [weight])
    >>> weight.detach()  # a step of a tenth of the weight's length, 5
    tensor([2.5000, 4.0000])
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
        self._momentums: list[Tensor] = []
        self._velocities: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """Means and mean squares, weight by weight."""
        self._momentums, self._velocities = self.add_optimizer_variables(params, ["momentum", "velocity"])

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move each weight by a step of its own length."""
        means, squares = self.state_of(self._momentums, params), self.state_of(self._velocities, params)
        torch._foreach_lerp_(means, gradients, 1 - self.beta_1)
        torch._foreach_mul_(squares, self.beta_2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.beta_2)
        step = self.step_number()
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, bias_correction(self.beta_2, step) ** 0.5)
        torch._foreach_add_(roots, self.epsilon)
        steps = torch._foreach_div(means, roots)
        torch._foreach_div_(steps, bias_correction(self.beta_1, step))
        for scaled, size, length in zip(steps, torch._foreach_norm(params), torch._foreach_norm(steps), strict=True):
            scaled.mul_(torch.where((size > 0) & (length > 0), size / length, 1.0))
        add_scaled_(params, steps, -learning_rate)
