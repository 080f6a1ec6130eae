"""Operations that make, cut, pad and fill arrays, beyond the everyday ones of tensors.py and shaping.py."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype, dtype_name
from torchfunc.ops.tensors import (
    Axes,
    Size,
    TensorLike,
    as_axes,
    as_floating,
    as_operand,
    as_tensor,
    cast,
    convert_to_tensor,
    known_sizes,
    one_hot,
    optional_dtype,
)

__all__ = [
    *("allclose", "append", "array", "array_split", "bartlett", "blackman", "copy", "diff", "dsplit", "dstack"),
    *("dtype", "empty", "empty_like", "eye", "fliplr", "flipud", "geomspace", "get_item", "hamming", "hanning"),
    *("hsplit", "hstack", "identity", "isin", "kaiser", "linspace", "logspace", "meshgrid", "moveaxis", "multi_hot"),
    *("ndim", "nonzero", "pad", "roll", "rot90", "saturate_cast", "scatter", "scatter_update", "select", "size"),
    *("slice", "slice_update", "tri", "unravel_index", "vander", "view", "vsplit", "vstack"),
]


# What a tensor is


def ndim(x: TensorLike) -> int:
    """The number of axes."""
    return as_tensor(x).ndim


def size(x: TensorLike) -> Any:
    """How many entries there are: an int, or a symbolic integer."""
    found: Any = 1
    for each in as_tensor(x).size():
        found = found * each
    return found


def dtype(x: TensorLike) -> str:
    """The name of the dtype."""
    return dtype_name(as_tensor(x).dtype)


def allclose(x1: TensorLike, x2: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether all entries are as near as `isclose` asks."""
    return torch.all(torch.isclose(as_tensor(x1), as_tensor(x2), rtol, atol, equal_nan))


def isin(x1: TensorLike, x2: TensorLike, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Which entries of `x1` are among those of `x2`."""
    return torch.isin(as_tensor(x1), as_tensor(x2), assume_unique=assume_unique, invert=invert)


def nonzero(x: TensorLike) -> tuple[Tensor, ...]:
    """The indices of the entries that are not 0, axis by axis. Not symbolically: how many is not known."""
    return tuple(torch.nonzero(as_tensor(x), as_tuple=True))


# New tensors


def array(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """`x` as a tensor."""
    return convert_to_tensor(x, dtype)


def copy(x: TensorLike) -> Tensor:
    """A copy."""
    return torch.clone(as_tensor(x))


def empty(shape: Size | Sequence[Size], dtype: DTypeLike | None = None) -> Tensor:
    """A tensor of whatever was in memory."""
    sizes = known_sizes(shape)
    return torch.empty(sizes, dtype=as_dtype(dtype or floatx()))


def empty_like(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """A tensor of the shape of `x`, of whatever was in memory."""
    return torch.empty_like(as_tensor(x), dtype=optional_dtype(dtype))


def eye(N: int, M: int | None = None, k: int = 0, dtype: DTypeLike | None = None) -> Tensor:
    """The matrix (N, M) with ones on its `k`-th diagonal."""
    rows, columns = torch.arange(N)[:, None], torch.arange(N if M is None else M)
    return (columns - rows == k).to(as_dtype(dtype or floatx()))


def identity(n: int, dtype: DTypeLike | None = None) -> Tensor:
    """The identity matrix."""
    return eye(n, dtype=dtype)


def tri(N: int, M: int | None = None, k: int = 0, dtype: DTypeLike | None = None) -> Tensor:
    """The matrix (N, M) with ones on its `k`-th diagonal and below."""
    rows, columns = torch.arange(N)[:, None], torch.arange(N if M is None else M)
    return (columns - rows <= k).to(as_dtype(dtype or floatx()))


def linspace(
    start: TensorLike,
    stop: TensorLike,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: DTypeLike | None = None,
    axis: int = 0,
) -> Any:
    """So many numbers from `start` to `stop` at equal distances.

    Args:
        start, stop: numbers or tensors, which make up further axes.
        num: how many.
        endpoint: whether `stop` is the last of them.
        retstep: whether the distance is returned as well.
        dtype: the dtype; `config.floatx()` by default.
        axis: where the axis of the numbers is put in.
    """
    first, last = as_floating(start), as_floating(stop)
    step = (last - first) / builtins.max(num - 1 if endpoint else num, 1)
    steps = torch.arange(num, dtype=first.dtype).reshape(-1, *[1] * builtins.max(first.ndim, last.ndim))
    found = torch.movedim(first + step * steps, 0, axis)
    found = found if dtype is None else found.to(as_dtype(dtype))
    return (found, step) if retstep else found


def logspace(
    start: TensorLike,
    stop: TensorLike,
    num: int = 50,
    endpoint: bool = True,
    base: float = 10,
    dtype: DTypeLike | None = None,
    axis: int = 0,
) -> Tensor:
    """`base` to the power of `linspace(start, stop, num)`."""
    found: Tensor = base ** linspace(start, stop, num, endpoint, axis=axis)
    return found if dtype is None else found.to(as_dtype(dtype))


def geomspace(
    start: TensorLike,
    stop: TensorLike,
    num: int = 50,
    endpoint: bool = True,
    dtype: DTypeLike | None = None,
    axis: int = 0,
) -> Tensor:
    """So many numbers from `start` to `stop` at equal ratios."""
    first, last = as_floating(start), as_floating(stop)
    sign = torch.sign(first)
    found = sign * torch.exp(linspace(torch.log(first * sign), torch.log(last * sign), num, endpoint, axis=axis))
    return found if dtype is None else found.to(as_dtype(dtype))


def bartlett(x: int) -> Tensor:
    """The triangular window of so many points."""
    return torch.bartlett_window(int(x), periodic=False)


def blackman(x: int) -> Tensor:
    """The Blackman window of so many points."""
    return torch.blackman_window(int(x), periodic=False)


def hamming(x: int) -> Tensor:
    """The Hamming window of so many points."""
    return torch.hamming_window(int(x), periodic=False)


def hanning(x: int) -> Tensor:
    """The Hann window of so many points."""
    return torch.hann_window(int(x), periodic=False)


def kaiser(x: int, beta: float) -> Tensor:
    """The Kaiser window of so many points."""
    return torch.kaiser_window(int(x), periodic=False, beta=float(beta))


def meshgrid(*x: TensorLike, indexing: str = "xy") -> list[Tensor]:
    """For each of several rows of coordinates, its part of the grid that they make up."""
    return list(torch.meshgrid(*(as_tensor(each) for each in x), indexing=indexing))


def vander(x: TensorLike, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of the entries of a row, from the highest to 0 or, if increasing, from 0 on."""
    return torch.vander(as_tensor(x), N, increasing)


def multi_hot(
    inputs: TensorLike, num_classes: int | None = None, axis: int = -1, dtype: DTypeLike | None = None
) -> Tensor:
    """For each row of class numbers, ones at these numbers.

    Raises:
        ValueError: `num_classes` is missing.
    """
    if num_classes is None:
        raise ValueError("ops.multi_hot() needs num_classes, the number of classes.")
    x = as_tensor(inputs)
    return torch.amax(one_hot(x, num_classes, axis, dtype), 1 if x.ndim > 1 else 0)


# Joining and splitting


def append(x1: TensorLike, x2: TensorLike, axis: int | None = None) -> Tensor:
    """`x1` and behind it `x2` along `axis`; both flattened if no axis is given."""
    one, other = as_tensor(x1), as_tensor(x2)
    return torch.cat([torch.ravel(one), torch.ravel(other)]) if axis is None else torch.cat([one, other], axis)


def hstack(xs: Sequence[TensorLike]) -> Tensor:
    """Tensors side by side: along their second axis, or the only one."""
    return torch.hstack([as_tensor(x) for x in xs])


def vstack(xs: Sequence[TensorLike]) -> Tensor:
    """Tensors below each other: along their first axis, rows as matrices."""
    return torch.vstack([as_tensor(x) for x in xs])


def dstack(xs: Sequence[TensorLike]) -> Tensor:
    """Tensors behind each other: along their third axis."""
    return torch.dstack([as_tensor(x) for x in xs])


def array_split(x: TensorLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """So many parts along `axis`, which may differ by one in size, or cut before each of the indices."""
    parts = indices_or_sections
    return list(torch.tensor_split(as_tensor(x), parts if isinstance(parts, int) else tuple(parts), dim=axis))


def hsplit(x: TensorLike, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the second axis, or the only one."""
    return list(torch.hsplit(as_tensor(x), _sections(indices_or_sections)))


def vsplit(x: TensorLike, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the first axis."""
    return list(torch.vsplit(as_tensor(x), _sections(indices_or_sections)))


def dsplit(x: TensorLike, indices_or_sections: int | Sequence[int]) -> list[Tensor]:
    """`split` along the third axis."""
    return list(torch.dsplit(as_tensor(x), _sections(indices_or_sections)))


def _sections(sections: int | Sequence[int]) -> Any:
    return sections if isinstance(sections, int) else tuple(sections)


# Moving


def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes in other places; the others keep their order."""
    return torch.movedim(as_tensor(x), as_axes(source), as_axes(destination))


def roll(x: TensorLike, shift: int | Sequence[int], axis: Axes = None) -> Tensor:
    """Shifted along `axis`; what falls off the end comes in at the beginning."""
    return torch.roll(as_tensor(x), shift if isinstance(shift, int) else tuple(shift), as_axes(axis))


def rot90(array: TensorLike, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by 90 degrees `k` times, from the first of the axes to the second."""
    return torch.rot90(as_tensor(array), k, tuple(axes))


def fliplr(x: TensorLike) -> Tensor:
    """Back to front along the second axis."""
    return torch.flip(as_tensor(x), (1,))


def flipud(x: TensorLike) -> Tensor:
    """Back to front along the first axis."""
    return torch.flip(as_tensor(x), (0,))


def diff(a: TensorLike, n: int = 1, axis: int = -1) -> Tensor:
    """The differences of neighbours along `axis`, `n` times."""
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
    """`x[key]`."""
    return as_tensor(x)[key]


def slice(inputs: TensorLike, start_indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The part of this shape that begins at these indices; a size of -1 goes to the end."""
    ends = [None if count == -1 else start + count for start, count in zip(start_indices, shape, strict=True)]
    places = tuple(builtins.slice(start, end) for start, end in zip(start_indices, ends, strict=True))
    return as_tensor(inputs)[places]


def slice_update(inputs: TensorLike, start_indices: Sequence[int], updates: TensorLike) -> Tensor:
    """`inputs` with another tensor in place of the part that begins at these indices."""
    x, new = as_tensor(inputs), as_tensor(updates)
    index = []
    for axis, start in enumerate(start_indices):
        places = int(start) + torch.arange(new.size(axis))
        index.append(places.reshape(-1, *[1] * (x.ndim - axis - 1)))
    return torch.index_put(x, tuple(index), new.to(x.dtype))


def scatter(indices: TensorLike, values: TensorLike, shape: Sequence[int]) -> Tensor:
    """Zeros of a shape to which values are added at indices (count, axes)."""
    values = as_tensor(values)
    zeros = torch.zeros(known_sizes(shape), dtype=values.dtype)
    return torch.index_put(zeros, _by_axis(indices), values, accumulate=True)


def scatter_update(
    inputs: TensorLike, indices: TensorLike, updates: TensorLike, reduction: str | None = None
) -> Tensor:
    """`inputs` with other values at indices (count, axes); with `reduction="add"` added to what is there.

    Raises:
        ValueError: another reduction.
    """
    if reduction not in (None, "add"):
        raise ValueError(f'ops.scatter_update() takes the reductions None and "add", got {reduction!r}.')
    x = as_tensor(inputs)
    return torch.index_put(x, _by_axis(indices), as_tensor(updates).to(x.dtype), accumulate=reduction == "add")


def _by_axis(indices: TensorLike) -> tuple[Tensor, ...]:
    return tuple(torch.unbind(as_tensor(indices).to(torch.int64), -1))


def select(condlist: Sequence[TensorLike], choicelist: Sequence[TensorLike], default: TensorLike = 0) -> Tensor:
    """Of several choices that of the first condition that holds, `default` where none does."""
    found: Any = as_operand(default)
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        found = torch.where(cast(condition, torch.bool), as_operand(choice), found)
    return as_tensor(found)


def unravel_index(indices: TensorLike, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """The places in a tensor of a shape, axis by axis, of indices into it when flattened."""
    return tuple(torch.unravel_index(as_tensor(indices), tuple(shape)))


def view(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """The same memory, read as another dtype."""
    return as_tensor(x) if dtype is None else as_tensor(x).view(as_dtype(dtype))


def saturate_cast(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """`cast`, with values beyond the range of the dtype at its ends."""
    wanted, x = as_dtype(dtype), as_tensor(x)
    if wanted.is_floating_point:
        return x.to(wanted)
    if wanted == torch.bool:
        return torch.clamp(x, 0, 1).to(wanted)
    limits = torch.iinfo(wanted)
    # (The largest float below the limit: the limit itself may round up beyond it.)
    highest = limits.max if not x.dtype.is_floating_point or limits.bits < 24 else limits.max - 2 ** (limits.bits - 24)
    return torch.clamp(x, limits.min, highest).to(wanted)
