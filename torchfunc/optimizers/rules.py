"""The update rules: SGD, RMSprop, Adam and AdamW, with Keras' names, defaults and formulas.

Epsilon stands where Keras has it, which is not where `torch.optim` has it; each class says where.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchfunc.optimizers.base import LearningRate, Optimizer, OptimizerOptions, SharedOptions, contains

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SGD", "Adam", "AdamW", "RMSprop"]

# The kernel asks for a step count, which it uses only for a decay of the learning rate that is not used here.
_NO_STEP = torch.zeros(())

Tensors = list[Tensor] | tuple[Tensor, ...]


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
    """

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

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Any) -> None:
        """Move the weights downhill."""
        if not self.momentum:
            _add_scaled_(params, gradients, -learning_rate)
            return
        velocities = self.state_of(self.momentums, params)
        torch._foreach_mul_(velocities, self.momentum)
        _add_scaled_(velocities, gradients, -learning_rate)
        if self.nesterov:
            torch._foreach_add_(params, velocities, alpha=self.momentum)
            _add_scaled_(params, gradients, -learning_rate)
        else:
            torch._foreach_add_(params, velocities)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


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
    """

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
        self._floors = [param.new_full((), floor).expand_as(param) for param in params]
        self._sums = self.add_optimizer_variables(params, "velocity", lambda shape, dtype: torch.tensor(floor))
        if self.momentum > 0:
            self._momentums = self.add_optimizer_variables(params, "momentum")
        if self.centered:
            self._average_gradients = self.add_optimizer_variables(params, "average_gradient")

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Any) -> None:
        """Move the weights by the scaled gradients."""
        sums = self.state_of(self._sums, params)
        rate = learning_rate / math.sqrt(1 - self.rho)
        if not self.momentum and not self.centered and _fused_kernel_fits(params, ("cpu",)):
            torch._foreach_lerp_(sums, self.state_of(self._floors, params), 1 - self.rho)
            steps = [_NO_STEP] * len(params)
            torch._fused_adagrad_(
                params, gradients, sums, steps, lr=rate, lr_decay=0.0, weight_decay=0.0, eps=0.0, maximize=False
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
            _add_ratio_(momenta, gradients, roots, rate)
            torch._foreach_sub_(params, momenta)
        else:
            _add_ratio_(params, gradients, roots, -rate)

    def _to_keras(self, index: int, variable: Tensor) -> Tensor:
        return variable * (1 - self.rho) - self.epsilon if contains(self._sums, self._variables[index]) else variable

    def _from_keras(self, index: int, variable: Tensor) -> Tensor:
        return (variable + self.epsilon) / (1 - self.rho) if contains(self._sums, self._variables[index]) else variable

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        own = {"rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon, "centered": self.centered}
        return {**super().get_config(), **own}


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
    """

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

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Any) -> None:
        """Move the weights: with torch's fused kernel where there is one, else by the formula."""
        means = self.state_of(self._momentums, params)
        squares = self.state_of(self._velocities, params)
        maxima = self.state_of(self._velocity_hats, params) if self.amsgrad else []
        if _fused_kernel_fits(params, ("cpu", "cuda")):
            self._update_fused(gradients, params, learning_rate, means, squares, maxima)
            return
        step = (self.iterations + 1).to(torch.float32)
        alpha = learning_rate * torch.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        torch._foreach_lerp_(means, gradients, 1 - self.beta_1)
        torch._foreach_mul_(squares, self.beta_2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.beta_2)
        if self.amsgrad:
            torch._foreach_maximum_(maxima, squares)
        denominators = torch._foreach_sqrt(maxima or squares)
        torch._foreach_add_(denominators, self.epsilon)
        _add_ratio_(params, means, denominators, -alpha)

    def _update_fused(
        self,
        gradients: list[Tensor],
        params: list[Tensor],
        learning_rate: float,
        means: list[Tensor],
        squares: list[Tensor],
        maxima: list[Tensor],
    ) -> None:
        step = int(self.iterations) + 1
        steps = [torch.full((), float(step), device=params[0].device)] * len(params)
        torch._fused_adam_(
            params,
            gradients,
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

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer."""
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon, "amsgrad": self.amsgrad}
        return {**super().get_config(), **own}


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


def _fused_kernel_fits(params: list[Tensor], devices: tuple[str, ...]) -> bool:
    """Fused kernels take real tensors of one dtype on one device; a compiled step fuses the formula itself."""
    first = params[0]
    return (
        not torch.compiler.is_compiling()
        and first.device.type in devices
        and all(p.dtype is first.dtype and p.device == first.device for p in params)
        and first.dtype.is_floating_point
    )


def _add_scaled_(tensors: Tensors, others: Tensors, scale: Any) -> None:
    """`tensor += scale * other`, for a number or a tensor."""
    if isinstance(scale, Tensor):
        torch._foreach_add_(tensors, torch._foreach_mul(others, scale))
    else:
        torch._foreach_add_(tensors, others, alpha=scale)


def _add_ratio_(tensors: Tensors, numerators: Tensors, denominators: Tensors, scale: Any) -> None:
    """`tensor += scale * numerator / denominator`, for a number or a tensor; the denominators are used up."""
    if isinstance(scale, Tensor):
        torch._foreach_div_(denominators, scale)
        torch._foreach_addcdiv_(tensors, numerators, denominators)
    else:
        torch._foreach_addcdiv_(tensors, numerators, denominators, scale)
