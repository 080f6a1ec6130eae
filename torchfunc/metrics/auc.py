"""The area under the ROC or the precision-recall curve (keras confusion_metrics.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.config import epsilon
from torchfunc.dtypes import DTypeLike
from torchfunc.losses.shapes import TensorLike, as_tensors
from torchfunc.losses.weighting import divide_no_nan
from torchfunc.metrics.confusion import ConfusionMetric, are_even
from torchfunc.metrics.precision_recall import even_thresholds
from torchfunc.registry import deserialize_keras_object

__all__ = ["AUC"]

_COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")
_CURVES = ("ROC", "PR", "PRGAIN")
_SUMMATIONS = ("interpolation", "majoring", "minoring")


class AUC(ConfusionMetric):
    """The area under a curve of two rates, drawn through a number of thresholds.

    Davis & Goadrich, "The Relationship Between Precision-Recall and ROC Curves" (2006), for the interpolation of "PR";
    Flach & Kull, "Precision-Recall-Gain Curves" (2015), for "PRGAIN".

    Args:
        num_thresholds: how many thresholds, spread evenly from 0 to 1; more follow the curve more closely.
        curve: "ROC", "PR" or "PRGAIN".
        summation_method: between two thresholds take the middle ("interpolation"), the greater ("majoring") or the
            smaller ("minoring") height.
        name, dtype: as for `Metric`.
        thresholds: thresholds within [0, 1] to take in place of the even ones; the ends are added.
        multi_label: whether each entry of the last axis has its own curve, the result being the mean of their areas:
            predictions `(batch, labels)`. Otherwise all entries are thrown together.
        num_labels: how many labels there are; by default what the first batch has.
        label_weights: weights of the labels: of their areas with `multi_label`, else of their counts.
        from_logits: whether predictions are logits and not probabilities.

    Raises:
        ValueError: an argument has no such value, or `num_labels` comes without `multi_label`.

    >>> metrics.AUC()([0, 0, 1, 1], [0.0, 0.5, 0.3, 0.9])  # 3 of the 4 pairs are in order
    tensor(0.7500)
    """

    direction = "up"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: DTypeLike | None = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        if thresholds is None and num_thresholds <= 1:
            raise ValueError(f"AUC: num_thresholds is 2 or more, got {num_thresholds!r}.")
        if num_labels and not multi_label:
            raise ValueError(f"AUC: num_labels={num_labels} is needed only with multi_label=True.")
        self.curve = _one_of("curve", curve, _CURVES)
        self.summation_method = _one_of("summation_method", summation_method, _SUMMATIONS)
        self._given = thresholds is not None
        inner = even_thresholds(num_thresholds) if thresholds is None else sorted(thresholds)
        if any(not 0 <= each <= 1 for each in inner):
            raise ValueError(f"AUC: thresholds lie within [0, 1], got {thresholds!r}.")
        self.num_thresholds = len(inner) + 2
        self.thresholds = [0.0 - epsilon(), *inner, 1.0 + epsilon()]
        evenly = thresholds is None or are_even([0.0, *inner, 1.0])
        super().__init__(self.thresholds, _COUNTS, evenly, name=name, dtype=dtype)
        self.multi_label, self.num_labels, self._from_logits = multi_label, num_labels, from_logits
        self._given_label_weights = None if label_weights is None else [float(weight) for weight in label_weights]
        self.label_weights: Tensor | None = None
        if self._given_label_weights is not None:
            self.label_weights = self._add_constant(self._given_label_weights, self._state_dtype)
        self._labels: int | None = None
        if not multi_label:
            self._add_counts()
        elif num_labels:
            self.build((None, num_labels), (None, num_labels))

    def build(self, y_true_shape: Sequence[int | None], y_pred_shape: Sequence[int | None]) -> None:
        """With `multi_label`: make the counts of each label. Raises ValueError for predictions of another rank."""
        if not self.multi_label or self._labels is not None:
            return
        if len(y_pred_shape) != 2 or y_pred_shape[-1] is None:
            raise ValueError(
                f"{self.name}: with multi_label=True predictions have shape (batch, labels), got {tuple(y_pred_shape)}."
            )
        self._labels = y_pred_shape[-1]
        self._add_counts(self._labels)

    def update_state(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> None:
        """Add one batch: labels and predictions `(batch, ...)`, with `multi_label` `(batch, labels)`.

        Raises:
            ValueError: the shapes do not fit each other, or the labels their number.
        """
        y_true, y_pred = as_tensors(y_true, y_pred)
        if self.multi_label:
            self._check_labels(y_true, y_pred)
        if self._from_logits:
            y_pred = y_pred.detach().to(self._state_dtype).sigmoid()
        label, y_pred, weight = self._prepare(y_true, y_pred, sample_weight)
        if self.label_weights is not None and not self.multi_label:
            by_label = self.label_weights.expand(y_pred.shape)
            weight = by_label if weight is None else weight * by_label
        self._add_batch(label, y_pred, weight, by_label=self.multi_label)

    def _check_labels(self, y_true: Tensor, y_pred: Tensor) -> None:
        if self._labels is None:
            self.build(y_true.shape, y_pred.shape)
            self.to(y_pred.device)
        if y_pred.ndim != 2 or y_pred.shape[-1] != self._labels:
            raise ValueError(
                f"{self.name}: y_pred has shape {tuple(y_pred.shape)}, expected (batch, {self._labels}), one column a "
                "label."
            )

    def result(self) -> Tensor:
        if self.multi_label and self._labels is None:
            return torch.zeros((), dtype=self.dtype)
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._mean(self._interpolated_precision()).to(self.dtype)
        x, y = self._curve()
        upper, lower = y[:-1], y[1:]
        if self.summation_method == "interpolation":
            heights = (upper + lower) / 2.0
        else:
            heights = (
                torch.minimum(upper, lower) if self.summation_method == "minoring" else torch.maximum(upper, lower)
            )
        return self._mean((x[:-1] - x[1:]) * heights).to(self.dtype)

    def _curve(self) -> tuple[Tensor, Tensor]:
        tp, fp, tn, fn = self.true_positives, self.false_positives, self.true_negatives, self.false_negatives
        recall = divide_no_nan(tp, tp + fn)
        if self.curve == "ROC":
            return divide_no_nan(fp, fp + tn), recall
        if self.curve == "PR":
            return recall, divide_no_nan(tp, tp + fp)
        odds = divide_no_nan(tp + fn, tn + fp)
        recall_gain = torch.where(tp == 0.0, 0.0, 1.0 - odds * divide_no_nan(fn, tp)).clamp(min=0.0)
        precision_gain = torch.where(tp == 0.0, 1.0, 1.0 - odds * divide_no_nan(fp, tp))
        return recall_gain, precision_gain

    def _interpolated_precision(self) -> Tensor:
        """The areas between thresholds, true positives growing in step with all positives there."""
        tp, fp, fn = self.true_positives, self.false_positives, self.false_negatives
        dtp = tp[:-1] - tp[1:]
        p = tp + fp
        slope = divide_no_nan(dtp, (p[:-1] - p[1:]).clamp(min=0.0))
        intercept = tp[1:] - slope * p[1:]
        ratio = torch.where((p[:-1] > 0) & (p[1:] > 0), divide_no_nan(p[:-1], p[1:].clamp(min=0.0)), 1.0)
        return divide_no_nan(slope * (dtp + intercept * ratio.log()), (tp[1:] + fn[1:]).clamp(min=0.0))

    def _mean(self, areas: Tensor) -> Tensor:
        """The sum over thresholds, and with `multi_label` its mean over labels."""
        area = areas.sum(0)
        if not self.multi_label:
            return area
        if self.label_weights is None:
            return area.mean()
        return divide_no_nan((area * self.label_weights).sum(), self.label_weights.sum())

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": self._given_label_weights,
            "from_logits": self._from_logits,
        }
        return {**config, "thresholds": self.thresholds[1:-1]} if self._given else config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AUC:
        # Keras writes the label weights as a tensor.
        return cls(**deserialize_keras_object(dict(config)))


def _one_of(argument: str, value: Any, known: Sequence[str]) -> str:
    for each in known:
        if value in (each, each.lower(), each.capitalize()):
            return each
    raise ValueError(f"AUC: {argument} is one of {', '.join(map(repr, known))}, got {value!r}.")
