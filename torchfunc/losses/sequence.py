"""The CTC loss of sequences that are not aligned with their labels (keras/src/losses/losses.py)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from torchfunc.dtypes import DTypeLike
from torchfunc.losses.base import FunctionLoss
from torchfunc.losses.shapes import TensorLike, as_tensors
from torchfunc.losses.weighting import Reduction

__all__ = ["CTC", "ctc"]


def ctc(y_true: TensorLike, y_pred: TensorLike) -> Tensor:
    """Connectionist temporal classification: `(batch, labels)`, `(batch, time, classes)` -> `(batch,)`.

    Graves et al., "Connectionist Temporal Classification" (2006). The loss is infinite where the labels do not fit
    into the timesteps. On CUDA torch's kernel reads the lengths back.

    Args:
        y_true: class indices from 1 on, padded with 0, which is the blank.
        y_pred: logits.

    Raises:
        ValueError: the shapes are others.

    >>> losses.ctc([[1, 0]], torch.zeros(1, 3, 2))  # 6 of the 8 ways through three steps read "1"
    tensor([0.2877])
    """
    y_true, y_pred = as_tensors(y_true, y_pred)
    if y_true.ndim != 2 or y_pred.ndim != 3 or len(y_true) != len(y_pred):
        raise ValueError(
            f"ctc: y_true has shape {tuple(y_true.shape)} and y_pred has shape {tuple(y_pred.shape)}. The labels have "
            "shape (batch, labels), padded with 0, the logits (batch, time, classes)."
        )
    y_true = y_true.long()
    batch, time, _ = y_pred.shape
    log_p = y_pred.to(torch.promote_types(y_pred.dtype, torch.float32)).log_softmax(-1).transpose(0, 1)
    lengths = torch.full((batch,), time, dtype=torch.long, device=y_pred.device)
    return F.ctc_loss(log_p, y_true, lengths, (y_true != 0).sum(-1), blank=0, reduction="none")


class CTC(FunctionLoss):
    """Connectionist temporal classification: labels `(batch, labels)` padded with 0, logits `(batch, time, classes)`.

    Arguments as for `Loss`.

    >>> losses.CTC()([[1, 0]], torch.zeros(1, 3, 2))
    tensor(0.2877)
    """

    def __init__(
        self, reduction: Reduction = "sum_over_batch_size", name: str = "ctc", dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(ctc, reduction, name, dtype)
