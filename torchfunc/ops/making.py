"""Operations that tell what an array is, and that make one, beyond the everyday ones of tensors.py."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype, dtype_name
from torchfunc.ops.tensors import (
    Size,
    TensorLike,
    as_floating,
    as_tensor,
    convert_to_tensor,
    known_sizes,
    one_hot,
    optional_dtype,
)

__all__ = [
    *("allclose", "array", "bartlett", "blackman", "copy", "dtype", "empty", "empty_like", "eye", "geomspace"),
    *("hamming", "hanning", "identity", "isin", "kaiser", "linspace", "logspace", "meshgrid", "multi_hot", "ndim"),
    *("nonzero", "size", "tri", "vander"),
]


# What a tensor is


def ndim(x: TensorLike) -> int:
    """The number of axes.

    >>> ops.ndim([[1, 2, 3]])
    2
    """
    return as_tensor(x).ndim


def size(x: TensorLike) -> Any:
    """How many entries there are: an int, or a symbolic integer.

    >>> ops.size([[1, 2, 3], [4, 5, 6]])
    6
    """
    found: Any = 1
    for each in as_tensor(x).size():
        found = found * each
    return found


def dtype(x: TensorLike) -> str:
    """The name of the dtype.

    >>> ops.dtype([1.0, 2.0])
    'float32'
    """
    return dtype_name(as_tensor(x).dtype)


def allclose(x1: TensorLike, x2: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether all entries are as near as `isclose` asks.

    Args:
        rtol, atol, equal_nan: as for `isclose`; with `equal_nan` NaN is near NaN.

    >>> ops.allclose([1.0, 2.0], [1.0, 2.000001])
    tensor(True)
    """
    return torch.all(torch.isclose(as_tensor(x1), as_tensor(x2), rtol, atol, equal_nan))


def isin(x1: TensorLike, x2: TensorLike, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Which entries of `x1` are among those of `x2`.

    With `invert`, which are not. (`assume_unique` says that no entry occurs twice.)

    >>> ops.isin([1, 2, 3], [3, 1])
    tensor([ True, False,  True])
    """
    return torch.isin(as_tensor(x1), as_tensor(x2), assume_unique=assume_unique, invert=invert)


def nonzero(x: TensorLike) -> tuple[Tensor, ...]:
    """The indices of the entries that are not 0, axis by axis. Not symbolically: how many is not known.

    >>> ops.nonzero([[0, 5], [7, 0]])
    (tensor([0, 1]), tensor([1, 0]))
    """
    return tuple(torch.nonzero(as_tensor(x), as_tuple=True))


# New tensors


def array(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """`x` as a tensor.

    >>> ops.array([1, 2], dtype="float32")
    tensor([1., 2.])
    """
    return convert_to_tensor(x, dtype)


def copy(x: TensorLike) -> Tensor:
    """A copy.

    >>> x = torch.tensor([1, 2])
    >>> ops.copy(x) is x
    False
    """
    return torch.clone(as_tensor(x))


def empty(shape: Size | Sequence[Size], dtype: DTypeLike | None = None) -> Tensor:
    """A tensor of whatever was in memory.

    >>> ops.empty((2, 3)).shape
    torch.Size([2, 3])
    """
    sizes = known_sizes(shape)
    return torch.empty(sizes, dtype=as_dtype(dtype or floatx()))


def empty_like(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """A tensor of the shape of `x`, of whatever was in memory.

    >>> ops.empty_like([[1, 2, 3]]).shape
    torch.Size([1, 3])
    """
    return torch.empty_like(as_tensor(x), dtype=optional_dtype(dtype))


def eye(N: int, M: int | None = None, k: int = 0, dtype: DTypeLike | None = None) -> Tensor:
    """The matrix (N, M) with ones on its `k`-th diagonal.

    >>> ops.eye(2, 3, k=1)
    tensor([[0., 1., 0.],
            [0., 0., 1.]])
    """
    rows, columns = torch.arange(N)[:, None], torch.arange(N if M is None else M)
    return (columns - rows == k).to(as_dtype(dtype or floatx()))


def identity(n: int, dtype: DTypeLike | None = None) -> Tensor:
    """The identity matrix.

    >>> ops.identity(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    return eye(n, dtype=dtype)


def tri(N: int, M: int | None = None, k: int = 0, dtype: DTypeLike | None = None) -> Tensor:
    """The matrix (N, M) with ones on its `k`-th diagonal and below.

    >>> ops.tri(2, 3)
    tensor([[1., 0., 0.],
            [1., 1., 0.]])
    """
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

    >>> ops.linspace(0.0, 1.0, 5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
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
    """`base` to the power of `linspace(start, stop, num)`.

    Args:
        endpoint, dtype, axis: as for `linspace`.

    >>> ops.logspace(0.0, 2.0, 3)
    tensor([  1.,  10., 100.])
    """
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
    """So many numbers from `start` to `stop` at equal ratios.

    Args:
        endpoint, dtype, axis: as for `linspace`.

    >>> ops.geomspace(1.0, 100.0, 3)
    tensor([  1.0000,  10.0000, 100.0000])
    """
    first, last = as_floating(start), as_floating(stop)
    sign = torch.sign(first)
    found = sign * torch.exp(linspace(torch.log(first * sign), torch.log(last * sign), num, endpoint, axis=axis))
    return found if dtype is None else found.to(as_dtype(dtype))


def bartlett(x: int) -> Tensor:
    """The triangular window of so many points.

    >>> ops.bartlett(5)
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    return torch.bartlett_window(int(x), periodic=False)


def blackman(x: int) -> Tensor:
    """The Blackman window of so many points.

    >>> ops.blackman(5)[1:4]
    tensor([0.3400, 1.0000, 0.3400])
    """
    return torch.blackman_window(int(x), periodic=False)


def hamming(x: int) -> Tensor:
    """The Hamming window of so many points.

    >>> ops.hamming(5).round(decimals=2)
    tensor([0.0800, 0.5400, 1.0000, 0.5400, 0.0800])
    """
    return torch.hamming_window(int(x), periodic=False)


def hanning(x: int) -> Tensor:
    """The Hann window of so many points.

    >>> ops.hanning(5)
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    return torch.hann_window(int(x), periodic=False)


def kaiser(x: int, beta: float) -> Tensor:
    """The Kaiser window of so many points.

    >>> ops.kaiser(3, beta=2.0)
    tensor([0.4387, 1.0000, 0.4387])
    """
    return torch.kaiser_window(int(x), periodic=False, beta=float(beta))


def meshgrid(*x: TensorLike, indexing: str = "xy") -> list[Tensor]:
    """For each of several rows of coordinates, its part of the grid that they make up.

    With `indexing` "xy" the second row of coordinates runs along the first axis, with "ij" the first one does.

    >>> x, y = ops.meshgrid([1, 2, 3], [10, 20])
    >>> x
    tensor([[1, 2, 3],
            [1, 2, 3]])
    >>> y
    tensor([[10, 10, 10],
            [20, 20, 20]])
    """
    return list(torch.meshgrid(*(as_tensor(each) for each in x), indexing=indexing))


def vander(x: TensorLike, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of the entries of a row, from the highest to 0 or, if increasing, from 0 on.

    >>> ops.vander([2, 3], N=3)
    tensor([[4, 2, 1],
            [9, 3, 1]])
    """
    return torch.vander(as_tensor(x), N, increasing)


def multi_hot(
    inputs: TensorLike, num_classes: int | None = None, axis: int = -1, dtype: DTypeLike | None = None
) -> Tensor:
    """For each row of class numbers, ones at these numbers.

    Raises:
        ValueError: `num_classes` is missing.

    Args:
        inputs: (..., n).
        axis: as for `one_hot`.
        dtype: `config.floatx()` by default.

    >>> ops.multi_hot([[0, 2], [1, 1]], num_classes=3)
    tensor([[1., 0., 1.],
            [0., 1., 0.]])
    """
    if num_classes is None:
        raise ValueError("ops.multi_hot() needs num_classes, the number of classes.")
    x = as_tensor(inputs)
    return torch.amax(one_hot(x, num_classes, axis, dtype), 1 if x.ndim > 1 else 0)
