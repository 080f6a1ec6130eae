"""Losses entry by entry, and the like."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.config import epsilon as default_epsilon
from torchfunc.ops.tensors import TensorLike, as_floating, as_tensor, one_hot

__all__ = [
    *("binary_crossentropy", "categorical_crossentropy", "ctc_loss", "psnr", "sparse_categorical_crossentropy"),
]


def binary_crossentropy(target: TensorLike, output: TensorLike, from_logits: bool = False) -> Tensor:
    """`-target * log(output) - (1 - target) * log(1 - output)`, entry by entry; with logits, of their sigmoid.

    Args:
        from_logits: whether the output is logits and not probabilities.

    >>> ops.binary_crossentropy([1.0, 0.0], [0.5, 0.5])
    tensor([0.6931, 0.6931])
    """
    y, found = as_floating(target), as_floating(output)
    if from_logits:
        return F.binary_cross_entropy_with_logits(found, y.to(found.dtype), reduction="none")
    return F.binary_cross_entropy(_inside(found), y.to(found.dtype), reduction="none")


def categorical_crossentropy(
    target: TensorLike, output: TensorLike, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """`-sum(target * log(output))` along `axis`, the output made to sum to 1; with logits, of their softmax.

    Args:
        from_logits: whether the output is logits and not probabilities.

    >>> ops.categorical_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])
    tensor([0.6931])
    """
    found = as_floating(output)
    return -torch.sum(as_tensor(target) * _log_probabilities(found, from_logits, axis), axis)


def sparse_categorical_crossentropy(
    target: TensorLike, output: TensorLike, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """`categorical_crossentropy` for class numbers, with or without an axis of size 1 at the end.

    Args:
        target: class numbers (batch, ...).
        output: (batch, ..., classes); `from_logits` says whether these are logits and not probabilities.

    >>> ops.sparse_categorical_crossentropy([1], [[0.0, 0.0]], from_logits=True)
    tensor([0.6931])
    """
    found, classes = as_floating(output), as_tensor(target).to(torch.int64)
    if classes.ndim == found.ndim and classes.shape[-1] == 1:
        classes = classes[..., 0]
    scores = _log_probabilities(found, from_logits, axis)
    return -torch.sum(one_hot(classes, found.shape[axis], axis, found.dtype) * scores, axis)


def _log_probabilities(output: Tensor, from_logits: bool, axis: int) -> Tensor:
    if from_logits:
        return torch.log_softmax(output, axis)
    return torch.log(_inside(output / torch.sum(output, axis, keepdim=True)))


def _inside(probabilities: Tensor) -> Tensor:
    return torch.clamp(probabilities, default_epsilon(), 1 - default_epsilon())


def ctc_loss(
    target: TensorLike,
    output: TensorLike,
    target_length: TensorLike,
    output_length: TensorLike,
    mask_index: int = 0,
) -> Tensor:
    """The CTC loss (batch) of scores (batch, steps, classes) for targets (batch, at most so long).

    Args:
        target, target_length: class numbers, and how many of each row count (batch).
        output, output_length: scores, and how many steps of each count (batch).
        mask_index: the blank's class number.

    >>> scores = torch.zeros(1, 3, 2)  # three steps, class 1 beside the blank, all as likely
    >>> ops.ctc_loss([[1]], scores, [1], [3])  # 6 of the 8 ways to go read "1"
    tensor([0.2877])
    """
    scores = torch.log_softmax(torch.swapaxes(as_floating(output), 0, 1), -1)
    lengths = as_tensor(output_length).to(torch.int64), as_tensor(target_length).to(torch.int64)
    return F.ctc_loss(scores, as_tensor(target), *lengths, blank=mask_index, reduction="none")


def psnr(x1: TensorLike, x2: TensorLike, max_val: float) -> Tensor:
    """The peak signal to noise ratio in decibels: `20 * log10(max_val) - 10 * log10(mean((x1 - x2) ** 2))`.

    >>> ops.psnr([0.0, 0.0], [0.1, 0.1], max_val=1.0).round()
    tensor(20.)
    """
    error = torch.mean((as_floating(x1) - as_floating(x2)) ** 2)
    return 20 * torch.log10(torch.full_like(error, max_val)) - 10 * torch.log10(error)
