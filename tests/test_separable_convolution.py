"""Depthwise and separable convolutions against Keras and torch."""

import keras
import pytest
import torch
from layer_parity import assert_close, check_layer

from torchfunc import layers
from torchfunc.layers import DepthwiseConv2D, Input, SeparableConv1D, SeparableConv2D

FORMATS = ["channels_last", "channels_first"]
KINDS = {"DepthwiseConv": {}, "SeparableConv": {"filters": 5}}


def channels(shape, data_format):
    return shape if data_format == "channels_last" else (shape[0], shape[-1], *shape[1:-1])


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rank", "kwargs"),
    [
        (1, {"kernel_size": 3}),
        (1, {"kernel_size": 4, "strides": 2, "padding": "same", "depth_multiplier": 2}),
        (1, {"kernel_size": 2, "dilation_rate": 3, "padding": "same", "use_bias": False}),
        (2, {"kernel_size": 3, "depth_multiplier": 2, "activation": "tanh"}),
        (2, {"kernel_size": (2, 3), "strides": 2, "padding": "same"}),
        (2, {"kernel_size": (3, 1), "dilation_rate": (2, 1), "depth_multiplier": 3}),
    ],
)
def test_parity(rank, kwargs, kind, data_format):
    name = f"{kind}{rank}D"
    shape = channels((2, 9, 3) if rank == 1 else (2, 8, 9, 3), data_format)
    spatial = range(1, rank + 1) if data_format == "channels_last" else range(2, rank + 2)
    kwargs = {**KINDS[kind], "data_format": data_format, **kwargs}
    check_layer(getattr(layers, name), getattr(keras.layers, name), kwargs, shape, unknown_axes=spatial)


@pytest.mark.parametrize("kind", KINDS)
def test_weight_arguments_and_float64(kind):
    kwargs = {
        "kernel_size": 2,
        "depthwise_initializer": "he_normal",
        "bias_initializer": "ones",
        "depthwise_regularizer": "l2",
        "bias_regularizer": "l1",
        "activity_regularizer": "l2",
        "depthwise_constraint": "max_norm",
        "bias_constraint": "non_neg",
        **KINDS[kind],
    }
    if kind == "SeparableConv":
        kwargs |= {"pointwise_initializer": "ones", "pointwise_regularizer": "l2", "pointwise_constraint": "non_neg"}
    name = f"{kind}2D"
    ours, theirs = check_layer(
        getattr(layers, name), getattr(keras.layers, name), kwargs, (2, 4, 5, 3), dtype="float64"
    )
    for project in ours.weight_constraints():
        project()
    expected = [variable.constraint(variable.value) for variable in theirs.weights]
    for value, reference in zip(ours.get_weights(), expected, strict=True):
        assert_close(value, reference, 1e-6, "constrained weight")


def test_depthwise_is_torchs_grouped_convolution():
    ours = DepthwiseConv2D(3, depth_multiplier=2, data_format="channels_first")
    torchs, x = torch.nn.Conv2d(4, 8, 3, groups=4), torch.randn(2, 4, 6, 7)
    ours(x)
    ours.load_state_dict(torchs.state_dict())
    assert_close(ours(x), torchs(x), 1e-6, "DepthwiseConv2D")


def test_separable_is_two_of_torchs_convolutions():
    ours, x = SeparableConv2D(5, 3, data_format="channels_first"), torch.randn(2, 4, 6, 7)
    depthwise, pointwise = torch.nn.Conv2d(4, 4, 3, groups=4, bias=False), torch.nn.Conv2d(4, 5, 1)
    ours(x)
    ours.load_state_dict(
        {
            "depthwise_weight": depthwise.weight,
            "pointwise_weight": pointwise.weight,
            "bias": pointwise.bias,
        }
    )
    assert_close(ours(x), pointwise(depthwise(x)), 1e-5, "SeparableConv2D")


@pytest.mark.parametrize("kind", KINDS)
def test_initial_scale_is_keras(kind):
    name = f"{kind}2D"
    ours, theirs = (getattr(each, name)(**KINDS[kind], kernel_size=3) for each in (layers, keras.layers))
    for layer in (ours, theirs):
        layer.build((None, 8, 8, 64))
    for mine, reference in zip(ours.get_weights(), theirs.weights, strict=True):
        # Uniform values: the largest of hundreds is close to the limit, which is what the fans decide.
        assert abs(abs(mine).max() - reference.value.abs().max().item()) <= 0.05 * abs(mine).max()


def test_names():
    assert layers.SeparableConvolution1D is SeparableConv1D
    assert layers.SeparableConvolution2D is SeparableConv2D


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DepthwiseConv2D(0), r"DepthwiseConv2D takes .* kernel_size, got 0"),
        (lambda: DepthwiseConv2D(3, depth_multiplier=0), r"positive integer for depth_multiplier, got 0"),
        (lambda: SeparableConv2D(4, 3, depth_multiplier=1.5), r"SeparableConv2D .* depth_multiplier, got 1.5"),
        (lambda: SeparableConv2D(0, 3), r"SeparableConv2D takes a positive integer for filters, got 0"),
        (lambda: SeparableConv1D(4, 3, padding="causal"), r"SeparableConv1D takes one of 'valid', 'same' for padding"),
        (lambda: SeparableConv1D(4, 3, strides=2, dilation_rate=2), r"strides=\(2,\) and dilation_rate=\(2,\)"),
        (lambda: DepthwiseConv2D(3, name="d")(Input((8, 8))), r"DepthwiseConv2D 'd' .*min_ndim=4, found ndim=3"),
        (lambda: DepthwiseConv2D(3, name="d")(Input((8, 8, None))), r"axis -1 of the input of DepthwiseConv2D 'd'"),
        (lambda: DepthwiseConv2D(9, name="d")(Input((8, 8, 3))), r"DepthwiseConv2D 'd' .*\(None, 8, 8, 3\).* 9 .* 8"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
