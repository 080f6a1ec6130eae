"""Adafactor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adafactor"]


class Adafactor(Optimizer):
    """Adam without momentum, and with the mean squares of a matrix kept as those of its rows and columns alone.

    Shazeer & Stern, 2018, arXiv:1804.04235. Steps are as long as `rms(w)`, at least `epsilon_2`, times
    `min(learning_rate, 1 / sqrt(t))`; a step whose root mean square exceeds `clip_threshold` is scaled down to it. The
    mean squares decay by `1 - t^beta_2_decay`. The last two axes of a weight are factored.

    Args:
        learning_rate: a number, a schedule or a function.
        beta_2_decay: at most 0; how fast the decay tends to 1.
        epsilon_1: added to squared gradients.
        epsilon_2: the least size of a weight that is reckoned with.
        clip_threshold: the largest root mean square of a step.
        relative_step: accepted as in Keras, whose steps are limited by `1 / sqrt(t)` either way.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.ones(2, 2))
    >>> optimizers.Adafactor(0.1, relative_step=False).apply([torch.full((2, 2), 2.0)], [weight])
    >>> weight.detach()
    tensor([[0.9000, 0.9000],
            [0.9000, 0.9000]])
    """

    arguments = ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "relative_step")

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_2_decay = beta_2_decay
        self.epsilon_1 = epsilon_1
        self.epsilon_2 = epsilon_2
        self.clip_threshold = clip_threshold
        self.relative_step = relative_step
        self._rows: list[Tensor] = []
        self._columns: list[Tensor] = []
        self._velocities: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """Mean squares of rows, of columns and of elements, weight by weight."""
        for param in params:
            if param.ndim < 2:
                # Not factored; Keras keeps a number in the place of each.
                self._rows.append(self.add_variable((), dtype=torch.int32))
                self._columns.append(self.add_variable((), dtype=torch.int32))
            else:
                self._rows.append(self.add_variable(param.shape[:-1], dtype=param.dtype))
                self._columns.append(self.add_variable((*param.shape[:-2], param.shape[-1]), dtype=param.dtype))
            self._served += [(self._rows[-1], param), (self._columns[-1], param)]
            self._velocities.append(self.add_variable_from_reference(param, "velocity"))

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights by steps in proportion to their size."""
        step = self.step_number()
        limit = step**-0.5
        limited = learning_rate.clamp(max=limit) if isinstance(learning_rate, Tensor) else min(learning_rate, limit)
        decay = 1 - step**self.beta_2_decay
        state = (self.state_of(each, params) for each in (self._rows, self._columns, self._velocities))
        for gradient, param, rows, columns, squares in zip(gradients, params, *state, strict=True):
            square = gradient.square() + self.epsilon_1
            if param.ndim < 2:
                _move(squares, square, decay)
            else:
                _move(rows, square.mean(dim=-1), decay)
                _move(columns, square.mean(dim=-2), decay)
                shares = rows / rows.mean(dim=-1, keepdim=True)
                squares.copy_(shares.unsqueeze(-1) * columns.unsqueeze(-2))
            scaled = gradient / squares.sqrt()
            scaled /= (_rms(scaled) / self.clip_threshold).clamp_min(1)
            param.sub_(_rms(param).clamp_min(self.epsilon_2) * limited * scaled)


def _move(average: Tensor, value: Tensor, decay: Scalar) -> None:
    average.mul_(decay).add_(value * (1 - decay))


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()
