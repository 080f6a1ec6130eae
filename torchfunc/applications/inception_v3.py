"""Inception V3 (Szegedy et al., 2015, https://arxiv.org/abs/1512.00567)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torchfunc import layers
from torchfunc.applications.application import Application, channel_axis
from torchfunc.applications.imagenet_utils import decode_predictions
from torchfunc.applications.imagenet_utils import preprocess_tf as preprocess_input
from torchfunc.graph import SymbolicTensor

__all__ = ["InceptionV3", "decode_predictions", "preprocess_input"]

Step: TypeAlias = tuple[int, int, int]
"""A convolution: filters, height and width of the kernel."""

# Of each mixed block that keeps the size: its branches; the last one follows a mean over 3 x 3.
_KEEPING: Mapping[int, Sequence[Sequence[Step]]] = {
    number: (
        [(64, 1, 1)],
        [(48, 1, 1), (64, 5, 5)],
        [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
        [(32 if number == 0 else 64, 1, 1)],
    )
    for number in (0, 1, 2)
} | {
    number: (
        [(192, 1, 1)],
        [(width, 1, 1), (width, 1, 7), (192, 7, 1)],
        [(width, 1, 1), (width, 7, 1), (width, 1, 7), (width, 7, 1), (192, 1, 7)],
        [(192, 1, 1)],
    )
    for number, width in ((4, 128), (5, 160), (6, 160), (7, 192))
}
# Of each that halves it: its branches, the last step of which does so.
_HALVING: Mapping[int, Sequence[Sequence[Step]]] = {
    3: ([(384, 3, 3)], [(64, 1, 1), (96, 3, 3), (96, 3, 3)]),
    8: ([(192, 1, 1), (320, 3, 3)], [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)]),
}


def _conv(x: SymbolicTensor, step: Step, stride: int = 1, padding: str = "same") -> SymbolicTensor:
    filters, *kernel = step
    x = layers.Conv2D(filters, tuple(kernel), stride, padding, use_bias=False)(x)
    x = layers.BatchNormalization(axis=channel_axis(), scale=False)(x)
    return layers.Activation("relu")(x)


def _branch(x: SymbolicTensor, steps: Sequence[Step]) -> SymbolicTensor:
    for step in steps:
        x = _conv(x, step)
    return x


def _joined(parts: Sequence[SymbolicTensor], name: str | None = None) -> SymbolicTensor:
    return layers.Concatenate(axis=channel_axis(), name=name)(parts)


def _mixed(x: SymbolicTensor, number: int) -> SymbolicTensor:
    if number in _HALVING:
        parts = [_conv(_branch(x, steps[:-1]), steps[-1], 2, "valid") for steps in _HALVING[number]]
        return _joined([*parts, layers.MaxPooling2D(3, 2)(x)], f"mixed{number}")
    if number in _KEEPING:
        *branches, last = _KEEPING[number]
        parts = [_branch(x, steps) for steps in branches]
    else:
        last = [(192, 1, 1)]
        parts = [_conv(x, (320, 1, 1))]
        for steps, name in (([(384, 1, 1)], f"mixed9_{number - 9}"), ([(448, 1, 1), (384, 3, 3)], None)):
            forked = _branch(x, steps)
            parts.append(_joined([_conv(forked, (384, 1, 3)), _conv(forked, (384, 3, 1))], name))
    averaged = layers.AveragePooling2D(3, 1, "same")(x)
    return _joined([*parts, _branch(averaged, last)], f"mixed{number}")


def _trunk(x: SymbolicTensor, pretrained: bool) -> SymbolicTensor:
    x = _conv(_conv(x, (32, 3, 3), 2, "valid"), (32, 3, 3), padding="valid")
    x = layers.MaxPooling2D(3, 2)(_conv(x, (64, 3, 3)))
    x = _conv(_conv(x, (80, 1, 1), padding="valid"), (192, 3, 3), padding="valid")
    x = layers.MaxPooling2D(3, 2)(x)
    for number in range(11):
        x = _mixed(x, number)
    return x


InceptionV3 = Application(
    "inception_v3",
    299,
    75,
    _trunk,
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels",
    ("9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63"),
)
