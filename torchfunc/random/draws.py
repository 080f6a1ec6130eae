"""The draws, each with Keras' arguments and defaults.

`shape` holds ints, or sizes of symbolic tensors. `seed` is an int (the same numbers at each call), a `SeedGenerator`
(the next of its sequence) or None (torch's generator). Floats are of `config.floatx()` unless `dtype` is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype
from torchfunc.graph import SymbolicValue
from torchfunc.random.seeds import Seed, numbers

__all__ = [
    "beta",
    "binomial",
    "categorical",
    "dropout",
    "gamma",
    "normal",
    "randint",
    "shuffle",
    "truncated_normal",
    "uniform",
]

# Ints, and sizes of symbolic tensors, which torch takes as well.
Shape: TypeAlias = Sequence[Any]
Parameter: TypeAlias = "float | Tensor | Any"


def normal(
    shape: Shape, mean: Parameter = 0.0, stddev: Parameter = 1.0, dtype: DTypeLike | None = None, seed: Seed = None
) -> Tensor:
    """Numbers from the normal distribution.

    >>> random.normal((2, 3)).shape
    torch.Size([2, 3])
    >>> random.normal((1000,), mean=5.0, stddev=0.01, seed=1).mean().round()
    tensor(5.)
    """
    if seed is None:
        found = torch.randn(tuple(shape), dtype=_float(dtype))
    else:
        found = _to_normal(numbers(seed, "uniform", shape)).to(_float(dtype))
    return found * stddev + mean


def truncated_normal(
    shape: Shape, mean: Parameter = 0.0, stddev: Parameter = 1.0, dtype: DTypeLike | None = None, seed: Seed = None
) -> Tensor:
    """Numbers from the normal distribution within two standard deviations of the mean.

    >>> bool((random.truncated_normal((1000,), seed=1).abs() <= 2).all())
    True
    """
    below = 0.5 * (1 + math.erf(-math.sqrt(2)))
    found = _to_normal(below + (1 - 2 * below) * numbers(seed, "uniform", shape))
    return torch.clamp(found, -2.0, 2.0).to(_float(dtype)) * stddev + mean


def uniform(
    shape: Shape, minval: Parameter = 0.0, maxval: Parameter = 1.0, dtype: DTypeLike | None = None, seed: Seed = None
) -> Tensor:
    """Numbers from `[minval, maxval)`, each as likely; whole ones if `dtype` is an integer's.

    >>> numbers = random.uniform((1000,), minval=2.0, maxval=3.0, seed=1)
    >>> bool((numbers >= 2).all() and (numbers < 3).all())
    True
    """
    wanted = as_dtype(floatx() if dtype is None else dtype)
    if not wanted.is_floating_point:
        return randint(shape, minval, maxval, wanted, seed)
    return numbers(seed, "uniform", shape).to(wanted) * (maxval - minval) + minval


def randint(
    shape: Shape, minval: Parameter, maxval: Parameter, dtype: DTypeLike = "int32", seed: Seed = None
) -> Tensor:
    """Whole numbers from `[minval, maxval)`, each as likely.

    Raises:
        ValueError: `dtype` is not an integer's.

    >>> sorted(set(random.randint((1000,), 0, 3, seed=1).tolist()))
    [0, 1, 2]
    """
    wanted = as_dtype(dtype)
    if wanted.is_floating_point or wanted.is_complex:
        raise ValueError(f"random.randint() draws whole numbers, but dtype is {dtype!r}. Use random.uniform().")
    return (numbers(seed, "integers", shape) % (maxval - minval) + minval).to(wanted)


def categorical(logits: Any, num_samples: int, dtype: DTypeLike = "int32", seed: Seed = None) -> Tensor:
    """For each row of `logits` (batch, classes) as many class numbers, drawn by softmax(logits).

    >>> random.categorical([[0.0, 100.0], [100.0, 0.0]], num_samples=3)
    tensor([[1, 1, 1],
            [0, 0, 0]], dtype=torch.int32)
    """
    totals = torch.cumsum(torch.softmax(_tensor(logits), -1), -1)
    places = numbers(seed, "uniform", (*totals.size()[:-1], num_samples)).to(totals.dtype) * totals[..., -1:]
    found = torch.searchsorted(totals, places.contiguous(), right=True)
    return torch.clamp(found, max=totals.size(-1) - 1).to(as_dtype(dtype))


def dropout(inputs: Any, rate: float, noise_shape: Shape | None = None, seed: Seed = None) -> Tensor:
    """`inputs` with a share of them set to 0 and the others scaled by `1 / (1 - rate)`.

    Args:
        inputs: a floating tensor of any shape.
        rate: the share, in [0, 1].
        noise_shape: the shape of the random numbers, None for a size of the inputs; broadcast over axes of size 1.
        seed: see above.

    Raises:
        ValueError: `rate` is not in [0, 1].

    >>> kept = random.dropout(torch.ones(1000), rate=0.5, seed=1)
    >>> sorted(set(kept.tolist()))
    [0.0, 2.0]
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"random.dropout() takes a rate in [0, 1], got {rate!r}.")
    inputs = _tensor(inputs)
    if seed is None and noise_shape is None:
        return torch.nn.functional.dropout(inputs, rate)
    shape: Sequence[Any] = inputs.size()
    if noise_shape is not None:
        shape = [size if fixed is None else fixed for fixed, size in zip(noise_shape, shape, strict=True)]
    scale = 0.0 if rate == 1 else 1 / (1 - rate)
    return inputs * ((numbers(seed, "uniform", shape) >= rate).to(inputs.dtype) * scale)


def shuffle(x: Any, axis: int = 0, seed: Seed = None) -> Tensor:
    """The slices of `x` along `axis` in another order.

    >>> random.shuffle([3, 1, 2], seed=1).sort().values
    tensor([1, 2, 3])
    """
    x = _tensor(x)
    order = torch.argsort(numbers(seed, "uniform", (x.size(axis),)))
    return torch.index_select(x, axis, order)


def gamma(shape: Shape, alpha: Parameter, dtype: DTypeLike | None = None, seed: Seed = None) -> Tensor:
    """Numbers from the gamma distribution of shape `alpha` and scale 1.

    >>> random.gamma((1000,), alpha=3.0, seed=1).shape
    torch.Size([1000])
    """
    given = _parameter(alpha, shape)
    return numbers(seed, "gamma", (), given, given).to(_float(dtype))


def beta(shape: Shape, alpha: Parameter, beta: Parameter, dtype: DTypeLike | None = None, seed: Seed = None) -> Tensor:
    """Numbers from the beta distribution of `alpha` and `beta`, in [0, 1].

    >>> random.beta((2, 3), alpha=2.0, beta=5.0).shape
    torch.Size([2, 3])
    """
    return numbers(seed, "beta", (), _parameter(alpha, shape), _parameter(beta, shape)).to(_float(dtype))


def binomial(
    shape: Shape, counts: Parameter, probabilities: Parameter, dtype: DTypeLike | None = None, seed: Seed = None
) -> Tensor:
    """How many of `counts` trials succeed, each with the probability `probabilities`; as floats.

    >>> bool((random.binomial((1000,), counts=5, probabilities=0.5, seed=1) <= 5).all())
    True
    """
    return numbers(seed, "binomial", (), _parameter(counts, shape), _parameter(probabilities, shape)).to(_float(dtype))


def _to_normal(uniform: Tensor) -> Tensor:
    return torch.erfinv(uniform * 2 - 1) * math.sqrt(2)


def _float(dtype: DTypeLike | None) -> torch.dtype:
    """The dtype, if it is a float's.

    Raises:
        ValueError: it is not.
    """
    found = as_dtype(floatx() if dtype is None else dtype)
    if not found.is_floating_point:
        raise ValueError(f"This draw gives floating point numbers, but dtype is {dtype!r}.")
    return found


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, (Tensor, SymbolicValue)) else torch.as_tensor(x)  # type: ignore[return-value]


def _parameter(value: Parameter, shape: Shape) -> Tensor:
    """A parameter of a distribution for each number to draw, in single precision or its own, if that is better."""
    if isinstance(value, (int, float)):
        return torch.full(tuple(shape), float(value), dtype=torch.float32)
    found = _tensor(value)
    found = found if found.dtype in (torch.float32, torch.float64) else found.to(torch.float32)
    return torch.broadcast_to(found, tuple(shape))
