"""Convolutions and transposed convolutions against Keras."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer

from torchfunc import Model, ops
from torchfunc.layers.convolution.standard import Conv1D, Conv2D, Conv3D
from torchfunc.layers.convolution.transpose import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose
from torchfunc.layers.input_layer import Input

FORMATS = ["channels_last", "channels_first"]


def channels(shape: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """A channels_last shape in the given format."""
    return shape if data_format == "channels_last" else (shape[0], shape[-1], *shape[1:-1])


def spatial_axes(rank: int, data_format: str) -> tuple[int, ...]:
    return tuple(range(1, rank + 1) if data_format == "channels_last" else range(2, rank + 2))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "strides": 2, "padding": "same"},
        {"kernel_size": 4, "padding": "same", "dilation_rate": 3},
        {"kernel_size": 3, "padding": "causal", "dilation_rate": 2, "activation": "tanh"},
        {"kernel_size": 3, "padding": "causal", "strides": 2, "use_bias": False},
        {"kernel_size": 2, "groups": 2},
    ],
)
def test_conv1d(kwargs: dict, data_format: str) -> None:
    kwargs = {"filters": 4, "data_format": data_format, **kwargs}
    shape = channels((2, 9, 6), data_format)
    check_layer(Conv1D, keras.layers.Conv1D, kwargs, shape, unknown_axes=spatial_axes(1, data_format))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["valid", "same", "SAME"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"kernel_size": 3},
        {"kernel_size": 1, "strides": 2},
        {"kernel_size": (2, 3)},
        {"kernel_size": 3, "strides": 2},
        {"kernel_size": (4, 3), "strides": (3, 2), "groups": 3},
        {"kernel_size": (2, 3), "dilation_rate": (3, 2), "activation": "softmax"},
        {"kernel_size": [3, 5], "strides": [1, 2], "use_bias": False},
    ],
)
def test_conv2d(kwargs: dict, padding: str, data_format: str) -> None:
    kwargs = {"filters": 6, "padding": padding, "data_format": data_format, **kwargs}
    shape = channels((2, 8, 11, 3), data_format)
    check_layer(Conv2D, keras.layers.Conv2D, kwargs, shape, unknown_axes=spatial_axes(2, data_format))


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_same_padding_depends_on_size(size: int, kernel: int) -> None:
    for stride in (1, 2, 3):
        kwargs = {"filters": 2, "kernel_size": kernel, "strides": stride, "padding": "same"}
        check_layer(Conv1D, keras.layers.Conv1D, kwargs, (1, size, 2), unknown_axes=(1,), fake_run=False)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"},
        {"kernel_size": (1, 2, 3), "padding": "same", "dilation_rate": 2, "groups": 2},
    ],
)
def test_conv3d(kwargs: dict, data_format: str) -> None:
    kwargs = {"filters": 4, "data_format": data_format, **kwargs}
    shape = channels((2, 5, 6, 7, 2), data_format)
    check_layer(Conv3D, keras.layers.Conv3D, kwargs, shape, unknown_axes=spatial_axes(3, data_format))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "strides": 2},
        {"kernel_size": (4, 5), "strides": 2},
        {"kernel_size": (1, 2), "strides": (3, 5)},
        {"kernel_size": (2, 3), "dilation_rate": (2, 3), "activation": "softmax"},
        {"kernel_size": 3, "strides": 2, "output_padding": 1},
        {"kernel_size": (4, 2), "strides": (3, 2), "output_padding": (2, 0), "use_bias": False},
    ],
)
def test_conv2d_transpose(kwargs: dict, padding: str, data_format: str) -> None:
    kwargs = {"filters": 4, "padding": padding, "data_format": data_format, **kwargs}
    shape = channels((2, 4, 5, 3), data_format)
    check_layer(Conv2DTranspose, keras.layers.Conv2DTranspose, kwargs, shape, unknown_axes=spatial_axes(2, data_format))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_conv1d_transpose_crops(kernel: int, stride: int, padding: str) -> None:
    for extra in (None, *range(stride)):
        kwargs = {"filters": 2, "kernel_size": kernel, "strides": stride, "padding": padding, "output_padding": extra}
        check_layer(Conv1DTranspose, keras.layers.Conv1DTranspose, kwargs, (1, 4, 3), unknown_axes=(1,))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_conv3d_transpose(padding: str, data_format: str) -> None:
    kwargs = {"filters": 2, "kernel_size": (2, 3, 1), "strides": 2, "padding": padding, "data_format": data_format}
    shape = channels((2, 3, 2, 4, 3), data_format)
    check_layer(Conv3DTranspose, keras.layers.Conv3DTranspose, kwargs, shape, unknown_axes=spatial_axes(3, data_format))


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(
    ("ours_cls", "keras_cls"),
    [(Conv2D, keras.layers.Conv2D), (Conv2DTranspose, keras.layers.Conv2DTranspose)],
)
def test_weight_arguments(ours_cls: type, keras_cls: type, trainable: bool) -> None:
    kwargs = {
        "filters": 4,
        "kernel_size": (2, 3),
        "kernel_initializer": "he_normal",
        "bias_initializer": "ones",
        "kernel_regularizer": "l2",
        "bias_regularizer": "l1",
        "activity_regularizer": "l2",
        "kernel_constraint": "max_norm",
        "bias_constraint": "non_neg",
        "trainable": trainable,
        "name": "tower",
    }
    ours, theirs = check_layer(ours_cls, keras_cls, kwargs, (2, 5, 5, 3))
    kernel, bias = (weight.value for weight in theirs.weights)
    for project in ours.weight_constraints():
        project()
    expected = [theirs.kernel_constraint(kernel), theirs.bias_constraint(bias)]
    for value, reference in zip(ours.get_weights(), expected, strict=True):
        assert_close(value, reference, 1e-6, "constrained weight")


@pytest.mark.parametrize(
    ("ours", "torchs", "shape"),
    [
        (Conv1D(6, 3, groups=2, data_format="channels_first"), torch.nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9)),
        (Conv2D(6, 3, groups=2, data_format="channels_first"), torch.nn.Conv2d(4, 6, 3, groups=2), (2, 4, 9, 8)),
        (Conv3D(6, 3, strides=2, data_format="channels_first"), torch.nn.Conv3d(4, 6, 3, stride=2), (2, 4, 7, 5, 8)),
        (Conv2DTranspose(6, 3, data_format="channels_first"), torch.nn.ConvTranspose2d(4, 6, 3), (2, 4, 9, 8)),
    ],
)
def test_state_dict_is_torchs(ours: torch.nn.Module, torchs: torch.nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    ours(inputs)
    ours.load_state_dict(torchs.state_dict())
    assert_close(ours(inputs), torchs(inputs), 1e-6, type(torchs).__name__)


def test_channels_last_views_cancel() -> None:
    first, second = Conv2D(4, 3, padding="same"), Conv2D(4, 3, strides=2, padding="same")
    inputs = torch.randn(2, 8, 8, 3)
    hidden = first(inputs)
    assert hidden.is_contiguous()
    assert second(hidden).is_contiguous()
    assert first.weight.is_contiguous()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2D(4, 3, strides=2, padding="same"), (3, 8, 8, 3)),
        (Conv1D(4, 3, padding="causal"), (3, 8, 3)),
        (Conv2DTranspose(4, 3, strides=2, padding="same"), (3, 8, 8, 3)),
    ],
)
def test_export_with_any_batch(layer: torch.nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    expected = layer(inputs)
    exported = torch.export.export(layer, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert_close(exported(inputs), expected, 1e-6, "exported")
    assert exported(torch.cat([inputs, inputs])).shape[0] == 6


def test_compiles_whole() -> None:
    layer, inputs = Conv2D(4, 3, strides=2, padding="same", activation="relu"), torch.randn(3, 8, 8, 3)
    expected = layer(inputs)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert_close(compiled(inputs), expected, 1e-6, "compiled")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D(0, 3), r"Conv2D takes a positive integer for filters, got 0"),
        (lambda: Conv2D(4, (3, 3, 3)), r"Conv2D takes .* 2 positive integers for kernel_size, got \(3, 3, 3\)"),
        (lambda: Conv2D(4, 3, strides=0), r"for strides, got 0"),
        (lambda: Conv2D(4, 3, padding="causal"), r"Conv2D takes one of 'valid', 'same' for padding, got 'causal'"),
        (lambda: Conv1D(4, 3, padding="full"), r"'causal' for padding, got 'full'"),
        (lambda: Conv2D(4, 3, data_format="nhwc"), r"data_format is one of .* got 'nhwc'"),
        (lambda: Conv2D(4, 3, groups=3), r"filters=4 and groups=3"),
        (lambda: Conv2D(4, 3, strides=2, dilation_rate=2), r"strides=\(2, 2\) and dilation_rate=\(2, 2\)"),
        (lambda: Conv2DTranspose(4, 3, output_padding=1), r"Conv2DTranspose needs an output_padding below strides"),
        (lambda: Conv2D(4, 3, name="c")(Input((8, 8))), r"Conv2D 'c' .*expected min_ndim=4, found ndim=3"),
        (lambda: Conv2D(4, 3, name="c")(torch.ones(1, 2, 8, 8, 8)), r"Conv2D 'c' .*expected max_ndim=4, found ndim=5"),
        (lambda: Conv2D(4, 3, name="c")(Input((8, 8, None))), r"axis -1 of the input of Conv2D 'c' must be known"),
        (lambda: Conv2D(4, 3, groups=2, name="c")(Input((8, 8, 3))), r"Conv2D 'c' .*needs .* groups=2, got 3 channels"),
        (
            lambda: Conv2D(4, 9, name="c")(Input((8, 8, 3))),
            r"Conv2D 'c' .*cannot be called on \(None, 8, 8, 3\): .* 9 .*8",
        ),
        (lambda: Conv2D(4, 9, name="c")(torch.ones(1, 8, 8, 3)), r"Conv2D 'c' .*cannot be called on \(1, 8, 8, 3\)"),
        (
            lambda: Conv2DTranspose(4, 2, strides=2, padding="same", output_padding=0, name="c")(Input((1, 1, 3))),
            r"Conv2DTranspose 'c' .*cannot be called on .*\(0, 0\) positions",
        ),
    ],
)
def test_mistakes(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_other_channels_than_built_for() -> None:
    layer = Conv2D(4, 3, name="c")
    layer(Input((8, 8, 3)))
    with pytest.raises(ValueError, match=r"Conv2D 'c' .*expected axis -1 of input shape to have value 3"):
        layer(Input((8, 8, 5)))


def test_glorot_scale_is_keras() -> None:
    for ours_cls, keras_cls in [(Conv2D, keras.layers.Conv2D), (Conv2DTranspose, keras.layers.Conv2DTranspose)]:
        ours, theirs = ours_cls(32, 3), keras_cls(32, 3)
        ours.build((None, 8, 8, 64))
        theirs.build((None, 8, 8, 64))
        assert np.isclose(ours.weight.abs().max().item(), theirs.kernel.value.abs().max().item(), rtol=0.01)


def standardized(kind, moments):
    """A convolution of Keras' or ours whose kernels are brought to one mean and variance."""

    class Standardized(kind):
        def convolution_op(self, inputs, kernel):
            mean, variance = moments(kernel, axes=[0, 1, 2], keepdims=True)
            return super().convolution_op(inputs, (kernel - mean) / (variance + 1e-5) ** 0.5)

    return Standardized


@pytest.mark.parametrize("arguments", [{"activation": "relu", "strides": 2}, {"padding": "same", "groups": 2}])
def test_a_convolution_op_of_ones_own(arguments):
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 4)).astype("float32")
    theirs = standardized(keras.layers.Conv2D, keras.ops.moments)(4, 3, **arguments)
    theirs(x)
    ours = standardized(Conv2D, ops.moments)(4, 3, **arguments)
    inputs = Input(x.shape[1:])
    model = Model(inputs, ours(inputs))
    ours.set_weights([theirs.kernel.value.detach().numpy(), np.full(4, 0.5, "float32")])
    theirs.bias.assign(np.full(4, 0.5))
    expected = theirs(x)
    for layer in (ours, model):
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)
    last, first = torch.from_numpy(x), torch.from_numpy(x).permute(0, 3, 1, 2)
    layer = standardized(Conv2D, ops.moments)(4, 3, data_format="channels_first", **arguments)
    layer.build(tuple(first.shape))
    layer.set_weights(ours.get_weights())
    torch.testing.assert_close(layer(first).permute(0, 2, 3, 1), expected, atol=1e-5, rtol=0)
    plain = Conv2D(4, 3, use_bias=False, **{**arguments, "activation": None})
    torch.testing.assert_close(plain(last), plain.convolution_op(last, plain.kernel))
