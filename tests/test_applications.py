"""applications: the networks that Keras draws (`application_table.py`), with Keras' arguments, files and words."""

import json

import h5py
import keras
import numpy as np
import pytest
import torch
from application_table import SMALL, TABLE, digest, small

from torchfunc import Input, applications, config, layers
from torchfunc.applications import application, imagenet_utils, vgg16
from torchfunc.applications.application import Application

KNOWN = json.loads(TABLE.read_text())
RNG = np.random.default_rng(0)


@pytest.fixture
def downloads(monkeypatch):
    """The files that are asked for, none of which is there: models keep their weights."""
    asked = []

    def get_file(name, url, cache_subdir, file_hash):
        assert (url.rpartition("/")[2], cache_subdir) == (name, "models")
        asked.append([url, file_hash or ""])
        return "no file"

    monkeypatch.setattr(application, "get_file", get_file)
    monkeypatch.setattr(application.Functional, "load_weights", lambda self, path: None)
    return asked


@pytest.mark.parametrize("name", KNOWN)
def test_layers_parameters_and_files(name, downloads):
    known, kind = KNOWN[name], getattr(applications, name)
    with torch.device("meta"):
        model = kind()
        if isinstance(kind, Application):
            downloads.append([kind.url + kind.endings[1], kind.hashes[1]])
        else:
            kind(include_top=False, input_shape=(224, 224, 3))
    assert digest(model) == known["names"]
    assert model.count_params() == known["parameters"]
    assert downloads == known["files"]


@pytest.mark.parametrize("name", SMALL)
def test_features(name):
    ours, known = small(getattr(applications, name), name)[:, ::97], np.array(KNOWN[name]["features"])
    assert np.abs(ours - known).max() < 1e-4 * known.std()


def test_mobile_nets_of_other_widths(downloads):
    for kwargs in ({"alpha": 0.35, "input_shape": (96, 96, 3)}, {"alpha": 1.4}, {"include_top": False}):
        ours = applications.MobileNetV2(weights=None, **kwargs)
        theirs = keras.applications.MobileNetV2(weights=None, **kwargs)
        assert (ours.name, ours.count_params()) == (theirs.name, theirs.count_params())
    with torch.device("meta"):
        applications.MobileNetV2(input_tensor=Input((160, 160, 3)), alpha=0.5, include_top=False)
    assert downloads[0][0].endswith("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.5_160_no_top.h5")
    with pytest.raises(ValueError, match=r"for an alpha of \(0.35"):
        applications.MobileNetV2(alpha=0.6)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_weights_that_keras_wrote(ending, tmp_path):
    """The first is the form of the files for ImageNet."""
    kwargs = {"alpha": 0.35, "input_shape": (32, 32, 3), "classes": 7}
    theirs = keras.applications.MobileNetV2(weights=None, **kwargs)
    path = str(tmp_path / f"mobile{ending}")
    theirs.save_weights(path) if ending == ".weights.h5" else _save_legacy(theirs, path)
    ours = applications.MobileNetV2(weights=path, **kwargs)
    images = RNG.normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(ours.predict(images, verbose=0), theirs.predict(images, verbose=0), atol=1e-6)


def _save_legacy(model, path):
    with h5py.File(path, "w") as file:
        keras.src.legacy.saving.legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_on_a_tensor_of_a_graph():
    inputs = Input((40, 40, 1))
    x = layers.Conv2D(3, 3)(inputs)
    base = applications.ResNet50V2(include_top=False, weights=None, input_tensor=x, pooling="max", name="base")
    assert base.inputs == [inputs]
    assert (base.name, base.layers[-1].name, base.output.shape) == ("base", "max_pool", (None, 2048))
    assert base.get_layer("conv4_block2_out").output.shape == (None, 3, 3, 1024)  # 38, 19, 10, 5, 3


def test_channels_first():
    images = RNG.uniform(0, 255, (1, 3, 32, 40)).astype("float32")
    options = {"include_top": False, "weights": None}
    last = applications.EfficientNetB0(input_shape=(32, 40, 3), **options)
    expected = last.predict(images.transpose(0, 2, 3, 1), verbose=0)
    config.set_image_data_format("channels_first")
    try:
        first = applications.EfficientNetB0(input_shape=(3, 32, 40), **options)
        assert applications.VGG16(**options).input_shape == (None, 3, None, None)
    finally:
        config.set_image_data_format("channels_last")
    for weight, value in zip(first.weights, last.weights, strict=True):
        weight.assign(value.reshape(weight.shape))
    np.testing.assert_allclose(first.predict(images, verbose=0).transpose(0, 2, 3, 1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weights": "nowhere.h5"}, "vgg16 takes 'imagenet', None or the path of a file for weights, got 'nowhere.h5'"),
        ({"classes": 10}, "are for 1000 classes, got classes=10"),
        ({"pooling": "mean"}, "takes 'avg', 'max' or None for pooling, got 'mean'"),
        ({"classifier_activation": "relu"}, "is 'softmax' or None, since they were trained so; got 'relu'"),
        ({"input_shape": (64, 64, 3)}, r"input_shape is \(224, 224, 3\), got \(64, 64, 3\)"),
        ({"weights": None, "input_shape": (None, None, 3)}, "have to be known, got input_shape="),
        ({"weights": None, "input_shape": (16, 64, 3)}, r"images of at least 32 x 32, got \(16, 64, 3\)"),
        ({"include_top": False, "input_shape": (64, 64, 1)}, r"for 3 channels, got input_shape=\(64, 64, 1\)"),
        ({"weights": None, "input_shape": (64, 64)}, r"three sizes, such as \(224, 224, 3\), got \(64, 64\)"),
    ],
)
def test_arguments_that_do_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message):
        applications.VGG16(**kwargs)


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_preprocess_input(mode, data_format):
    for shape in ((3, 3, 3), (2, 3, 3, 3)):
        for images in (RNG.integers(0, 256, shape), RNG.uniform(0, 255, shape).astype("float32")):
            before = images.copy()
            found = imagenet_utils.preprocess_input(images, data_format, mode)
            assert np.array_equal(images, before)
            theirs = keras.applications.imagenet_utils.preprocess_input(before.copy(), data_format, mode)
            assert found.dtype == theirs.dtype
            np.testing.assert_allclose(found, theirs, atol=1e-5)
            tensor = imagenet_utils.preprocess_input(torch.from_numpy(images), data_format, mode)
            np.testing.assert_allclose(tensor, theirs, atol=1e-5)


def test_preprocess_input_in_a_graph():
    inputs = Input((4, 4, 3), dtype="uint8")
    model = application.Functional(inputs, vgg16.preprocess_input(inputs))
    images = RNG.integers(0, 256, (2, 4, 4, 3)).astype("uint8")
    np.testing.assert_allclose(model.predict(images, verbose=0), vgg16.preprocess_input(images), rtol=1e-6)
    with pytest.raises(ValueError, match="takes 'caffe', 'tf' or 'torch' for mode, got 'caffee'"):
        imagenet_utils.preprocess_input(images, mode="caffee")


def test_decode_predictions(tmp_path, monkeypatch):
    index = {str(number): [f"n{number:08}", f"thing_{number}"] for number in range(1000)}
    path = tmp_path / "index.json"
    path.write_text(json.dumps(index))
    monkeypatch.setattr(imagenet_utils, "get_file", lambda *args, **kwargs: str(path))
    monkeypatch.setattr(keras.src.applications.imagenet_utils, "CLASS_INDEX", index)
    scores = RNG.random((2, 1000), dtype="float32")
    expected = keras.applications.imagenet_utils.decode_predictions(scores, top=3)
    assert imagenet_utils.decode_predictions(scores, top=3) == expected
    assert imagenet_utils.decode_predictions(torch.from_numpy(scores), top=3) == expected
    with pytest.raises(ValueError, match=r"takes scores of shape \(images, 1000\), got \(2, 10\)"):
        imagenet_utils.decode_predictions(scores[:, :10])
