"""Losses that compare probabilities (keras/src/losses/losses.py): the functions, and a class for each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from torchfunc.config import epsilon, floatx
from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.losses.base import FunctionLoss, LossFunctionWrapper
from torchfunc.losses.shapes import TensorLike, class_indices, same_shape
from torchfunc.losses.weighting import Reduction

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "Crossentropy",
    "KLDivergence",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "bits_crossentropy",
    "categorical_crossentropy",
    "categorical_generalized_cross_entropy",
    "kl_divergence",
    "log_probabilities",
    "poisson",
    "smoothed_bits",
    "smoothed_classes",
    "sparse_categorical_crossentropy",
]

T = TypeVar("T", bound="Crossentropy")


def smoothed_bits(name: str, y_true: TensorLike, y_pred: TensorLike, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Yes-or-no labels, drawn towards 0.5, and predictions of the same shape and dtype."""
    y_true, y_pred = same_shape(name, y_true, y_pred)
    return (y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else y_true), y_pred


def smoothed_classes(
    name: str, y_true: TensorLike, y_pred: TensorLike, label_smoothing: float, axis: int
) -> tuple[Tensor, Tensor]:
    """One-hot labels, drawn towards the uniform distribution, and predictions of the same shape and dtype."""
    y_true, y_pred = same_shape(name, y_true, y_pred)
    if y_pred.shape[axis] == 1:
        raise ValueError(
            f"{name}: y_pred has shape {tuple(y_pred.shape)}, one class on axis {axis}, for which the loss is always "
            "0. With two classes and one output use 'binary_crossentropy'."
        )
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_true.shape[axis]
    return y_true, y_pred


def bits_crossentropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Cross-entropy of each yes-or-no label under a probability, kept away from 0 and 1."""
    # Not F.binary_cross_entropy: it stops the process (on CUDA for good) at a NaN, and a NaN should reach the logs.
    y_pred = y_pred.clamp(epsilon(), 1.0 - epsilon())
    return -torch.lerp((-y_pred).log1p(), y_pred.log(), y_true)


def log_probabilities(y_pred: Tensor, axis: int) -> Tensor:
    """The logarithm of predictions that are first made to sum to 1 and kept away from 0."""
    return (y_pred / y_pred.sum(axis, keepdim=True)).clamp(epsilon(), 1.0 - epsilon()).log()


def _binary(
    y_true: TensorLike,
    y_pred: TensorLike,
    from_logits: bool,
    label_smoothing: float,
    axis: int = -1,
    reduction: str = "mean",
) -> Tensor:
    y_true, y_pred = smoothed_bits("binary_crossentropy", y_true, y_pred, label_smoothing)
    if from_logits:
        return F.binary_cross_entropy_with_logits(y_pred, y_true, reduction=reduction)
    values = bits_crossentropy(y_true, y_pred)
    return values.mean() if reduction == "mean" else values


def _categorical(
    y_true: TensorLike,
    y_pred: TensorLike,
    from_logits: bool,
    label_smoothing: float,
    axis: int,
    reduction: str = "mean",
) -> Tensor:
    y_true, y_pred = smoothed_classes("categorical_crossentropy", y_true, y_pred, label_smoothing, axis)
    log_p = y_pred.log_softmax(axis) if from_logits else log_probabilities(y_pred, axis)
    values = -(y_true * log_p).sum(axis)
    return values.mean() if reduction == "mean" else values


def _sparse(
    y_true: TensorLike,
    y_pred: TensorLike,
    from_logits: bool,
    ignore_class: int | None,
    axis: int,
    reduction: str = "mean",
) -> Tensor:
    y_true, y_pred = class_indices(
        "sparse_categorical_crossentropy", y_true, y_pred, axis, for_one_hot="categorical_crossentropy"
    )
    if not y_pred.is_floating_point():
        y_pred = y_pred.to(as_dtype(floatx()))
    axis = axis % y_pred.ndim
    # torch wants the classes on axis 1, of a single prediction on axis 0.
    if axis != 1 and y_pred.ndim > 1:
        y_pred, axis = y_pred.movedim(axis, 1), 1
    ignored = -100 if ignore_class is None else ignore_class
    if from_logits:
        return F.cross_entropy(y_pred, y_true.long(), ignore_index=ignored, reduction=reduction)
    return F.nll_loss(log_probabilities(y_pred, axis), y_true.long(), ignore_index=ignored, reduction=reduction)


def binary_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Cross-entropy of independent yes-or-no labels, mean over `axis`: `(batch, ..., n)` twice -> `(batch, ...)`.

    Args:
        y_true: labels in [0, 1].
        y_pred: probabilities, kept within [epsilon, 1 - epsilon]; with `from_logits`, any numbers.
        label_smoothing: share by which labels are drawn towards 0.5, in [0, 1].

    >>> losses.binary_crossentropy([[1.0], [0.0]], [[0.5], [0.2]])
    tensor([0.6931, 0.2231])
    >>> losses.binary_crossentropy([[1.0]], [[0.0]], from_logits=True)
    tensor([0.6931])
    """
    return _binary(y_true, y_pred, from_logits, label_smoothing, reduction="none").mean(axis)


def categorical_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Cross-entropy of one-hot labels (or class probabilities): `(batch, ..., classes)` twice -> `(batch, ...)`.

    Args:
        y_true: probabilities of the classes.
        y_pred: predicted probabilities, scaled to sum to 1; with `from_logits`, any numbers.
        label_smoothing: share of the label spread over all classes, in [0, 1].
        axis: where the classes are.

    Raises:
        ValueError: the shapes differ, or there is only one class.

    >>> losses.categorical_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])
    tensor([0.6931])
    """
    return _categorical(y_true, y_pred, from_logits, label_smoothing, axis, "none")


def sparse_categorical_crossentropy(
    y_true: TensorLike,
    y_pred: TensorLike,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Tensor:
    """Cross-entropy of class indices: `(batch, ...)` and `(batch, ..., classes)` -> `(batch, ...)`.

    Args:
        y_true: class indices, integers or floats that hold integers; a class axis of size 1 is allowed.
        y_pred: predicted probabilities, scaled to sum to 1; with `from_logits`, any numbers.
        ignore_class: an index that stands for no class; the loss is 0 there.
        axis: where the classes are.

    Raises:
        ValueError: there is not one index for each prediction.

    >>> losses.sparse_categorical_crossentropy([1, 0], [[0.5, 0.5], [0.2, 0.8]])
    tensor([0.6931, 1.6094])
    """
    return _sparse(y_true, y_pred, from_logits, ignore_class, axis, "none")


def kl_divergence(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`sum(y_true * log(y_true / y_pred))` over the last axis, both kept within [epsilon, 1]: -> `(batch, ...)`.

    >>> losses.kl_divergence([[0.5, 0.5]], [[0.25, 0.75]])
    tensor([0.1438])
    """
    y_true, y_pred = same_shape("kl_divergence", y_true, y_pred)
    y_true, y_pred = y_true.clamp(epsilon(), 1.0), y_pred.clamp(epsilon(), 1.0)
    return (y_true * (y_true / y_pred).log()).sum(-1)


def poisson(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """`mean(y_pred - y_true * log(y_pred + epsilon))` over the last axis: `(batch, ..., n)` twice -> `(batch, ...)`.

    >>> losses.poisson([[1.0, 2.0]], [[1.0, 1.0]])
    tensor([1.0000])
    """
    y_true, y_pred = same_shape("poisson", y_true, y_pred)
    return (y_pred - y_true * (y_pred + epsilon()).log()).mean(-1)


def categorical_generalized_cross_entropy(y_true: TensorLike, y_pred: TensorLike, q: float) -> Tensor:
    """`(1 - p**q) / q` for the probability p of the true class, one number a prediction: -> `(batch, ...)`.

    Zhang & Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels" (2018).

    Args:
        y_true: class indices, `(batch, ...)` or `(batch, ..., 1)`; integers or floats that hold integers.
        y_pred: predicted probabilities, `(batch, ..., classes)`.
        q: in (0, 1); near 0 it is the cross-entropy, near 1 the absolute error, which noisy labels move less.

    Raises:
        ValueError: there is not one index for each prediction.

    >>> losses.categorical_generalized_cross_entropy([0], [[0.25, 0.75]], q=0.5)
    tensor([1.])
    """
    y_true, y_pred = class_indices("categorical_generalized_cross_entropy", y_true, y_pred)
    if not y_pred.is_floating_point():
        y_pred = y_pred.to(as_dtype(floatx()))
    probability = y_pred.gather(-1, y_true.long().unsqueeze(-1)).squeeze(-1)
    return (1.0 - probability**q) / q


class Crossentropy(FunctionLoss):
    """A loss of probabilities that can also be computed from logits: what a sigmoid or softmax was given.

    Attributes:
        activation: "sigmoid" or "softmax": what makes this loss's probabilities of logits.
        from_logits: whether predictions are logits.
        axis: for "softmax": where the classes are.
    """

    activation: ClassVar[str]
    from_logits: bool
    axis: int

    def on_logits(self: T, activation: str | None = None, axis: int = -1, ndim: int | None = None) -> T | None:
        if self.from_logits or type(self).call is not LossFunctionWrapper.call:
            return None
        if activation is not None and not self._is_undone_by(activation, axis, ndim):
            return None
        twin = copy.copy(self)
        twin.from_logits = True
        twin._fn_kwargs = {**self._fn_kwargs, "from_logits": True}
        return twin

    def _is_undone_by(self, activation: str, axis: int, ndim: int | None) -> bool:
        if activation != self.activation:
            return False
        if activation == "sigmoid" or axis == self.axis:
            return True
        return ndim is not None and axis % ndim == self.axis % ndim


class BinaryCrossentropy(Crossentropy):
    """Cross-entropy of yes-or-no labels, `(batch, n)` for n independent ones.

    Args:
        from_logits: whether predictions are logits and not probabilities.
        label_smoothing: share by which labels are drawn towards 0.5, in [0, 1].
        axis: the axis averaged for one sample's loss.
        reduction, name, dtype: as for `Loss`.

    >>> losses.BinaryCrossentropy(from_logits=True)([[1.0], [0.0]], [[0.0], [0.0]])
    tensor(0.6931)
    """

    target_form = "labels"

    activation = "sigmoid"
    _fused = staticmethod(_binary)

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: DTypeLike | None = None,
    ) -> None:
        arguments: dict[str, Any] = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_crossentropy, reduction, name, dtype, **arguments)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class CategoricalCrossentropy(Crossentropy):
    """Cross-entropy of one-hot labels, `(batch, ..., classes)`.

    Args:
        from_logits: whether predictions are logits and not probabilities.
        label_smoothing: share of the label spread over all classes, in [0, 1].
        axis: where the classes are.
        reduction, name, dtype: as for `Loss`.

    >>> losses.CategoricalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
    tensor(0.6931)
    """

    target_form = "one_hot"

    activation = "softmax"
    _fused = staticmethod(_categorical)

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: DTypeLike | None = None,
    ) -> None:
        arguments: dict[str, Any] = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_crossentropy, reduction, name, dtype, **arguments)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class SparseCategoricalCrossentropy(Crossentropy):
    """Cross-entropy of class indices: targets `(batch,)`, predictions `(batch, classes)`.

    Args:
        from_logits: whether predictions are logits and not probabilities.
        ignore_class: an index that stands for no class; such samples do not count, not even in the mean.
        reduction: as for `Loss`.
        axis: where the classes are.
        name, dtype: as for `Loss`.

    >>> losses.SparseCategoricalCrossentropy(from_logits=True)([1, 2], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # log(3)
    tensor(1.0986)
    """

    target_form = "indices"

    activation = "softmax"
    _fused: Callable[..., Tensor] | None = staticmethod(_sparse)
    _unwritten = {"axis": -1}

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: Reduction = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: DTypeLike | None = None,
    ) -> None:
        arguments: dict[str, Any] = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(sparse_categorical_crossentropy, reduction, name, dtype, **arguments)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis
        if ignore_class is not None:
            # torch's mean is NaN when every sample is ignored; the mean over a mask is 0.
            self._fused = None

    def _mask_of(self, y_true: Tensor, values: Tensor) -> Tensor | None:
        if self.ignore_class is None:
            return None
        return (y_true.long() != self.ignore_class).reshape(values.shape)


class KLDivergence(FunctionLoss):
    """`sum(y_true * log(y_true / y_pred))`, for distributions `(batch, ..., n)`. Arguments as for `Loss`.

    >>> losses.KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]])
    tensor(0.1438)
    """

    def __init__(
        self, reduction: Reduction = "sum_over_batch_size", name: str = "kl_divergence", dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(kl_divergence, reduction, name, dtype)


class Poisson(FunctionLoss):
    """`mean(y_pred - y_true * log(y_pred))`: counts `y_true` under predicted rates. Arguments as for `Loss`.

    >>> losses.Poisson()([[1.0, 2.0]], [[1.0, 1.0]])
    tensor(1.0000)
    """

    def __init__(
        self, reduction: Reduction = "sum_over_batch_size", name: str = "poisson", dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(poisson, reduction, name, dtype)


class CategoricalGeneralizedCrossEntropy(FunctionLoss):
    """`(1 - p**q) / q` for the probability p of the true class: between cross-entropy and absolute error.

    Args:
        q: in (0, 1); near 0 it is the cross-entropy, near 1 the absolute error.
        reduction, name, dtype: as for `Loss`.

    Raises:
        ValueError: `q` is not within (0, 1).

    >>> losses.CategoricalGeneralizedCrossEntropy(q=0.5)([0], [[0.25, 0.75]])
    tensor(1.)
    """

    target_form = "indices"

    def __init__(
        self,
        q: float = 0.5,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "categorical_generalized_cross_entropy",
        dtype: DTypeLike | None = None,
    ) -> None:
        if not 0 < q < 1:
            raise ValueError(f"CategoricalGeneralizedCrossEntropy: q lies between 0 and 1, both excluded, got {q!r}.")
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)
        self.q = q
