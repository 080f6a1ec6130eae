"""`.keras`: Keras opens what we write, we open what Keras writes; training goes on; what Keras lacks is refused."""

import json
import zipfile

import keras
import numpy as np
import pytest
import torch
from keras_models import COMPOSED, data_for, of_layer, operators, randomize
from layer_examples import EXAMPLES

import torchfunc
from torchfunc import Input, Layer, Model, Sequential, layers, optimizers
from torchfunc.saving import load_model, register_serializable

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

LIBRARIES = {"keras": keras, "ours": torchfunc}
LOAD = {"keras": keras.saving.load_model, "ours": load_model}
writers = pytest.mark.parametrize("writer", LIBRARIES)


def the_other(name):
    (other,) = set(LIBRARIES) - {name}
    return other


def leaves(outputs):
    if isinstance(outputs, dict):
        outputs = [outputs[name] for name in sorted(outputs)]
    return outputs if isinstance(outputs, list) else [outputs]


def assert_same_predictions(one, other, data):
    found, expected = leaves(one.predict(data, verbose=0)), leaves(other.predict(data, verbose=0))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def config_in(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def normal(value):
    """A config without what may differ.

    Keras marks objects that are used twice, says how a layer is built in fewer places, and gives `training` to calls;
    names of unnamed models count on in a process; floats of single precision are written with more digits.
    """
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, dict):
        left_out = {"shared_object_id", "build_config", "compile_config", "training"}
        if "layers" in value:
            left_out.add("name")
        return {key: normal(item) for key, item in value.items() if key not in left_out}
    return float(np.float32(value)) if isinstance(value, float) else value


def check(build, writer, path):
    """Write a model with one library, open it with the other and write it again: it stays the same."""
    if writer == "keras":
        keras.backend.clear_session()
    written = randomize(build(LIBRARIES[writer]))
    written.save(path)
    opened = LOAD[the_other(writer)](path)
    assert_same_predictions(opened, written, data_for(written))
    again = path.with_name("again.keras")
    opened.save(again)
    assert normal(config_in(again)) == normal(config_in(path))
    assert_same_predictions(LOAD[writer](again), written, data_for(written))


@writers
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_layer(name, writer, tmp_path):
    check(of_layer(name), writer, tmp_path / "m.keras")


@writers
@pytest.mark.parametrize("name", COMPOSED)
def test_models(name, writer, tmp_path):
    check(COMPOSED[name], writer, tmp_path / "m.keras")


@writers
def test_operators(writer, tmp_path):
    written = randomize(operators(LIBRARIES[writer]))
    written.save(tmp_path / "m.keras")
    assert_same_predictions(LOAD[the_other(writer)](tmp_path / "m.keras"), written, data_for(written))


OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adam": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.01, "use_ema": True},
    "Adamax": {},
    "Nadam": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {},
    "Adadelta": {"learning_rate": 1.0},
    "Adafactor": {},
    "Ftrl": {},
    "Lion": {},
    "Lamb": {},
    "Muon": {},
}
X = np.random.default_rng(0).standard_normal((40, 5, 4)).astype("float32")
Y = X.sum((1, 2))[:, None] / 4


def trainable(lib):
    """Weights of all layouts: transposed, in two parts, in heads."""
    x = lib.Input((5, 4), name="x")
    y = lib.layers.GRU(4, return_sequences=True, name="gru")(lib.layers.Conv1D(4, 2, padding="same", name="c")(x))
    y = lib.layers.LayerNormalization(name="norm")(lib.layers.MultiHeadAttention(2, 3, name="heads")(y, y))
    return lib.Model(x, lib.layers.Dense(1, name="out")(lib.layers.Flatten(name="flat")(y)))


def simple(lib):
    x = lib.Input((5, 4), name="x")
    y = lib.layers.Dense(3, activation="tanh", name="hidden")(x)
    return lib.Model(x, lib.layers.Dense(1, name="out")(lib.layers.Flatten(name="flat")(y)))


def train(model, steps=20):
    return [
        float(model.train_on_batch(X[start : start + 8], Y[start : start + 8]))
        for start in [8 * (step % 5) for step in range(steps)]
    ]


@writers
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on(name, writer, tmp_path):
    """The next 20 steps are those that the writer itself would have made."""
    # Adafactor and Muon see matrices, which the layouts of convolutions and heads are not in torch.
    build = simple if name in ("Adafactor", "Muon") else trainable
    lib = LIBRARIES[writer]
    model = build(lib)
    rng = np.random.default_rng(1)
    model.set_weights([0.3 * rng.standard_normal(each.shape) for each in model.get_weights()])
    model.compile(getattr(lib.optimizers, name)(**{"learning_rate": 0.01, **OPTIMIZERS[name]}), "mse")
    train(model, 7)
    model.save(tmp_path / "m.keras")
    opened = LOAD[the_other(writer)](tmp_path / "m.keras")
    assert int(opened.optimizer.iterations) == 7
    np.testing.assert_allclose(train(opened), train(model), rtol=1e-4)
    for a, b in zip(opened.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
