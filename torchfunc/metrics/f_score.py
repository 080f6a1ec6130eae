"""The F-scores: precision and recall in one number (keras f_score_metrics.py)."""

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

__all__ = ["F1Score", "FBetaScore"]

_AVERAGES = (None, "micro", "macro", "weighted")
_STATES = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")


class FBetaScore(Metric):
    """`(1 + beta²) * precision * recall / (beta² * precision + recall)`, for labels `(batch, classes)`.

    Args:
        average: None gives one score for each class; "macro" their mean, "weighted" their mean weighed by how often a
            class occurs, "micro" the score of all classes' decisions thrown together.
        beta: how much more recall counts than precision.
        threshold: in (0, 1], above which a prediction is a yes; None: the largest of a sample's predictions is.
        name, dtype: as for `Metric`.

    Raises:
        ValueError: an argument has no such value.

    >>> metrics.FBetaScore(beta=2.0, threshold=0.5)([[1], [1], [0]], [[0.9], [0.2], [0.1]])  # precision 1, recall 1/2
    tensor([0.5556])
    """

    direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        kind = type(self).__name__
        if average not in _AVERAGES:
            raise ValueError(f"{kind}: average is one of {', '.join(map(repr, _AVERAGES))}, got {average!r}.")
        if isinstance(beta, bool) or not isinstance(beta, (int, float)) or beta <= 0:
            raise ValueError(f"{kind}: beta is a number above 0, got {beta!r}.")
        if threshold is not None and not (isinstance(threshold, (int, float)) and 0 < threshold <= 1):
            raise ValueError(f"{kind}: threshold lies within (0, 1], or is None, got {threshold!r}.")
        self.average, self.beta, self.threshold = average, beta, threshold
        self._state_dtype = torch.promote_types(self.dtype, torch.float32)
        self._classes: int | None = None

    def build(self, y_true_shape: Sequence[int | None], y_pred_shape: Sequence[int | None]) -> None:
        """Make the counts of each class. Raises ValueError for other shapes than `(batch, classes)`."""
        if self._classes is not None:
            return
        if len(y_pred_shape) != 2 or len(y_true_shape) != 2 or y_pred_shape[-1] is None:
            raise ValueError(
                f"{self.name}: targets and predictions have shape (batch, classes), got y_true with "
                f"{tuple(y_true_shape)} and y_pred with {tuple(y_pred_shape)}. Class indices need one-hot encoding."
            )
        self._classes = y_pred_shape[-1]
        shape = () if self.average == "micro" else (self._classes,)
        for state in _STATES:
            setattr(self, state, self.add_variable(shape, "zeros", dtype=self._state_dtype, name=state))

    def update_state(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> None:
        """Add one batch: targets (0 and 1) and predictions `(batch, classes)`, weights `(batch,)` or one per value.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        y_true, y_pred = as_tensors(y_true, y_pred)
        if self._classes is None:
            self.build(y_true.shape, y_pred.shape)
            self.to(y_pred.device)
        y_true, y_pred = same_shape(self.name, y_true, y_pred.detach().to(self._state_dtype))
        if y_pred.ndim != 2 or y_pred.shape[-1] != self._classes:
            raise ValueError(
                f"{self.name}: y_pred has shape {tuple(y_pred.shape)}, expected (batch, {self._classes}) as before."
            )
        if self.threshold is None:
            chosen = ((y_pred >= y_pred.amax(-1, keepdim=True)) & (y_pred.abs() > 1e-9)).to(y_pred.dtype)
        else:
            chosen = (y_pred > self.threshold).to(y_pred.dtype)
        cells = torch.stack([chosen * y_true, chosen * (1.0 - y_true), (1.0 - chosen) * y_true, y_true])
        if sample_weight is not None:
            weight = torch.as_tensor(sample_weight, dtype=y_pred.dtype, device=y_pred.device)
            cells = cells * match_weight(self.name, y_pred, weight)[1]
        sums = cells.sum((1, 2) if self.average == "micro" else 1)
        for state, added in zip(self._variables, sums, strict=True):
            add_to(state, added)

    def result(self) -> Tensor:
        if self._classes is None:
            return torch.zeros((), dtype=self.dtype)
        tp, fp, fn, occurrences = self._variables
        precision, recall = tp / (tp + fp + epsilon()), tp / (tp + fn + epsilon())
        squared = self.beta**2
        score = precision * recall / (squared * precision + recall + epsilon()) * (1.0 + squared)
        if self.average == "weighted":
            score = (score * (occurrences / (occurrences.sum() + epsilon()))).sum()
        elif self.average is not None:
            score = score.mean()
        return score.to(self.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "average": self.average, "beta": self.beta, "threshold": self.threshold}


class F1Score(FBetaScore):
    """`2 * precision * recall / (precision + recall)`, for labels `(batch, classes)`.

    Args:
        average, threshold, name, dtype: as for `FBetaScore`.

    >>> metrics.F1Score(threshold=0.5)([[1], [1], [0]], [[0.9], [0.2], [0.1]])
    tensor([0.6667])
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str = "f1_score",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "beta"}
