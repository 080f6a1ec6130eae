"""`Mean` and `Sum` over all samples, and the metrics that are the mean of a function (keras reduction_metrics.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchfunc.dtypes import DTypeLike
from torchfunc.losses.base import written_arguments
from torchfunc.losses.shapes import TensorLike, as_tensors
from torchfunc.losses.weighting import apply_mask, divide_no_nan, match_weight
from torchfunc.metrics.base import Metric, add_to, detached
from torchfunc.registry import deserialize_keras_object, serialize_keras_object
from torchfunc.tensor_masks import MASK

__all__ = ["FunctionMetric", "LossMean", "Mean", "MeanMetricWrapper", "Sum"]


class _Reduction(Metric):
    """State of at least float32: the sums of a bfloat16 metric would stop growing after 256 samples."""

    _reduce: ClassVar[Callable[..., Tensor]]

    def __init__(self, name: str | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._state_dtype = torch.promote_types(self.dtype, torch.float32)
        self.total = self.add_variable((), "zeros", dtype=self._state_dtype, name="total")

    def _as_state(self, values: TensorLike) -> Tensor:
        values = detached(values) if isinstance(values, Tensor) else torch.as_tensor(values)
        return values if values.dtype is self._state_dtype else values.to(self._state_dtype)

    def _samplewise(self, values: TensorLike, sample_weight: TensorLike) -> tuple[Tensor, Tensor]:
        """One value per sample, weighted, and the weight of each: `(batch,)` both, or scalars."""
        values = self._as_state(values)
        weight = torch.as_tensor(sample_weight, dtype=values.dtype, device=values.device)
        values, weight = match_weight(self.name, values, weight)
        return self._over_samples(values * weight), self._over_samples(weight.expand_as(values))

    def _over_samples(self, values: Tensor) -> Tensor:
        """Reduce all axes but the first."""
        return type(self)._reduce(values.flatten(1), dim=1) if values.ndim > 1 else values


class Sum(_Reduction):
    """The (weighted) sum of all values.

    Args:
        name, dtype: as for `Metric`.

    >>> metric = metrics.Sum()
    >>> metric.update_state([1.0, 3.0])
    >>> metric.update_state([5.0], sample_weight=[2.0])
    >>> metric.result()
    tensor(14.)
    """

    _reduce = torch.sum

    def __init__(self, name: str = "sum", dtype: DTypeLike | None = None) -> None:
        super().__init__(name, dtype)

    def update_state(self, values: TensorLike, sample_weight: TensorLike | None = None) -> None:  # type: ignore[override]
        """Add `values`, of any shape, weighted by `sample_weight`: of that shape, or of its first axes."""
        weighted = self._as_state(values) if sample_weight is None else self._samplewise(values, sample_weight)[0]
        add_to(self.total, weighted.sum())

    def result(self) -> Tensor:
        return self.total.to(self.dtype, copy=True)


class Mean(_Reduction):
    """The (weighted) mean over all samples: `total / count`, 0 before the first.

    Args:
        name, dtype: as for `Metric`.

    >>> metric = metrics.Mean()
    >>> metric.update_state([1.0, 3.0])
    >>> metric.update_state([5.0], sample_weight=[2.0])
    >>> metric.result()  # (1 + 3 + 2 * 5) / 4
    tensor(3.5000)
    """

    _reduce = torch.mean

    def __init__(self, name: str | None = "mean", dtype: DTypeLike | None = None) -> None:
        super().__init__(name, dtype)
        self.count = self.add_variable((), "zeros", dtype=self._state_dtype, name="count")

    def update_state(self, values: TensorLike, sample_weight: TensorLike | None = None) -> None:  # type: ignore[override]
        """Add `values`, `(batch, ...)` or a scalar; a sample's further axes are averaged first.

        Args:
            values: what to average.
            sample_weight: of the shape of `values`, or of its first axes.

        Raises:
            ValueError: the weights do not fit the values.
        """
        if sample_weight is None:
            values = values if isinstance(values, Tensor) else torch.as_tensor(values)
            # Of answers that are right or wrong, counting those that are right takes fewer kernels.
            total = values.count_nonzero() if values.dtype is torch.bool else self._as_state(values).sum()
            rows = values.shape[0] if values.ndim else 1
            # The sum of all samples' means.
            self.add(total, rows / max(values.numel(), 1), rows)
            return
        per_sample, weight = self._samplewise(values, sample_weight)
        self.add(per_sample.sum(), 1, weight.sum())

    def add(self, total: Tensor, scale: float, count: Tensor | float) -> None:
        """Add `scale * total` to the total, and to the count; as `add_to` does."""
        if self._state_dtype is torch.float64:
            add_to(self.total, total, scale)
            add_to(self.count, count)
        else:
            self.total.add_(total, alpha=scale)
            self.count.add_(count)

    def result(self) -> Tensor:
        return divide_no_nan(self.total, self.count).to(self.dtype)


class LossMean(Mean):
    """The mean of a loss over samples: each batch's loss counts as often as it has rows."""

    direction = "down"

    def update_state(self, value: Tensor, rows: int = 1) -> None:  # type: ignore[override]
        """Add the loss of a batch of `rows`, a scalar."""
        self.add(value.detach() if value.requires_grad else value, rows, rows)


class MeanMetricWrapper(Mean):
    """The mean of a function `fn(y_true, y_pred, **kwargs)` that returns one value per sample.

    Args:
        fn: the function. A scalar counts as one sample.
        name, dtype: as for `Metric`.
        **kwargs: further arguments for `fn`.

    >>> metric = metrics.MeanMetricWrapper(lambda y_true, y_pred: (y_true - y_pred).abs().amax(-1))
    >>> metric(torch.zeros(2, 3), torch.tensor([[1.0, -2.0, 0.0], [0.0, 4.0, 0.0]]))
    tensor(3.)
    """

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: DTypeLike | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name, dtype)
        self._fn = fn
        self._fn_kwargs = kwargs

    def update_state(  # type: ignore[override]
        self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None
    ) -> None:
        """Add one batch.

        Args:
            y_true: targets, `(batch, ...)`.
            y_pred: predictions, `(batch, ...)`.
            sample_weight: `(batch,)`, or the shape of what the function returns.

        Raises:
            ValueError: the shapes of targets, predictions, weights do not fit each other.
        """
        if not (isinstance(y_true, Tensor) and isinstance(y_pred, Tensor)):
            y_true, y_pred = as_tensors(y_true, y_pred)
        # (In training it is in the weights already, and once more is as good as once.)
        mask = getattr(y_pred, MASK, None)
        sample_weight = sample_weight if mask is None else self.masked_weight(sample_weight, mask)
        if y_pred.requires_grad:
            y_pred = y_pred.detach()
        if y_pred.dtype is not self._state_dtype and y_pred.is_floating_point():
            # As losses do (Keras does not): half precision has no room between 1 and 1 - epsilon.
            dtype = torch.promote_types(y_pred.dtype, self._state_dtype)
            y_pred = y_pred if y_pred.dtype is dtype else y_pred.to(dtype)
        super().update_state(self._fn(y_true, y_pred, **self._fn_kwargs), sample_weight)

    def masked_weight(self, sample_weight: TensorLike | None, mask: Tensor | None) -> TensorLike | None:
        """The weights with 0 wherever the mask says so; None if there are neither weights nor mask."""
        if mask is None:
            return sample_weight
        if sample_weight is not None:
            sample_weight = torch.as_tensor(sample_weight, device=mask.device)
        return apply_mask(sample_weight, mask, "sum", self._state_dtype)

    def get_config(self) -> dict[str, Any]:
        fn = serialize_keras_object(self._fn)
        return {**super().get_config(), "fn": fn, **serialize_keras_object(self._fn_kwargs)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MeanMetricWrapper:
        return cls(**deserialize_keras_object(dict(config)))


class FunctionMetric(MeanMetricWrapper):
    """A built-in metric: one function under a class's name, whose config holds the arguments but not the function."""

    # Arguments that Keras leaves out of its config, at these values or always; here at these values only.
    _unwritten: ClassVar[Mapping[str, Any]] = {}

    def get_config(self) -> dict[str, Any]:
        return {**Metric.get_config(self), **written_arguments(self._fn_kwargs, self._unwritten)}
