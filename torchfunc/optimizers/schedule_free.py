"""ScheduleFreeAdamW."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.foreach import add_ratio_, add_scaled_, bias_correction
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ScheduleFreeAdamW"]


class ScheduleFreeAdamW(Optimizer):
    """Adam without a schedule, the weights between an iterate and its mean (Defazio et al., 2024, arXiv:2405.15682).

    `z -= learning_rate * g / (sqrt(v / (1 - beta_2^t)) + epsilon)`, `x` is the mean of all `z`, and the weights are
    `(1 - beta_1) * z + beta_1 * x`.

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1: how near the weights are to the mean.
        beta_2: how much of the old mean of the squares of gradients stays.
        epsilon: added to the root.
        warmup_steps: over so many steps the rate grows from 0.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.ScheduleFreeAdamW(0.1).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()
    tensor([0.9000])
    """

    arguments = ("beta_1", "beta_2", "epsilon", "warmup_steps")

    def __init__(
        self,
        learning_rate: LearningRate = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        warmup_steps: int = 0,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.warmup_steps = warmup_steps
        self._iterates: list[Tensor] = []
        self._velocities: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """Iterates (Keras calls them momenta), which begin as the weights, and mean squares, weight by weight."""
        for param in params:
            self._iterates.append(self.add_variable_from_reference(param, "momentum"))
            self._velocities.append(self.add_variable_from_reference(param, "velocity"))
            self._iterates[-1].copy_(param.detach())

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the iterates, and the weights with them."""
        iterates, squares = self.state_of(self._iterates, params), self.state_of(self._velocities, params)
        step = self.step_number()
        if self.warmup_steps:
            share = step / self.warmup_steps
            learning_rate = learning_rate * (share.clamp(max=1.0) if isinstance(share, Tensor) else min(share, 1.0))
        torch._foreach_mul_(squares, self.beta_2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.beta_2)
        roots = torch._foreach_div(squares, bias_correction(self.beta_2, step))
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, self.epsilon)
        # The new iterate takes the place of the old one, and counts as one of `step` in the mean.
        torch._foreach_add_(params, iterates, alpha=self.beta_1 - 1)
        torch._foreach_mul_(params, 1 - 1 / step)
        add_ratio_(iterates, gradients, roots, -learning_rate)
        add_scaled_(params, iterates, 1 - self.beta_1 + self.beta_1 / step)
