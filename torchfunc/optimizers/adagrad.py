"""Adagrad and Adadelta: steps scaled by the squares of all gradients so far, or by a moving average of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.foreach import add_ratio_, add_scaled_, contiguous, fused_kernel_fits
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.optimizers.state import constant, contains
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adadelta", "Adagrad"]


# The kernel asks for a step count, which it uses only for a decay of the learning rate that is not used here.
_NO_STEP = torch.zeros(())


class Adagrad(Optimizer):
    """Divide each gradient by the root of the sum of all its squares (Duchi et al., 2011).

    `a += g²; w -= learning_rate * g / sqrt(a + epsilon)`. Epsilon is under the root, as in Keras. The state is
    `a + epsilon`, for which torch has a fused kernel; `save_own_variables` writes `a`, as Keras does.

    Args:
        learning_rate: a number, a schedule or a function; 1.0 in the paper.
        initial_accumulator_value: what the sums start from, at least 0.
        epsilon: added under the root.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.Adagrad(0.1, initial_accumulator_value=0.0).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()  # 1 - 0.1 * 2 / sqrt(2 * 2)
    tensor([0.9000])
    """

    arguments = ("initial_accumulator_value", "epsilon")

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        if initial_accumulator_value < 0:
            raise ValueError(f"`initial_accumulator_value` is at least 0, got {initial_accumulator_value!r}.")
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon
        self._sums: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """One sum for each weight."""
        self._sums = self.add_optimizer_variables(
            params, "accumulator", constant(self.initial_accumulator_value + self.epsilon)
        )

    def updates_rows(self) -> bool:
        return self.weight_decay is None

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights: with torch's fused kernel where there is one, else by the formula."""
        sums = self.state_of(self._sums, params)
        if fused_kernel_fits(params, learning_rate, ("cpu",)):
            gradients, steps = contiguous(gradients), [_NO_STEP] * len(params)
            torch._fused_adagrad_(
                params,
                contiguous(gradients),
                sums,
                steps,
                lr=learning_rate,
                lr_decay=0,
                weight_decay=0,
                eps=0,
                maximize=False,
            )
            return
        torch._foreach_addcmul_(sums, gradients, gradients)
        add_ratio_(params, gradients, torch._foreach_sqrt(sums), -learning_rate)

    def _to_keras(self, index: int, variable: Tensor) -> Tensor:
        return variable - self.epsilon if contains(self._sums, self._variables[index]) else variable

    def _from_keras(self, index: int, variable: Tensor) -> Tensor:
        return variable + self.epsilon if contains(self._sums, self._variables[index]) else variable


class Adadelta(Optimizer):
    """Steps in the units of the weights: the root mean square of earlier steps over that of gradients (Zeiler, 2012).

    `a = rho * a + (1 - rho) * g²; d = sqrt(b + epsilon) / sqrt(a + epsilon) * g; b = rho * b + (1 - rho) * d²;
    w -= learning_rate * d`.

    Args:
        learning_rate: a number, a schedule or a function; 1.0 in the paper.
        rho: how much of the old averages stays at each step.
        epsilon: added under both roots.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.Adadelta(1.0, rho=0.75, epsilon=1.0).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()  # 1 - 2 / sqrt(0.25 * 2 * 2 + 1)
    tensor([-0.4142])
    """

    arguments = ("rho", "epsilon")

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = rho
        self.epsilon = epsilon
        self._squares: list[Tensor] = []
        self._step_squares: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """Mean squares of gradients and of steps, weight by weight."""
        names = ["accumulated_grad", "accumulated_delta_var"]
        self._squares, self._step_squares = self.add_optimizer_variables(params, names)

    def updates_rows(self) -> bool:
        return True

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights by gradients scaled to the size of earlier steps."""
        squares, step_squares = self.state_of(self._squares, params), self.state_of(self._step_squares, params)
        torch._foreach_mul_(squares, self.rho)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.rho)
        steps = torch._foreach_add(step_squares, self.epsilon)
        torch._foreach_div_(steps, torch._foreach_add(squares, self.epsilon))
        torch._foreach_sqrt_(steps)
        torch._foreach_mul_(steps, gradients)
        torch._foreach_mul_(step_squares, self.rho)
        torch._foreach_addcmul_(step_squares, steps, steps, 1 - self.rho)
        add_scaled_(params, steps, -learning_rate)
