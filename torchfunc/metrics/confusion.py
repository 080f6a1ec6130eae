"""Right and wrong decisions at thresholds, counted without reading anything back (keras metrics_utils.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from torchfunc.config import epsilon
from torchfunc.dtypes import DTypeLike
from torchfunc.losses.shapes import TensorLike, as_tensors, same_shape
from torchfunc.losses.weighting import match_weight
from torchfunc.metrics.base import Metric

__all__ = [
    "ConfusionMetric",
    "FalseNegatives",
    "FalsePositives",
    "TrueNegatives",
    "TruePositives",
    "are_even",
    "one_or_all",
    "parse_thresholds",
]

# A prediction that is not among the k best gets this score, and this is the threshold then.
_NEVER = -1e10

# The labels (True: positive) and decisions (True: above the threshold) that each count is of.
_CELLS = {
    "true_positives": (True, True),
    "false_positives": (False, True),
    "true_negatives": (False, False),
    "false_negatives": (True, False),
}
# The same of two bool tensors, in as few kernels as there are: `a > b` is `a & ~b`.
_HITS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "true_positives": lambda label, above: label & above,
    "false_positives": lambda label, above: above > label,
    "true_negatives": lambda label, above: ~(label | above),
    "false_negatives": lambda label, above: label > above,
}


def parse_thresholds(name: str, thresholds: float | Sequence[float] | None, top_k: int | None = None) -> list[float]:
    """The thresholds as a list; 0.5, or with `top_k` one that all of the k best pass, if there are none.

    Raises:
        ValueError: one is not within [0, 1].
    """
    if thresholds is None:
        return [0.5 if top_k is None else _NEVER]
    found = list(thresholds) if isinstance(thresholds, Sequence) else [thresholds]
    if not found or not all(isinstance(each, Real) and 0 <= each <= 1 for each in found):
        raise ValueError(f"{name}: thresholds lie within [0, 1], got {thresholds!r}.")
    return found


def one_or_all(values: Tensor) -> Tensor:
    """The single value of a vector of one, or the vector."""
    return values[0] if len(values) == 1 else values


def are_even(thresholds: Sequence[float]) -> bool:
    """Whether these are at least three thresholds spread evenly from 0 to 1."""
    count = len(thresholds)
    even = np.arange(count, dtype=np.float32) / max(count - 1, 1)
    return count >= 3 and bool(np.allclose(thresholds, even, atol=epsilon()))


class ConfusionMetric(Metric):
    """Base of the metrics that count decisions at thresholds; one state tensor for each kind of count.

    Args:
        thresholds: a prediction above one is a yes at it.
        counts: the states' names, of "true_positives", "false_positives", "true_negatives", "false_negatives".
        evenly: whether the thresholds are spread evenly from 0 to 1 (but for an epsilon at the ends).
        top_k: only the k best of a prediction's last axis may be a yes.
        class_id: only this entry of the last axis is looked at.
        name, dtype: as for `Metric`.
    """

    true_positives: Tensor
    false_positives: Tensor
    true_negatives: Tensor
    false_negatives: Tensor

    def __init__(
        self,
        thresholds: Sequence[float],
        counts: Sequence[str],
        evenly: bool,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        # Counts in half precision would stop growing.
        self._state_dtype = torch.promote_types(self.dtype, torch.float32)
        self._limits = thresholds
        self._counts = tuple(counts)
        self.top_k = top_k
        self.class_id = class_id
        self._sorted: Tensor | None = None
        self._places: Tensor | None = None
        if len(thresholds) > 1 and not evenly:
            order = sorted(range(len(thresholds)), key=thresholds.__getitem__)
            self._sorted = self._add_constant([thresholds[place] for place in order], self._state_dtype)
            if order != list(range(len(thresholds))):
                self._places = self._add_constant([order.index(place) for place in range(len(order))])

    def _add_counts(self, labels: int | None = None) -> None:
        """Make the states: `(thresholds,)`, or `(thresholds, labels)`."""
        shape = (len(self._limits),) if labels is None else (len(self._limits), labels)
        for count in self._counts:
            setattr(self, count, self.add_variable(shape, "zeros", dtype=self._state_dtype, name=count))

    def update_state(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> None:
        """Add one batch.

        Args:
            y_true: labels, `(batch, ...)`; anything but 0 is a yes.
            y_pred: probabilities, of the same shape.
            sample_weight: `(batch,)`, or of the shape of `y_true`, or of its first axes.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        self._add_batch(*self._prepare(y_true, y_pred, sample_weight))

    def _prepare(
        self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Labels as bools, predictions and weights, all of one shape."""
        y_true, y_pred = as_tensors(y_true, y_pred)
        y_true, y_pred = same_shape(self.name, y_true, y_pred.detach().to(self._state_dtype))
        if self.top_k is not None:
            if y_pred.ndim == 1:
                # One sample.
                y_true, y_pred = y_true.unsqueeze(0), y_pred.unsqueeze(0)
            if y_pred.ndim < 2 or y_pred.shape[-1] < self.top_k:
                raise ValueError(
                    f"{self.name}: top_k={self.top_k} needs predictions (batch, ..., classes) with as many classes, "
                    f"but y_pred has shape {tuple(y_pred.shape)}."
                )
            best = torch.zeros_like(y_pred, dtype=torch.bool).scatter_(-1, y_pred.topk(self.top_k).indices, True)
            y_pred = torch.where(best, y_pred, _NEVER)
        if self.class_id is not None:
            if y_pred.ndim < 2 or not -y_pred.shape[-1] <= self.class_id < y_pred.shape[-1]:
                raise ValueError(
                    f"{self.name}: class_id={self.class_id} is an index on the last axis of predictions "
                    f"(batch, ..., classes), but y_pred has shape {tuple(y_pred.shape)}."
                )
            y_true = y_true.select(-1, self.class_id).unsqueeze(-1)
            y_pred = y_pred.select(-1, self.class_id).unsqueeze(-1)
        if sample_weight is None:
            return y_true != 0, y_pred, None
        weight = torch.as_tensor(sample_weight, dtype=self._state_dtype, device=y_pred.device)
        values, weight = match_weight(self.name, y_pred, weight)
        return y_true != 0, y_pred, weight.expand(values.shape).reshape(y_pred.shape)

    def _add_batch(self, label: Tensor, y_pred: Tensor, weight: Tensor | None, by_label: bool = False) -> None:
        if len(self._limits) == 1:
            above = y_pred > self._limits[0]
            for count in self._counts:
                hit = _HITS[count](label, above)
                getattr(self, count).add_((hit if weight is None else hit * weight).sum())
            return
        label, y_pred = (each if by_label else each.reshape(-1, 1) for each in (label, y_pred))
        weight = torch.ones_like(y_pred) if weight is None else weight.reshape(y_pred.shape)
        passed = self._passed(y_pred)
        below, above = self._histogram(passed, torch.stack([weight * label, weight * ~label], -1))
        for count in self._counts:
            is_positive, is_above = _CELLS[count]
            added = (above if is_above else below)[..., 0 if is_positive else 1]
            getattr(self, count).add_(added if by_label else added.squeeze(-1))

    def _passed(self, y_pred: Tensor) -> Tensor:
        """How many of the sorted thresholds each prediction is above; 0 for NaN."""
        last = len(self._limits) - 1
        if self._sorted is not None:
            return torch.bucketize(y_pred.nan_to_num(nan=-torch.inf), self._sorted)
        # All predictions are above a first threshold that an epsilon takes below 0. A NaN may become any integer.
        first = 1 if self._limits[0] < 0.0 else 0
        return (y_pred.clamp(0.0, 1.0) * last).ceil().long().clamp(first, last)

    def _histogram(self, passed: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of `weights` `(n, labels, 2)` not above and above each threshold: `(thresholds, labels, 2)` twice."""
        labels = passed.shape[1]
        bins = len(self._limits) + 1
        if labels > 1:
            passed = passed * labels + torch.arange(labels, device=passed.device)
        sums = weights.new_zeros(bins * labels, 2).index_add_(0, passed.reshape(-1), weights.reshape(-1, 2))
        sums = sums.view(bins, labels, 2)
        below, above = sums.cumsum(0)[:-1], sums.flip(0).cumsum(0).flip(0)[1:]
        return (below, above) if self._places is None else (below[self._places], above[self._places])


class _Count(ConfusionMetric):
    _counted: ClassVar[str]

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.init_thresholds = thresholds
        self.thresholds = parse_thresholds(type(self).__name__, thresholds)
        super().__init__(self.thresholds, (self._counted,), are_even(self.thresholds), name=name, dtype=dtype)
        self._add_counts()
        self.accumulator: Tensor = getattr(self, self._counted)

    def result(self) -> Tensor:
        return one_or_all(self.accumulator).to(self.dtype, copy=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "thresholds": self.init_thresholds}


class TruePositives(_Count):
    """The (weighted) number of positive labels with a prediction above the threshold.

    Args:
        thresholds: a number in [0, 1], 0.5 by default, or a list of them; a list gives a vector of results.
        name, dtype: as for `Metric`.

    >>> metrics.TruePositives()([1, 1, 0, 0], [0.9, 0.2, 0.7, 0.8])
    tensor(1.)
    """

    _counted = "true_positives"


class FalsePositives(_Count):
    """The (weighted) number of negative labels with a prediction above the threshold. Arguments as `TruePositives`.

    >>> metrics.FalsePositives()([1, 1, 0, 0], [0.9, 0.2, 0.7, 0.8])
    tensor(2.)
    >>> metrics.FalsePositives(thresholds=[0.5, 0.75])([1, 1, 0, 0], [0.9, 0.2, 0.7, 0.8])
    tensor([2., 1.])
    """

    _counted = "false_positives"


class TrueNegatives(_Count):
    """The (weighted) number of negative labels with a prediction not above it. Arguments as `TruePositives`.

    >>> metrics.TrueNegatives()([1, 1, 0, 0], [0.9, 0.2, 0.7, 0.1])
    tensor(1.)
    """

    _counted = "true_negatives"


class FalseNegatives(_Count):
    """The (weighted) number of positive labels with a prediction not above it. Arguments as `TruePositives`.

    >>> metrics.FalseNegatives()([1, 1, 0, 0], [0.9, 0.2, 0.7, 0.1])
    tensor(1.)
    """

    _counted = "false_negatives"
