"""Keras' activation functions, as plain functions on tensors.

Every one takes a tensor `x` of any shape, unless said otherwise, and returns a tensor of the same shape and dtype.
All of them also take a symbolic tensor, since they are made of torch functions and operators only; and arrays and
lists of numbers, which become tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.arrays import as_tensor
from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.families import Family

__all__ = [
    *("celu", "deserialize", "elu", "exponential", "gelu", "get", "glu", "hard_shrink", "hard_sigmoid", "hard_silu"),
    *("hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu"),
    *("serialize", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus"),
    *("sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink", "threshold"),
]


def _as_floats(x: Any) -> Any:
    """Arrays as tensors, and integers and booleans, for which most kernels have no form, as `config.floatx()`."""
    x = as_tensor(x)
    exact = isinstance(x, Tensor) and not (x.dtype.is_floating_point or x.dtype.is_complex)
    return x.to(as_dtype(floatx())) if exact else x


def relu(x: Tensor, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Tensor:
    """Rectified linear unit: `max(x, 0)` with the defaults.

    In general `max_value` above it, `x` between `threshold` and `max_value`, and
    `negative_slope * (x - threshold)` below `threshold`.

    Args:
        x: the input.
        negative_slope: the slope below the threshold. Default 0.
        max_value: the largest value returned. Default: no limit.
        threshold: where the linear part begins. Default 0.

    >>> activations.relu([-2.0, 3.0])
    tensor([0., 3.])
    >>> activations.relu([-2.0, 0.5, 9.0], negative_slope=0.5, max_value=6.0)
    tensor([-1.0000,  0.5000,  6.0000])
    """
    x = x if isinstance(x, Tensor) else as_tensor(x)
    if negative_slope == 0.0 and max_value is None and threshold == 0.0:
        return torch.relu(x)
    if max_value is None and threshold == 0.0:
        return F.leaky_relu(x, negative_slope)
    if threshold != 0.0:
        positive = F.threshold(x, threshold, 0.0)
    elif max_value == 6:
        positive = F.relu6(x)
    else:
        positive = torch.relu(x)
    if max_value is not None:
        positive = torch.clamp(positive, 0.0, max_value)
    if negative_slope == 0.0:
        return positive
    return positive - negative_slope * torch.relu(threshold - x)


def leaky_relu(x: Tensor, negative_slope: float = 0.2) -> Tensor:
    """`x` where it is positive, `negative_slope * x` elsewhere. The default slope is Keras' 0.2 (torch's is 0.01).

    >>> activations.leaky_relu([-1.0, 2.0])
    tensor([-0.2000,  2.0000])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.leaky_relu(x, negative_slope)


def relu6(x: Tensor) -> Tensor:
    """`min(max(x, 0), 6)`.

    >>> activations.relu6([-1.0, 2.0, 9.0])
    tensor([0., 2., 6.])
    """
    x = x if isinstance(x, Tensor) else as_tensor(x)
    return F.relu6(x)


def softmax(x: Tensor, axis: int | Sequence[int] = -1) -> Tensor:
    """`exp(x) / sum(exp(x))` along `axis`: each slice is non-negative and sums to 1.

    Args:
        x: the logits.
        axis: the axis that is normalised, or several that are normalised together. Default: the last.

    >>> activations.softmax([[0.0, 0.0], [1.0, 3.0]])
    tensor([[0.5000, 0.5000],
            [0.1192, 0.8808]])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return torch.softmax(x, axis) if isinstance(axis, int) else log_softmax(x, axis).exp()


def log_softmax(x: Tensor, axis: int | Sequence[int] = -1) -> Tensor:
    """The logarithm of `softmax(x, axis)`, computed without taking the softmax first.

    >>> activations.log_softmax([0.0, 0.0]).exp()
    tensor([0.5000, 0.5000])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    if isinstance(axis, int):
        return torch.log_softmax(x, axis)
    return x - torch.logsumexp(x, tuple(axis), keepdim=True)


def sparsemax(x: Tensor, axis: int = -1) -> Tensor:
    """`max(x - tau, 0)` along `axis`, with the `tau` that makes each slice sum to 1.

    The Euclidean projection of the logits on the probability simplex: like softmax, with exact zeros. Keras 3.15
    agrees only where one entry is left over; otherwise its slices do not sum to 1, since it adds up running sums.
    From Martins and Astudillo, "From Softmax to Sparsemax" (https://arxiv.org/abs/1602.02068), algorithm 1.

    Args:
        x: the logits.
        axis: the axis that is normalised. Default: the last.

    >>> activations.sparsemax([1.0, 0.5, -1.0])
    tensor([0.7500, 0.2500, 0.0000])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    # Shifting the logits moves tau along with them, and small numbers keep the running sum exact.
    x = x - torch.amax(x, axis, keepdim=True)
    ordered = torch.sort(x, dim=axis, descending=True)[0]
    rank = torch.cumsum(torch.ones_like(ordered), axis)
    support = 1 + rank * ordered > torch.cumsum(ordered, axis)
    total = torch.sum(torch.where(support, ordered, 0.0), axis, keepdim=True)
    tau = (total - 1) / torch.sum(support, axis, keepdim=True)
    return torch.relu(x - tau)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """`x` where it is positive, `alpha * (exp(x) - 1)` elsewhere (https://arxiv.org/abs/1511.07289).

    >>> activations.elu([-1.0, 2.0])
    tensor([-0.6321,  2.0000])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.elu(x, alpha)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """`x` where it is positive, `alpha * (exp(x / alpha) - 1)` elsewhere (https://arxiv.org/abs/1704.07483).

    >>> activations.celu([-1.0, 2.0], alpha=2.0)
    tensor([-0.7869,  2.0000])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return torch.celu(x, alpha)


def selu(x: Tensor) -> Tensor:
    """`1.0507 * elu(x, 1.6733)`: keeps mean and variance from layer to layer (https://arxiv.org/abs/1706.02515).

    Meant to go with the `lecun_normal` initializer and `AlphaDropout`.

    >>> activations.selu([-1.0, 1.0])
    tensor([-1.1113,  1.0507])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return torch.selu(x)


def softplus(x: Tensor) -> Tensor:
    """`log(exp(x) + 1)`.

    >>> activations.softplus([0.0, 100.0])
    tensor([  0.6931, 100.0000])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.softplus(x)


def softsign(x: Tensor) -> Tensor:
    """`x / (abs(x) + 1)`.

    >>> activations.softsign([-1.0, 3.0])
    tensor([-0.5000,  0.7500])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.softsign(x)


def squareplus(x: Tensor, b: float = 4) -> Tensor:
    """`(x + sqrt(x**2 + b)) / 2` (https://arxiv.org/abs/2112.11687).

    Args:
        x: the input.
        b: the smoothness; 0 gives `relu`. Default 4.

    >>> activations.squareplus([0.0, 3.0], b=16)
    tensor([2., 4.])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return (x + torch.sqrt(torch.square(x) + b)) / 2


def soft_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    """`x` moved towards zero by `threshold`, and zero where `abs(x) <= threshold`.

    >>> activations.soft_shrink([-2.0, 0.3, 2.0])
    tensor([-1.5000,  0.0000,  1.5000])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.softshrink(x, threshold)


def hard_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    """`x` where `abs(x) > threshold`, zero elsewhere.

    >>> activations.hard_shrink([-2.0, 0.3, 2.0])
    tensor([-2.,  0.,  2.])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.hardshrink(x, threshold)


def tanh_shrink(x: Tensor) -> Tensor:
    """`x - tanh(x)`.

    >>> activations.tanh_shrink([0.0, 1.0])
    tensor([0.0000, 0.2384])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.tanhshrink(x)


def sparse_plus(x: Tensor) -> Tensor:
    """Zero up to -1, `(x + 1)**2 / 4` between -1 and 1, `x` from there on.

    >>> activations.sparse_plus([-2.0, 0.0, 3.0])
    tensor([0.0000, 0.2500, 3.0000])
    """
    x = x if isinstance(x, Tensor) else as_tensor(x)
    return torch.where(x < 1, torch.square(torch.relu(x + 1)) / 4, x)


def silu(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`, also called swish (https://arxiv.org/abs/1710.05941).

    >>> activations.silu([0.0, 1.0])
    tensor([0.0000, 0.7311])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.silu(x)


def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    """`x * P(X <= x)` for a standard normal X (https://arxiv.org/abs/1606.08415).

    Args:
        x: the input.
        approximate: use the tanh approximation instead of the error function. Default False.

    >>> activations.gelu([0.0, 1.0])
    tensor([0.0000, 0.8413])
    >>> activations.gelu([0.0, 1.0], approximate=True)
    tensor([0.0000, 0.8412])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.gelu(x, approximate="tanh" if approximate else "none")


def glu(x: Tensor, axis: int = -1) -> Tensor:
    """Gated linear unit: `a * sigmoid(b)`, with `a` and `b` the halves of `x` along `axis`.

    Args:
        x: the input; its size along `axis` is even, and is halved in the output.
        axis: the axis that is split. Default: the last. From https://arxiv.org/abs/1612.08083.

    >>> activations.glu([2.0, 4.0, 0.0, 0.0])
    tensor([1., 2.])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.glu(x, axis)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent.

    >>> activations.tanh([-100.0, 0.0, 1.0])
    tensor([-1.0000,  0.0000,  0.7616])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return torch.tanh(x)


def hard_tanh(x: Tensor) -> Tensor:
    """`x`, limited to -1 and 1.

    >>> activations.hard_tanh([-3.0, 0.5, 3.0])
    tensor([-1.0000,  0.5000,  1.0000])
    """
    x = x if isinstance(x, Tensor) else as_tensor(x)
    return F.hardtanh(x)


def threshold(x: Tensor, threshold: float, default_value: float) -> Tensor:
    """`x` where it is above `threshold`, `default_value` elsewhere.

    >>> activations.threshold([0.5, 2.0], threshold=1.0, default_value=-1.0)
    tensor([-1.,  2.])
    """
    x = x if isinstance(x, Tensor) else as_tensor(x)
    return F.threshold(x, threshold, default_value)


def sigmoid(x: Tensor) -> Tensor:
    """`1 / (1 + exp(-x))`.

    >>> activations.sigmoid([-100.0, 0.0, 1.0])
    tensor([0.0000, 0.5000, 0.7311])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return torch.sigmoid(x)


def log_sigmoid(x: Tensor) -> Tensor:
    """The logarithm of `sigmoid(x)`, computed stably.

    >>> activations.log_sigmoid([-100.0, 0.0])
    tensor([-100.0000,   -0.6931])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.logsigmoid(x)


def hard_sigmoid(x: Tensor) -> Tensor:
    """`x / 6 + 0.5`, limited to 0 and 1: a cheap stand-in for the sigmoid.

    >>> activations.hard_sigmoid([-6.0, 0.0, 1.5])
    tensor([0.0000, 0.5000, 0.7500])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.hardsigmoid(x)


def sparse_sigmoid(x: Tensor) -> Tensor:
    """`(x + 1) / 2`, limited to 0 and 1 (https://arxiv.org/abs/1901.02324).

    >>> activations.sparse_sigmoid([-2.0, 0.0, 2.0])
    tensor([0.0000, 0.5000, 1.0000])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return (F.hardtanh(x) + 1) / 2


def hard_silu(x: Tensor) -> Tensor:
    """`x * hard_sigmoid(x)`, also called hard swish (https://arxiv.org/abs/1905.02244).

    >>> activations.hard_silu([0.0, 3.0, 6.0])
    tensor([0., 3., 6.])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.hardswish(x)


def mish(x: Tensor) -> Tensor:
    """`x * tanh(softplus(x))` (https://arxiv.org/abs/1908.08681).

    >>> activations.mish([0.0, 1.0])
    tensor([0.0000, 0.8651])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return F.mish(x)


def exponential(x: Tensor) -> Tensor:
    """`exp(x)`.

    >>> activations.exponential([0.0, 1.0])
    tensor([1.0000, 2.7183])
    """
    x = x if isinstance(x, Tensor) and x.dtype.is_floating_point else _as_floats(x)
    return torch.exp(x)


def linear(x: Tensor) -> Tensor:
    """`x` itself.

    >>> activations.linear([-1.0, 2.0])
    tensor([-1.,  2.])
    """
    x = x if isinstance(x, Tensor) else as_tensor(x)
    return x


swish = silu
hard_swish = hard_silu

_functions: tuple[Callable[..., Tensor], ...] = (
    celu,
    elu,
    exponential,
    gelu,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    linear,
    log_sigmoid,
    log_softmax,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_shrink,
    softmax,
    softplus,
    softsign,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    squareplus,
    tanh,
    tanh_shrink,
    threshold,
)
_family = Family(
    "activation",
    "keras.activations",
    {function.__name__: function for function in _functions},
    aliases={"swish": silu, "hard_swish": hard_silu},
)


def get(identifier: Any) -> Any:
    """Return the activation that `identifier` stands for.

    Args:
        identifier: a name ("relu"), a config, any callable on a tensor (a function, a layer, an `nn.Module`)
            or its class, or None for `linear`.

    Raises:
        ValueError: there is no activation of that name, or it is nothing that can be called.

    >>> activations.get("relu")([-1.0, 2.0])
    tensor([0., 2.])
    >>> activations.get("rleu")
    Traceback (most recent call last):
        ...
    ValueError: There is no activation called 'rleu'. Did you mean 'relu' or 'relu6'?
    """
    return linear if identifier is None else _family.get(identifier)


def serialize(activation: Any) -> Any:
    """Return the name of one of the functions here, the config of anything else.

    Raises:
        ValueError: it is a lambda or has no `get_config()`, so that no config can stand for it.

    >>> activations.serialize(activations.relu)
    'relu'
    """
    return _family.serialize(activation)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Return the activation that `serialize`, ours or Keras', wrote as `config`.

    Args:
        config: a name or a config; None gives None.
        custom_objects: functions and classes of yours that it may name.

    >>> activations.deserialize("relu") is activations.relu
    True
    """
    return _family.deserialize(config, custom_objects)
