"""Whatever `compile()` is given as a metric, as a `Metric`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torchfunc.losses import as_loss, is_torch_loss, object_name
from torchfunc.losses.shapes import TensorLike, as_tensors, match_ranks, target_kind
from torchfunc.metrics.accuracy import BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy
from torchfunc.metrics.base import Metric
from torchfunc.metrics.catalogue import get
from torchfunc.metrics.from_losses import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy
from torchfunc.metrics.reduction import MeanMetricWrapper

__all__ = ["TorchMetric", "as_metric", "parse_metric"]

_BY_SHAPE: dict[str, dict[str, Any]] = {
    "accuracy": {
        "binary": BinaryAccuracy,
        "sparse": SparseCategoricalAccuracy,
        "categorical": CategoricalAccuracy,
    },
    "crossentropy": {
        "binary": BinaryCrossentropy,
        "sparse": SparseCategoricalCrossentropy,
        "categorical": CategoricalCrossentropy,
    },
}
_SHORT = {"acc": "accuracy", "ce": "crossentropy"}


class TorchMetric(Metric):
    """A `torchmetrics.Metric`, or anything with `update(pred, target)`, `compute()` and `reset()`, as a `Metric`.

    Its state is its own affair: `variables` is empty here. Class indices `(batch, 1)` reach it as `(batch,)`.

    Args:
        metric: the object.
        name: shown in logs.

    >>> class Largest:  # or any metric of torchmetrics
    ...     def reset(self):
    ...         self.value = 0.0
    ...
    ...     def update(self, prediction, target):
    ...         self.value = max(self.value, float(prediction.max()))
    ...
    ...     def compute(self):
    ...         return torch.tensor(self.value)
    >>> metric = metrics.TorchMetric(Largest())
    >>> metric.reset_state()
    >>> metric([0, 1], [2.0, 3.0])
    tensor(3.)
    """

    outside_step = True

    def __init__(self, metric: Any, name: str | None = None) -> None:
        super().__init__(name=name or object_name(metric))
        self.metric = metric

    def update_state(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> None:
        """Pass one batch on. Raises ValueError for a `sample_weight`, which such a metric has no place for."""
        if sample_weight is not None:
            raise ValueError(
                f"The metric {self.name!r} ({type(self.metric).__name__}) takes no sample_weight. Give it in "
                "`metrics` and not in `weighted_metrics`, or use one of torchfunc.metrics."
            )
        y_true, y_pred = as_tensors(y_true, y_pred)
        if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 and y_pred.shape[-1] > 1:
            y_true = y_true.squeeze(-1)
        y_true, y_pred = match_ranks(y_true, y_pred)
        self.metric.update(y_pred.detach(), y_true)

    def result(self) -> Any:
        return self.metric.compute()

    def reset_state(self) -> None:
        self.metric.reset()

    def to(self, device: torch.device | str) -> TorchMetric:
        if hasattr(self.metric, "to"):
            self.metric.to(device)
        return self

    def get_config(self) -> dict[str, Any]:
        """Raises ValueError: such an object has no config."""
        raise ValueError(
            f"The metric {self.name!r} is a {type(self.metric).__name__}, which cannot be written to a config. "
            "Use one of torchfunc.metrics, or compile the loaded model again."
        )


class MetricByShape(Metric):
    """What "accuracy" or "crossentropy" stands for until shapes are known: the binary, sparse or categorical one.

    Args:
        kind: "accuracy" or "crossentropy".
        name: the name in the logs.
    """

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(name=name)
        self.kind = kind

    def for_shapes(
        self, y_true_shape: Sequence[int | None] | None, y_pred_shape: Sequence[int | None] | None
    ) -> Metric:
        """The metric for these shapes. Raises ValueError if one of them is not known."""
        return _BY_SHAPE[self.kind][target_kind(y_true_shape, y_pred_shape, self.kind)](name=self.name)


def parse_metric(identifier: Any) -> Metric:
    """A `Metric` for anything `compile(metrics=[...])` takes; `for_shapes` gives the one for given data.

    Args:
        identifier: as for `as_metric`.

    Raises:
        ValueError: there is no such metric.
    """
    if isinstance(identifier, str):
        kind = _SHORT.get(identifier.lower(), identifier.lower())
        if kind in _BY_SHAPE:
            return MetricByShape(kind, identifier)
    if all(callable(getattr(identifier, method, None)) for method in ("update", "compute", "reset")):
        return TorchMetric(identifier() if isinstance(identifier, type) else identifier)
    metric = get(identifier)
    if metric is None:
        raise ValueError("A metric is needed here, got None.")
    if not isinstance(metric, Metric):
        name = identifier if isinstance(identifier, str) else object_name(metric)
        return MeanMetricWrapper(as_loss(metric) if is_torch_loss(metric) else metric, name)
    if isinstance(identifier, str):
        metric.name = identifier
    return metric


def as_metric(
    identifier: Any,
    y_true_shape: Sequence[int | None] | None = None,
    y_pred_shape: Sequence[int | None] | None = None,
) -> Metric:
    """A `Metric` for anything `compile(metrics=[...])` takes; its `name` is the name in the logs.

    Args:
        identifier: "accuracy" or "acc", "crossentropy" or "ce": binary, sparse or categorical by the shapes; any
            other name, a config, class or instance; a function `f(y_true, y_pred)` with one value per sample; a
            torch loss module; an object like those of torchmetrics. A name given as a string is the log name too.
        y_true_shape: shape of the targets with the batch axis; unknown sizes are None.
        y_pred_shape: shape of the predictions with the batch axis.

    Raises:
        ValueError: there is no such metric, or a choice by shape without shapes.

    >>> metrics.as_metric("mae").name
    'mae'
    >>> metrics.as_metric("accuracy", y_true_shape=(None, 1), y_pred_shape=(None, 10))
    <SparseCategoricalAccuracy name=accuracy>
    """
    metric = parse_metric(identifier)
    if isinstance(metric, MetricByShape):
        return metric.for_shapes(y_true_shape, y_pred_shape)
    if y_true_shape is not None and y_pred_shape is not None:
        return metric.for_shapes(y_true_shape, y_pred_shape)
    return metric
