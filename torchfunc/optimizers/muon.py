"""Muon."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchfunc.optimizers.adam import adam_rate, adam_step_
from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.options import SharedOptions
from torchfunc.optimizers.state import contains
from torchfunc.schedules import Scalar

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Muon"]


class Muon(Optimizer):
    """Momentum whose step is made orthogonal, for matrices; Adam for all other weights.

    https://github.com/KellerJordan/Muon, with the scale of Liu et al., 2025, arXiv:2502.16982: a step for a matrix of
    (rows, columns) is multiplied by `sqrt(max(rows, columns)) * rms_rate`, so that Adam's learning rate and weight
    decay suit it.

    Adam takes the weights that have other than 2 axes, those of embeddings, and those named in `exclude_layers`; the
    output layer should be among them. Names are the model's ("dense.weight"), known when `fit` builds the optimizer.

    Args:
        learning_rate: a number, a schedule or a function.
        adam_beta_1: Adam's `beta_1`.
        adam_beta_2: Adam's `beta_2`.
        adam_weight_decay: the weight decay of the weights that Adam takes; None for none.
        epsilon: Adam's `epsilon`.
        weight_decay: the weight decay of the other weights; None for none.
        exclude_layers: regular expressions; weights whose name one of them is found in are Adam's.
        exclude_embeddings: whether weights with "embedding" in their name are Adam's.
        muon_a: the factor of the first power in the iteration that makes a matrix orthogonal.
        muon_b: the factor of the third power.
        muon_c: the factor of the fifth power.
        adam_lr_ratio: Adam's learning rate as a multiple of the other.
        momentum: how much of the old sum of gradients stays at each step.
        ns_steps: how many such iterations are made.
        nesterov: whether to use Nesterov momentum.
        rms_rate: the root mean square of a step; None leaves steps as they are.
        **options: those of `Optimizer`.

    >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
    >>> optimizers.Muon(0.1).apply([torch.tensor([[5.0, 0.0], [0.0, 1.0]])], [weight])
    >>> weight.detach().shape
    torch.Size([2, 2])
    """

    arguments = (
        "adam_beta_1",
        "adam_beta_2",
        "epsilon",
        "exclude_layers",
        "muon_a",
        "muon_b",
        "muon_c",
        "adam_lr_ratio",
        "momentum",
        "ns_steps",
        "nesterov",
        "exclude_embeddings",
        "adam_weight_decay",
        "rms_rate",
    )

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: float | None = 0.004,
        epsilon: float = 1e-7,
        weight_decay: float | None = 0.004,
        *,
        exclude_layers: list[str] | None = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.7750,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        **options: Unpack[SharedOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.adam_beta_1 = adam_beta_1
        self.adam_beta_2 = adam_beta_2
        self.adam_weight_decay = adam_weight_decay
        self.epsilon = epsilon
        self.exclude_layers = exclude_layers or []
        self.exclude_embeddings = exclude_embeddings
        self.muon_a = muon_a
        self.muon_b = muon_b
        self.muon_c = muon_c
        self.adam_lr_ratio = adam_lr_ratio
        self.momentum = momentum
        self.ns_steps = ns_steps
        self.nesterov = nesterov
        self.rms_rate = rms_rate
        self._excluded: list[Tensor] = []
        self._momentums: list[Tensor] = []
        self._velocities: list[Tensor | None] = []
        self._shrinking: list[bool] = []

    def name_weights(self, named_params: Iterable[tuple[str, Tensor]]) -> None:
        """Find the weights that Adam updates by their names."""
        named = list(named_params)
        super().name_weights(named)
        if not self.built:
            for name, param in named:
                embedding = self.exclude_embeddings and "embedding" in name.lower()
                if embedding or any(re.search(keyword, name) for keyword in self.exclude_layers):
                    self._excluded.append(param)

    def build_state(self, params: list[Tensor]) -> None:
        """A momentum for each weight, and for Adam's a mean square too."""
        self._shrinking = [contains(self._decayed, param) for param in params]
        for param in params:
            self._momentums.append(self.add_variable_from_reference(param, "momentum"))
            adams = param.ndim != 2 or contains(self._excluded, param)
            self._velocities.append(self.add_variable_from_reference(param, "velocity") if adams else None)

    def update(self, gradients: list[Tensor], params: list[Tensor], learning_rate: Scalar) -> None:
        """Move matrices by orthogonal steps, and the rest as Adam does."""
        momenta = self.state_of(self._momentums, params)
        squares = self.state_of(self._velocities, params)
        adams = []
        for gradient, param, momentum, square in zip(gradients, params, momenta, squares, strict=True):
            if square is not None:
                adams.append((gradient, param, momentum, square))
                continue
            momentum.mul_(self.momentum).add_(gradient)
            step = gradient + self.momentum * momentum if self.nesterov else momentum
            param.sub_(self._orthogonal(step) * (learning_rate * self._scale(param)))
        if adams:
            grads, weights, means, mean_squares = (list(tensors) for tensors in zip(*adams, strict=True))
            betas = self.adam_beta_1, self.adam_beta_2
            alpha = adam_rate(learning_rate * self.adam_lr_ratio, self.step_number(), betas)
            adam_step_(grads, weights, means, mean_squares, [], alpha, betas, self.epsilon)

    def _scale(self, param: Tensor) -> float:
        return 1.0 if self.rms_rate is None else math.sqrt(max(param.shape)) * self.rms_rate

    def _orthogonal(self, matrix: Tensor) -> Tensor:
        """Newton-Schulz iterations, which bring all singular values close to 1."""
        tall = matrix.shape[0] > matrix.shape[1]
        x = matrix.mT if tall else matrix
        x = x / (torch.linalg.vector_norm(x) + 1e-7)
        for _ in range(self.ns_steps):
            gram = x @ x.mT
            x = self.muon_a * x + (self.muon_b * gram + self.muon_c * gram @ gram) @ x
        return x.mT if tall else x

    def _decay_weights(self, params: list[Tensor], rate: Scalar) -> None:
        squares, shrinking = self.state_of(self._velocities, params), self.state_of(self._shrinking, params)
        for param, square, shrinks in zip(params, squares, shrinking, strict=True):
            decay = self.weight_decay if square is None else self.adam_weight_decay
            if shrinks and decay is not None:
                param.mul_(1 - rate * decay)
