"""MobileNet V2 (Sandler et al., 2018, https://arxiv.org/abs/1801.04381): inverted residual blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchfunc import layers
from torchfunc.applications.application import (
    CLASSES,
    Application,
    channel_axis,
    channels_of,
    downsampling_pad,
    rounded,
    size_of,
)
from torchfunc.applications.imagenet_utils import decode_predictions
from torchfunc.applications.imagenet_utils import preprocess_tf as preprocess_input
from torchfunc.graph import SymbolicTensor
from torchfunc.layers import Input
from torchfunc.models import Functional
from torchfunc.saving.files import PathLike

__all__ = ["MobileNetV2", "decode_predictions", "preprocess_input"]

_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{}_{}"
)
_SIZES = (96, 128, 160, 192, 224)
_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
# Filters, blocks, and the stride of the first one.
_STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


def _norm(x: SymbolicTensor, name: str) -> SymbolicTensor:
    return layers.BatchNormalization(axis=channel_axis(), epsilon=1e-3, momentum=0.999, name=name)(x)


def _block(x: SymbolicTensor, filters: int, stride: int, number: int) -> SymbolicTensor:
    inputs, channels = x, channels_of(x)
    name = f"block_{number}" if number else "expanded_conv"
    if number:
        x = layers.Conv2D(6 * channels, 1, padding="same", use_bias=False, name=f"{name}_expand")(x)
        x = layers.ReLU(6.0, name=f"{name}_expand_relu")(_norm(x, f"{name}_expand_BN"))
    if stride == 2:
        x = layers.ZeroPadding2D(downsampling_pad(x, 3), name=f"{name}_pad")(x)
    padding = "same" if stride == 1 else "valid"
    x = layers.DepthwiseConv2D(3, stride, padding, use_bias=False, name=f"{name}_depthwise")(x)
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(_norm(x, f"{name}_depthwise_BN"))
    x = layers.Conv2D(filters, 1, padding="same", use_bias=False, name=f"{name}_project")(x)
    x = _norm(x, f"{name}_project_BN")
    return layers.Add(name=f"{name}_add")([inputs, x]) if channels == filters and stride == 1 else x


def _application(name: str, alpha: float, rows: int) -> Application:
    def draw(x: SymbolicTensor, pretrained: bool) -> SymbolicTensor:
        x = layers.Conv2D(rounded(32 * alpha), 3, 2, "same", use_bias=False, name="Conv1")(x)
        x = layers.ReLU(6.0, name="Conv1_relu")(_norm(x, "bn_Conv1"))
        number = 0
        for filters, blocks, stride in _STAGES:
            for index in range(blocks):
                x = _block(x, rounded(int(filters * alpha)), stride if index == 0 else 1, number)
                number += 1
        last = rounded(1280 * max(alpha, 1.0))
        x = layers.Conv2D(last, 1, use_bias=False, name="Conv_1")(x)
        return layers.ReLU(6.0, name="out_relu")(_norm(x, "Conv_1_bn"))

    url = _URL.format(float(alpha), rows)
    head = layers.GlobalAveragePooling2D
    return Application(name, rows, 32, draw, url, ("", ""), (".h5", "_no_top.h5"), head=lambda x: head()(x))


def MobileNetV2(
    input_shape: Sequence[int | None] | None = None,
    alpha: float = 1.0,
    include_top: bool = True,
    weights: PathLike | None = "imagenet",
    input_tensor: SymbolicTensor | None = None,
    pooling: str | None = None,
    classes: int = CLASSES,
    classifier_activation: Any = "softmax",
    name: str | None = None,
) -> Functional:
    """Draw the network; see `Application` for the arguments but `alpha`, the width of all layers.

    Raises:
        ValueError: the arguments fit neither each other nor the weights.
        OSError: the weights cannot be downloaded.

    >>> model = applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=10)
    >>> model.output_shape
    (None, 10)
    """
    if weights == "imagenet" and alpha not in _ALPHAS:
        raise ValueError(f"There are weights for ImageNet for an alpha of {_ALPHAS}, got {alpha}.")
    looked_at = input_tensor if input_shape is None else Input(input_shape)
    rows, columns = (224, 224) if looked_at is None or len(looked_at.shape) != 4 else size_of(looked_at)
    size = rows if rows is not None and rows == columns and rows in _SIZES else 224
    if weights != "imagenet":
        # (As Keras names it.)
        rows = rows if input_shape is not None else size if include_top else None
    label = f"mobilenetv2_{alpha:0.2f}_{size if weights == 'imagenet' else rows}"
    draw = _application(label, alpha, size)
    return draw(include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name)
