"""Elementwise: the base of layers that keep the shape of their input."""

from __future__ import annotations

from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.shapes import Shape

__all__ = ["Elementwise"]


class Elementwise(Layer):
    """A layer without weights whose output has its input's shape and passes its mask on."""

    supports_masking = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)
