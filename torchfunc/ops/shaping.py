"""Operations that move values about: shapes, joining, splitting, picking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.ops.tensors import Axes, Size, TensorLike, as_axes, as_operand, as_tensor, cast, known_sizes, listed

__all__ = [
    "argsort",
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flip",
    "ravel",
    "repeat",
    "reshape",
    "sort",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "take",
    "take_along_axis",
    "tile",
    "top_k",
    "transpose",
    "unstack",
    "where",
]


# Shape


def reshape(x: TensorLike, newshape: Size | Sequence[Size]) -> Tensor:
    """The same values in another shape; one size may be -1, which is then worked out.

    >>> ops.reshape([1, 2, 3, 4, 5, 6], (2, -1))
    tensor([[1, 2, 3],
            [4, 5, 6]])
    """
    sizes = listed(newshape)
    return torch.reshape(as_tensor(x), sizes if isinstance(sizes, Sequence) else (sizes,))


def ravel(x: TensorLike) -> Tensor:
    """All values in one row.

    >>> ops.ravel([[1, 2], [3, 4]])
    tensor([1, 2, 3, 4])
    """
    return torch.ravel(as_tensor(x))


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in another order; reversed if none is given.

    >>> ops.transpose([[1, 2], [3, 4]])
    tensor([[1, 3],
            [2, 4]])
    >>> ops.transpose(torch.zeros(2, 3, 4), (0, 2, 1)).shape
    torch.Size([2, 4, 3])
    """
    x = as_tensor(x)
    return torch.permute(x, tuple(axes) if axes is not None else tuple(reversed(range(x.ndim))))


def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """Two axes change places.

    >>> ops.swapaxes(torch.zeros(2, 3, 4), 0, 2).shape
    torch.Size([4, 3, 2])
    """
    return torch.swapaxes(as_tensor(x), axis1, axis2)


def expand_dims(x: TensorLike, axis: int) -> Tensor:
    """A new axis of size 1 at `axis`.

    >>> ops.expand_dims([1, 2], -1)
    tensor([[1],
            [2]])
    """
    return torch.unsqueeze(as_tensor(x), axis)


def squeeze(x: TensorLike, axis: Axes = None) -> Tensor:
    """Without the axes of size 1: all of them, or those given (ValueError if one is known to be of another size).

    >>> ops.squeeze(torch.zeros(1, 3, 1)).shape
    torch.Size([3])
    >>> ops.squeeze(torch.zeros(1, 3, 1), axis=0).shape
    torch.Size([3, 1])
    """
    x = as_tensor(x)
    if axis is None:
        return torch.squeeze(x)
    axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    wrong = [index for index in axes if x.shape[index] not in (1, None)]
    if wrong:
        raise ValueError(f"squeeze() takes away axes of size 1, but axis {wrong[0]} of {tuple(x.shape)} is not.")
    return torch.squeeze(x, axes)


def broadcast_to(x: TensorLike, shape: Sequence[Size]) -> Tensor:
    """`x` repeated along its axes of size 1 up to `shape`.

    >>> ops.broadcast_to([1, 2], (2, 2))
    tensor([[1, 2],
            [1, 2]])
    """
    return torch.broadcast_to(as_tensor(x), known_sizes(shape))


def tile(x: TensorLike, repeats: int | Sequence[int]) -> Tensor:
    """`x` laid side by side, so many times along each axis.

    >>> ops.tile([1, 2], 2)
    tensor([1, 2, 1, 2])
    """
    counts = known_sizes(repeats)
    return torch.tile(as_tensor(x), counts if isinstance(counts, tuple) else (counts,))


def repeat(x: TensorLike, repeats: int, axis: int | None = None) -> Tensor:
    """Every entry along `axis` so many times in a row; of the flattened tensor if no axis is given.

    >>> ops.repeat([1, 2], 2)
    tensor([1, 1, 2, 2])
    """
    return torch.repeat_interleave(as_tensor(x), repeats, axis)


def flip(x: TensorLike, axis: Axes = None) -> Tensor:
    """Back to front along `axis`, or along all axes.

    >>> ops.flip([1, 2, 3])
    tensor([3, 2, 1])
    """
    x = as_tensor(x)
    return torch.flip(x, as_axes(axis) or tuple(range(x.ndim)))


# Joining, splitting and picking


def concatenate(xs: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors one after the other along `axis`.

    >>> ops.concatenate([[[1, 2]], [[3, 4]]], axis=1)
    tensor([[1, 2, 3, 4]])
    """
    return torch.cat([as_tensor(x) for x in xs], axis)


def stack(x: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors of one shape along a new `axis`.

    >>> ops.stack([[1, 2], [3, 4]], axis=1)
    tensor([[1, 3],
            [2, 4]])
    """
    return torch.stack([as_tensor(item) for item in x], axis)


def unstack(x: TensorLike, num: int | None = None, axis: int = 0) -> list[Tensor]:
    """The slices along `axis` (of which there are `num`), without that axis.

    >>> ops.unstack([[1, 2], [3, 4]])
    [tensor([1, 2]), tensor([3, 4])]
    """
    return list(torch.unbind(as_tensor(x), axis))


def split(x: TensorLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """So many equal parts along `axis` (ValueError if they would not be equal), or cut before each of the indices.

    >>> ops.split([1, 2, 3, 4], 2)
    [tensor([1, 2]), tensor([3, 4])]
    >>> ops.split([1, 2, 3, 4], [1])
    [tensor([1]), tensor([2, 3, 4])]
    """
    x = as_tensor(x)
    parts = indices_or_sections
    size = x.shape[axis]
    if isinstance(parts, int) and size is not None and size % parts:
        raise ValueError(f"split() cannot cut axis {axis} of {tuple(x.shape)} into {parts} equal parts.")
    return list(torch.tensor_split(x, parts if isinstance(parts, int) else tuple(parts), dim=axis))


def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """The entries of those numbers along `axis`; of the flattened tensor if no axis is given.

    >>> ops.take([10, 20, 30], [2, 0])
    tensor([30, 10])
    >>> ops.take([[1, 2], [3, 4]], 1, axis=1)
    tensor([2, 4])
    """
    x, places = as_tensor(x), as_tensor(indices)
    if axis is None:
        return torch.ravel(x)[places]
    return x[(slice(None),) * (axis % x.ndim) + (places,)]


def take_along_axis(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """For each place in `indices`, the entry of that number along `axis`.

    >>> ops.take_along_axis([[10, 20], [30, 40]], [[1], [0]], axis=1)
    tensor([[20],
            [30]])
    """
    return torch.take_along_dim(as_tensor(x), as_tensor(indices).to(torch.int64), axis)


def where(condition: TensorLike, x1: TensorLike | None = None, x2: TensorLike | None = None) -> Any:
    """`x1` where the condition holds and `x2` elsewhere; without them, the indices where it holds, axis by axis.

    >>> ops.where([True, False], [1, 2], [10, 20])
    tensor([ 1, 20])
    >>> ops.where([False, True, True])
    (tensor([1, 2]),)
    """
    condition = cast(condition, torch.bool)
    return (
        torch.where(condition) if x1 is None or x2 is None else torch.where(condition, as_operand(x1), as_operand(x2))
    )


def sort(x: TensorLike, axis: int = -1) -> Tensor:
    """From small to large along `axis`.

    >>> ops.sort([3, 1, 2])
    tensor([1, 2, 3])
    """
    return torch.sort(as_tensor(x), dim=axis)[0]


def argsort(x: TensorLike, axis: int = -1) -> Tensor:
    """The indices that sort `x` along `axis`; equal entries keep their order.

    >>> ops.argsort([3, 1, 2])
    tensor([1, 2, 0])
    """
    return torch.argsort(as_tensor(x), dim=axis, stable=True)


def top_k(x: TensorLike, k: int, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The `k` largest entries along the last axis, and their indices.

    >>> ops.top_k([5, 9, 7], 2)
    (tensor([9, 7]), tensor([1, 2]))
    """
    values, indices = torch.topk(as_tensor(x), k, sorted=sorted)
    return values, indices
