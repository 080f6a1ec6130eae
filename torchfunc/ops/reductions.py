"""Operations that sum up: along axes, and products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.dtypes import DTypeLike
from torchfunc.ops.tensors import Axes, TensorLike, as_axes, as_floating, as_tensor, optional_dtype

__all__ = [
    *("all", "any", "argmax", "argmin", "cumsum", "einsum", "logsumexp", "matmul", "max", "mean", "min", "prod"),
    *("std", "sum", "tensordot", "var"),
]


# Along axes (all of them by default)


def sum(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The sum.

    >>> ops.sum([[1, 2], [3, 4]])
    tensor(10)
    >>> ops.sum([[1, 2], [3, 4]], axis=0)
    tensor([4, 6])
    """
    return torch.sum(as_tensor(x), as_axes(axis), keepdims)


def mean(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The mean, in floating point also for whole numbers.

    >>> ops.mean([[1, 2], [3, 4]], axis=1)
    tensor([1.5000, 3.5000])
    """
    return torch.mean(as_floating(x), as_axes(axis), keepdims)


def var(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The variance: the mean squared distance from the mean.

    >>> ops.var([1.0, 3.0])
    tensor(1.)
    """
    return torch.var(as_floating(x), as_axes(axis), correction=0, keepdim=keepdims)


def std(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The standard deviation: the square root of `var`.

    >>> ops.std([1.0, 5.0])
    tensor(2.)
    """
    return torch.std(as_floating(x), as_axes(axis), correction=0, keepdim=keepdims)


def max(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest entry.

    >>> ops.max([[1, 5], [7, 2]], axis=1)
    tensor([5, 7])
    """
    return torch.amax(as_tensor(x), as_axes(axis) or (), keepdims)


def min(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The smallest entry.

    >>> ops.min([[1, 5], [7, 2]], axis=1, keepdims=True)
    tensor([[1],
            [2]])
    """
    return torch.amin(as_tensor(x), as_axes(axis) or (), keepdims)


def prod(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The product; along one axis or, without `keepdims`, along all.

    >>> ops.prod([[1, 2], [3, 4]], axis=0)
    tensor([3, 8])
    """
    return torch.prod(as_tensor(x)) if axis is None else torch.prod(as_tensor(x), axis, keepdims)


def all(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether all entries are true (not zero).

    >>> ops.all([[True, True], [True, False]], axis=1)
    tensor([ True, False])
    """
    return torch.all(as_tensor(x), dim=as_axes(axis), keepdim=keepdims)


def any(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any entry is true (not zero).

    >>> ops.any([[False, False], [True, False]], axis=1)
    tensor([False,  True])
    """
    return torch.any(as_tensor(x), dim=as_axes(axis), keepdim=keepdims)


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the largest entry; in the flattened tensor if no axis is given.

    >>> ops.argmax([[1, 5], [7, 2]], axis=1)
    tensor([1, 0])
    """
    return torch.argmax(as_tensor(x), axis, keepdims)


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the smallest entry; in the flattened tensor if no axis is given.

    >>> ops.argmin([[1, 5], [7, 2]], axis=1)
    tensor([0, 1])
    """
    return torch.argmin(as_tensor(x), axis, keepdims)


def logsumexp(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """`log(sum(exp(x)))`, without overflow.

    >>> ops.logsumexp([0.0, 0.0])
    tensor(0.6931)
    """
    x = as_floating(x)
    return torch.logsumexp(x, as_axes(axis) or tuple(range(x.ndim)), keepdims)


def cumsum(x: TensorLike, axis: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """The running sum along `axis`; of the flattened tensor if no axis is given.

    >>> ops.cumsum([1, 2, 3])
    tensor([1, 3, 6])
    """
    x = as_tensor(x)
    return torch.cumsum(torch.ravel(x) if axis is None else x, axis or 0, dtype=optional_dtype(dtype))


# Products of matrices


def matmul(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The matrix product over the last two axes; the axes before them are broadcast.

    >>> ops.matmul([[1, 2], [3, 4]], [[1, 0], [0, 2]])
    tensor([[1, 4],
            [3, 8]])
    """
    return torch.matmul(as_tensor(x1), as_tensor(x2))


def tensordot(x1: TensorLike, x2: TensorLike, axes: int | Sequence[Any] = 2) -> Tensor:
    """Products summed over so many axes, or over the listed axes of the one and of the other.

    >>> ops.tensordot([[1, 2], [3, 4]], [[1, 0], [0, 2]], axes=1)
    tensor([[1, 4],
            [3, 8]])
    >>> ops.tensordot([[1, 2], [3, 4]], [[1, 0], [0, 2]], axes=2)
    tensor(9)
    """
    pairs = axes if isinstance(axes, int) else [as_axes(axis) for axis in axes]
    return torch.tensordot(as_tensor(x1), as_tensor(x2), pairs)


def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """Products summed over what `subscripts` says, such as "bij,bjk->bik".

    >>> ops.einsum("ij,j->i", [[1, 2], [3, 4]], [1, 10])
    tensor([21, 43])
    """
    return torch.einsum(subscripts, *(as_tensor(operand) for operand in operands))
