"""To tensors and back, and new tensors; what the other operations share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from torchfunc import arrays
from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.frames import frame_to_array, is_frame
from torchfunc.graph import SymbolicInt, SymbolicTensor, SymbolicValue, symbolic_leaves
from torchfunc.readable_arrays import readable

__all__ = [
    "Axes",
    "Size",
    "TensorLike",
    "arange",
    "as_axes",
    "as_floating",
    "as_operand",
    "as_tensor",
    "cast",
    "convert_to_numpy",
    "convert_to_tensor",
    "full",
    "full_like",
    "is_tensor",
    "known_sizes",
    "listed",
    "one_hot",
    "ones",
    "ones_like",
    "optional_dtype",
    "shape",
    "stop_gradient",
    "zeros",
    "zeros_like",
]

TensorLike: TypeAlias = "Tensor | SymbolicValue | np.ndarray | Sequence[Any] | float"
Size: TypeAlias = "int | SymbolicInt"
Axes: TypeAlias = "int | Sequence[int] | None"


# Conversion


def convert_to_tensor(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """`x` as a tensor; numbers, lists and float64 arrays get the default float type unless `dtype` is given.

    >>> ops.convert_to_tensor([1.0, 2.0])
    tensor([1., 2.])
    >>> ops.convert_to_tensor(np.array([1, 2]), "float16")
    tensor([1., 2.], dtype=torch.float16)
    """
    if isinstance(x, (Tensor, SymbolicValue)):
        return x if dtype is None else x.to(as_dtype(dtype))  # type: ignore[return-value, union-attr]
    if isinstance(x, (list, tuple)) and (symbolic_leaves(x) or any(isinstance(item, Tensor) for item in x)):
        return torch.stack([convert_to_tensor(item, dtype) for item in x])
    if dtype is None:
        return arrays.as_tensor(x)
    return torch.as_tensor(readable(_as_array(x)), dtype=as_dtype(dtype))


def _as_array(x: TensorLike) -> np.ndarray:
    return frame_to_array(x, "x") if is_frame(x) else np.asarray(x)


def convert_to_numpy(x: TensorLike) -> np.ndarray:
    """`x` as a NumPy array on the CPU, cut from the gradient's graph. A symbolic tensor has no values: TypeError.

    >>> ops.convert_to_numpy(torch.tensor([1, 2]))
    array([1, 2])
    """
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else _as_array(x)


def is_tensor(x: object) -> bool:
    """Whether `x` is a tensor, real or symbolic.

    >>> ops.is_tensor(Input((3,))), ops.is_tensor([1, 2])
    (True, False)
    """
    return isinstance(x, (Tensor, SymbolicTensor))


def cast(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """`x` with another dtype.

    >>> ops.cast([1.7, 0.0], "bool")
    tensor([ True, False])
    """
    return convert_to_tensor(x, dtype)


def shape(x: TensorLike) -> tuple[Size, ...]:
    """The sizes as a tuple: ints, and for the unknown sizes of a symbolic tensor symbolic integers to compute with.

    >>> ops.shape([[1, 2, 3]])
    (1, 3)
    >>> x = Input((8, 3))
    >>> ops.reshape(x, (ops.shape(x)[0], 24)).shape
    (None, 24)
    """
    return tuple(as_tensor(x).size())


def stop_gradient(variable: TensorLike) -> Tensor:
    """The same values, through which no gradient flows.

    >>> weight = torch.tensor([2.0], requires_grad=True)
    >>> ops.stop_gradient(weight).requires_grad
    False
    """
    return as_tensor(variable).detach()


# New tensors


def zeros(shape: Size | Sequence[Size], dtype: DTypeLike | None = None) -> Tensor:
    """Zeros of a shape; `dtype` defaults to `config.floatx()`.

    >>> ops.zeros((2, 3))
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return torch.zeros(known_sizes(shape), dtype=as_dtype(dtype or floatx()))


def ones(shape: Size | Sequence[Size], dtype: DTypeLike | None = None) -> Tensor:
    """Ones of a shape; `dtype` defaults to `config.floatx()`.

    >>> ops.ones((2,), dtype="int32")
    tensor([1, 1], dtype=torch.int32)
    """
    return torch.ones(known_sizes(shape), dtype=as_dtype(dtype or floatx()))


def full(shape: Size | Sequence[Size], fill_value: float, dtype: DTypeLike | None = None) -> Tensor:
    """A tensor filled with one number; `dtype` defaults to `config.floatx()`.

    >>> ops.full((2,), 7.0)
    tensor([7., 7.])
    """
    sizes = known_sizes(shape)
    return torch.full(sizes if isinstance(sizes, tuple) else (sizes,), fill_value, dtype=as_dtype(dtype or floatx()))


def zeros_like(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """Zeros of the shape of `x`, and of its dtype unless another is given.

    >>> ops.zeros_like([1, 2])
    tensor([0, 0])
    """
    return torch.zeros_like(as_tensor(x), dtype=optional_dtype(dtype))


def ones_like(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """Ones of the shape of `x`, and of its dtype unless another is given.

    >>> ops.ones_like([1, 2], dtype="float32")
    tensor([1., 1.])
    """
    return torch.ones_like(as_tensor(x), dtype=optional_dtype(dtype))


def full_like(x: TensorLike, fill_value: float, dtype: DTypeLike | None = None) -> Tensor:
    """A tensor of the shape of `x` filled with one number, of its dtype unless another is given.

    >>> ops.full_like([1, 2], 7)
    tensor([7, 7])
    """
    return torch.full_like(as_tensor(x), fill_value, dtype=optional_dtype(dtype))


def arange(start: Any, stop: Any = None, step: Any = None, dtype: DTypeLike | None = None) -> Tensor:
    """`start, start + step, ...` up to and without `stop`; with one argument, from 0 to it.

    >>> ops.arange(3)
    tensor([0, 1, 2])
    >>> ops.arange(1, 2, 0.5)
    tensor([1.0000, 1.5000])
    """
    start, stop = (0, start) if stop is None else (start, stop)
    return torch.arange(start, stop, 1 if step is None else step, dtype=optional_dtype(dtype))


def one_hot(x: TensorLike, num_classes: int, axis: int = -1, dtype: DTypeLike | None = None) -> Tensor:
    """Class numbers (`[0, num_classes)`, else RuntimeError) as rows of zeros with a one, laid along a new `axis`.

    >>> ops.one_hot([2, 0], num_classes=3)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    rows = torch.nn.functional.one_hot(as_tensor(x).to(torch.int64), num_classes)
    return torch.movedim(rows, -1, axis).to(as_dtype(dtype or floatx()))


# What the operations share


def as_tensor(x: TensorLike) -> Tensor:
    """A tensor as it is, anything else converted."""
    return x if isinstance(x, Tensor) else convert_to_tensor(x)


def as_operand(x: TensorLike) -> Any:
    """The second of two: a plain number stays one, so that it neither becomes a constant nor widens the dtype."""
    return x if isinstance(x, (bool, int, float)) else as_tensor(x)


def as_floating(x: TensorLike) -> Tensor:
    """A tensor of whole numbers or booleans in the default float type, any other as it is."""
    x = as_tensor(x)
    return x if x.dtype.is_floating_point or x.dtype.is_complex else x.to(as_dtype(floatx()))


def as_axes(axis: Axes) -> Any:
    """A tuple of axes, or None for all of them."""
    return axis if axis is None else tuple(axis) if isinstance(axis, Sequence) else (axis,)


def optional_dtype(dtype: DTypeLike | None) -> torch.dtype | None:
    """The dtype, if there is one."""
    return None if dtype is None else as_dtype(dtype)


def listed(shape: Any) -> Any:
    """A shape, of which a tensor or array is a list of its sizes."""
    return shape.tolist() if isinstance(shape, (Tensor, np.ndarray)) else shape


def known_sizes(shape: Size | Sequence[Size]) -> Any:
    """The shape as torch takes it, that of a tensor or array of sizes too; ValueError if a size in it is None."""
    shape = listed(shape)
    if not isinstance(shape, Iterable):
        return shape
    if None in tuple(shape):
        raise ValueError(
            f"The shape {tuple(shape)} holds a size that is not known while the graph is drawn. "
            "Take sizes from ops.shape(x) instead of x.shape: they can be used before they are known."
        )
    return tuple(shape)
