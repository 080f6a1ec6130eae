"""Operations that join, cut, pad and fill arrays, beyond the everyday ones of shaping.py."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.ops.tensors import (
    Axes,
    TensorLike,
    as_axes,
    as_operand,
    as_tensor,
    cast,
    known_sizes,
)

__all__ = [
    *("append", "array_split", "diff", "dsplit", "dstack", "fliplr", "flipud", "get_item", "hsplit", "hstack"),
    *("moveaxis", "pad", "roll", "rot90", "saturate_cast", "scatter", "scatter_update", "select", "slice"),
    *("slice_update", "unravel_index", "view", "vsplit", "vstack"),
]


# Joining and splitting


def append(x1: TensorLike, x2: TensorLike, axis: int | None = None) -> Tensor:
    """`x1` and behind it `x2` along `axis`; both flattened if no axis is given.

    >>> ops.append([[1, 2]], [[3, 4]], axis=0)
    tensor([[1, 2],
            [3, 4]])
    """
    one, other = as_tensor(x1), as_tensor(x2)
    return torch.cat([torch.ravel(one), torch.ravel(other)]) if axis is None else torch.cat([one, other], axis)


def hstack(xs: Sequence[TensorLike]) -> Tensor:
    """Tensors side by side: along their second axis, or the only one.

    >>> ops.hstack([[1, 2], [3]])
    tensor([1, 2, 3])
    """
    return torch.hstack([as_tensor(x) for x in xs])


def vstack(xs: Sequence[TensorLike]) -> Tensor:
    """Tensors below each other: along their first axis, rows as matrices.

    >>> ops.vstack([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    return torch.vstack([as_tensor(x) for x in xs])


def dstack(xs: Sequence[TensorLike]) -> Tensor:
    """Tensors behind each other: along their third axis.

    >>> ops.dstack([[1, 2], [3, 4]])
    tensor([[[1, 3],
             [2, 4]]])
    """
    return torch.dstack([as_tensor(x) for x in xs])


def array_split(x: TensorLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """So many parts along `axis`, which may differ by one in size, or cut before each of the indices.

    >>> ops.array_split([1, 2, 3, 4, 5], 2)
    [tensor([1, 2, 3]), tensor([4, 5])]
    """
    parts = indices_or_sections
    return list(torch.tensor_split(as_tensor(x), parts if isinstance(parts, int) else tuple(parts), dim=axis))


def hsplit(x: TensorLike, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the second axis, or the only one.

    >>> ops.hsplit([[1, 2, 3]], [2])
    [tensor([[1, 2]]), tensor([[3]])]
    """
    return list(torch.hsplit(as_tensor(x), _sections(indices_or_sections)))


def vsplit(x: TensorLike, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the first axis.

    >>> ops.vsplit([[1, 2], [3, 4]], 2)
    [tensor([[1, 2]]), tensor([[3, 4]])]
    """
    return list(torch.vsplit(as_tensor(x), _sections(indices_or_sections)))


def dsplit(x: TensorLike, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the third axis.

    >>> ops.dsplit([[[1, 2]], [[3, 4]]], 2)[1].flatten()
    tensor([2, 4])
    """
    return list(torch.dsplit(as_tensor(x), _sections(indices_or_sections)))


def _sections(sections: int | Sequence[int]) -> Any:
    return sections if isinstance(sections, int) else tuple(sections)


# Moving


def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes in other places; the others keep their order.

    >>> ops.moveaxis(torch.zeros(2, 3, 4), 0, -1).shape
    torch.Size([3, 4, 2])
    """
    return torch.movedim(as_tensor(x), as_axes(source), as_axes(destination))


def roll(x: TensorLike, shift: int | Sequence[int], axis: Axes = None) -> Tensor:
    """Shifted along `axis`; what falls off the end comes in at the beginning.

    >>> ops.roll([1, 2, 3, 4], 1)
    tensor([4, 1, 2, 3])
    """
    return torch.roll(as_tensor(x), shift if isinstance(shift, int) else tuple(shift), as_axes(axis))


def rot90(array: TensorLike, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by 90 degrees `k` times, from the first of the axes to the second.

    >>> ops.rot90([[1, 2], [3, 4]])
    tensor([[2, 4],
            [1, 3]])
    """
    return torch.rot90(as_tensor(array), k, tuple(axes))


def fliplr(x: TensorLike) -> Tensor:
    """Back to front along the second axis.

    >>> ops.fliplr([[1, 2], [3, 4]])
    tensor([[2, 1],
            [4, 3]])
    """
    return torch.flip(as_tensor(x), (1,))


def flipud(x: TensorLike) -> Tensor:
    """Back to front along the first axis.

    >>> ops.flipud([[1, 2], [3, 4]])
    tensor([[3, 4],
            [1, 2]])
    """
    return torch.flip(as_tensor(x), (0,))


def diff(a: TensorLike, n: int = 1, axis: int = -1) -> Tensor:
    """The differences of neighbours along `axis`, `n` times.

    >>> ops.diff([1, 4, 9])
    tensor([3, 5])
    """
    return torch.diff(as_tensor(a), n, axis)


def pad(
    x: TensorLike,
    pad_width: int | Sequence[Any],
    mode: str = "constant",
    constant_values: float | None = None,
) -> Tensor:
    """Longer at both ends of the axes.

    Args:
        x: the tensor.
        pad_width: by how much: one number, (before, after), or a pair for each axis.
        mode: "constant", "reflect" or "symmetric" (the last repeats the edge).
        constant_values: what to fill in with "constant"; 0 by default.

    Raises:
        ValueError: another mode, or `constant_values` with one that takes none.

    >>> ops.pad([1, 2], (1, 2))
    tensor([0, 1, 2, 0, 0])
    >>> ops.pad([1, 2, 3], (1, 1), mode="reflect")
    tensor([2, 1, 2, 3, 2])
    """
    x = as_tensor(x)
    if mode not in ("constant", "reflect", "symmetric") or (mode != "constant" and constant_values is not None):
        raise ValueError(
            f'ops.pad() takes the modes "constant" (with constant_values), "reflect" and "symmetric", got {mode!r} and '
            f"constant_values={constant_values!r}."
        )
    pairs = _pad_pairs(pad_width, x.ndim)
    if mode == "constant":
        flat = [each for pair in reversed(pairs) for each in pair]
        return F.pad(x, flat, value=constant_values or 0)
    edge = 1 if mode == "reflect" else 0
    for axis, (before, after) in enumerate(pairs):
        length = x.shape[axis]
        parts = [x]
        if before:
            parts.insert(0, torch.flip(torch.narrow(x, axis, edge, before), (axis,)))
        if after:
            parts.append(torch.flip(torch.narrow(x, axis, length - edge - after, after), (axis,)))
        x = torch.cat(parts, axis)
    return x


def _pad_pairs(pad_width: int | Sequence[Any], rank: int) -> list[tuple[int, int]]:
    if isinstance(pad_width, int):
        return [(pad_width, pad_width)] * rank
    width: list[Any] = [tuple(each) if isinstance(each, Sequence) else each for each in pad_width]
    if all(isinstance(each, int) for each in width):
        before, after = width if len(width) == 2 else (width[0], width[0])
        return [(before, after)] * rank
    pairs = [(each[0], each[-1]) if isinstance(each, tuple) else (each, each) for each in width]
    return pairs * rank if len(pairs) == 1 else pairs


# Picking and filling


def get_item(x: TensorLike, key: Any) -> Tensor:
    """`x[key]`.

    >>> ops.get_item([[1, 2], [3, 4]], (0, 1))
    tensor(2)
    """
    return as_tensor(x)[key]


def slice(inputs: TensorLike, start_indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The part of this shape that begins at these indices; a size of -1 goes to the end.

    >>> ops.slice([[1, 2, 3], [4, 5, 6]], (0, 1), (2, -1))
    tensor([[2, 3],
            [5, 6]])
    """
    ends = [None if count == -1 else start + count for start, count in zip(start_indices, shape, strict=True)]
    places = tuple(builtins.slice(start, end) for start, end in zip(start_indices, ends, strict=True))
    return as_tensor(inputs)[places]


def slice_update(inputs: TensorLike, start_indices: Sequence[int], updates: TensorLike) -> Tensor:
    """`inputs` with another tensor in place of the part that begins at these indices.

    >>> ops.slice_update([[1, 2, 3], [4, 5, 6]], (0, 1), [[20], [50]])
    tensor([[ 1, 20,  3],
            [ 4, 50,  6]])
    """
    x, new = as_tensor(inputs), as_tensor(updates)
    index = []
    for axis, start in enumerate(start_indices):
        places = int(start) + torch.arange(new.size(axis))
        index.append(places.reshape(-1, *[1] * (x.ndim - axis - 1)))
    return torch.index_put(x, tuple(index), new.to(x.dtype))


def scatter(indices: TensorLike, values: TensorLike, shape: Sequence[int]) -> Tensor:
    """Zeros of a shape to which values are added at indices (count, axes).

    >>> ops.scatter([[0], [2], [2]], [1, 10, 100], (4,))
    tensor([  1,   0, 110,   0])
    """
    values = as_tensor(values)
    zeros = torch.zeros(known_sizes(shape), dtype=values.dtype)
    return torch.index_put(zeros, _by_axis(indices), values, accumulate=True)


def scatter_update(
    inputs: TensorLike, indices: TensorLike, updates: TensorLike, reduction: str | None = None
) -> Tensor:
    """`inputs` with other values at indices (count, axes); with `reduction="add"` added to what is there.

    Raises:
        ValueError: another reduction.

    >>> ops.scatter_update([1, 2, 3], [[0], [2]], [10, 30])
    tensor([10,  2, 30])
    >>> ops.scatter_update([1, 2, 3], [[0], [2]], [10, 30], reduction="add")
    tensor([11,  2, 33])
    """
    if reduction not in (None, "add"):
        raise ValueError(f'ops.scatter_update() takes the reductions None and "add", got {reduction!r}.')
    x = as_tensor(inputs)
    return torch.index_put(x, _by_axis(indices), as_tensor(updates).to(x.dtype), accumulate=reduction == "add")


def _by_axis(indices: TensorLike) -> tuple[Tensor, ...]:
    return tuple(torch.unbind(as_tensor(indices).to(torch.int64), -1))


def select(condlist: Sequence[TensorLike], choicelist: Sequence[TensorLike], default: TensorLike = 0) -> Tensor:
    """Of several choices that of the first condition that holds, `default` where none does.

    >>> x = torch.tensor([1, 5, 9])
    >>> ops.select([x < 3, x > 7], [x, 10 * x])
    tensor([ 1,  0, 90])
    """
    found: Any = as_operand(default)
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        found = torch.where(cast(condition, torch.bool), as_operand(choice), found)
    return as_tensor(found)


def unravel_index(indices: TensorLike, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """The places in a tensor of a shape, axis by axis, of indices into it when flattened.

    >>> ops.unravel_index([1, 5], (2, 3))
    (tensor([0, 1]), tensor([1, 2]))
    """
    return tuple(torch.unravel_index(as_tensor(indices), tuple(shape)))


def view(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """The same memory, read as another dtype.

    >>> ops.view(torch.tensor([1.0]), "int32")  # the bits of 1.0
    tensor([1065353216], dtype=torch.int32)
    """
    return as_tensor(x) if dtype is None else as_tensor(x).view(as_dtype(dtype))


def saturate_cast(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """`cast`, with values beyond the range of the dtype at its ends.

    >>> ops.saturate_cast([-5, 300], "uint8")
    tensor([  0, 255], dtype=torch.uint8)
    """
    wanted, x = as_dtype(dtype), as_tensor(x)
    if wanted.is_floating_point:
        return x.to(wanted)
    if wanted == torch.bool:
        return torch.clamp(x, 0, 1).to(wanted)
    limits = torch.iinfo(wanted)
    # (The largest float below the limit: the limit itself may round up beyond it.)
    highest = limits.max if not x.dtype.is_floating_point or limits.bits < 24 else limits.max - 2 ** (limits.bits - 24)
    return torch.clamp(x, limits.min, highest).to(wanted)
