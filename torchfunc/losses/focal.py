"""Focal losses: cross-entropies in which what is already right counts less (keras/src/losses/losses.py).

Lin et al., "Focal Loss for Dense Object Detection" (2018). From logits they are computed without the clipping of
probabilities, which Keras keeps; further from 0 and 1 than `config.epsilon()` that gives the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchfunc.config import epsilon
from torchfunc.dtypes import DTypeLike
from torchfunc.losses.base import Loss
from torchfunc.losses.probabilistic import Crossentropy, bits_crossentropy, smoothed_bits, smoothed_classes
from torchfunc.losses.shapes import TensorLike
from torchfunc.losses.weighting import Reduction

__all__ = [
    "BinaryFocalCrossentropy",
    "CategoricalFocalCrossentropy",
    "binary_focal_crossentropy",
    "categorical_focal_crossentropy",
]


def binary_focal_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Binary cross-entropy times `(1 - p_t)**gamma`, mean over `axis`: `(batch, ..., n)` twice -> `(batch, ...)`.

    `p_t` is the probability given to the true answer, `y_true * y_pred + (1 - y_true) * (1 - y_pred)`.

    Args:
        y_true: labels in [0, 1].
        y_pred: probabilities; with `from_logits`, any numbers.
        apply_class_balancing: whether 1s weigh `alpha` and 0s `1 - alpha`.
        alpha: the weight of the 1s.
        gamma: how much less a right answer counts; 0 gives the plain cross-entropy.
        from_logits: what `y_pred` holds.
        label_smoothing: share by which labels are drawn towards 0.5, in [0, 1].
        axis: the axis averaged.

    >>> losses.binary_focal_crossentropy([[1.0]], [[0.5]], gamma=2.0)  # log(2) / 4
    tensor([0.1733])
    """
    y_true, y_pred = smoothed_bits("binary_focal_crossentropy", y_true, y_pred, label_smoothing)
    if from_logits:
        crossentropy = F.binary_cross_entropy_with_logits(y_pred, y_true, reduction="none")
        probability, opposite = y_pred.sigmoid(), (-y_pred).sigmoid()
    else:
        crossentropy = bits_crossentropy(y_true, y_pred)
        probability, opposite = y_pred, 1.0 - y_pred
    missed = y_true * opposite + (1.0 - y_true) * probability
    values = missed**gamma * crossentropy
    if apply_class_balancing:
        values = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * values
    return values.mean(axis)


def categorical_focal_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    alpha: float | Sequence[float] | Tensor = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """`sum(alpha * (1 - y_pred)**gamma * -y_true * log(y_pred))`: `(batch, ..., classes)` twice -> `(batch, ...)`.

    Args:
        y_true: probabilities of the classes, one-hot as a rule.
        y_pred: predicted probabilities, scaled to sum to 1; with `from_logits`, any numbers.
        alpha: the weight of the classes, or one for each of them, when they are on the last axis.
        gamma: how much less a right answer counts; 0 gives the cross-entropy times `alpha`.
        from_logits: what `y_pred` holds.
        label_smoothing: share of the label spread over all classes, in [0, 1].
        axis: where the classes are.

    Raises:
        ValueError: the shapes differ, or there is only one class.

    >>> losses.categorical_focal_crossentropy([[0.0, 1.0]], [[0.5, 0.5]], alpha=1.0, gamma=2.0)
    tensor([0.1733])
    """
    y_true, y_pred = smoothed_classes("categorical_focal_crossentropy", y_true, y_pred, label_smoothing, axis)
    if from_logits:
        log_p = y_pred.log_softmax(axis)
        missed = -log_p.expm1()
    else:
        p = (y_pred / y_pred.sum(axis, keepdim=True)).clamp(epsilon(), 1.0 - epsilon())
        log_p, missed = p.log(), 1.0 - p
    weight = torch.tensor(alpha, dtype=y_pred.dtype, device=y_pred.device) if isinstance(alpha, Sequence) else alpha
    return (weight * missed**gamma * -y_true * log_p).sum(axis)


class BinaryFocalCrossentropy(Crossentropy):
    """Binary cross-entropy times `(1 - p_t)**gamma`, `p_t` being the probability given to the true answer.

    Args:
        apply_class_balancing: whether 1s weigh `alpha` and 0s `1 - alpha`.
        alpha: the weight of the 1s.
        gamma: how much less a right answer counts.
        from_logits: whether predictions are logits and not probabilities.
        label_smoothing: share by which labels are drawn towards 0.5, in [0, 1].
        axis: the axis averaged for one sample's loss.
        reduction, name, dtype: as for `Loss`.

    >>> losses.BinaryFocalCrossentropy(gamma=2.0)([[1.0]], [[0.5]])
    tensor(0.1733)
    """

    target_form = "labels"

    activation = "sigmoid"

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: DTypeLike | None = None,
    ) -> None:
        arguments: dict[str, Any] = {
            "from_logits": from_logits,
            "label_smoothing": label_smoothing,
            "axis": axis,
            "apply_class_balancing": apply_class_balancing,
            "alpha": alpha,
            "gamma": gamma,
        }
        super().__init__(binary_focal_crossentropy, reduction, name, dtype, **arguments)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis
        self.apply_class_balancing, self.alpha, self.gamma = apply_class_balancing, alpha, gamma


class CategoricalFocalCrossentropy(Crossentropy):
    """Cross-entropy of one-hot labels times `alpha * (1 - p)**gamma`, p being the probability of the true class.

    Args:
        alpha: the weight of the classes, or a list with one for each.
        gamma: how much less a right answer counts.
        from_logits: whether predictions are logits and not probabilities.
        label_smoothing: share of the label spread over all classes, in [0, 1].
        axis: where the classes are.
        reduction, name, dtype: as for `Loss`.

    >>> losses.CategoricalFocalCrossentropy(alpha=1.0)([[0.0, 1.0]], [[0.5, 0.5]])
    tensor(0.1733)
    """

    target_form = "one_hot"

    activation = "softmax"

    def __init__(
        self,
        alpha: float | Sequence[float] = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: DTypeLike | None = None,
    ) -> None:
        arguments: dict[str, Any] = {
            "from_logits": from_logits,
            "label_smoothing": label_smoothing,
            "axis": axis,
            "alpha": alpha,
            "gamma": gamma,
        }
        super().__init__(categorical_focal_crossentropy, reduction, name, dtype, **arguments)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis
        self.alpha, self.gamma = alpha, gamma

    def to(self, device: torch.device | str) -> Loss:
        """Keep the weights of the classes on `device`, so that a step need not copy them there."""
        if isinstance(self.alpha, Sequence):
            self._fn_kwargs["alpha"] = torch.tensor(self.alpha, dtype=self.dtype, device=device)
        return self

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}
