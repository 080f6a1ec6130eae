"""Images as files and arrays, under Keras' names, and `preprocessing`."""

import io

import keras
import numpy as np
import pytest
import torch
from PIL import Image

from torchfunc import preprocessing, utils

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_arrays_and_images(channels, scale, data_format):
    shape = (4, 6, channels) if data_format == "channels_last" else (channels, 4, 6)
    array = RNG.integers(0, 256, shape).astype("float32")
    for values in (array, torch.from_numpy(array), array * 300 if channels == 1 else array, np.zeros(shape)):
        found = utils.array_to_img(values, data_format, scale)
        expected = keras.utils.array_to_img(np.asarray(values), data_format, scale)
        assert (found.mode, found.size) == (expected.mode, expected.size)
        assert np.array_equal(found, expected)
        back = utils.img_to_array(found, data_format, "int32")
        np.testing.assert_array_equal(back, keras.utils.img_to_array(found, data_format, "int32"))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "P"])
@pytest.mark.parametrize("color_mode", ["grayscale", "rgb", "rgba"])
def test_loading(mode, color_mode, tmp_path):
    values = RNG.integers(0, 256, (10, 14)).astype("uint16" if mode == "I;16" else "uint8")
    image = Image.fromarray(values) if mode in ("L", "I;16") else Image.fromarray(values).convert(mode)
    image.save(tmp_path / "image.png")
    for kwargs in ({}, {"target_size": (7, 5)}, {"target_size": (3, 9), "keep_aspect_ratio": True}):
        if mode == "I;16" and color_mode == "grayscale" and kwargs:
            continue  # (Pillow resizes those with all filters but one.)
        for path in (tmp_path / "image.png", str(tmp_path / "image.png"), io.BytesIO(_content(tmp_path))):
            found = utils.load_img(path, color_mode, interpolation="bilinear", **kwargs)
        expected = keras.utils.load_img(tmp_path / "image.png", color_mode, interpolation="bilinear", **kwargs)
        assert found.mode == expected.mode
        assert np.array_equal(found, expected)


def _content(folder):
    return (folder / "image.png").read_bytes()


def test_saving(tmp_path):
    image = RNG.integers(0, 256, (5, 7, 4)).astype("uint8")
    utils.save_img(tmp_path / "image.png", image, scale=False)
    assert np.array_equal(utils.load_img(tmp_path / "image.png", "rgba"), image)
    with pytest.warns(UserWarning, match="JPEG images have no transparency"):
        utils.save_img(str(tmp_path / "image.jpg"), image, scale=False)
    with Image.open(tmp_path / "image.jpg") as written:
        assert written.format == "JPEG"
    buffer = io.BytesIO()
    utils.save_img(buffer, torch.zeros(3, 4, 2), "channels_first", "png")
    assert utils.load_img(buffer).size == (2, 4)


def test_what_is_no_image(tmp_path):
    with pytest.raises(ValueError, match=r"1, 3 or 4 channels, got the shape \(4, 4, 2\)"):
        utils.array_to_img(np.zeros((4, 4, 2)))
    with pytest.raises(ValueError, match=r"two or three axes, got the shape \(1, 2, 2, 3\)"):
        utils.img_to_array(np.zeros((1, 2, 2, 3)))
    with pytest.raises(ValueError, match=r"for color_mode.*got 'bgr' and 'nearest'"):
        utils.load_img(tmp_path / "image.png", "bgr")


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_preprocessing():
    assert preprocessing.image.load_img is utils.load_img
    assert preprocessing.sequence.pad_sequences([[1], [2, 3]]).tolist() == [[0, 1], [2, 3]]
    x = RNG.random((11, 20, 3)).astype("float32")
    theirs = keras.preprocessing.image.smart_resize(x, (6, 4))
    np.testing.assert_allclose(preprocessing.image.smart_resize(x, (6, 4)), theirs, atol=1e-5)
    assert isinstance(preprocessing.image.smart_resize(torch.from_numpy(x), (6, 4)), torch.Tensor)
