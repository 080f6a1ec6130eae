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


def _shown(doc: str, example: str, result: str) -> str:
    """A docstring with an example."""
    return f"{doc}\n\n>>> ops.{example}\n{result}\n"


def _of_one(
    function: Callable[[Tensor], Tensor], doc: str, example: str, result: str, floats: bool = True
) -> Callable[[TensorLike], Tensor]:
    """`function` as an operation; with `floats` whole numbers and booleans become floats first."""

    def operation(x: TensorLike) -> Tensor:
        return function(as_floating(x) if floats else as_tensor(x))

    operation.__doc__ = _shown(doc, example, result)
    return operation


def _of_two(
    function: Callable[[Any, Any], Tensor], doc: str, example: str, result: str, number: bool = False
) -> Callable[[TensorLike, TensorLike], Tensor]:
    """`function` as an operation; with `number` it takes a plain number for the second."""

    def operation(x1: TensorLike, x2: TensorLike) -> Tensor:
        return function(as_tensor(x1), as_operand(x2) if number else as_tensor(x2))

    operation.__doc__ = _shown(doc, example, result)
    return operation


def _of_bits(
    function: Callable[[Any, Any], Tensor], doc: str, example: str, result: str
) -> Callable[[TensorLike, TensorLike], Tensor]:
    def operation(x: TensorLike, y: TensorLike) -> Tensor:
        return function(as_tensor(x), as_operand(y))

    operation.__doc__ = _shown(doc, example, result)
    return operation


absolute = _of_one(torch.abs, "The absolute value.", "absolute([-1, 2])", "tensor([1, 2])", floats=False)
angle = _of_one(
    torch.angle,
    "The angle of complex numbers, in radians.",
    "angle([1j, -1 + 0j])",
    "tensor([1.5708, 3.1416], dtype=torch.float64)",
)
arccos = _of_one(
    torch.arccos, "The angle, in radians, of this cosine.", "arccos([1.0, 0.0])", "tensor([0.0000, 1.5708])"
)
arccosh = _of_one(torch.arccosh, "The inverse of `cosh`.", "arccosh([1.0, 2.0])", "tensor([0.0000, 1.3170])")
arcsin = _of_one(torch.arcsin, "The angle, in radians, of this sine.", "arcsin([0.0, 1.0])", "tensor([0.0000, 1.5708])")
arcsinh = _of_one(torch.arcsinh, "The inverse of `sinh`.", "arcsinh([0.0, 1.0])", "tensor([0.0000, 0.8814])")
arctan = _of_one(
    torch.arctan, "The angle, in radians, of this tangent.", "arctan([0.0, 1.0])", "tensor([0.0000, 0.7854])"
)
arctanh = _of_one(torch.arctanh, "The inverse of `tanh`.", "arctanh([0.0, 0.5])", "tensor([0.0000, 0.5493])")
bitwise_invert = _of_one(
    torch.bitwise_not, "Every bit the other way.", "bitwise_invert([0, 5])", "tensor([-1, -6])", floats=False
)
bitwise_not = bitwise_invert
cbrt = _of_one(
    lambda x: torch.sign(x) * torch.abs(x) ** (1 / 3), "The cube root.", "cbrt([-8.0, 27.0])", "tensor([-2.,  3.])"
)
conj = _of_one(
    lambda x: torch.resolve_conj(torch.conj(x)),
    "The complex conjugate.",
    "conj([1 + 2j])",
    "tensor([1.-2.j], dtype=torch.complex128)",
    floats=False,
)
conjugate = conj
cosh = _of_one(torch.cosh, "The hyperbolic cosine.", "cosh([0.0, 1.0])", "tensor([1.0000, 1.5431])")
deg2rad = _of_one(torch.deg2rad, "Degrees in radians.", "deg2rad([0, 180])", "tensor([0.0000, 3.1416])")
erf = _of_one(torch.erf, "The error function.", "erf([0.0, 1.0])", "tensor([0.0000, 0.8427])")
erfc = _of_one(torch.erfc, "`1 - erf(x)`.", "erfc([0.0, 1.0])", "tensor([1.0000, 0.1573])")
erfinv = _of_one(torch.erfinv, "The inverse of `erf`.", "erfinv([0.0, 0.5])", "tensor([0.0000, 0.4769])")
exp2 = _of_one(torch.exp2, "2 to the power `x`.", "exp2([0.0, 3.0])", "tensor([1., 8.])")
expm1 = _of_one(torch.expm1, "`exp(x) - 1`, exact for small `x`.", "expm1([0.0, 1.0])", "tensor([0.0000, 1.7183])")
fabs = _of_one(torch.abs, "The absolute value, as a float.", "fabs([-1, 2])", "tensor([1., 2.])")
hard_sigmoid = _of_one(
    activations.hard_sigmoid,
    "`x / 6 + 0.5`, limited to 0 and 1.",
    "hard_sigmoid([-6.0, 0.0, 1.5])",
    "tensor([0.0000, 0.5000, 0.7500])",
)
hard_silu = _of_one(
    activations.hard_silu, "`x * hard_sigmoid(x)`.", "hard_silu([0.0, 3.0, 6.0])", "tensor([0., 3., 6.])"
)
hard_swish = hard_silu
hard_tanh = _of_one(
    activations.hard_tanh,
    "`x`, limited to -1 and 1.",
    "hard_tanh([-3.0, 0.5, 3.0])",
    "tensor([-1.0000,  0.5000,  1.0000])",
)
i0 = _of_one(torch.special.i0, "The modified Bessel function of order 0.", "i0([0.0, 1.0])", "tensor([1.0000, 1.2661])")
imag = _of_one(
    lambda x: torch.imag(x) if x.dtype.is_complex else torch.zeros_like(x),
    "The imaginary part.",
    "imag([1 + 2j, 3 + 0j])",
    "tensor([2., 0.], dtype=torch.float64)",
)
isfinite = _of_one(
    torch.isfinite,
    "Where it is neither infinite nor NaN.",
    'isfinite([1.0, float("inf"), float("nan")])',
    "tensor([ True, False, False])",
    floats=False,
)
isinf = _of_one(
    torch.isinf,
    "Where it is infinite.",
    'isinf([1.0, float("inf"), float("nan")])',
    "tensor([False,  True, False])",
    floats=False,
)
isnan = _of_one(
    torch.isnan,
    "Where it is NaN.",
    'isnan([1.0, float("inf"), float("nan")])',
    "tensor([False, False,  True])",
    floats=False,
)
isneginf = _of_one(
    torch.isneginf,
    "Where it is minus infinity.",
    'isneginf([1.0, float("-inf"), float("inf")])',
    "tensor([False,  True, False])",
    floats=False,
)
isposinf = _of_one(
    torch.isposinf,
    "Where it is plus infinity.",
    'isposinf([1.0, float("-inf"), float("inf")])',
    "tensor([False, False,  True])",
    floats=False,
)
isreal = _of_one(
    torch.isreal, "Where the imaginary part is 0.", "isreal([1 + 0j, 1 + 1j])", "tensor([ True, False])", floats=False
)
log10 = _of_one(torch.log10, "The logarithm to base 10.", "log10([1.0, 100.0])", "tensor([0., 2.])")
log1p = _of_one(torch.log1p, "`log(1 + x)`, exact for small `x`.", "log1p([0.0, 1.0])", "tensor([0.0000, 0.6931])")
log2 = _of_one(torch.log2, "The logarithm to base 2.", "log2([1.0, 8.0])", "tensor([0., 3.])")
log_sigmoid = _of_one(
    activations.log_sigmoid,
    "The logarithm of `sigmoid`.",
    "log_sigmoid([0.0, -100.0])",
    "tensor([  -0.6931, -100.0000])",
)
rad2deg = _of_one(torch.rad2deg, "Radians in degrees.", "rad2deg([0.0, np.pi])", "tensor([  0., 180.])")
real = _of_one(
    torch.real, "The real part.", "real([1 + 2j, 3 + 0j])", "tensor([1., 3.], dtype=torch.float64)", floats=False
)
reciprocal = _of_one(torch.reciprocal, "`1 / x`.", "reciprocal([2, 4])", "tensor([0.5000, 0.2500])")
relu6 = _of_one(activations.relu6, "`min(max(x, 0), 6)`.", "relu6([-1.0, 3.0, 9.0])", "tensor([0., 3., 6.])")
signbit = _of_one(
    torch.signbit,
    "Where it is negative, -0.0 included.",
    "signbit([-1.0, -0.0, 0.0])",
    "tensor([ True,  True, False])",
    floats=False,
)
sinc = _of_one(torch.sinc, "`sin(pi * x) / (pi * x)`.", "sinc([0.0, 0.5])", "tensor([1.0000, 0.6366])")
sinh = _of_one(torch.sinh, "The hyperbolic sine.", "sinh([0.0, 1.0])", "tensor([0.0000, 1.1752])")
softsign = _of_one(activations.softsign, "`x / (abs(x) + 1)`.", "softsign([-1.0, 3.0])", "tensor([-0.5000,  0.7500])")
sparse_plus = _of_one(
    activations.sparse_plus,
    "0 below -1, `x` above 1, `(x + 1) ** 2 / 4` between.",
    "sparse_plus([-2.0, 0.0, 3.0])",
    "tensor([0.0000, 0.2500, 3.0000])",
)
sparse_sigmoid = _of_one(
    activations.sparse_sigmoid,
    "`(x + 1) / 2`, limited to 0 and 1.",
    "sparse_sigmoid([-2.0, 0.0, 2.0])",
    "tensor([0.0000, 0.5000, 1.0000])",
)
swish = _of_one(activations.silu, "`x * sigmoid(x)`.", "swish([0.0, 1.0])", "tensor([0.0000, 0.7311])")
tan = _of_one(torch.tan, "The tangent of radians.", "tan([0.0, 1.0])", "tensor([0.0000, 1.5574])")
tanh_shrink = _of_one(activations.tanh_shrink, "`x - tanh(x)`.", "tanh_shrink([0.0, 1.0])", "tensor([0.0000, 0.2384])")
trunc = _of_one(
    torch.trunc, "Without what is behind the point.", "trunc([-1.7, 1.7])", "tensor([-1.,  1.])", floats=False
)

arctan2 = _of_two(
    torch.arctan2,
    "The angle, in radians, of the point (x2, x1).",
    "arctan2([1.0, 0.0], [0.0, -1.0])",
    "tensor([1.5708, 3.1416])",
)
divide_no_nan = _of_two(
    lambda a, b: torch.where(b == 0, 0, a / torch.where(b == 0, 1, b)),
    "`x1 / x2`, and 0 where `x2` is 0.",
    "divide_no_nan([6.0, 1.0], [2.0, 0.0])",
    "tensor([3., 0.])",
)
floor_divide = _of_two(torch.floor_divide, "`x1 // x2`.", "floor_divide([7, -7], 2)", "tensor([ 3, -4])", number=True)
fmax = _of_two(
    torch.fmax,
    "The larger of the two, where one is NaN the other.",
    'fmax([1.0, float("nan")], [2.0, 3.0])',
    "tensor([2., 3.])",
)
fmin = _of_two(
    torch.fmin,
    "The smaller of the two, where one is NaN the other.",
    'fmin([1.0, float("nan")], [2.0, 3.0])',
    "tensor([1., 3.])",
)
fmod = _of_two(
    torch.fmod, "The rest of `x1 / x2`, with the sign of `x1`.", "fmod([7, -7], 3)", "tensor([ 1, -1])", number=True
)
gcd = _of_two(torch.gcd, "The greatest common divisor of whole numbers.", "gcd([12, 7], [18, 14])", "tensor([6, 7])")
heaviside = _of_two(
    torch.heaviside,
    "0 where `x1` is negative, 1 where it is positive, `x2` where it is 0.",
    "heaviside([-2.0, 0.0, 2.0], [0.5])",
    "tensor([0.0000, 0.5000, 1.0000])",
)
hypot = _of_two(torch.hypot, "`sqrt(x1 ** 2 + x2 ** 2)`.", "hypot([3.0], [4.0])", "tensor([5.])")
lcm = _of_two(torch.lcm, "The least common multiple of whole numbers.", "lcm([4, 3], [6, 5])", "tensor([12, 15])")
ldexp = _of_two(torch.ldexp, "`x1 * 2 ** x2`.", "ldexp([3.0], [2])", "tensor([12.])")
logaddexp = _of_two(
    torch.logaddexp, "`log(exp(x1) + exp(x2))`, without overflow.", "logaddexp([0.0], [0.0])", "tensor([0.6931])"
)
logaddexp2 = _of_two(
    torch.logaddexp2, "`log2(2 ** x1 + 2 ** x2)`, without overflow.", "logaddexp2([0.0], [0.0])", "tensor([1.])"
)
logical_xor = _of_two(
    torch.logical_xor,
    "Where exactly one is true (not zero).",
    "logical_xor([True, True], [True, False])",
    "tensor([False,  True])",
)
mod = _of_two(
    torch.remainder, "The rest of `x1 / x2`, with the sign of `x2`.", "mod([7, -7], 3)", "tensor([1, 2])", number=True
)
nextafter = _of_two(
    torch.nextafter,
    "The next float after `x1` on the way to `x2`.",
    "nextafter([1.0], [2.0]) - 1",
    "tensor([1.1921e-07])",
)
true_divide = _of_two(
    torch.true_divide, "`x1 / x2`.", "true_divide([3, 4], 2)", "tensor([1.5000, 2.0000])", number=True
)

bitwise_and = _of_bits(torch.bitwise_and, "The bits that both have.", "bitwise_and([6, 5], [3, 1])", "tensor([2, 1])")
bitwise_left_shift = _of_bits(
    torch.bitwise_left_shift, "`x` times 2 to the power `y`.", "bitwise_left_shift([1, 3], [2, 1])", "tensor([4, 6])"
)
bitwise_or = _of_bits(torch.bitwise_or, "The bits that either has.", "bitwise_or([6, 5], [3, 1])", "tensor([7, 5])")
bitwise_right_shift = _of_bits(
    torch.bitwise_right_shift, "`x` without its last `y` bits.", "bitwise_right_shift([8, 7], [2, 1])", "tensor([2, 3])"
)
bitwise_xor = _of_bits(
    torch.bitwise_xor, "The bits that exactly one has.", "bitwise_xor([6, 5], [3, 1])", "tensor([5, 4])"
)
left_shift = bitwise_left_shift
right_shift = bitwise_right_shift


def celu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """`x` where it is positive, `alpha * (exp(x / alpha) - 1)` elsewhere.

    >>> ops.celu([-1.0, 2.0])
    tensor([-0.6321,  2.0000])
    """
    return activations.celu(as_floating(x), alpha)


def glu(x: TensorLike, axis: int = -1) -> Tensor:
    """The first half along `axis`, times the sigmoid of the second.

    >>> ops.glu([2.0, 4.0, 0.0, 0.0])
    tensor([1., 2.])
    """
    return activations.glu(as_floating(x), axis)


def hard_shrink(x: TensorLike, threshold: float = 0.5) -> Tensor:
    """`x`, but 0 from `-threshold` to `threshold`.

    >>> ops.hard_shrink([-2.0, 0.3, 2.0])
    tensor([-2.,  0.,  2.])
    """
    return activations.hard_shrink(as_floating(x), threshold)


def soft_shrink(x: TensorLike, threshold: float = 0.5) -> Tensor:
    """`x`, nearer to 0 by `threshold`, and 0 from `-threshold` to `threshold`.

    >>> ops.soft_shrink([-2.0, 0.3, 2.0])
    tensor([-1.5000,  0.0000,  1.5000])
    """
    return activations.soft_shrink(as_floating(x), threshold)


def sparsemax(x: TensorLike, axis: int = -1) -> Tensor:
    """The point of the simplex that is nearest to `x` along `axis`.

    >>> ops.sparsemax([1.0, 0.5, -1.0])
    tensor([0.7500, 0.2500, 0.0000])
    """
    return activations.sparsemax(as_floating(x), axis)


def squareplus(x: TensorLike, b: int = 4) -> Tensor:
    """`(x + sqrt(x ** 2 + b)) / 2`.

    >>> ops.squareplus([0.0, 3.0], b=16)
    tensor([2., 4.])
    """
    return activations.squareplus(as_floating(x), b)


def threshold(x: TensorLike, threshold: float, default_value: float) -> Tensor:
    """`x` where it is above the threshold, `default_value` elsewhere.

    >>> ops.threshold([0.5, 2.0], threshold=1.0, default_value=-1.0)
    tensor([-1.,  2.])
    """
    return activations.threshold(as_floating(x), threshold, default_value)


def isclose(x1: TensorLike, x2: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Where `abs(x1 - x2) <= atol + rtol * abs(x2)`.

    >>> ops.isclose([1.0, 1.0], [1.000001, 1.1])
    tensor([ True, False])
    """
    return torch.isclose(as_tensor(x1), as_tensor(x2), rtol, atol, equal_nan)


def nan_to_num(x: TensorLike, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """NaN as `nan`, infinities as the largest and smallest float unless given.

    >>> ops.nan_to_num([float("nan"), float("inf")], posinf=9.0)
    tensor([0., 9.])
    """
    return torch.nan_to_num(as_tensor(x), nan, posinf, neginf)
