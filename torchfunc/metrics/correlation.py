"""How much of the targets' variation predictions explain (keras correlation_metrics.py and regression_metrics.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.config import epsilon
from torchfunc.dtypes import DTypeLike
from torchfunc.losses.shapes import TensorLike, as_tensors, same_shape
from torchfunc.losses.weighting import match_weight
from torchfunc.metrics.base import Metric, add_to
from torchfunc.metrics.reduction import FunctionMetric

__all__ = [
    "ConcordanceCorrelation",
    "PearsonCorrelation",
    "R2Score",
    "concordance_correlation",
    "pearson_correlation",
]

_AGGREGATIONS = (None, "uniform_average", "variance_weighted_average")


def pearson_correlation(y_true: TensorLike, y_pred: TensorLike, axis: int = -1) -> Tensor:
    """Pearson's correlation along `axis`, from -1 to 1, NaN where one of the two does not vary: -> `(batch, ...)`.

    >>> metrics.pearson_correlation([[1.0, 2.0, 3.0]], [[3.0, 2.0, 1.0]]).round(decimals=4)
    tensor([-1.])
    """
    y_true, y_pred = same_shape("pearson_correlation", y_true, y_pred)
    y_true = y_true - y_true.mean(axis, keepdim=True)
    y_pred = y_pred - y_pred.mean(axis, keepdim=True)
    return (y_true / _variance(y_true, axis).sqrt() * (y_pred / _variance(y_pred, axis).sqrt())).mean(axis)


def _variance(centred: Tensor, axis: int) -> Tensor:
    # Not torch.var, which warns of an empty batch.
    return centred.square().mean(axis, keepdim=True)


def concordance_correlation(y_true: TensorLike, y_pred: TensorLike, axis: int = -1) -> Tensor:
    """Lin's concordance along `axis`: the correlation, less for another mean or scale: -> `(batch, ...)`.

    `2 * cov(y_true, y_pred) / (var(y_true) + var(y_pred) + (mean(y_true) - mean(y_pred))²)`

    >>> metrics.concordance_correlation([[1.0, 2.0, 3.0]], [[2.0, 3.0, 4.0]]).round(decimals=4)
    tensor([0.5714])
    """
    y_true, y_pred = same_shape("concordance_correlation", y_true, y_pred)
    mean_true, mean_pred = y_true.mean(axis, keepdim=True), y_pred.mean(axis, keepdim=True)
    y_true, y_pred = y_true - mean_true, y_pred - mean_pred
    spread = _variance(y_true, axis) + _variance(y_pred, axis) + (mean_true - mean_pred).square()
    return (2.0 * y_true * y_pred / (spread + epsilon())).mean(axis)


class PearsonCorrelation(FunctionMetric):
    """The mean of each sample's correlation of targets and predictions.

    Args:
        name, dtype: as for `Metric`.
        axis: along which they are correlated. `(batch, n)`: -1 for the entries of a sample, 0 for those of a batch.

    >>> metrics.PearsonCorrelation()([[1.0, 2.0, 3.0]], [[3.0, 2.0, 1.0]]).round(decimals=4)
    tensor(-1.)
    """

    direction = "up"

    def __init__(self, name: str = "pearson_correlation", dtype: DTypeLike | None = None, axis: int = -1) -> None:
        super().__init__(pearson_correlation, name, dtype, axis=axis)
        self.axis = axis


class ConcordanceCorrelation(FunctionMetric):
    """The mean of each sample's concordance of targets and predictions: correlation, mean and scale.

    Args:
        name, dtype, axis: as for `PearsonCorrelation`.

    >>> metrics.ConcordanceCorrelation()([[1.0, 2.0, 3.0]], [[2.0, 3.0, 4.0]]).round(decimals=4)
    tensor(0.5714)
    """

    direction = "up"

    def __init__(self, name: str = "concordance_correlation", dtype: DTypeLike | None = None, axis: int = -1) -> None:
        super().__init__(concordance_correlation, name, dtype, axis=axis)
        self.axis = axis


class R2Score(Metric):
    """The share of the targets' variance that predictions explain, over all samples: 1 is the best.

    Args:
        class_aggregation: "uniform_average" gives the mean over the outputs, "variance_weighted_average" their mean
            weighed by variance, None one score for each.
        num_regressors: independent regressors for the adjusted score; 0 gives the plain one. With too few samples
            the score is not adjusted (where Keras warns, which would read the state back).
        name, dtype: as for `Metric`.

    Raises:
        ValueError: an argument has no such value.

    >>> metrics.R2Score()([[1.0], [2.0], [3.0]], [[1.0], [2.0], [4.0]])  # 1 - 1 / 2
    tensor(0.5000)
    """

    direction = "up"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str = "r2_score",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if class_aggregation not in _AGGREGATIONS:
            known = ", ".join(map(repr, _AGGREGATIONS))
            raise ValueError(f"R2Score: class_aggregation is one of {known}, got {class_aggregation!r}.")
        if num_regressors < 0:
            raise ValueError(f"R2Score: num_regressors is 0 or more, got {num_regressors!r}.")
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self._state_dtype = torch.promote_types(self.dtype, torch.float32)
        self.num_samples = self.add_variable((), "zeros", self._state_dtype, name="num_samples")
        self._outputs: int | None = None

    def build(self, y_true_shape: Sequence[int | None], y_pred_shape: Sequence[int | None]) -> None:
        """Make the sums of each output. Raises ValueError for other predictions than `(batch, outputs)`."""
        if self._outputs is not None:
            return
        sizes = y_pred_shape if len(y_pred_shape) >= len(y_true_shape) else y_true_shape
        if len(sizes) != 2 or sizes[-1] is None:
            raise ValueError(
                f"{self.name}: targets and predictions have shape (batch, outputs), got y_true with "
                f"{tuple(y_true_shape)} and y_pred with {tuple(y_pred_shape)}."
            )
        self._outputs = sizes[-1]
        for state in ("squared_sum", "sum", "total_mse", "count"):
            setattr(self, state, self.add_variable((self._outputs,), "zeros", self._state_dtype, name=state))

    def update_state(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> None:
        """Add one batch: targets and predictions `(batch, outputs)`, weights `(batch,)` or one per value.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        y_true, y_pred = as_tensors(y_true, y_pred)
        if self._outputs is None:
            self.build(y_true.shape, y_pred.shape)
            self.to(y_pred.device)
        y_true, y_pred = same_shape(self.name, y_true, y_pred.detach().to(self._state_dtype))
        if y_pred.ndim != 2 or y_pred.shape[-1] != self._outputs:
            raise ValueError(
                f"{self.name}: y_pred has shape {tuple(y_pred.shape)}, expected (batch, {self._outputs}) as before."
            )
        parts = torch.stack([y_true.square(), y_true, (y_true - y_pred).square(), torch.ones_like(y_true)])
        if sample_weight is not None:
            weight = torch.as_tensor(sample_weight, dtype=y_pred.dtype, device=y_pred.device)
            parts = parts * match_weight(self.name, y_pred, weight)[1]
        self.num_samples.add_(y_true.shape[0])
        for state, added in zip(self._variables[1:], parts.sum(1), strict=True):
            add_to(state, added)

    def result(self) -> Tensor:
        if self._outputs is None:
            return torch.zeros((), dtype=self.dtype)
        samples, squared, plain, residual, count = self._variables
        total = squared - plain * (plain / count)
        # As in scikit-learn: of targets that do not vary, only perfect predictions explain anything.
        constant = total == 0
        score = torch.where(
            constant, (residual == 0).to(total.dtype), 1.0 - residual / torch.where(constant, 1.0, total)
        )
        if self.class_aggregation == "uniform_average":
            score = score.mean()
        elif self.class_aggregation == "variance_weighted_average":
            score = (total * score).sum() / total.sum()
        if self.num_regressors:
            freedom = samples - self.num_regressors - 1.0
            adjusted = 1.0 - (1.0 - score) * (samples - 1.0) / freedom
            score = torch.where(freedom > 0, adjusted, score)
        return score.to(self.dtype)

    def get_config(self) -> dict[str, Any]:
        arguments = {"class_aggregation": self.class_aggregation, "num_regressors": self.num_regressors}
        return {**super().get_config(), **arguments}
