"""Keras' legacy `.h5`: whole models and weights that Keras wrote, and configs as Keras 2 had them."""

import json

import h5py
import keras
import numpy as np
import pytest
from keras_models import COMPOSED, data_for, operators, randomize

import torchfunc
from torchfunc import Input, Model, layers
from torchfunc.saving import load_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]
MODELS = {**COMPOSED, "operators": operators}


def leaves(outputs):
    if isinstance(outputs, dict):
        outputs = [outputs[name] for name in sorted(outputs)]
    return outputs if isinstance(outputs, list) else [outputs]


def assert_same_predictions(one, other, data):
    for a, b in zip(leaves(one.predict(data, verbose=0)), leaves(other.predict(data, verbose=0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_of_keras(name, tmp_path):
    model = randomize(MODELS[name](keras))
    model.save(tmp_path / "m.h5")
    assert_same_predictions(load_model(tmp_path / "m.h5"), model, data_for(model))


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_keras(name, tmp_path):
    model, filled = randomize(MODELS[name](keras)), MODELS[name](torchfunc)
    model.save(tmp_path / "m.h5")
    filled.load_weights(tmp_path / "m.h5")
    assert_same_predictions(filled, model, data_for(model))


def test_training_goes_on(tmp_path):
    model = COMPOSED["chain"](keras)
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    x, y = data_for(model, 16), np.ones((16, 3), "float32")
    model.fit(x, y, batch_size=4, verbose=0)
    model.save(tmp_path / "m.h5")
    opened = load_model(tmp_path / "m.h5")
    fits = [each.fit(x, y, batch_size=4, epochs=5, shuffle=False, verbose=0).history for each in (opened, model)]
    np.testing.assert_allclose(fits[0]["loss"], fits[1]["loss"], rtol=1e-4)
    np.testing.assert_allclose(fits[0]["mae"], fits[1]["mae"], rtol=1e-4)


def dense(name, units=3, **options):
    config = {
        "name": name,
        "trainable": True,
        "dtype": "float32",
        "units": units,
        "activation": "relu",
        "use_bias": True,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
        "bias_initializer": {"class_name": "Zeros", "config": {}},
        **dict.fromkeys(("kernel_regularizer", "bias_regularizer", "activity_regularizer"), None),
        **dict.fromkeys(("kernel_constraint", "bias_constraint"), None),
    }
    return {"class_name": "Dense", "config": {**config, **options}}


def declared(name, size=4):
    config = {"batch_input_shape": [None, size], "dtype": "float32", "sparse": False, "ragged": False, "name": name}
    return {"class_name": "InputLayer", "config": config, "name": name, "inbound_nodes": []}


def called(entry, *nodes):
    return {**entry, "name": entry["config"]["name"], "inbound_nodes": list(nodes)}


SHARED = {
    "class_name": "Functional",
    "config": {
        "name": "model",
        "layers": [
            declared("a"),
            declared("b"),
            called(dense("dense"), [["a", 0, 0, {}]], [["b", 0, 0, {}]]),
            called(
                {"class_name": "Concatenate", "config": {"name": "joined", "trainable": True, "axis": -1}},
                [["dense", 0, 0, {}], ["dense", 1, 0, {}]],
            ),
            called(dense("out", 2), [["joined", 0, 0, {}]]),
        ],
        "input_layers": [["a", 0, 0], ["b", 0, 0]],
        "output_layers": [["out", 0, 0]],
    },
}
NORMALIZED = {
    "class_name": "Sequential",
    "config": [
        dense("first", batch_input_shape=[None, 4]),
        {"class_name": "BatchNormalization", "config": {"name": "bn", "axis": [1], "momentum": 0.9, "epsilon": 1e-3}},
    ],
}
RECURRENT = {
    "class_name": "Sequential",
    "config": {
        "name": "recurrent",
        "layers": [
            {
                "class_name": "Bidirectional",
                "config": {
                    "name": "both",
                    "batch_input_shape": [None, 5, 4],
                    "merge_mode": "concat",
                    "layer": {
                        "class_name": "LSTM",
                        "config": {
                            "name": "lstm",
                            "units": 2,
                            "time_major": False,
                            "implementation": 2,
                            "unroll": False,
                        },
                    },
                },
            },
        ],
    },
}


def nested():
    inner = {
        "class_name": "Model",
        "config": {
            "name": "inner",
            "layers": [declared("x"), called(dense("zz", 4), [["x", 0, 0, {}]])],
            "input_layers": [["x", 0, 0]],
            "output_layers": [["zz", 0, 0]],
        },
    }
    return {
        "class_name": "Model",
        "config": {
            "name": "outer",
            "layers": [
                declared("y"),
                # A model that is called counts the call that it was drawn with.
                called(inner, [["y", 0, 0, {}]], [["inner", 1, 0, {}]]),
                called(dense("out"), [["inner", 2, 0, {}]]),
            ],
            "input_layers": [["y", 0, 0]],
            "output_layers": [["out", 0, 0]],
        },
    }


def with_config(path, config, arrays):
    """A file as Keras 2 wrote it; `arrays` are the layers' weights by name."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, values in arrays.items():
            names = [f"{name}/weight_{index}:0" for index in range(len(values))]
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [each.encode() for each in names]
            for each, value in zip(names, values, strict=True):
                layer[each] = value


class TestConfigsOfKeras2:
    def check(self, path, config, expected, inputs):
        """The file of a config, with the weights of a model that is drawn as it should come out."""
        arrays = {
            name: layer.get_weights() for name, layer in zip(expected.layer_names(), expected.layers, strict=True)
        }
        with_config(path, config, arrays)
        opened = load_model(path)
        assert_same_predictions(opened, expected, inputs)
        return opened

    def test_calls(self, tmp_path):
        a, b = Input((4,), name="a"), Input((4,), name="b")
        layer = layers.Dense(3, activation="relu", name="dense")
        joined = layers.Concatenate(name="joined")([layer(a), layer(b)])
        expected = Model([a, b], layers.Dense(2, activation="relu", name="out")(joined))
        inputs = [np.random.default_rng(seed).standard_normal((3, 4)).astype("float32") for seed in (0, 1)]
        opened = self.check(tmp_path / "m.h5", SHARED, expected, inputs)
        assert opened.input_names == ["a", "b"]
        assert opened.predict(inputs, verbose=0).shape == (3, 2)

    def test_a_list_of_layers(self, tmp_path):
        first = layers.Dense(3, activation="relu", name="first", input_shape=(4,))
        expected = torchfunc.Sequential([first, layers.BatchNormalization(momentum=0.9, name="bn")])
        self.check(tmp_path / "m.h5", NORMALIZED, expected, np.ones((2, 4), "float32"))

    def test_layers_in_layers(self, tmp_path):
        both = layers.Bidirectional(layers.LSTM(2), name="both")
        expected = torchfunc.Sequential([Input((5, 4)), both])
        self.check(tmp_path / "m.hdf5", RECURRENT, expected, np.ones((2, 5, 4), "float32"))

    def test_models_in_models(self, tmp_path):
        x, y = Input((4,)), Input((4,))
        inner = Model(x, layers.Dense(4, activation="relu", name="zz")(x), name="inner")
        expected = Model(y, layers.Dense(3, activation="relu", name="out")(inner(inner(y))))
        self.check(tmp_path / "m.h5", nested(), expected, np.ones((2, 4), "float32"))

    def test_code_is_refused(self, tmp_path):
        layer = {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEAAA==", None, None]}}
        with_config(tmp_path / "m.h5", {"class_name": "Sequential", "config": [layer]}, {})
        with pytest.raises(ValueError, match="bytecode of a lambda, which is never loaded"):
            load_model(tmp_path / "m.h5")


class TestWeights:
    @pytest.fixture
    def path(self, tmp_path):
        weights = {"one": [np.ones((4, 3)), np.ones(3)], "two": [np.full((3, 2), 2.0), np.full(2, 3.0)]}
        with_config(tmp_path / "m.h5", {}, weights)
        return tmp_path / "m.h5"

    def model(self, *names, units=3):
        x = Input((4,))
        return Model(x, layers.Dense(2, name=names[1])(layers.Dense(units, name=names[0])(x)))

    def test_in_order(self, path):
        model = self.model("a", "b")
        model.load_weights(path)
        assert [each.mean() for each in model.get_weights()] == [1, 1, 2, 3]

    def test_by_name(self, path):
        model = self.model("other", "two")
        before = model.get_weights()[0].mean()
        model.load_weights(path, by_name=True)
        assert [each.mean() for each in model.get_weights()] == [before, 0, 2, 3]

    def test_what_does_not_fit(self, path):
        model = self.model("one", "two", units=5)
        before = [each.copy() for each in model.get_weights()]
        with pytest.raises(ValueError, match=r"in 2 layers: one has \(4, 5\), \(5,\), in the file \(4, 3\), \(3,\)"):
            model.load_weights(path)
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        with pytest.warns(UserWarning, match="left as they are"):
            model.load_weights(path, skip_mismatch=True)

    def test_another_number_of_layers(self, path):
        x = Input((4,))
        with pytest.raises(ValueError, match=r"weights for 2 layers \(one, two\), the model has 1"):
            Model(x, layers.Dense(3, name="one")(x)).load_weights(path)

    def test_no_model_in_it(self, tmp_path):
        self.model("a", "b").save_weights(tmp_path / "m.weights.h5")
        with pytest.raises(ValueError, match="holds no model, only weights"):
            load_model(tmp_path / "m.weights.h5")
