"""Precision, recall, and the four that find a point on a curve of two rates (keras confusion_metrics.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchfunc.dtypes import DTypeLike
from torchfunc.losses.weighting import divide_no_nan
from torchfunc.metrics.confusion import ConfusionMetric, are_even, one_or_all, parse_thresholds

__all__ = [
    "Precision",
    "PrecisionAtRecall",
    "Recall",
    "RecallAtPrecision",
    "SensitivityAtSpecificity",
    "SpecificityAtSensitivity",
    "even_thresholds",
]

_ALL = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def even_thresholds(count: int) -> list[float]:
    """The inner ones of `count` thresholds spread evenly from 0 to 1."""
    return [(index + 1) * 1.0 / (count - 1) for index in range(count - 2)]


class _ShareOfPositives(ConfusionMetric):
    """True positives among all that `_others` counts too."""

    direction = "up"
    _others: ClassVar[str]

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.init_thresholds = thresholds
        self.thresholds = parse_thresholds(type(self).__name__, thresholds, top_k)
        counts = ("true_positives", self._others)
        super().__init__(self.thresholds, counts, are_even(self.thresholds), top_k, class_id, name, dtype)
        self._add_counts()

    def result(self) -> Tensor:
        found = self.true_positives
        return one_or_all(divide_no_nan(found, found + getattr(self, self._others))).to(self.dtype)

    def get_config(self) -> dict[str, Any]:
        arguments = {"thresholds": self.init_thresholds, "top_k": self.top_k, "class_id": self.class_id}
        return {**super().get_config(), **arguments}


class Precision(_ShareOfPositives):
    """How many of those found are right: `true_positives / (true_positives + false_positives)`.

    Args:
        thresholds: a number in [0, 1], or a list of them, above which a prediction is a yes; a list gives a vector of
            results. 0.5 by default; with `top_k`, all of the k best are a yes.
        top_k: only the k best of a prediction's last axis may be a yes.
        class_id: only this entry of the last axis is looked at.
        name, dtype: as for `Metric`.

    >>> metrics.Precision()([1, 1, 0, 0], [0.9, 0.2, 0.7, 0.1])  # one of two
    tensor(0.5000)
    """

    _others = "false_positives"


class Recall(_ShareOfPositives):
    """How many of the right ones are found: `true_positives / (true_positives + false_negatives)`.

    Arguments as for `Precision`.

    >>> metrics.Recall()([1, 1, 1, 0], [0.9, 0.2, 0.7, 0.1])  # two of three
    tensor(0.6667)
    """

    _others = "false_negatives"


class _AtPoint(ConfusionMetric):
    """The best value of one rate among the thresholds at which another reaches a limit; 0 if there is none."""

    direction = "up"
    # The argument that is the limit; its name is the limited rate's, too.
    _limited: ClassVar[str]
    _best: ClassVar[str]

    def __init__(
        self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: DTypeLike | None
    ) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"{type(self).__name__}: {self._limited} lies within [0, 1], got {value!r}.")
        if num_thresholds < 1:
            raise ValueError(f"{type(self).__name__}: num_thresholds is 1 or more, got {num_thresholds!r}.")
        self.value, self.num_thresholds = value, num_thresholds
        self.thresholds = [0.5] if num_thresholds == 1 else [0.0, *even_thresholds(num_thresholds), 1.0]
        super().__init__(self.thresholds, _ALL, num_thresholds > 1, class_id=class_id, name=name, dtype=dtype)
        self._add_counts()

    def result(self) -> Tensor:
        limited, best = self._rate(self._limited), self._rate(self._best)
        return torch.where(limited >= self.value, best, 0.0).amax().to(self.dtype)

    def _rate(self, name: str) -> Tensor:
        found, others = {
            "sensitivity": ("true_positives", "false_negatives"),
            "recall": ("true_positives", "false_negatives"),
            "precision": ("true_positives", "false_positives"),
            "specificity": ("true_negatives", "false_positives"),
        }[name]
        right: Tensor = getattr(self, found)
        return divide_no_nan(right, right + getattr(self, others))

    def get_config(self) -> dict[str, Any]:
        arguments = {"class_id": self.class_id, "num_thresholds": self.num_thresholds, self._limited: self.value}
        return {**super().get_config(), **arguments}


class SensitivityAtSpecificity(_AtPoint):
    """The best sensitivity (true positive rate) at the thresholds with at least this specificity.

    Args:
        specificity: the least true negative rate, in [0, 1].
        num_thresholds: how many thresholds, spread evenly from 0 to 1, are tried.
        class_id: only this entry of a prediction's last axis is looked at.
        name, dtype: as for `Metric`.

    >>> metrics.SensitivityAtSpecificity(0.5)([0, 0, 0, 1, 1], [0.0, 0.3, 0.8, 0.3, 0.8])
    tensor(0.5000)
    """

    _limited, _best = "specificity", "sensitivity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)
        self.specificity = specificity


class SpecificityAtSensitivity(_AtPoint):
    """The best specificity (true negative rate) at the thresholds with at least this sensitivity.

    Args:
        sensitivity: the least true positive rate, in [0, 1].
        num_thresholds, class_id, name, dtype: as for `SensitivityAtSpecificity`.

    >>> metrics.SpecificityAtSensitivity(0.5)([0, 0, 0, 1, 1], [0.0, 0.3, 0.8, 0.3, 0.8])
    tensor(0.6667)
    """

    _limited, _best = "sensitivity", "specificity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)
        self.sensitivity = sensitivity


class PrecisionAtRecall(_AtPoint):
    """The best precision at the thresholds with at least this recall.

    Args:
        recall: the least recall, in [0, 1].
        num_thresholds, class_id, name, dtype: as for `SensitivityAtSpecificity`.

    >>> metrics.PrecisionAtRecall(0.5)([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])
    tensor(1.)
    """

    _limited, _best = "recall", "precision"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)
        self.recall = recall


class RecallAtPrecision(_AtPoint):
    """The best recall at the thresholds with at least this precision.

    Args:
        precision: the least precision, in [0, 1].
        num_thresholds, class_id, name, dtype: as for `SensitivityAtSpecificity`.

    >>> metrics.RecallAtPrecision(0.8)([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])
    tensor(0.5000)
    """

    _limited, _best = "precision", "recall"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)
        self.precision = precision
