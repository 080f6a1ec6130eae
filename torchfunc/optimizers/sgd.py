"""Gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.foreach import add_scaled_
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent, with momentum if you like.

    `w -= learning_rate * g`, or with momentum `v = momentum * v - learning_rate * g; w += v`, or with Nesterov's
    `w += momentum * v - learning_rate * g`. `torch.optim.SGD` keeps the learning rate out of `v`, which differs when
    the learning rate changes during training.

    Args:
        learning_rate: a number, a schedule or a function.
        momentum: between 0 and 1.
        nesterov: whether to use Nesterov momentum.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.SGD(0.1).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()  # 1 - 0.1 * 2
    tensor([0.8000])
    """

    arguments = ("momentum", "nesterov")

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        if not 0 <= momentum <= 1:
            raise ValueError(f"`momentum` lies between 0 and 1, got {momentum!r}.")
        self.momentum = momentum
        self.nesterov = nesterov
        self.momentums: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """One velocity for each weight, if there is momentum."""
        if self.momentum:
            self.momentums = self.add_optimizer_variables(params, "momentum")

    def updates_rows(self) -> bool:
        return not self.momentum and self.weight_decay is None

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights downhill."""
        if not self.momentum:
            add_scaled_(params, gradients, -learning_rate)
            return
        velocities = self.state_of(self.momentums, params)
        torch._foreach_mul_(velocities, self.momentum)
        add_scaled_(velocities, gradients, -learning_rate)
        if self.nesterov:
            torch._foreach_add_(params, velocities, alpha=self.momentum)
            add_scaled_(params, gradients, -learning_rate)
        else:
            torch._foreach_add_(params, velocities)
