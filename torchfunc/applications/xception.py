"""Xception (Chollet, 2016, https://arxiv.org/abs/1610.02357): depthwise separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torchfunc import layers
from torchfunc.applications.application import Application, channel_axis
from torchfunc.applications.imagenet_utils import decode_predictions
from torchfunc.applications.imagenet_utils import preprocess_tf as preprocess_input
from torchfunc.graph import SymbolicTensor

__all__ = ["Xception", "decode_predictions", "preprocess_input"]


def _norm(x: SymbolicTensor, name: str | None = None) -> SymbolicTensor:
    return layers.BatchNormalization(axis=channel_axis(), name=name)(x)


def _relu(x: SymbolicTensor, name: str) -> SymbolicTensor:
    return layers.Activation("relu", name=f"{name}_act")(x)


def _separable(x: SymbolicTensor, filters: int, name: str) -> SymbolicTensor:
    x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return _norm(x, f"{name}_bn")


def _shrinking(x: SymbolicTensor, filters: Sequence[int], number: int) -> SymbolicTensor:
    """A block that halves the image, beside a convolution that does as well."""
    residual = _norm(layers.Conv2D(filters[-1], 1, 2, "same", use_bias=False)(x))
    for index, width in enumerate(filters, 1):
        name = f"block{number}_sepconv{index}"
        # What comes to the first of these blocks is positive already.
        x = _separable(x if (number, index) == (2, 1) else _relu(x, name), width, name)
    x = layers.MaxPooling2D(3, 2, "same", name=f"block{number}_pool")(x)
    return layers.Add()([x, residual])


def _trunk(x: SymbolicTensor, pretrained: bool) -> SymbolicTensor:
    for index, (filters, stride) in enumerate(((32, 2), (64, 1)), 1):
        name = f"block1_conv{index}"
        x = layers.Conv2D(filters, 3, stride, use_bias=False, name=name)(x)
        x = _relu(_norm(x, f"{name}_bn"), name)
    for number, filters in ((2, 128), (3, 256), (4, 728)):
        x = _shrinking(x, (filters, filters), number)
    for number in range(5, 13):
        residual = x
        for name in (f"block{number}_sepconv{index}" for index in (1, 2, 3)):
            x = _separable(_relu(x, name), 728, name)
        x = layers.Add()([x, residual])
    x = _shrinking(x, (728, 1024), 13)
    for index, filters in enumerate((1536, 2048), 1):
        x = _relu(_separable(x, filters, f"block14_sepconv{index}"), f"block14_sepconv{index}")
    return x


Xception = Application(
    "xception",
    299,
    71,
    _trunk,
    "https://storage.googleapis.com/tensorflow/keras-applications/xception/xception_weights_tf_dim_ordering_tf_kernels",
    ("0a58e3b7378bc2990ea3b43d5981f1f6", "b0042744bf5b25fce3cb969f33bebb97"),
)
