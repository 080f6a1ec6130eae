"""The values that weights start from.

An initializer is called with a shape and returns a new tensor. The shape is in Keras' layout, (in, out) for a Dense
kernel and (*spatial, in, out) for a convolution's, whatever layout the layer keeps its weight in: fan-in and fan-out
are read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from torchfunc.families import Family
from torchfunc.initializers.base import Initializer
from torchfunc.initializers.constant import STFT, Constant, Identity, Ones, Zeros
from torchfunc.initializers.random import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    Orthogonal,
    RandomInitializer,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
    compute_fans,
)

__all__ = [
    "STFT",
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "IdentityInitializer",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "OrthogonalInitializer",
    "RandomInitializer",
    "RandomNormal",
    "RandomUniform",
    "STFTInitializer",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "compute_fans",
    "constant",
    "deserialize",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "orthogonal",
    "random_normal",
    "random_uniform",
    "serialize",
    "stft",
    "truncated_normal",
    "variance_scaling",
    "zeros",
]

constant = Constant
glorot_normal = GlorotNormal
glorot_uniform = GlorotUniform
he_normal = HeNormal
he_uniform = HeUniform
identity = IdentityInitializer = Identity
lecun_normal = LecunNormal
lecun_uniform = LecunUniform
ones = Ones
orthogonal = OrthogonalInitializer = Orthogonal
random_normal = RandomNormal
random_uniform = RandomUniform
stft = STFTInitializer = STFT
truncated_normal = TruncatedNormal
variance_scaling = VarianceScaling
zeros = Zeros

_classes: tuple[type[Initializer], ...] = (
    STFT,
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
    Zeros,
)
_family = Family(
    "initializer",
    "keras.initializers",
    {cls.__name__: cls for cls in _classes},
    aliases={
        "IdentityInitializer": Identity,
        "OrthogonalInitializer": Orthogonal,
        "STFTInitializer": STFT,
        "normal": RandomNormal,
        "one": Ones,
        "uniform": RandomUniform,
        "zero": Zeros,
    },
)


def get(identifier: Any) -> Any:
    """Return the initializer that `identifier` stands for.

    Args:
        identifier: a name ("glorot_uniform"), a config, an `Initializer` or its class, any function
            `f(shape, dtype)`, an array or tensor with the values themselves, or None for none.

    Raises:
        ValueError: there is no initializer of that name, or it is nothing that can be called.

    >>> initializers.get("ones")((2,))
    tensor([1., 1.])
    >>> initializers.get(np.array([1.0, 2.0]))((2,))
    tensor([1., 2.])
    """
    if identifier is None or isinstance(identifier, Initializer):
        return identifier
    if isinstance(identifier, (np.ndarray, np.generic, Tensor)):
        return Constant(identifier)
    return _family.get(identifier)


def serialize(initializer: Any) -> Any:
    """Return the config of an initializer; None gives None.

    >>> initializers.serialize(initializers.Constant(2.0))["config"]
    {'value': 2.0}
    """
    return _family.serialize(initializer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Return the initializer that `serialize`, ours or Keras', wrote as `config`.

    Args:
        config: a config or a name; None gives None.
        custom_objects: functions and classes of yours that it may name.

    >>> config = initializers.serialize(initializers.Constant(2.0))
    >>> initializers.deserialize(config)((2,))
    tensor([2., 2.])
    """
    return _family.deserialize(config, custom_objects)
