"""Flatten, Reshape, Permute, RepeatVector, UpSampling, ZeroPadding and Cropping against Keras."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer

from torchfunc.layers import reshaping, resizing
from torchfunc.layers.input_layer import Input
from torchfunc.layers.reshaping import Flatten, Permute, RepeatVector, Reshape
from torchfunc.layers.resizing import (
    Cropping1D,
    Cropping2D,
    UpSampling1D,
    UpSampling2D,
    UpSampling3D,
    ZeroPadding1D,
    ZeroPadding2D,
)

FORMATS = ["channels_last", "channels_first"]


@pytest.mark.parametrize("data_format", [None, *FORMATS])
@pytest.mark.parametrize("shape", [(2,), (2, 5), (2, 3, 4), (2, 3, 4, 5), (2, 3, 1, 4, 5), (0, 3, 4)])
def test_flatten(shape: tuple[int, ...], data_format: str | None) -> None:
    unknown = range(1, len(shape))
    check_layer(Flatten, keras.layers.Flatten, {"data_format": data_format}, shape, unknown_axes=unknown)


@pytest.mark.parametrize(
    ("target_shape", "shape"),
    [
        ((3, 4), (2, 12)),
        ((12,), (2, 3, 4)),
        ((-1,), (2, 3, 4)),
        ([2, -1, 3], (2, 3, 4)),
        ((1,), (2,)),
        ((), (2, 1)),
        ((-1, 4), (0, 12)),
    ],
)
def test_reshape(target_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    unknown = range(1, len(shape))
    check_layer(Reshape, keras.layers.Reshape, {"target_shape": target_shape}, shape, unknown_axes=unknown)


@pytest.mark.parametrize(
    ("name", "kwargs", "shape"),
    [
        ("Permute", {"dims": (2, 1)}, (2, 3, 4)),
        ("Permute", {"dims": [3, 1, 2]}, (2, 3, 4, 5)),
        ("RepeatVector", {"n": 3}, (2, 4)),
    ],
)
def test_permute_and_repeat(name: str, kwargs: dict, shape: tuple[int, ...]) -> None:
    unknown = range(1, len(shape))
    check_layer(getattr(reshaping, name), getattr(keras.layers, name), kwargs, shape, unknown_axes=unknown)


@pytest.mark.parametrize("layer", [Flatten(), Reshape((4, 3)), Permute((2, 1)), Cropping1D(1), UpSampling1D(2)])
def test_integers_stay_integers(layer: torch.nn.Module) -> None:
    inputs = torch.arange(24).reshape(2, 3, 4)
    assert layer(inputs).dtype == torch.int64
    assert layer(Input((3, 4), dtype="int64")).dtype == torch.int64


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "Nearest"])
@pytest.mark.parametrize("size", [2, (3, 1), [1, 2]])
def test_up_sampling_2d(size: int | tuple[int, int], interpolation: str, data_format: str) -> None:
    kwargs = {"size": size, "interpolation": interpolation, "data_format": data_format}
    shape, unknown = ((2, 3, 4, 5), (1, 2)) if data_format == "channels_last" else ((2, 5, 3, 4), (2, 3))
    check_layer(UpSampling2D, keras.layers.UpSampling2D, kwargs, shape, unknown_axes=unknown)


def test_up_sampling_1d_and_3d() -> None:
    check_layer(UpSampling1D, keras.layers.UpSampling1D, {"size": 3}, (2, 4, 5), unknown_axes=(1,))
    kwargs = {"size": (1, 2, 3)}
    check_layer(UpSampling3D, keras.layers.UpSampling3D, kwargs, (2, 2, 3, 2, 3), unknown_axes=(1, 2, 3))
    kwargs["data_format"] = "channels_first"
    check_layer(UpSampling3D, keras.layers.UpSampling3D, kwargs, (2, 3, 2, 3, 2), unknown_axes=(2, 3, 4))


def test_nearest_is_exact_for_awkward_factors() -> None:
    """41 * (1 / 41) is below 1 in float32: scaling an index instead of repeating rows picks a wrong one."""
    inputs = torch.arange(6.0).reshape(1, 2, 3, 1)
    expected = inputs.repeat_interleave(41, 1).repeat_interleave(49, 2)
    assert torch.equal(UpSampling2D((41, 49))(inputs), expected)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("ZeroPadding1D", {"padding": 2}),
        ("ZeroPadding1D", {"padding": (0, 3)}),
        ("ZeroPadding2D", {"padding": 1}),
        ("ZeroPadding2D", {"padding": (1, 2)}),
        ("ZeroPadding2D", {"padding": ((1, 0), (2, 3))}),
        ("ZeroPadding3D", {"padding": 1}),
        ("ZeroPadding3D", {"padding": ((0, 1), (2, 3), (1, 0))}),
        ("Cropping2D", {"cropping": 1}),
        ("Cropping2D", {"cropping": ((0, 1), (2, 0))}),
        ("Cropping2D", {"cropping": (0, 2)}),
        ("Cropping3D", {"cropping": 1}),
        ("Cropping3D", {"cropping": ((0, 1), (0, 0), (1, 0))}),
    ],
)
def test_padding_and_cropping(name: str, kwargs: dict, data_format: str) -> None:
    rank = int(name[-2])
    positions = (4, 6, 5)[:rank]
    last = data_format == "channels_last"
    shape = (2, *positions, 3) if last else (2, 3, *positions)
    unknown = range(1, rank + 1) if last else range(2, rank + 2)
    kwargs = {**kwargs, "data_format": data_format}
    check_layer(getattr(resizing, name), getattr(keras.layers, name), kwargs, shape, unknown_axes=unknown)


@pytest.mark.parametrize("cropping", [1, (0, 2), (2, 0), (0, 0)])
def test_cropping_1d(cropping: int | tuple[int, int]) -> None:
    check_layer(Cropping1D, keras.layers.Cropping1D, {"cropping": cropping}, (2, 4, 3), unknown_axes=(1,))


@pytest.mark.parametrize("name", [*resizing.__all__])
def test_defaults(name: str) -> None:
    rank = int(name[-2])
    shape = (2, *(4, 5, 6)[:rank], 3)
    check_layer(getattr(resizing, name), getattr(keras.layers, name), {}, shape)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Flatten(), (3, 2, 4)),
        (Flatten(data_format="channels_first"), (3, 2, 4)),
        (Reshape((-1, 2)), (3, 2, 4)),
        (UpSampling2D(2), (3, 2, 4, 1)),
        (RepeatVector(2), (3, 2)),
        (ZeroPadding2D(1), (3, 2, 4, 1)),
    ],
)
def test_export_with_any_batch(layer: torch.nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    expected = layer(inputs)
    exported = torch.export.export(layer, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert_close(exported(inputs), expected, 1e-6, "exported")
    assert exported(torch.cat([inputs, inputs])).shape[0] == 6


def test_flatten_orders_features_alike_in_both_formats() -> None:
    inputs = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    last = Flatten(data_format="channels_last")(inputs)
    first = Flatten(data_format="channels_first")(inputs.transpose(0, 3, 1, 2))
    assert torch.equal(last, first)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reshape((-1, -1)), r"target_shape=\(-1, -1\) has -1 more than once"),
        (lambda: Reshape((-2, 3)), r"Reshape takes a tuple of sizes .* got \(-2, 3\)"),
        (lambda: Reshape((None, 3)), r"Reshape takes a tuple of sizes .* got \(None, 3\)"),
        (
            lambda: Reshape((5, 2), name="r")(Input((3, 4))),
            r"Reshape 'r' .*cannot be called on \(None, 3, 4\): the 12 values of \(3, 4\) .*\(5, 2\), which holds 10",
        ),
        (lambda: Reshape((5, -1), name="r")(Input((3, 4))), r"Reshape 'r' .* 12 values .* since 5 does not divide 12"),
        (lambda: Reshape((5, 2), name="r")(torch.ones(1, 3, 4)), r"Reshape 'r' .*cannot be called on \(1, 3, 4\)"),
        (lambda: Permute((2, 3)), r"Permute takes each of the axes 1, 2, .* got \(2, 3\)"),
        (lambda: Permute((2, 1), name="p")(Input((3, 4, 5))), r"Permute 'p' .*expected ndim=3, found ndim=4"),
        (lambda: RepeatVector(0), r"RepeatVector takes a positive integer for n, got 0"),
        (lambda: RepeatVector(2, name="v")(Input((3, 4))), r"RepeatVector 'v' .*expected ndim=2, found ndim=3"),
        (lambda: UpSampling2D((2, 0)), r"UpSampling2D takes .* for size, got \(2, 0\)"),
        (lambda: UpSampling2D(2, interpolation="lanczos3"), r"for interpolation, got 'lanczos3'"),
        (lambda: UpSampling2D(2, name="u")(Input((3, 4))), r"UpSampling2D 'u' .*found ndim=3"),
        (lambda: ZeroPadding2D((1, 2, 3)), r"ZeroPadding2D takes an integer, or 2 entries .* got \(1, 2, 3\)"),
        (lambda: ZeroPadding1D(-1), r"ZeroPadding1D takes .* for padding, got -1"),
        (lambda: Cropping2D("1"), r"Cropping2D takes .* for cropping, got '1'"),
        (lambda: Cropping2D(2, name="c")(Input((4, 9, 3))), r"Cropping2D 'c' .* leaves nothing of \(4, 9\) positions"),
        (lambda: Cropping1D(2, name="c")(torch.ones(1, 4, 3)), r"Cropping1D 'c' .* leaves nothing of \(4,\)"),
    ],
)
def test_mistakes(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
def test_integer_images_stay_integers(interpolation, dtype):
    images = np.arange(2 * 3 * 3).reshape(2, 3, 3, 1).astype(dtype)
    found = UpSampling2D(2, interpolation=interpolation)(torch.from_numpy(images))
    expected = keras.layers.UpSampling2D(2, interpolation=interpolation)(torch.from_numpy(images))
    assert found.dtype == UpSampling2D(2, interpolation=interpolation)(Input((3, 3, 1), dtype=dtype)).dtype
    assert found.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(found, expected)
