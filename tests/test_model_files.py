"""Whole models in files: `model.save` and `load_model`."""

import numpy as np
import pytest
import torch

from torchfunc import layers, saving
from torchfunc.models import Model, load_model

X = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


def make():
    inputs = layers.Input((3,))
    x = layers.BatchNormalization()(layers.Dense(4, activation="relu")(inputs))
    model = Model(inputs, layers.Dense(1)(x))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, Y, verbose=0)
    return model


def test_a_model_comes_back_compiled(tmp_path):
    model, path = make(), tmp_path / "model.torchfunc"
    model.save(path)
    again = load_model(path)
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    assert again.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    assert not load_model(path, compile=False).compiled


def test_the_end_of_the_name_says_the_format(tmp_path):
    with pytest.raises(ValueError, match=r"ends in .*'\.torchfunc'.*, got 'model\.pt'"):
        make().save("model.pt")
    with pytest.raises(ValueError, match=r"ends in .*'\.torchfunc'.*, got 'model\.pt'"):
        load_model("model.pt")
    with pytest.raises(FileNotFoundError, match=r"no file 'gone\.torchfunc'"):
        saving.load_model("gone.torchfunc")


def test_a_file_is_not_overwritten(tmp_path):
    path = tmp_path / "model.torchfunc"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=False"):
        make().save(path, overwrite=False)
    assert path.read_text() == "mine"


def test_a_model_on_a_device(tmp_path):
    path = tmp_path / "model.torchfunc"
    make().save(path, include_optimizer=False)
    again = load_model(path, device="meta")
    assert {weight.device for weight in again.weights} == {torch.device("meta")}
    assert not again.compiled
