"""RMSprop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.foreach import add_ratio_, contiguous, fused_kernel_fits
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.optimizers.state import constant, contains
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["RMSprop"]

# The kernel asks for a step count, which it uses only for a decay of the learning rate that is not used here.
_NO_STEP = torch.zeros(())


class RMSprop(Optimizer):
    """Divide each gradient by the root of a moving average of its square (Hinton, 2012).

    `v = rho * v + (1 - rho) * g²; w -= learning_rate * g / sqrt(v + epsilon)`. Note that epsilon is under the root, as
    in Keras; `torch.optim.RMSprop` adds it after the root, so there the same number damps far less.

    The state is not `v` but `s = (v + epsilon) / (1 - rho)`, for which the same rule is shorter:
    `s = rho * s + epsilon + g²; w -= learning_rate / sqrt(1 - rho) * g / sqrt(s)`. Its second half is Adagrad's, for
    which torch has a fused kernel. `save_own_variables` writes `v`, as Keras does.

    Args:
        learning_rate: a number, a schedule or a function.
        rho: how much of the old average stays at each step, at least 0 and below 1.
        momentum: if above 0, steps are accumulated with this momentum.
        epsilon: added under the root.
        centered: divide by the estimated variance instead of the mean square.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.RMSprop(0.1, rho=0.75).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()  # 1 - 0.1 * 2 / sqrt(0.25 * 2 * 2)
    tensor([0.8000])
    """

    arguments = ("rho", "momentum", "epsilon", "centered")

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        if not 0 <= rho < 1:
            raise ValueError(f"`rho` is at least 0 and below 1, got {rho!r}.")
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered
        self._sums: list[Tensor] = []
        self._floors: list[Tensor] = []
        self._momentums: list[Tensor] = []
        self._average_gradients: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """Sums of squares, and for momentum and centering one more list each."""
        # What a sum tends to while its gradient is 0.
        floor = self.epsilon / (1 - self.rho)
        # Only the kernel for the CPU needs them.
        self._floors = [torch.full((), floor, dtype=param.dtype).expand(param.shape) for param in params]
        self._sums = self.add_optimizer_variables(params, "velocity", constant(floor))
        if self.momentum > 0:
            self._momentums = self.add_optimizer_variables(params, "momentum")
        if self.centered:
            self._average_gradients = self.add_optimizer_variables(params, "average_gradient")

    def updates_rows(self) -> bool:
        return True

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights by the scaled gradients."""
        sums = self.state_of(self._sums, params)
        rate = learning_rate / math.sqrt(1 - self.rho)
        if not self.momentum and not self.centered and fused_kernel_fits(params, learning_rate, ("cpu",)):
            torch._foreach_lerp_(sums, self.state_of(self._floors, params), 1 - self.rho)
            gradients, steps = contiguous(gradients), [_NO_STEP] * len(params)
            torch._fused_adagrad_(
                params,
                contiguous(gradients),
                sums,
                steps,
                lr=rate,
                lr_decay=0.0,
                weight_decay=0.0,
                eps=0.0,
                maximize=False,
            )
            return
        torch._foreach_mul_(sums, self.rho)
        torch._foreach_add_(sums, self.epsilon)
        torch._foreach_addcmul_(sums, gradients, gradients)
        if self.centered:
            averages = self.state_of(self._average_gradients, params)
            torch._foreach_lerp_(averages, gradients, 1 - self.rho)
            roots = torch._foreach_sqrt(torch._foreach_addcmul(sums, averages, averages, -1 / (1 - self.rho)))
        else:
            roots = torch._foreach_sqrt(sums)
        if self.momentum > 0:
            momenta = self.state_of(self._momentums, params)
            torch._foreach_mul_(momenta, self.momentum)
            add_ratio_(momenta, gradients, roots, rate)
            torch._foreach_sub_(params, momenta)
        else:
            add_ratio_(params, gradients, roots, -rate)

    def _to_keras(self, index: int, variable: Tensor) -> Tensor:
        return variable * (1 - self.rho) - self.epsilon if contains(self._sums, self._variables[index]) else variable

    def _from_keras(self, index: int, variable: Tensor) -> Tensor:
        return (variable + self.epsilon) / (1 - self.rho) if contains(self._sums, self._variables[index]) else variable
