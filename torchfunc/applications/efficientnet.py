"""EfficientNet (Tan and Le, 2019, https://arxiv.org/abs/1905.11946): one network, wider and deeper by factors."""

from __future__ import annotations

import math
from typing import Any

from torchfunc import layers
from torchfunc.applications.application import Application, channel_axis, channels_of, downsampling_pad, rounded
from torchfunc.applications.imagenet_utils import decode_predictions
from torchfunc.graph import SymbolicTensor

__all__ = [
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "decode_predictions",
    "preprocess_input",
]

_URL = "https://storage.googleapis.com/keras-applications/"
# Kernel, blocks, filters, factor by which a block widens, stride.
_STAGES = (
    *((3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2)),
    *((5, 3, 112, 6, 1), (5, 4, 192, 6, 2), (3, 1, 320, 6, 1)),
)
_DEVIATIONS = (0.229, 0.224, 0.225)
_SCALED = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}
_UNIFORM = {"class_name": "VarianceScaling", "config": {"scale": 1 / 3, "mode": "fan_out", "distribution": "uniform"}}


def _conv(x: SymbolicTensor, filters: int, name: str, **kwargs: Any) -> SymbolicTensor:
    return layers.Conv2D(filters, 1, padding="same", kernel_initializer=_SCALED, name=name, **kwargs)(x)


def _norm(x: SymbolicTensor, name: str) -> SymbolicTensor:
    return layers.BatchNormalization(axis=channel_axis(), name=name)(x)


def _swish(x: SymbolicTensor, name: str) -> SymbolicTensor:
    return layers.Activation("swish", name=name)(x)


def _block(
    x: SymbolicTensor, kernel: int, filters: int, factor: int, stride: int, drop: float, name: str
) -> SymbolicTensor:
    inputs, channels = x, channels_of(x)
    width = factor * channels
    if factor != 1:
        x = _norm(_conv(x, width, f"{name}expand_conv", use_bias=False), f"{name}expand_bn")
        x = _swish(x, f"{name}expand_activation")
    if stride == 2:
        x = layers.ZeroPadding2D(downsampling_pad(x, kernel), name=f"{name}dwconv_pad")(x)
    padding = "same" if stride == 1 else "valid"
    x = layers.DepthwiseConv2D(
        kernel, stride, padding, use_bias=False, depthwise_initializer=_SCALED, name=f"{name}dwconv"
    )(x)
    x = _swish(_norm(x, f"{name}bn"), f"{name}activation")
    # Squeeze and excitation.
    one = layers.GlobalAveragePooling2D(name=f"{name}se_squeeze")(x)
    one = layers.Reshape((width, 1, 1) if channel_axis() == 1 else (1, 1, width), name=f"{name}se_reshape")(one)
    one = _conv(one, max(1, int(channels * 0.25)), f"{name}se_reduce", activation="swish")
    one = _conv(one, width, f"{name}se_expand", activation="sigmoid")
    x = layers.Multiply(name=f"{name}se_excite")([x, one])
    x = _norm(_conv(x, filters, f"{name}project_conv", use_bias=False), f"{name}project_bn")
    if stride != 1 or channels != filters:
        return x
    if drop > 0:
        x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
    return layers.Add(name=f"{name}add")([x, inputs])


def _efficientnet(
    number: int, width: float, depth: float, size: int, dropout: float, with_top: str, without: str
) -> Application:
    def draw(x: SymbolicTensor, pretrained: bool) -> SymbolicTensor:
        x = layers.Normalization(axis=channel_axis())(layers.Rescaling(1 / 255)(x))
        if pretrained:
            # The weights are for images that were divided by the variance, the square of what Normalization takes.
            scales = [1 / math.sqrt(deviation) for deviation in _DEVIATIONS]
            x = layers.Rescaling(scales)(x)
        x = layers.ZeroPadding2D(downsampling_pad(x, 3), name="stem_conv_pad")(x)
        stem = layers.Conv2D(rounded(32 * width), 3, 2, use_bias=False, kernel_initializer=_SCALED, name="stem_conv")
        x = _swish(_norm(stem(x), "stem_bn"), "stem_activation")
        repeats = [math.ceil(depth * blocks) for _, blocks, *_ in _STAGES]
        done = 0
        for stage, ((kernel, _, filters, factor, stride), count) in enumerate(zip(_STAGES, repeats, strict=True), 1):
            for index in range(count):
                name = f"block{stage}{chr(ord('a') + index)}_"
                drop = 0.2 * done / sum(repeats)
                x = _block(x, kernel, rounded(filters * width), factor, 1 if index else stride, drop, name)
                done += 1
        x = _norm(_conv(x, rounded(1280 * width), "top_conv", use_bias=False), "top_bn")
        return _swish(x, "top_activation")

    def head(x: SymbolicTensor) -> SymbolicTensor:
        return layers.Dropout(dropout, name="top_dropout")(layers.GlobalAveragePooling2D(name="avg_pool")(x))

    name = f"efficientnetb{number}"
    classifier = {"kernel_initializer": _UNIFORM}
    return Application(
        name, size, 32, draw, _URL + name, (with_top, without), head=head, pooling_is_named=True, classifier=classifier
    )


# Width, depth, size of the images, dropout, and the hashes of the weights.
_VARIANTS = (
    (1.0, 1.0, 224, 0.2, "902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
    (1.0, 1.1, 240, 0.2, "1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
    (1.1, 1.2, 260, 0.3, "b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    (1.2, 1.4, 300, 0.3, "ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
    (1.4, 1.8, 380, 0.4, "18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    (1.6, 2.2, 456, 0.4, "ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
    (1.8, 2.6, 528, 0.5, "165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
    (2.0, 3.1, 600, 0.5, "8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
)
_all = tuple(_efficientnet(number, *variant) for number, variant in enumerate(_VARIANTS))
EfficientNetB0, EfficientNetB1, EfficientNetB2, EfficientNetB3 = _all[:4]
EfficientNetB4, EfficientNetB5, EfficientNetB6, EfficientNetB7 = _all[4:]


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """The images themselves: these networks scale them on their own.

    >>> images = np.zeros((1, 32, 32, 3))
    >>> applications.efficientnet.preprocess_input(images) is images
    True
    """
    return x
