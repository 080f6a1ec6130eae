"""Rescaling against Keras."""

import keras
import numpy as np
import pytest
import torch
from layer_parity import assert_close, check_layer

from torchfunc import config
from torchfunc.layers.input_layer import Input
from torchfunc.layers.preprocessing import Rescaling

IMAGES = np.random.default_rng(0).integers(0, 256, size=(2, 4, 5, 3)).astype("uint8")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"scale": 1 / 255},
        {"scale": 2, "offset": -1},
        {"scale": 1 / 127.5, "offset": -1.0},
        {"scale": [0.1, 0.2, 0.3], "offset": [1.0, 2.0, 3.0]},
        {"scale": (0.1, 0.2, 0.3)},
        {"scale": 0.5, "offset": np.array([1.0, 2.0, 3.0])},
    ],
)
@pytest.mark.parametrize("inputs", [(2, 4, 5, 3), (2, 3), IMAGES, IMAGES.astype("int32")])
def test_rescaling(kwargs, inputs):
    ours, _ = check_layer(Rescaling, keras.layers.Rescaling, kwargs, inputs, unknown_axes=(-1,))
    assert ours.state_dict() == {}
    assert ours.weights == []


def test_channels_first():
    scale, offset = [0.1, 0.2, 0.3], [1.0, 2.0, 3.0]
    x = torch.randn(2, 3, 4, 5)
    last = Rescaling(scale, offset)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    try:
        config.set_image_data_format("channels_first")
        keras.config.set_image_data_format("channels_first")
        layer = Rescaling(scale, offset)
        assert_close(layer(x), last, 1e-6, "channels first")
        assert_close(Rescaling(scale)(x), keras.layers.Rescaling(scale)(x), 1e-6, "channels first")
    finally:
        config.set_image_data_format("channels_last")
        keras.config.set_image_data_format("channels_last")


def test_dtype_and_masks():
    assert Rescaling(0.5, dtype="float64")(torch.ones(2, dtype=torch.uint8)).dtype == torch.float64
    x = Input((4, 3), dtype="uint8")
    x.mask = Input((4,), dtype="bool")
    drawn = Rescaling([1.0, 2.0, 3.0])(x)
    assert (drawn.dtype, drawn.mask) == (torch.float32, x.mask)
    assert Rescaling([1.0, 2.0]).double()._scale.dtype == torch.float64


@pytest.mark.parametrize("scale", ["a", None, [[1.0], [1.0, 2.0]]])
def test_errors(scale):
    with pytest.raises(ValueError, match="Rescaling takes a number or a list of numbers for scale"):
        Rescaling(scale)
