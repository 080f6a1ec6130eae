"""Code of Keras' training guides, run once with Keras and once with torchfunc, whose numbers are compared."""

import keras
import numpy as np
import pytest
import torch

import torchfunc

RNG = np.random.default_rng(3)
ROWS, SIZE = 24, 8
X = RNG.standard_normal((ROWS, 6)).astype("float32")
LABELS = RNG.integers(0, 3, ROWS)
ONE_HOT = np.eye(3, dtype="float32")[LABELS]
WEIGHTS = RNG.random(ROWS).astype("float32")
FIT = {"batch_size": SIZE, "epochs": 2, "shuffle": False, "verbose": 0}


def seeded(model, *inputs):
    """The model with the same weights from either library: matrices are drawn anew, the rest starts alike anyway."""
    if inputs:
        model(*inputs)
    generator = np.random.default_rng(5)
    model.set_weights([0.5 * generator.standard_normal(w.shape) if w.ndim > 1 else w for w in model.get_weights()])
    return model


def drawn(library, activation="softmax"):
    """The guide's model, small."""
    inputs = library.Input(shape=(6,), name="digits")
    x = library.layers.Dense(5, activation="relu", name="dense_1")(inputs)
    x = library.layers.Dense(5, activation="relu", name="dense_2")(x)
    outputs = library.layers.Dense(3, activation=activation, name="predictions")(x)
    return seeded(library.Model(inputs=inputs, outputs=outputs))


def check_alike(guide, rel=2e-4):
    """Run a guide's code with either library; returns what came out for ours."""
    expected, found = guide(keras), guide(torchfunc)
    _compare(found, expected, rel, "result")
    return found


def _compare(found, expected, rel, where):
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for name in expected:
            _compare(found[name], expected[name], rel, f"{where}[{name!r}]")
    elif isinstance(expected, (list, tuple)) and not all(isinstance(each, float) for each in expected):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            _compare(*pair, rel, f"{where}[{index}]")
    elif isinstance(expected, str):
        assert found == expected, where
    else:
        assert _plain(found) == pytest.approx(_plain(expected), rel=rel, abs=2e-6), where


def _plain(value):
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def gradients_of(weights):
    """The gradients as the guides read them: Keras' weights are variables, ours are parameters."""
    return [(weight.value if isinstance(weight, keras.Variable) else weight).grad for weight in weights]


def add(state, value):
    """Add to a metric's state, which is a variable in Keras and a tensor here."""
    state.assign_add(value) if isinstance(state, keras.Variable) else state.add_(value)
