"""Adam and AdamW."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.foreach import add_ratio_, bias_correction, contiguous, fused_kernel_fits
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import OptimizerOptions, SharedOptions
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adam", "AdamW", "adam_rate", "adam_step_"]


class Adam(Optimizer):
    """Adam (Kingma & Ba, 2014), and AMSGrad (Reddi et al., 2018).

    `w -= alpha * m / (sqrt(v) + epsilon)` with `alpha = learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t)`. This
    epsilon is the "epsilon hat" of the paper, as in Keras; the one of `torch.optim.Adam` corresponds to
    `epsilon / sqrt(1 - beta_2^t)` here, so it damps less in the first steps.

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1: how much of the old mean of the gradients stays at each step.
        beta_2: how much of the old mean of their squares stays.
        epsilon: added to the root.
        amsgrad: divide by the largest mean square so far.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.Adam(0.1).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()  # its first step is as long as the rate
    tensor([0.9000])
    """

    arguments = ("beta_1", "beta_2", "epsilon", "amsgrad")

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = amsgrad
        self._momentums: list[Tensor] = []
        self._velocities: list[Tensor] = []
        self._velocity_hats: list[Tensor] = []

    def build_state(self, params: list[Tensor]) -> None:
        """Means and mean squares, weight by weight as Keras orders them; then their maxima."""
        for param in params:
            self._momentums.append(self.add_variable_from_reference(param, "momentum"))
            self._velocities.append(self.add_variable_from_reference(param, "velocity"))
        if self.amsgrad:
            self._velocity_hats = self.add_optimizer_variables(params, "velocity_hat")

    def updates_rows(self) -> bool:
        return True

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move the weights: with torch's fused kernel where there is one, else by the formula."""
        means, squares, maxima = self._momentums, self._velocities, self._velocity_hats
        if len(params) != len(self._params) or params is not self._params:
            means, squares = self.state_of(means, params), self.state_of(squares, params)
            maxima = self.state_of(maxima, params) if self.amsgrad else []
        if fused_kernel_fits(params, learning_rate, ("cpu", "cuda")):
            self._update_fused(gradients, params, learning_rate, means, squares, maxima)
            return
        betas = self.beta_1, self.beta_2
        alpha = adam_rate(learning_rate, self.step_number(), betas)
        adam_step_(gradients, params, means, squares, maxima, alpha, betas, self.epsilon)

    def _update_fused(
        self,
        gradients: list[Tensor],
        params: list[Tensor],
        learning_rate: Scalar,
        means: list[Tensor],
        squares: list[Tensor],
        maxima: list[Tensor],
    ) -> None:
        # (Not `step_number`, which looks whether this is a graph: there are no fused kernels in one.)
        step = self._updates(in_graph=False) + 1
        steps = [torch.full((), float(step), device=params[0].device)] * len(params)
        torch._fused_adam_(
            params,
            contiguous(gradients),
            means,
            squares,
            maxima,
            steps,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            weight_decay=0.0,
            eps=self.epsilon / math.sqrt(1 - self.beta_2**step),
            amsgrad=self.amsgrad,
            maximize=False,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019): before each step, `w -= learning_rate * decay * w`.

    Args:
        learning_rate: a number, a schedule or a function.
        weight_decay: the share of a weight that is taken away at each step, times the learning rate.
        beta_1: how much of the old mean of the gradients stays at each step.
        beta_2: how much of the old mean of their squares stays.
        epsilon: added to the root.
        amsgrad: divide by the largest mean square so far.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizers.AdamW(0.1, weight_decay=0.5).apply([torch.tensor([2.0])], [weight])
    >>> weight.detach()  # 1 - 0.1 * 0.5 * 1, and the step of Adam
    tensor([0.8500])
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[SharedOptions],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options)
        if self.weight_decay is None:
            raise ValueError("AdamW needs a number for `weight_decay`, got None; use Adam for none.")


def adam_step_(
    gradients: list[Tensor],
    params: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    maxima: list[Tensor],
    alpha: Scalar,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """Adam's formula. `maxima` is empty without AMSGrad; `alpha` is a number or a tensor of shape ()."""
    torch._foreach_lerp_(means, gradients, 1 - betas[0])
    torch._foreach_mul_(squares, betas[1])
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])
    if maxima:
        torch._foreach_maximum_(maxima, squares)
    denominators = torch._foreach_sqrt(maxima or squares)
    torch._foreach_add_(denominators, epsilon)
    add_ratio_(params, means, denominators, -alpha)


def adam_rate(learning_rate: Scalar, step: Scalar, betas: tuple[float, float]) -> Scalar:
    """The `alpha` of this step, for numbers or tensors of shape ()."""
    return learning_rate * bias_correction(betas[1], step) ** 0.5 / bias_correction(betas[0], step)
