"""Operations entry by entry: arithmetic, comparison, rounding, activations."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfunc import activations
from torchfunc.ops.tensors import TensorLike, as_floating, as_operand, as_tensor

__all__ = [
    *("abs", "add", "ceil", "clip", "cos", "divide", "elu", "equal", "exp", "floor", "gelu", "greater"),
    *("greater_equal", "leaky_relu", "less", "less_equal", "log", "log_softmax", "logical_and", "logical_not"),
    *("logical_or", "maximum", "minimum", "multiply", "negative", "not_equal", "power", "relu", "round", "rsqrt"),
    *("selu", "sigmoid", "sign", "silu", "sin", "softmax", "softplus", "sqrt", "square", "subtract", "tanh"),
]


# Arithmetic and comparison


def add(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1 + x2`.

    >>> ops.add([1, 2], [10, 20])
    tensor([11, 22])
    """
    return as_tensor(x1) + as_operand(x2)


def subtract(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1 - x2`.

    >>> ops.subtract([10, 20], 1)
    tensor([ 9, 19])
    """
    return as_tensor(x1) - as_operand(x2)


def multiply(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1 * x2`, entry by entry.

    >>> ops.multiply([[1, 2], [3, 4]], [10, 100])
    tensor([[ 10, 200],
            [ 30, 400]])
    """
    return as_tensor(x1) * as_operand(x2)


def divide(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1 / x2`, entry by entry.

    >>> ops.divide([3, 4], 2)
    tensor([1.5000, 2.0000])
    """
    return as_tensor(x1) / as_operand(x2)


def power(x1: TensorLike, x2: TensorLike) -> Tensor:
    """`x1` to the power `x2`.

    >>> ops.power([2, 3], 2)
    tensor([4, 9])
    """
    return as_tensor(x1) ** as_operand(x2)


def maximum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The larger of the two, entry by entry.

    >>> ops.maximum([1, 5], [3, 2])
    tensor([3, 5])
    """
    one, other, number = _split_number(x1, x2)
    return torch.clamp(one, min=number) if other is None else torch.maximum(one, other)


def minimum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The smaller of the two, entry by entry.

    >>> ops.minimum([1, 5], 3)
    tensor([1, 3])
    """
    one, other, number = _split_number(x1, x2)
    return torch.clamp(one, max=number) if other is None else torch.minimum(one, other)


def clip(x: TensorLike, x_min: float, x_max: float) -> Tensor:
    """`x`, limited to `x_min` and `x_max`.

    >>> ops.clip([-2, 1, 9], 0, 5)
    tensor([0, 1, 5])
    """
    return torch.clamp(as_tensor(x), x_min, x_max)


def equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where the two are equal.

    >>> ops.equal([1, 2], [1, 3])
    tensor([ True, False])
    """
    return torch.eq(as_tensor(x1), as_operand(x2))


def not_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where the two differ.

    >>> ops.not_equal([1, 2], [1, 3])
    tensor([False,  True])
    """
    return torch.ne(as_tensor(x1), as_operand(x2))


def greater(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where `x1 > x2`.

    >>> ops.greater([1, 2, 3], 2)
    tensor([False, False,  True])
    """
    return as_tensor(x1) > as_operand(x2)


def greater_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where `x1 >= x2`.

    >>> ops.greater_equal([1, 2, 3], 2)
    tensor([False,  True,  True])
    """
    return as_tensor(x1) >= as_operand(x2)


def less(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where `x1 < x2`.

    >>> ops.less([1, 2, 3], 2)
    tensor([ True, False, False])
    """
    return as_tensor(x1) < as_operand(x2)


def less_equal(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where `x1 <= x2`.

    >>> ops.less_equal([1, 2, 3], 2)
    tensor([ True,  True, False])
    """
    return as_tensor(x1) <= as_operand(x2)


def logical_and(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where both are true (not zero).

    >>> ops.logical_and([True, True], [True, False])
    tensor([ True, False])
    """
    return torch.logical_and(as_tensor(x1), as_tensor(x2))


def logical_or(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Where either is true (not zero).

    >>> ops.logical_or([True, False], [False, False])
    tensor([ True, False])
    """
    return torch.logical_or(as_tensor(x1), as_tensor(x2))


def logical_not(x: TensorLike) -> Tensor:
    """Where `x` is false (zero).

    >>> ops.logical_not([True, False])
    tensor([False,  True])
    """
    return torch.logical_not(as_tensor(x))


# Entry by entry


def abs(x: TensorLike) -> Tensor:
    """The absolute value.

    >>> ops.abs([-1, 2])
    tensor([1, 2])
    """
    return torch.abs(as_tensor(x))


def negative(x: TensorLike) -> Tensor:
    """`-x`.

    >>> ops.negative([-1, 2])
    tensor([ 1, -2])
    """
    return torch.neg(as_tensor(x))


def sign(x: TensorLike) -> Tensor:
    """-1, 0 or 1.

    >>> ops.sign([-3, 0, 5])
    tensor([-1,  0,  1])
    """
    return torch.sign(as_tensor(x))


def exp(x: TensorLike) -> Tensor:
    """The exponential.

    >>> ops.exp([0.0, 1.0])
    tensor([1.0000, 2.7183])
    """
    return torch.exp(as_tensor(x))


def log(x: TensorLike) -> Tensor:
    """The natural logarithm.

    >>> ops.log([1.0, 2.0])
    tensor([0.0000, 0.6931])
    """
    return torch.log(as_tensor(x))


def sqrt(x: TensorLike) -> Tensor:
    """The square root.

    >>> ops.sqrt([4.0, 9.0])
    tensor([2., 3.])
    """
    return torch.sqrt(as_tensor(x))


def rsqrt(x: TensorLike) -> Tensor:
    """One over the square root.

    >>> ops.rsqrt([1.0, 4.0])
    tensor([1.0000, 0.5000])
    """
    return torch.rsqrt(as_tensor(x))


def square(x: TensorLike) -> Tensor:
    """`x * x`.

    >>> ops.square([2, -3])
    tensor([4, 9])
    """
    return torch.square(as_tensor(x))


def sin(x: TensorLike) -> Tensor:
    """The sine of radians.

    >>> ops.sin([0.0, 1.0])
    tensor([0.0000, 0.8415])
    """
    return torch.sin(as_tensor(x))


def cos(x: TensorLike) -> Tensor:
    """The cosine of radians.

    >>> ops.cos([0.0, 1.0])
    tensor([1.0000, 0.5403])
    """
    return torch.cos(as_tensor(x))


def floor(x: TensorLike) -> Tensor:
    """Rounded down.

    >>> ops.floor([-1.5, 1.5])
    tensor([-2.,  1.])
    """
    return torch.floor(as_tensor(x))


def ceil(x: TensorLike) -> Tensor:
    """Rounded up.

    >>> ops.ceil([-1.5, 1.5])
    tensor([-1.,  2.])
    """
    return torch.ceil(as_tensor(x))


def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """Rounded to so many decimals, halves to the even neighbour.

    >>> ops.round([0.5, 1.5, 1.7])
    tensor([0., 2., 2.])
    """
    return torch.round(as_tensor(x), decimals=decimals)


# Activations; the rest are in `torchfunc.activations`


def relu(x: TensorLike) -> Tensor:
    """`max(x, 0)`.

    >>> ops.relu([-1.0, 2.0])
    tensor([0., 2.])
    """
    return activations.relu(as_tensor(x))


def leaky_relu(x: TensorLike, negative_slope: float = 0.2) -> Tensor:
    """`x` where it is positive, `negative_slope * x` elsewhere.

    >>> ops.leaky_relu([-1.0, 2.0])
    tensor([-0.2000,  2.0000])
    """
    return activations.leaky_relu(as_tensor(x), negative_slope)


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """`x` where it is positive, `alpha * (exp(x) - 1)` elsewhere.

    >>> ops.elu([-1.0, 2.0])
    tensor([-0.6321,  2.0000])
    """
    return activations.elu(as_tensor(x), alpha)


def selu(x: TensorLike) -> Tensor:
    """`1.0507 * elu(x, 1.6733)`.

    >>> ops.selu([-1.0, 1.0])
    tensor([-1.1113,  1.0507])
    """
    return activations.selu(as_tensor(x))


def gelu(x: TensorLike, approximate: bool = True) -> Tensor:
    """`x * P(X <= x)` for a standard normal X; by default its tanh approximation.

    >>> ops.gelu([0.0, 1.0])
    tensor([0.0000, 0.8412])
    """
    return activations.gelu(as_tensor(x), approximate)


def silu(x: TensorLike) -> Tensor:
    """`x * sigmoid(x)`.

    >>> ops.silu([0.0, 1.0])
    tensor([0.0000, 0.7311])
    """
    return activations.silu(as_tensor(x))


def sigmoid(x: TensorLike) -> Tensor:
    """`1 / (1 + exp(-x))`.

    >>> ops.sigmoid([0.0, 1.0])
    tensor([0.5000, 0.7311])
    """
    return activations.sigmoid(as_tensor(x))


def tanh(x: TensorLike) -> Tensor:
    """The hyperbolic tangent.

    >>> ops.tanh([0.0, 1.0])
    tensor([0.0000, 0.7616])
    """
    return activations.tanh(as_tensor(x))


def softplus(x: TensorLike) -> Tensor:
    """`log(exp(x) + 1)`.

    >>> ops.softplus([0.0, 100.0])
    tensor([  0.6931, 100.0000])
    """
    return activations.softplus(as_tensor(x))


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """`exp(x) / sum(exp(x))` along `axis`.

    >>> ops.softmax([[0.0, 0.0], [1.0, 3.0]])
    tensor([[0.5000, 0.5000],
            [0.1192, 0.8808]])
    """
    return activations.softmax(as_floating(x), axis)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """The logarithm of `softmax`.

    >>> ops.log_softmax([0.0, 0.0])
    tensor([-0.6931, -0.6931])
    """
    return activations.log_softmax(as_floating(x), axis)


def _split_number(x1: TensorLike, x2: TensorLike) -> tuple[Tensor, Tensor | None, float | None]:
    """Two operands as a tensor and either another tensor or a plain number, whichever of the two that was."""
    if isinstance(as_operand(x2), (int, float)):
        return as_tensor(x1), None, as_operand(x2)
    if isinstance(as_operand(x1), (int, float)):
        return as_tensor(x2), None, as_operand(x1)
    return as_tensor(x1), as_tensor(x2), None
