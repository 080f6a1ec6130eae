"""The circle loss: embeddings of one class are drawn together, of two apart (keras/src/losses/losses.py)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.losses.base import FunctionLoss
from torchfunc.losses.shapes import TensorLike, as_tensors
from torchfunc.losses.weighting import Reduction

__all__ = ["Circle", "circle"]


def circle(
    y_true: TensorLike,
    y_pred: TensorLike,
    ref_labels: TensorLike | None = None,
    ref_embeddings: TensorLike | None = None,
    remove_diagonal: bool = True,
    gamma: float = 80,
    margin: float = 0.4,
) -> Tensor:
    """The circle loss of each embedding against all reference embeddings.

    Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization" (2020).

    Args:
        y_true: class indices, `(batch,)` or `(batch, 1)`.
        y_pred: embeddings of length 1, `(batch, features)`.
        ref_labels: class indices of the references, `(references,)`; those of the batch by default.
        ref_embeddings: `(references, features)`; the batch by default.
        remove_diagonal: whether the pairs of query i with reference i are left out, as for a batch against itself.
        gamma: how steep the loss is.
        margin: how far apart classes are to be.

    Returns:
        `(batch,)`

    Raises:
        ValueError: the embeddings are no matrix, or the labels do not fit them.

    >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> losses.circle([0, 0, 1], embeddings, gamma=4.0)  # the third has none of its class
    tensor([0.2824, 0.8659, 0.0000])
    """
    y_true, y_pred = as_tensors(y_true, y_pred)
    if not y_pred.is_floating_point():
        y_pred = y_pred.to(as_dtype(floatx()))
    references = y_pred if ref_embeddings is None else torch.as_tensor(ref_embeddings).to(y_pred)
    labels = _column("y_true", y_true, y_pred)
    others = labels if ref_labels is None else torch.as_tensor(ref_labels, device=y_pred.device)
    same = labels == _column("ref_labels", others, references).T
    different = ~same
    if remove_diagonal:
        same = same & ~torch.eye(*same.shape, dtype=torch.bool, device=same.device)
    distances = (1.0 - y_pred @ references.T).clamp(min=0.0)
    attraction = -gamma * (margin + distances) * (margin - distances)
    repulsion = gamma * (1.0 + margin - distances).clamp(min=0.0) * (1.0 - margin - distances)
    attraction = torch.where(same, attraction, -torch.inf).logsumexp(1)
    repulsion = torch.where(different, repulsion, -torch.inf).logsumexp(1)
    return F.softplus(attraction + repulsion)


def _column(name: str, labels: Tensor, embeddings: Tensor) -> Tensor:
    if embeddings.ndim != 2 or labels.shape not in ((len(embeddings),), (len(embeddings), 1)):
        raise ValueError(
            f"circle: {name} has shape {tuple(labels.shape)} and its embeddings have shape {tuple(embeddings.shape)}. "
            "There is one class index for each embedding, shapes (batch,) and (batch, features)."
        )
    return labels.long().reshape(-1, 1)


class Circle(FunctionLoss):
    """The circle loss: each embedding against all others of its batch.

    Embeddings have to have length 1. As in Keras, samples whose loss is 0 do not count in the mean.

    Args:
        gamma: how steep the loss is.
        margin: how far apart classes are to be.
        remove_diagonal: whether an embedding is not compared with itself.
        reduction, name, dtype: as for `Loss`.

    >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> losses.Circle(gamma=4.0)([0, 0, 1], embeddings)
    tensor(0.5741)
    """

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        remove_diagonal: bool = True,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "circle",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(circle, reduction, name, dtype, gamma=gamma, margin=margin, remove_diagonal=remove_diagonal)
        self.gamma, self.margin, self.remove_diagonal = gamma, margin, remove_diagonal

    def _mask_of(self, y_true: Tensor, values: Tensor) -> Tensor | None:
        return values > 0
