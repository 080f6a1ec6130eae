"""Precision: in which float type a step computes."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

__all__ = ["Precision"]

# Lightning's names and Keras' for the same thing.
_NAMES = {
    "32": None,
    "float32": None,
    "32-true": None,
    "bf16-mixed": torch.bfloat16,
    "mixed_bfloat16": torch.bfloat16,
    "16-mixed": torch.float16,
    "mixed_float16": torch.float16,
}


class Precision:
    """What `compile(precision=...)` says: weights stay as they are, and `torch.autocast` picks the type of each kernel.

    Args:
        name: None or "32" for no autocast, "bf16-mixed" or "16-mixed"; Keras' "mixed_bfloat16" and "mixed_float16" mean
            the same.

    Raises:
        ValueError: there is no such precision.
    """

    def __init__(self, name: str | int | None) -> None:
        key = "32" if name is None else str(name)
        if key not in _NAMES:
            raise ValueError(f"`precision` is '32', 'bf16-mixed' or '16-mixed', got {name!r}.")
        self.dtype = _NAMES[key]

    @property
    def needs_loss_scale(self) -> bool:
        """Whether small gradients would become 0: float16 has but five bits for the exponent."""
        return self.dtype is torch.float16

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """The setting of a forward pass and its losses on this device."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.dtype)
