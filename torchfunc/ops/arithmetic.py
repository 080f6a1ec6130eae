"""Operations that compute: arithmetic, comparison, sums along axes, products of matrices, activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc import activations
from torchfunc.dtypes import DTypeLike
from torchfunc.ops.tensors import Axes, TensorLike, as_axes, as_floating, as_operand, as_tensor, optional_dtype

__all__ = [
    "abs",
    "add",
    "all",
    "any",
    "argmax",
    "argmin",
    "ceil",
    "clip",
    "cos",
    "cumsum",
    "divide",
    "einsum",
    "elu",
    "equal",
    "exp",
    "floor",
    "gelu",
    "greater",
    "greater_equal",
    "leaky_relu",
    "less",
    "less_equal",
    "log",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "prod",
    "relu",
    "round",
    "rsqrt",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "square",
    "std",
    "subtract",
    "sum",
    "tanh",
    "tensordot",
    "var",
]


# Arithmetic and comparison


def add(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1 + x2`."""
    return as_tensor(x1) + as_operand(x2)


def subtract(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1 - x2`."""
    return as_tensor(x1) - as_operand(x2)


def multiply(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1 * x2`, entry by entry."""
    return as_tensor(x1) * as_operand(x2)


def divide(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1 / x2`, entry by entry."""
    return as_tensor(x1) / as_operand(x2)


def power(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1` to the power `x2`."""
    return as_tensor(x1) ** as_operand(x2)


def maximum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The larger of the two, entry by entry."""
    one, other, number = _split_number(x1, x2)
    return torch.clamp(one, min=number) if other is None else torch.maximum(one, other)


def minimum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The smaller of the two, entry by entry."""
    one, other, number = _split_number(x1, x2)
    return torch.clamp(one, max=number) if other is None else torch.minimum(one, other)


def clip(x: TensorLike, x_min: float, x_max: float) -> Tensor:
    """`x`, limited to `x_min` and `x_max`."""
    return torch.clamp(as_tensor(x), x_min, x_max)


def equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where the two are equal."""
    return torch.eq(as_tensor(x1), as_operand(x2))


def not_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where the two differ."""
    return torch.ne(as_tensor(x1), as_operand(x2))


def greater(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where `x1 > x2`."""
    return as_tensor(x1) > as_operand(x2)


def greater_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where `x1 >= x2`."""
    return as_tensor(x1) >= as_operand(x2)


def less(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where `x1 < x2`."""
    return as_tensor(x1) < as_operand(x2)


def less_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where `x1 <= x2`."""
    return as_tensor(x1) <= as_operand(x2)


def logical_and(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where both are true (not zero)."""
    return torch.logical_and(as_tensor(x1), as_tensor(x2))


def logical_or(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where either is true (not zero)."""
    return torch.logical_or(as_tensor(x1), as_tensor(x2))


def logical_not(x: TensorLike) -> Tensor:
    """Where `x` is false (zero)."""
    return torch.logical_not(as_tensor(x))


# Entry by entry


def abs(x: TensorLike) -> Tensor:
    """The absolute value."""
    return torch.abs(as_tensor(x))


def negative(x: TensorLike) -> Tensor:
    """`-x`."""
    return torch.neg(as_tensor(x))


def sign(x: TensorLike) -> Tensor:
    """-1, 0 or 1."""
    return torch.sign(as_tensor(x))


def exp(x: TensorLike) -> Tensor:
    """The exponential."""
    return torch.exp(as_tensor(x))


def log(x: TensorLike) -> Tensor:
    """The natural logarithm."""
    return torch.log(as_tensor(x))


def sqrt(x: TensorLike) -> Tensor:
    """The square root."""
    return torch.sqrt(as_tensor(x))


def rsqrt(x: TensorLike) -> Tensor:
    """One over the square root."""
    return torch.rsqrt(as_tensor(x))


def square(x: TensorLike) -> Tensor:
    """`x * x`."""
    return torch.square(as_tensor(x))


def sin(x: TensorLike) -> Tensor:
    """The sine of radians."""
    return torch.sin(as_tensor(x))


def cos(x: TensorLike) -> Tensor:
    """The cosine of radians."""
    return torch.cos(as_tensor(x))


def floor(x: TensorLike) -> Tensor:
    """Rounded down."""
    return torch.floor(as_tensor(x))


def ceil(x: TensorLike) -> Tensor:
    """Rounded up."""
    return torch.ceil(as_tensor(x))


def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """Rounded to so many decimals, halves to the even neighbour."""
    return torch.round(as_tensor(x), decimals=decimals)


# Along axes (all of them by default)


def sum(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The sum."""
    return torch.sum(as_tensor(x), as_axes(axis), keepdims)


def mean(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The mean, in floating point also for whole numbers."""
    return torch.mean(as_floating(x), as_axes(axis), keepdims)


def var(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The variance: the mean squared distance from the mean."""
    return torch.var(as_floating(x), as_axes(axis), correction=0, keepdim=keepdims)


def std(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The standard deviation: the square root of `var`."""
    return torch.std(as_floating(x), as_axes(axis), correction=0, keepdim=keepdims)


def max(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest entry."""
    return torch.amax(as_tensor(x), as_axes(axis) or (), keepdims)


def min(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The smallest entry."""
    return torch.amin(as_tensor(x), as_axes(axis) or (), keepdims)


def prod(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The product; along one axis or, without `keepdims`, along all."""
    return torch.prod(as_tensor(x)) if axis is None else torch.prod(as_tensor(x), axis, keepdims)


def all(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether all entries are true (not zero)."""
    return torch.all(as_tensor(x), dim=as_axes(axis), keepdim=keepdims)


def any(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any entry is true (not zero)."""
    return torch.any(as_tensor(x), dim=as_axes(axis), keepdim=keepdims)


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the largest entry; in the flattened tensor if no axis is given."""
    return torch.argmax(as_tensor(x), axis, keepdims)


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the smallest entry; in the flattened tensor if no axis is given."""
    return torch.argmin(as_tensor(x), axis, keepdims)


def logsumexp(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """`log(sum(exp(x)))`, without overflow."""
    x = as_floating(x)
    return torch.logsumexp(x, as_axes(axis) or tuple(range(x.ndim)), keepdims)


def cumsum(x: TensorLike, axis: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """The running sum along `axis`; of the flattened tensor if no axis is given."""
    x = as_tensor(x)
    return torch.cumsum(torch.ravel(x) if axis is None else x, axis or 0, dtype=optional_dtype(dtype))


# Products of matrices


def matmul(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The matrix product over the last two axes; the axes before them are broadcast."""
    return torch.matmul(as_tensor(x1), as_tensor(x2))


def tensordot(x1: TensorLike, x2: TensorLike, axes: int | Sequence[Any] = 2) -> Tensor:
    """Products summed over so many axes, or over the listed axes of the one and of the other."""
    pairs = axes if isinstance(axes, int) else [as_axes(axis) for axis in axes]
    return torch.tensordot(as_tensor(x1), as_tensor(x2), pairs)


def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """Products summed over what `subscripts` says, such as "bij,bjk->bik"."""
    return torch.einsum(subscripts, *(as_tensor(operand) for operand in operands))


# Activations; the rest are in `torchfunc.activations`


def relu(x: TensorLike) -> Tensor:
    """`max(x, 0)`."""
    return activations.relu(as_tensor(x))


def leaky_relu(x: TensorLike, negative_slope: float = 0.2) -> Tensor:
    """`x` where it is positive, `negative_slope * x` elsewhere."""
    return activations.leaky_relu(as_tensor(x), negative_slope)


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """`x` where it is positive, `alpha * (exp(x) - 1)` elsewhere."""
    return activations.elu(as_tensor(x), alpha)


def selu(x: TensorLike) -> Tensor:
    """`1.0507 * elu(x, 1.6733)`."""
    return activations.selu(as_tensor(x))


def gelu(x: TensorLike, approximate: bool = True) -> Tensor:
    """`x * P(X <= x)` for a standard normal X; by default its tanh approximation."""
    return activations.gelu(as_tensor(x), approximate)


def silu(x: TensorLike) -> Tensor:
    """`x * sigmoid(x)`."""
    return activations.silu(as_tensor(x))


def sigmoid(x: TensorLike) -> Tensor:
    """`1 / (1 + exp(-x))`."""
    return activations.sigmoid(as_tensor(x))


def tanh(x: TensorLike) -> Tensor:
    """The hyperbolic tangent."""
    return activations.tanh(as_tensor(x))


def softplus(x: TensorLike) -> Tensor:
    """`log(exp(x) + 1)`."""
    return activations.softplus(as_tensor(x))


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """`exp(x) / sum(exp(x))` along `axis`."""
    return activations.softmax(as_floating(x), axis)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """The logarithm of `softmax`."""
    return activations.log_softmax(as_floating(x), axis)


def _split_number(x1: TensorLike, x2: TensorLike) -> tuple[Tensor, Tensor | None, float | None]:
    """Two operands as a tensor and either another tensor or a plain number, whichever of the two that was."""
    if isinstance(as_operand(x2), (int, float)):
        return as_tensor(x1), None, as_operand(x2)
    if isinstance(as_operand(x1), (int, float)):
        return as_tensor(x2), None, as_operand(x1)
    return as_tensor(x1), as_tensor(x2), None
