"""Operations entry by entry that are a function of torch under Keras' name: a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfunc import activations
from torchfunc.ops.tensors import TensorLike, as_floating, as_operand, as_tensor

__all__ = [
    *("absolute", "angle", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "bitwise_and"),
    *("bitwise_invert", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor"),
    *("cbrt", "celu", "conj", "conjugate", "cosh", "deg2rad", "divide_no_nan", "erf", "erfc", "erfinv", "exp2"),
    *("expm1", "fabs", "floor_divide", "fmax", "fmin", "fmod", "gcd", "glu", "hard_shrink", "hard_sigmoid"),
    *("hard_silu", "hard_swish", "hard_tanh", "heaviside", "hypot", "i0", "imag", "isclose", "isfinite", "isinf"),
    *("isnan", "isneginf", "isposinf", "isreal", "lcm", "ldexp", "left_shift", "log10", "log1p", "log2"),
    *("log_sigmoid", "logaddexp", "logaddexp2", "logical_xor", "mod", "nan_to_num", "nextafter", "rad2deg", "real"),
    *("reciprocal", "relu6", "right_shift", "signbit", "sinc", "sinh", "soft_shrink", "softsign", "sparse_plus"),
    *("sparse_sigmoid", "sparsemax", "squareplus", "swish", "tan", "tanh_shrink", "threshold", "true_divide"),
    "trunc",
]


def _of_one(function: Callable[[Tensor], Tensor], doc: str, floats: bool = True) -> Callable[[TensorLike], Tensor]:
    """`function` as an operation; with `floats` whole numbers and booleans become floats first."""

    def operation(x: TensorLike) -> Tensor:
        return function(as_floating(x) if floats else as_tensor(x))

    operation.__doc__ = doc
    return operation


def _of_two(
    function: Callable[[Any, Any], Tensor], doc: str, number: bool = False
) -> Callable[[TensorLike, TensorLike], Tensor]:
    """`function` as an operation; with `number` it takes a plain number for the second."""

    def operation(x1: TensorLike, x2: TensorLike) -> Tensor:
        return function(as_tensor(x1), as_operand(x2) if number else as_tensor(x2))

    operation.__doc__ = doc
    return operation


def _of_bits(function: Callable[[Any, Any], Tensor], doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def operation(x: TensorLike, y: TensorLike) -> Tensor:
        return function(as_tensor(x), as_operand(y))

    operation.__doc__ = doc
    return operation


absolute = _of_one(torch.abs, "The absolute value.", floats=False)
angle = _of_one(torch.angle, "The angle of complex numbers, in radians.")
arccos = _of_one(torch.arccos, "The angle, in radians, of this cosine.")
arccosh = _of_one(torch.arccosh, "The inverse of `cosh`.")
arcsin = _of_one(torch.arcsin, "The angle, in radians, of this sine.")
arcsinh = _of_one(torch.arcsinh, "The inverse of `sinh`.")
arctan = _of_one(torch.arctan, "The angle, in radians, of this tangent.")
arctanh = _of_one(torch.arctanh, "The inverse of `tanh`.")
bitwise_invert = _of_one(torch.bitwise_not, "Every bit the other way.", floats=False)
bitwise_not = bitwise_invert
cbrt = _of_one(lambda x: torch.sign(x) * torch.abs(x) ** (1 / 3), "The cube root.")
conj = _of_one(lambda x: torch.resolve_conj(torch.conj(x)), "The complex conjugate.", floats=False)
conjugate = conj
cosh = _of_one(torch.cosh, "The hyperbolic cosine.")
deg2rad = _of_one(torch.deg2rad, "Degrees in radians.")
erf = _of_one(torch.erf, "The error function.")
erfc = _of_one(torch.erfc, "`1 - erf(x)`.")
erfinv = _of_one(torch.erfinv, "The inverse of `erf`.")
exp2 = _of_one(torch.exp2, "2 to the power `x`.")
expm1 = _of_one(torch.expm1, "`exp(x) - 1`, exact for small `x`.")
fabs = _of_one(torch.abs, "The absolute value, as a float.")
hard_sigmoid = _of_one(activations.hard_sigmoid, "`x / 6 + 0.5`, limited to 0 and 1.")
hard_silu = _of_one(activations.hard_silu, "`x * hard_sigmoid(x)`.")
hard_swish = hard_silu
hard_tanh = _of_one(activations.hard_tanh, "`x`, limited to -1 and 1.")
i0 = _of_one(torch.special.i0, "The modified Bessel function of order 0.")
imag = _of_one(lambda x: torch.imag(x) if x.dtype.is_complex else torch.zeros_like(x), "The imaginary part.")
isfinite = _of_one(torch.isfinite, "Where it is neither infinite nor NaN.", floats=False)
isinf = _of_one(torch.isinf, "Where it is infinite.", floats=False)
isnan = _of_one(torch.isnan, "Where it is NaN.", floats=False)
isneginf = _of_one(torch.isneginf, "Where it is minus infinity.", floats=False)
isposinf = _of_one(torch.isposinf, "Where it is plus infinity.", floats=False)
isreal = _of_one(torch.isreal, "Where the imaginary part is 0.", floats=False)
log10 = _of_one(torch.log10, "The logarithm to base 10.")
log1p = _of_one(torch.log1p, "`log(1 + x)`, exact for small `x`.")
log2 = _of_one(torch.log2, "The logarithm to base 2.")
log_sigmoid = _of_one(activations.log_sigmoid, "The logarithm of `sigmoid`.")
rad2deg = _of_one(torch.rad2deg, "Radians in degrees.")
real = _of_one(torch.real, "The real part.", floats=False)
reciprocal = _of_one(torch.reciprocal, "`1 / x`.")
relu6 = _of_one(activations.relu6, "`min(max(x, 0), 6)`.")
signbit = _of_one(torch.signbit, "Where it is negative, -0.0 included.", floats=False)
sinc = _of_one(torch.sinc, "`sin(pi * x) / (pi * x)`.")
sinh = _of_one(torch.sinh, "The hyperbolic sine.")
softsign = _of_one(activations.softsign, "`x / (abs(x) + 1)`.")
sparse_plus = _of_one(activations.sparse_plus, "0 below -1, `x` above 1, `(x + 1) ** 2 / 4` between.")
sparse_sigmoid = _of_one(activations.sparse_sigmoid, "`(x + 1) / 2`, limited to 0 and 1.")
swish = _of_one(activations.silu, "`x * sigmoid(x)`.")
tan = _of_one(torch.tan, "The tangent of radians.")
tanh_shrink = _of_one(activations.tanh_shrink, "`x - tanh(x)`.")
trunc = _of_one(torch.trunc, "Without what is behind the point.", floats=False)

arctan2 = _of_two(torch.arctan2, "The angle, in radians, of the point (x2, x1).")
divide_no_nan = _of_two(
    lambda a, b: torch.where(b == 0, 0, a / torch.where(b == 0, 1, b)), "`x1 / x2`, and 0 where `x2` is 0."
)
floor_divide = _of_two(torch.floor_divide, "`x1 // x2`.", number=True)
fmax = _of_two(torch.fmax, "The larger of the two, where one is NaN the other.")
fmin = _of_two(torch.fmin, "The smaller of the two, where one is NaN the other.")
fmod = _of_two(torch.fmod, "The rest of `x1 / x2`, with the sign of `x1`.", number=True)
gcd = _of_two(torch.gcd, "The greatest common divisor of whole numbers.")
heaviside = _of_two(torch.heaviside, "0 where `x1` is negative, 1 where it is positive, `x2` where it is 0.")
hypot = _of_two(torch.hypot, "`sqrt(x1 ** 2 + x2 ** 2)`.")
lcm = _of_two(torch.lcm, "The least common multiple of whole numbers.")
ldexp = _of_two(torch.ldexp, "`x1 * 2 ** x2`.")
logaddexp = _of_two(torch.logaddexp, "`log(exp(x1) + exp(x2))`, without overflow.")
logaddexp2 = _of_two(torch.logaddexp2, "`log2(2 ** x1 + 2 ** x2)`, without overflow.")
logical_xor = _of_two(torch.logical_xor, "Where exactly one is true (not zero).")
mod = _of_two(torch.remainder, "The rest of `x1 / x2`, with the sign of `x2`.", number=True)
nextafter = _of_two(torch.nextafter, "The next float after `x1` on the way to `x2`.")
true_divide = _of_two(torch.true_divide, "`x1 / x2`.", number=True)

bitwise_and = _of_bits(torch.bitwise_and, "The bits that both have.")
bitwise_left_shift = _of_bits(torch.bitwise_left_shift, "`x` times 2 to the power `y`.")
bitwise_or = _of_bits(torch.bitwise_or, "The bits that either has.")
bitwise_right_shift = _of_bits(torch.bitwise_right_shift, "`x` without its last `y` bits.")
bitwise_xor = _of_bits(torch.bitwise_xor, "The bits that exactly one has.")
left_shift = bitwise_left_shift
right_shift = bitwise_right_shift


def celu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """`x` where it is positive, `alpha * (exp(x / alpha) - 1)` elsewhere."""
    return activations.celu(as_floating(x), alpha)


def glu(x: TensorLike, axis: int = -1) -> Tensor:
    """The first half along `axis`, times the sigmoid of the second."""
    return activations.glu(as_floating(x), axis)


def hard_shrink(x: TensorLike, threshold: float = 0.5) -> Tensor:
    """`x`, but 0 from `-threshold` to `threshold`."""
    return activations.hard_shrink(as_floating(x), threshold)


def soft_shrink(x: TensorLike, threshold: float = 0.5) -> Tensor:
    """`x`, nearer to 0 by `threshold`, and 0 from `-threshold` to `threshold`."""
    return activations.soft_shrink(as_floating(x), threshold)


def sparsemax(x: TensorLike, axis: int = -1) -> Tensor:
    """The point of the simplex that is nearest to `x` along `axis`."""
    return activations.sparsemax(as_floating(x), axis)


def squareplus(x: TensorLike, b: int = 4) -> Tensor:
    """`(x + sqrt(x ** 2 + b)) / 2`."""
    return activations.squareplus(as_floating(x), b)


def threshold(x: TensorLike, threshold: float, default_value: float) -> Tensor:
    """`x` where it is above the threshold, `default_value` elsewhere."""
    return activations.threshold(as_floating(x), threshold, default_value)


def isclose(x1: TensorLike, x2: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Where `abs(x1 - x2) <= atol + rtol * abs(x2)`."""
    return torch.isclose(as_tensor(x1), as_tensor(x2), rtol, atol, equal_nan)


def nan_to_num(x: TensorLike, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """NaN as `nan`, infinities as the largest and smallest float unless given."""
    return torch.nan_to_num(as_tensor(x), nan, posinf, neginf)
