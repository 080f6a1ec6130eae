"""What initializers have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from torchfunc.config import floatx
from torchfunc.dtypes import DTypeLike, as_dtype

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Initializer", "weight_dtype"]


class Initializer:
    """The base class: write `__call__(shape, dtype=None)`, and `get_config()` if the constructor has arguments.

    >>> class Sevens(initializers.Initializer):
    ...     def __call__(self, shape, dtype=None):
    ...         return torch.full(shape, 7.0)
    >>> layers.Dense(3, bias_initializer=Sevens()).bias_initializer((3,))
    tensor([7., 7., 7.])
    """

    # The attributes that are the constructor's arguments.
    arguments: ClassVar[tuple[str, ...]] = ()

    def __call__(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        """Return a new tensor, on torch's default device.

        Args:
            shape: its shape, in Keras' layout.
            dtype: its dtype; `config.floatx()` by default.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `__call__(self, shape, dtype=None)`.")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values."""
        return {name: getattr(self, name) for name in self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return an initializer made with the arguments that `get_config` returned."""
        return cls(**config)

    def clone(self) -> Self:
        """Return a new initializer with the same config."""
        return type(self).from_config(self.get_config())


def weight_dtype(dtype: DTypeLike | None) -> torch.dtype:
    """Return the dtype that `dtype` names, `config.floatx()` for None."""
    return as_dtype(floatx() if dtype is None else dtype)
