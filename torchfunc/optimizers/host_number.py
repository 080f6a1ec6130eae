"""Numbers that live on the device for the sake of compiled steps, and are known to Python without asking the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.graph.torch_internals import change_count

__all__ = ["HostNumber", "in_graph"]

_HAS_CUDA = torch.backends.cuda.is_built()


_HAS_CUDA = torch.backends.cuda.is_built()


def in_graph() -> bool:
    """Whether operations are being recorded for later: then a Python number would be frozen into the recording."""
    return torch.compiler.is_compiling() or (
        _HAS_CUDA and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    )


class HostNumber:
    """The value of a tensor of shape (), read from the device only when somebody else has changed the tensor.

    Torch counts the changes of each tensor, compiled steps included. As long as the count is the one that was last seen
    here, the number is what it was.

    Args:
        tensor: the tensor, which may still be changed in place by others.
        value: what it holds, if that is known.
    """

    def __init__(self, tensor: Tensor, value: float | None = None) -> None:
        self.tensor = tensor
        self._value: float = 0 if value is None else value
        self._seen = -1 if value is None else change_count(tensor)

    def get(self) -> float:
        """The number."""
        count = change_count(self.tensor)
        if count != self._seen:
            self._value = self.tensor.item()
            self._seen = count
        return self._value

    def set(self, value: float) -> None:
        """Set the tensor, one of float32 or float64, and the number."""
        self.tensor.fill_(value)
        rounded = float(np.float32(value)) if self.tensor.dtype == torch.float32 else value
        self._value, self._seen = rounded, change_count(self.tensor)

    def add(self, amount: int) -> None:
        """Add to the tensor and the number."""
        value = self.get() + amount
        self.tensor.add_(amount)
        self._value, self._seen = value, change_count(self.tensor)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the tensor counts its changes from 0: the count seen here means nothing to it.
        return HostNumber, (self.tensor,)
