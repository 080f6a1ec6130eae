"""Resizing and CenterCrop against Keras."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import check_layer

from torchfunc import Model
from torchfunc.layers import CenterCrop, Input, Resizing

FORMATS = ["channels_last", "channels_first"]
UINT8 = np.random.default_rng(0).integers(0, 256, size=(2, 7, 9, 3)).astype("uint8")


def arguments(data_format, shape=(2, 7, 10, 3)):
    if data_format == "channels_last":
        return {"inputs": shape, "unknown_axes": (1, 2)}
    return {"inputs": (shape[0], shape[3], *shape[1:3]), "unknown_axes": (2, 3)}


RESIZING = {
    "bilinear": {},
    "nearest": {"interpolation": "nearest"},
    "bicubic": {"interpolation": "bicubic"},
    "antialias": {"antialias": True},
    "antialias, bicubic": {"antialias": True, "interpolation": "bicubic"},
    "antialias, nearest": {"antialias": True, "interpolation": "nearest"},
    "crop": {"crop_to_aspect_ratio": True},
    "pad": {"pad_to_aspect_ratio": True},
    "pad with a value": {"pad_to_aspect_ratio": True, "fill_value": 2.5, "interpolation": "nearest"},
}


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("size", [(4, 5), (12, 3), (3, 14)])
@pytest.mark.parametrize("kwargs", RESIZING.values(), ids=RESIZING)
def test_resizing(kwargs, size, data_format):
    kwargs = {"height": size[0], "width": size[1], "data_format": data_format, **kwargs}
    check_layer(Resizing, keras.layers.Resizing, kwargs, **arguments(data_format))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64", "float16"])
def test_resizing_keeps_the_dtype(dtype, interpolation):
    kwargs = {"height": 5, "width": 12, "interpolation": interpolation}
    images = UINT8.astype(dtype)
    # Half precision is computed in single and rounded once; its gradients would be summed in half precision.
    half = {"gradients": False, "atol": 1e-3} if dtype == "float16" else {}
    layer_dtype = dtype if dtype.startswith("float") else "float32"
    check_layer(Resizing, keras.layers.Resizing, kwargs, images, dtype=layer_dtype, **half)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("size", [(4, 5), (3, 10), (7, 4), (9, 4), (3, 12), (20, 20)])
def test_center_crop(size, data_format):
    kwargs = {"height": size[0], "width": size[1], "data_format": data_format}
    check_layer(CenterCrop, keras.layers.CenterCrop, kwargs, **arguments(data_format))


def test_center_crop_gives_the_layers_dtype():
    kwargs = {"height": 3, "width": 4}
    check_layer(CenterCrop, keras.layers.CenterCrop, kwargs, UINT8)
    check_layer(CenterCrop, keras.layers.CenterCrop, kwargs, (2, 5, 6, 3), dtype="float64")


@pytest.mark.parametrize("cls", [Resizing, CenterCrop])
@pytest.mark.parametrize("data_format", FORMATS)
def test_a_single_image(cls, data_format):
    layer = cls(4, 5, data_format=data_format)
    images = torch.randn(arguments(data_format)["inputs"])
    assert torch.equal(layer(images[0]), layer(images)[0])
    theirs = getattr(keras.layers, cls.__name__)(4, 5, data_format=data_format)
    torch.testing.assert_close(layer(images[0]), theirs(images[0]))
    assert layer(Input(batch_shape=tuple(images.shape[1:]))).shape == layer(images[0]).shape


def test_in_a_model_of_any_image_size():
    x = Input((None, None, 3), dtype="uint8")
    model = Model(x, CenterCrop(4, 4)(Resizing(8, 8, crop_to_aspect_ratio=True)(x)))
    assert (model.output.shape, model.output.dtype) == ((None, 4, 4, 3), torch.float32)
    assert model(UINT8).shape == (2, 4, 4, 3)
    assert model(UINT8[:, :5]).shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resizing(0, 4), r"Resizing takes a positive integer for height, got 0"),
        (lambda: CenterCrop(4, 2.5), r"CenterCrop takes a positive integer for width, got 2.5"),
        (lambda: Resizing(4, 4, "lanczos3"), r"one of 'bilinear', .* for interpolation, got 'lanczos3'"),
        (lambda: Resizing(4, 4, fill_mode="reflect"), r"for fill_mode, got 'reflect'"),
        (lambda: Resizing(4, 4, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True), r"not both"),
        (lambda: Resizing(4, 4, data_format="nhwc"), r"data_format is one of .* got 'nhwc'"),
        (lambda: Resizing(4, 4, name="r")(Input((8,))), r"Resizing 'r' .*min_ndim=3, found ndim=2"),
        (lambda: CenterCrop(4, 4, name="r")(Input((8, 8, 8, 3))), r"CenterCrop 'r' .*max_ndim=4, found ndim=5"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
