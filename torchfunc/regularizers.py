"""Penalties on weights and activities, that training adds to the loss.

A regularizer is called with one tensor and returns a scalar. A weight comes in Keras' layout, (in, out) for a Dense
kernel and (*spatial, in, out) for a convolution's, whatever layout its layer keeps it in.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfunc.arrays import as_tensor
from torchfunc.config import epsilon
from torchfunc.families import Family

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "OrthogonalRegularizer",
    "Regularizer",
    "deserialize",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "orthogonal_regularizer",
    "serialize",
]


class Regularizer:
    """The base class: write `__call__(x)`, and `get_config()` if models with it shall be saved.

    >>> class Largest(regularizers.Regularizer):
    ...     def __call__(self, x):
    ...         return x.abs().max()
    >>> Largest()(torch.tensor([1.0, -3.0]))
    tensor(3.)
    >>> layer = layers.Dense(3, kernel_regularizer=Largest())
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Return the penalty on `x`, a scalar of the dtype of `x`; zero unless a subclass says otherwise."""
        return x.new_zeros(())

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be written to a config. Give it a `get_config()` method that returns the "
            "arguments of its constructor as a dict."
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return a regularizer made with the arguments that `get_config` returned."""
        return cls(**config)


class L1L2(Regularizer):
    """`l1 * sum(abs(x)) + l2 * sum(x**2)`.

    Args:
        l1: the factor of the sum of absolute values, not negative. Default 0.
        l2: the factor of the sum of squares, not negative. Default 0. The name "l1_l2" stands for 0.01 and 0.01.

    >>> regularizers.L1L2(l1=1.0, l2=0.1)([1.0, -2.0])
    tensor(3.5000)
    """

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0) -> None:
        self.l1 = _factor(l1, 0.0, "l1", self)
        self.l2 = _factor(l2, 0.0, "l2", self)

    def __call__(self, x: Tensor) -> Tensor:
        x = as_tensor(x)
        penalty = x.new_zeros(())
        if self.l1:
            penalty = penalty + self.l1 * torch.sum(torch.abs(x))
        if self.l2:
            penalty = penalty + self.l2 * torch.sum(torch.square(x))
        return penalty

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2}


class L1(Regularizer):
    """`l1 * sum(abs(x))`.

    Args:
        l1: the factor, not negative. Default 0.01.

    >>> regularizers.L1(0.1)([1.0, -2.0])
    tensor(0.3000)
    """

    def __init__(self, l1: float | None = 0.01) -> None:
        self.l1 = _factor(l1, 0.01, "l1", self)

    def __call__(self, x: Tensor) -> Tensor:
        return self.l1 * torch.sum(torch.abs(as_tensor(x)))

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1}


class L2(Regularizer):
    """`l2 * sum(x**2)`.

    Args:
        l2: the factor, not negative. Default 0.01.

    >>> regularizers.L2(0.1)([1.0, -2.0])
    tensor(0.5000)
    """

    def __init__(self, l2: float | None = 0.01) -> None:
        self.l2 = _factor(l2, 0.01, "l2", self)

    def __call__(self, x: Tensor) -> Tensor:
        return self.l2 * torch.sum(torch.square(as_tensor(x)))

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """Pushes the rows, or the columns, of a matrix to be orthogonal to each other.

    `factor` times the mean, over all pairs, of the absolute dot product of the two rows, each scaled to length 1.
    Layers hand over Keras' layout: in a Dense kernel (in, out) a row belongs to an input, a column to a unit.

    Args:
        factor: the factor, not negative. Default 0.01.
        mode: "rows" (default) or "columns".

    Raises:
        ValueError: an argument is another, or what it is called on is no matrix.

    >>> regularizers.OrthogonalRegularizer(1.0)([[1.0, 0.0], [0.0, 2.0]])
    tensor(0.)
    >>> regularizers.OrthogonalRegularizer(1.0)([[1.0, 0.0], [2.0, 2.0]])
    tensor(0.7071)
    """

    def __init__(self, factor: float | None = 0.01, mode: str = "rows") -> None:
        if mode not in ("rows", "columns"):
            raise ValueError(f"OrthogonalRegularizer: mode is 'rows' or 'columns', got {mode!r}.")
        self.factor = _factor(factor, 0.01, "factor", self)
        self.mode = mode

    def __call__(self, x: Tensor) -> Tensor:
        """Return the penalty on `x` (rows, columns). Raises ValueError when it has another rank."""
        x = as_tensor(x)
        if len(x.shape) != 2:
            raise ValueError(f"OrthogonalRegularizer takes a matrix (rows, columns), got the shape {tuple(x.shape)}.")
        vectors = F.normalize(x if self.mode == "rows" else x.T, dim=1, eps=epsilon())
        count = vectors.shape[0]
        # Each pair is there twice; a single vector has no pair, and no penalty.
        products = torch.triu(torch.abs(vectors @ vectors.T), diagonal=1)
        return self.factor * torch.sum(products) / max(count * (count - 1) / 2, 1)

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor, "mode": self.mode}


def _factor(value: float | None, default: float, argument: str, regularizer: Regularizer) -> float:
    if value is None:
        return default
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or value < 0:
        raise ValueError(
            f"{type(regularizer).__name__}: {argument} is a number that is not negative, got {argument}={value!r}."
        )
    return float(value)


l1 = L1
l2 = L2
l1_l2 = L1L2
orthogonal_regularizer = OrthogonalRegularizer

_family = Family(
    "regularizer",
    "keras.regularizers",
    {"L1": L1, "L1L2": L1L2, "L2": L2, "OrthogonalRegularizer": OrthogonalRegularizer},
    aliases={"l1_l2": L1L2},  # so that the name is suggested and found in a config
)


def get(identifier: Any) -> Any:
    """Return the regularizer that `identifier` stands for.

    Args:
        identifier: a name ("l2"; "l1_l2" has 0.01 for both factors), a config, a `Regularizer` or its class,
            any function of a tensor, or None for none.

    Raises:
        ValueError: there is no regularizer of that name, or it is nothing that can be called.

    >>> regularizers.get("l2").l2
    0.01
    >>> regularizers.get(None) is None
    True
    """
    return None if identifier is None else _family.get(_with_defaults(identifier))


def serialize(regularizer: Any) -> Any:
    """Return the config of a regularizer; None gives None.

    >>> regularizers.serialize(regularizers.L2(0.5))["config"]
    {'l2': 0.5}
    """
    return _family.serialize(regularizer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Return the regularizer that `serialize`, ours or Keras', wrote as `config`.

    Args:
        config: a config or a name; None gives None.
        custom_objects: functions and classes of yours that it may name.

    >>> config = regularizers.serialize(regularizers.L2(0.5))
    >>> regularizers.deserialize(config).l2
    0.5
    """
    return _family.deserialize(_with_defaults(config), custom_objects)


def _with_defaults(identifier: Any) -> Any:
    """The name "l1_l2" has other defaults than the class, which is made for giving one factor and not the other."""
    return L1L2(l1=0.01, l2=0.01) if isinstance(identifier, str) and identifier == "l1_l2" else identifier
