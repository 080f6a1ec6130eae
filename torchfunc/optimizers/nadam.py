"""Nadam."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.foreach import add_ratio_, add_scaled_, bias_correction
from torchfunc.optimizers.host_number import HostNumber
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Nadam"]


class Nadam(Optimizer):
    """Adam with Nesterov momentum (Dozat, 2015).

    With `u_t = beta_1 * (1 - 0.5 * 0.96^t)` and `U_t` the product of all of them so far,
    `w -= learning_rate * s / (sqrt(v / (1 - beta_2^t)) + epsilon)`, where
    `s = u_{t+1} * m / (1 - U_{t+1}) + (1 - u_t) * g / (1 - U_t)`.

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1: how much of the old mean of the gradients stays at each step.
        beta_2: how much of the old mean of their squares stays.
        epsilon: added to the root.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.Nadam(0.1).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()
    tensor([0.8937])
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
        """Means and mean squares, weight by weight; then the product of the momenta so far."""
        self._momentums, self._velocities = self.add_optimizer_variables(params, ["momentum", "velocity"])
        # Never of float64: compiled code does not change a tensor of float64 and shape () on the CPU (torch 2.13).
        self._product = HostNumber(self.add_variable((), "ones"), 1.0)

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights by the mean that the next step would have."""
        means, squares = self.state_of(self._momentums, params), self.state_of(self._velocities, params)
        torch._foreach_lerp_(means, gradients, 1 - self.beta_1)
        torch._foreach_mul_(squares, self.beta_2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.beta_2)
        step = self.step_number()
        now, following = self._momentum_of(step), self._momentum_of(step + 1)
        product = self._multiply_product(now)
        steps = torch._foreach_mul(means, following / (1 - product * following))
        add_scaled_(steps, gradients, (1 - now) / (1 - product))
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, bias_correction(self.beta_2, step) ** 0.5)
        torch._foreach_add_(roots, self.epsilon)
        add_ratio_(params, steps, roots, -learning_rate)

    def _momentum_of(self, step: Scalar) -> Scalar:
        return self.beta_1 * (1 - 0.5 * 0.96**step)

    def _multiply_product(self, factor: Scalar) -> Scalar:
        if isinstance(factor, Tensor):
            tensor = self._product.tensor.to(factor.dtype) * factor
            self._product.tensor.copy_(tensor)
            return tensor
        number = self._product.get() * factor
        self._product.set(number)
        return number
