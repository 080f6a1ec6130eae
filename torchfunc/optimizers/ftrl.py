"""FTRL-Proximal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.optimizers.state import constant
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Ftrl"]

_STRENGTHS = (
    "l1_regularization_strength",
    "l2_regularization_strength",
    "l2_shrinkage_regularization_strength",
)


class Ftrl(Optimizer):
    """Follow the regularized leader (McMahan et al., 2013), for sparse models with many features.

    With `n' = n + g²` and `p = -learning_rate_power`,
    `z += g + 2 * l2_shrinkage * w - (n'^p - n^p) / learning_rate * w`, then
    `w = (clip(z, -l1, l1) - z) / (n'^p / learning_rate + 2 * l2 + beta / learning_rate)`.

    Args:
        learning_rate: a number, a schedule or a function.
        learning_rate_power: at most 0; how the rate falls as squares add up.
        initial_accumulator_value: what the sums of squares start from, at least 0.
        l1_regularization_strength: at least 0; sets weights to exactly 0.
        l2_regularization_strength: at least 0; a penalty for the distance from 0.
        l2_shrinkage_regularization_strength: at least 0; an L2 penalty that is added to the gradient.
        beta: the beta of the paper.
        **options: those of `Optimizer`.

    Raises:
        ValueError: an argument is out of its range.

    >>> weight = torch.nn.Parameter(torch.tensor([0.0]))
    >>> optimizers.Ftrl(0.1, initial_accumulator_value=0.0).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()
    tensor([-0.1000])
    """

    arguments = ("learning_rate_power", "initial_accumulator_value", *_STRENGTHS, "beta")

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        if learning_rate_power > 0:
            raise ValueError(f"`learning_rate_power` is at most 0, got {learning_rate_power!r}.")
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength = l2_shrinkage_regularization_strength
        self.beta = beta
        for key in ("initial_accumulator_value", *_STRENGTHS):
            if getattr(self, key) < 0:
                raise ValueError(f"`{key}` is at least 0, got {getattr(self, key)!r}.")
        self._sums: list[Tensor] = []
        self._linears: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """Sums of squares and linear terms, weight by weight."""
        initializers = [constant(self.initial_accumulator_value), "zeros"]
        self._sums, self._linears = self.add_optimizer_variables(params, ["accumulator", "linear"], initializers)

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Put each weight where the regularized sum of all losses so far is least."""
        sums, linears = self.state_of(self._sums, params), self.state_of(self._linears, params)
        before = torch._foreach_pow(sums, -self.learning_rate_power)
        torch._foreach_addcmul_(sums, gradients, gradients)
        after = torch._foreach_pow(sums, -self.learning_rate_power)
        torch._foreach_add_(linears, gradients)
        torch._foreach_add_(linears, params, alpha=2 * self.l2_shrinkage_regularization_strength)
        pulls = torch._foreach_sub(after, before)
        torch._foreach_div_(pulls, learning_rate)
        torch._foreach_mul_(pulls, params)
        torch._foreach_sub_(linears, pulls)
        torch._foreach_add_(after, self.beta)
        torch._foreach_div_(after, learning_rate)
        torch._foreach_add_(after, 2 * self.l2_regularization_strength)
        limit = self.l1_regularization_strength
        targets = torch._foreach_clamp_max(torch._foreach_clamp_min(linears, -limit), limit)
        torch._foreach_sub_(targets, linears)
        torch._foreach_div_(targets, after)
        for param, target in zip(params, targets, strict=True):
            param.copy_(target)
