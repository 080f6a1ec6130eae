"""Rescaling: layers that prepare data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.config import image_data_format
from torchfunc.layers.core import Elementwise
from torchfunc.registry import deserialize_keras_object, serialize_keras_object

__all__ = ["Rescaling"]


class Rescaling(Elementwise):
    """`inputs * scale + offset` in floats. Shape: any, kept.

    Args:
        scale: a number, or one for each channel.
        offset: a number, or one for each channel. Channels are the last axis, or the third from the end if
            `config.image_data_format()` is "channels_first" when the layer is made.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `scale` or `offset` is neither a number nor a list or array of numbers.
    """

    _scale: float | Tensor
    _offset: float | Tensor

    def __init__(
        self,
        scale: float | Sequence[float] | np.ndarray,
        offset: float | Sequence[float] | np.ndarray = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset
        self._keep("_scale", scale)
        self._keep("_offset", offset)

    def _keep(self, name: str, value: Any) -> None:
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.asarray("ragged")
        if array.dtype.kind not in "iuf":
            raise ValueError(f"Rescaling takes a number or a list of numbers for {name[1:]}, got {value!r}.")
        if array.ndim == 0:
            setattr(self, name, float(array))
            return
        tensor = torch.from_numpy(array).to(self.dtype)
        if image_data_format() == "channels_first" and array.ndim == 1:
            tensor = tensor.view(-1, 1, 1)
        self.register_buffer(name, tensor, persistent=False)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.dtype) * self._scale + self._offset

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.dtype

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scale": serialize_keras_object(self.scale),
            "offset": serialize_keras_object(self.offset),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Rescaling:
        return cls(
            **{
                key: deserialize_keras_object(config[key]) if key in ("scale", "offset") else config[key]
                for key in config
            }
        )
