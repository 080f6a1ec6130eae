"""Masking: masks for inputs that are padded with a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchfunc.arrays import as_tensor
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.elementwise import Elementwise
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.masks import Masks
from torchfunc.registry import deserialize_keras_object

__all__ = ["Masking"]


class Masking(Elementwise):
    """Marks the steps whose features all equal a value: layers behind this one, and the loss, leave them out.

    Shape: `(batch, steps, features)`, or with more axes between, unchanged. The marked steps become 0. The mask,
    `(batch, steps)`, is True for the steps that count.

    Args:
        mask_value: the value.
        **kwargs: of `Layer`.

    >>> steps = Input((None, 4))
    >>> marked = layers.Masking(mask_value=0.0)(steps)
    >>> layers.LSTM(8)(marked).shape  # which leaves out steps of four zeros
    (None, 8)
    """

    makes_masks = True

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(mask_value, Mapping):
            mask_value = deserialize_keras_object(mask_value)
        if not isinstance(mask_value, (int, float)):
            raise ValueError(f"Masking takes a number for mask_value, got {mask_value!r}.")
        self.mask_value = mask_value
        self.input_spec = InputSpec(min_ndim=2)

    def call(self, inputs: Tensor) -> Tensor:
        return torch.where(torch.ne(inputs, self.mask_value).any(-1, keepdim=True), inputs, 0)

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        return torch.ne(as_tensor(inputs), self.mask_value).any(-1)

    def get_config(self) -> Config:
        return {**super().get_config(), "mask_value": self.mask_value}
