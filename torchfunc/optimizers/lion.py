"""Lion."""

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

__all__ = ["Lion"]


class Lion(Optimizer):
    """Steps of one size, in the direction of the sign of a momentum (Chen et al., 2023, arXiv:2302.06675).

    `w -= learning_rate * sign(beta_1 * m + (1 - beta_1) * g); m = beta_2 * m + (1 - beta_2) * g`. Its learning rate is
    3 to 10 times smaller than AdamW's, and its weight decay as many times larger.

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1: how much the momentum counts in the direction, above 0 and at most 1.
        beta_2: how much of the momentum stays at each step.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> optimizers.Lion(0.1).apply([torch.tensor([2.0, -0.01])], [weight])
    >>> weight.detach()  # only the signs count
    tensor([0.9000, 1.1000])
    """

    arguments = ("beta_1", "beta_2")

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        if not 0 < beta_1 <= 1:
            raise ValueError(f"`beta_1` is above 0 and at most 1, got {beta_1!r}.")
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self._momentums: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """One momentum for each weight."""
        self._momentums = self.add_optimizer_variables(params, "momentum")

    def updates_rows(self) -> bool:
        return True

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights by the sign."""
        momenta = self.state_of(self._momentums, params)
        directions = torch._foreach_mul(momenta, self.beta_1)
        torch._foreach_add_(directions, gradients, alpha=1 - self.beta_1)
        torch._foreach_sign_(directions)
        add_scaled_(params, directions, -learning_rate)
        torch._foreach_mul_(momenta, self.beta_2)
        torch._foreach_add_(momenta, gradients, alpha=1 - self.beta_2)
