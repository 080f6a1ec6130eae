"""Metrics that are the mean of a loss function (keras regression_metrics.py and probabilistic_metrics.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfunc import losses
from torchfunc.dtypes import DTypeLike
from torchfunc.losses.shapes import TensorLike, as_tensors, same_shape
from torchfunc.metrics.reduction import FunctionMetric, Mean

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "RootMeanSquaredError",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
]


class MeanSquaredError(FunctionMetric):
    """`mean((y_true - y_pred)²)`. Arguments as for `Metric`.

    >>> metrics.MeanSquaredError()([[0.0, 0.0]], [[1.0, 3.0]])
    tensor(5.)
    """

    direction = "down"

    def __init__(self, name: str = "mean_squared_error", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.mean_squared_error, name, dtype)


class MeanAbsoluteError(FunctionMetric):
    """`mean(|y_true - y_pred|)`. Arguments as for `Metric`.

    >>> metrics.MeanAbsoluteError()([[0.0, 0.0]], [[1.0, 3.0]])
    tensor(2.)
    """

    direction = "down"

    def __init__(self, name: str = "mean_absolute_error", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.mean_absolute_error, name, dtype)


class MeanAbsolutePercentageError(FunctionMetric):
    """`100 * mean(|y_true - y_pred| / |y_true|)`, in percent. Arguments as for `Metric`.

    >>> metrics.MeanAbsolutePercentageError()([[10.0, 4.0]], [[9.0, 5.0]])
    tensor(17.5000)
    """

    direction = "down"

    def __init__(self, name: str = "mean_absolute_percentage_error", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.mean_absolute_percentage_error, name, dtype)


class MeanSquaredLogarithmicError(FunctionMetric):
    """`mean((log(y_true + 1) - log(y_pred + 1))²)`. Arguments as for `Metric`.

    >>> metrics.MeanSquaredLogarithmicError()([[0.0]], [[1.0]])
    tensor(0.4805)
    """

    direction = "down"

    def __init__(self, name: str = "mean_squared_logarithmic_error", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.mean_squared_logarithmic_error, name, dtype)


class RootMeanSquaredError(Mean):
    """`sqrt(mean((y_true - y_pred)²))`, the root taken over all samples. Arguments as for `Metric`.

    >>> metrics.RootMeanSquaredError()([[0.0], [0.0]], [[2.0], [2.0]])
    tensor(2.)
    """

    direction = "down"

    def __init__(self, name: str = "root_mean_squared_error", dtype: DTypeLike | None = None) -> None:
        super().__init__(name, dtype)

    def update_state(  # type: ignore[override]
        self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None
    ) -> None:
        """Add one batch: targets and predictions `(batch, ...)`, weights `(batch,)` or one per value."""
        y_true, y_pred = as_tensors(y_true, y_pred)
        y_true, y_pred = same_shape(self.name, y_true, y_pred.detach().to(self._state_dtype))
        super().update_state((y_pred - y_true).square(), sample_weight)

    def result(self) -> Tensor:
        return super().result().sqrt()


class CosineSimilarity(FunctionMetric):
    """The cosine of the angle between target and prediction: 1 when they point the same way.

    Args:
        name, dtype: as for `Metric`.
        axis: the axis of the vectors.

    >>> metrics.CosineSimilarity()([[1.0, 0.0]], [[3.0, 4.0]])
    tensor(0.6000)
    """

    direction = "up"
    _unwritten = {"axis": -1}

    def __init__(self, name: str = "cosine_similarity", dtype: DTypeLike | None = None, axis: int = -1) -> None:
        super().__init__(_cosine, name, dtype, axis=axis)


def _cosine(y_true: Tensor, y_pred: Tensor, axis: int) -> Tensor:
    return -losses.cosine_similarity(y_true, y_pred, axis)


class LogCoshError(FunctionMetric):
    """`mean(log(cosh(y_pred - y_true)))`. Arguments as for `Metric`.

    >>> metrics.LogCoshError()([[0.0]], [[2.0]])
    tensor(1.3250)
    """

    direction = "down"

    def __init__(self, name: str = "logcosh", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.log_cosh, name, dtype)


class Hinge(FunctionMetric):
    """`mean(max(1 - y_true * y_pred, 0))`, labels -1 and 1 (or 0 and 1). Arguments as for `Metric`.

    >>> metrics.Hinge()([[1.0, -1.0]], [[0.5, 0.5]])
    tensor(1.)
    """

    direction = "down"

    def __init__(self, name: str = "hinge", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.hinge, name, dtype)


class SquaredHinge(FunctionMetric):
    """`mean(max(1 - y_true * y_pred, 0)²)`, labels -1 and 1 (or 0 and 1). Arguments as for `Metric`.

    >>> metrics.SquaredHinge()([[1.0, -1.0]], [[0.0, 1.0]])
    tensor(2.5000)
    """

    direction = "down"

    def __init__(self, name: str = "squared_hinge", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.squared_hinge, name, dtype)


class CategoricalHinge(FunctionMetric):
    """How far the true class's score stays short of the best other one plus 1. Arguments as for `Metric`.

    >>> metrics.CategoricalHinge()([[0.0, 1.0, 0.0]], [[0.5, 1.0, 0.25]])
    tensor(0.5000)
    """

    direction = "down"

    def __init__(self, name: str = "categorical_hinge", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.categorical_hinge, name, dtype)


class KLDivergence(FunctionMetric):
    """`sum(y_true * log(y_true / y_pred))`, for distributions `(batch, ..., n)`. Arguments as for `Metric`.

    >>> metrics.KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]])
    tensor(0.1438)
    """

    direction = "down"

    def __init__(self, name: str = "kl_divergence", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.kl_divergence, name, dtype)


class Poisson(FunctionMetric):
    """`mean(y_pred - y_true * log(y_pred))`: counts under predicted rates. Arguments as for `Metric`.

    >>> metrics.Poisson()([[1.0, 2.0]], [[1.0, 1.0]])
    tensor(1.0000)
    """

    direction = "down"

    def __init__(self, name: str = "poisson", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.poisson, name, dtype)


class BinaryCrossentropy(FunctionMetric):
    """Cross-entropy of yes-or-no labels.

    Args:
        name, dtype: as for `Metric`.
        from_logits: whether predictions are logits and not probabilities.
        label_smoothing: share by which labels are drawn towards 0.5, in [0, 1].

    >>> metrics.BinaryCrossentropy()([[1.0], [0.0]], [[0.5], [0.5]])
    tensor(0.6931)
    """

    direction = "down"

    def __init__(
        self,
        name: str = "binary_crossentropy",
        dtype: DTypeLike | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        super().__init__(
            losses.binary_crossentropy, name, dtype, from_logits=from_logits, label_smoothing=label_smoothing
        )
        self.from_logits, self.label_smoothing = from_logits, label_smoothing


class CategoricalCrossentropy(FunctionMetric):
    """Cross-entropy of one-hot labels.

    Args:
        name, dtype: as for `Metric`.
        from_logits: whether predictions are logits and not probabilities.
        label_smoothing: share of the label spread over all classes, in [0, 1].
        axis: where the classes are.

    >>> metrics.CategoricalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
    tensor(0.6931)
    """

    direction = "down"

    def __init__(
        self,
        name: str = "categorical_crossentropy",
        dtype: DTypeLike | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        super().__init__(
            losses.categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class SparseCategoricalCrossentropy(FunctionMetric):
    """Cross-entropy of class indices.

    Args:
        name, dtype: as for `Metric`.
        from_logits: whether predictions are logits and not probabilities.
        ignore_class: an index that stands for no class. As in Keras, the loss of such a sample is 0, and it counts in
            the mean unless there are sample weights.
        axis: where the classes are.

    >>> metrics.SparseCategoricalCrossentropy(from_logits=True)([1, 2], torch.zeros(2, 3))
    tensor(1.0986)
    """

    direction = "down"

    def __init__(
        self,
        name: str = "sparse_categorical_crossentropy",
        dtype: DTypeLike | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(
            losses.sparse_categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def update_state(  # type: ignore[override]
        self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None
    ) -> None:
        if sample_weight is not None and self.ignore_class is not None:
            y_true, y_pred = as_tensors(y_true, y_pred)
            weight = torch.as_tensor(sample_weight, device=y_true.device)
            labels = y_true.squeeze(self.axis) if y_true.ndim == y_pred.ndim else y_true
            sample_weight = losses.apply_mask(weight, labels != self.ignore_class, "sum", self._state_dtype)
        super().update_state(y_true, y_pred, sample_weight)
