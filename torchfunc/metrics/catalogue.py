"""The metrics that have a name: `get`, `serialize` and `deserialize`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchfunc.families import Family
from torchfunc.metrics import (
    accuracy,
    auc,
    confusion,
    correlation,
    f_score,
    from_losses,
    iou,
    precision_recall,
    reduction,
)
from torchfunc.metrics.base import Metric
from torchfunc.registry import register_builtins, serialize_keras_object

__all__ = ["deserialize", "get", "serialize"]

_CLASSES: tuple[type[Metric], ...] = (
    *(Metric, reduction.Mean, reduction.Sum, reduction.MeanMetricWrapper),
    *(accuracy.Accuracy, accuracy.BinaryAccuracy, accuracy.CategoricalAccuracy, accuracy.SparseCategoricalAccuracy),
    *(accuracy.TopKCategoricalAccuracy, accuracy.SparseTopKCategoricalAccuracy),
    *(from_losses.MeanSquaredError, from_losses.RootMeanSquaredError, from_losses.MeanAbsoluteError),
    *(from_losses.MeanAbsolutePercentageError, from_losses.MeanSquaredLogarithmicError),
    *(from_losses.CosineSimilarity, from_losses.LogCoshError, from_losses.KLDivergence, from_losses.Poisson),
    *(from_losses.BinaryCrossentropy, from_losses.CategoricalCrossentropy),
    *(from_losses.SparseCategoricalCrossentropy, from_losses.Hinge, from_losses.SquaredHinge),
    from_losses.CategoricalHinge,
    *(correlation.PearsonCorrelation, correlation.ConcordanceCorrelation, correlation.R2Score),
    *(confusion.TruePositives, confusion.FalsePositives, confusion.TrueNegatives, confusion.FalseNegatives),
    *(precision_recall.Precision, precision_recall.Recall, auc.AUC),
    *(precision_recall.SensitivityAtSpecificity, precision_recall.SpecificityAtSensitivity),
    *(precision_recall.PrecisionAtRecall, precision_recall.RecallAtPrecision),
    *(f_score.F1Score, f_score.FBetaScore),
    *(iou.IoU, iou.BinaryIoU, iou.MeanIoU, iou.OneHotIoU, iou.OneHotMeanIoU),
)

# Known to configs but not to `get`: a metric's name means its class, as in Keras.
_FUNCTIONS = (
    accuracy.binary_accuracy,
    accuracy.categorical_accuracy,
    accuracy.sparse_categorical_accuracy,
    accuracy.sparse_top_k_categorical_accuracy,
    accuracy.top_k_categorical_accuracy,
    correlation.concordance_correlation,
    correlation.pearson_correlation,
)

_ALIASES: dict[str, type[Metric]] = {
    "bce": from_losses.BinaryCrossentropy,
    "mae": from_losses.MeanAbsoluteError,
    "mape": from_losses.MeanAbsolutePercentageError,
    "mse": from_losses.MeanSquaredError,
    "msle": from_losses.MeanSquaredLogarithmicError,
}

_FAMILY = Family(
    "metric",
    "keras.metrics",
    {metric.__name__: metric for metric in _CLASSES},
    {**_ALIASES, **{name.upper(): metric for name, metric in _ALIASES.items()}},
)
register_builtins("keras.metrics", {function.__name__: function for function in _FUNCTIONS})


def get(identifier: Any) -> Any:
    """The metric that `identifier` stands for.

    Args:
        identifier: a class's name, in either spelling, an alias ("mse") or a config gives a new object; a class, an
            instance of it; a callable, a metric or None, itself.

    Raises:
        ValueError: there is no such metric.

    >>> metrics.get("mae")([[0.0]], [[2.0]])
    tensor(2.)
    >>> metrics.get("AUC").name
    'auc'
    """
    return _FAMILY.get(identifier)


def serialize(metric: Any) -> Any:
    """The config of a metric, as Keras writes it.

    >>> metrics.serialize(metrics.F1Score(threshold=0.5))["class_name"]
    'F1Score'
    """
    return serialize_keras_object(metric)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The metric that a config (ours or Keras') or a name describes.

    >>> metrics.deserialize(metrics.serialize(metrics.Mean(name="average"))).name
    'average'
    """
    return _FAMILY.deserialize(config, custom_objects)
