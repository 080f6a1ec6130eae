"""One small model from either library with the same weights, and data for it."""

import keras
import numpy as np
import pytest

from torchfunc import layers
from torchfunc.layers import Input
from torchfunc.models import Model

RNG = np.random.default_rng(0)
ROWS = 50
X = RNG.standard_normal((ROWS, 5)).astype("float32")
Y = RNG.standard_normal((ROWS, 1)).astype("float32")
LABELS = RNG.integers(0, 3, ROWS)
WEIGHTS = RNG.random(ROWS).astype("float32")


def network(library, outputs="one", softmax=True):
    """The same model from either library; both are given the same weights by `twins`."""
    dense = library.layers.Dense
    inputs = library.Input((5,)) if library is keras else Input((5,))
    hidden = dense(8, activation="tanh", name="hidden")(inputs)
    value = dense(1, name="value")(hidden)
    kind = dense(3, activation="softmax" if softmax else None, name="kind")(hidden)
    model = keras.Model if library is keras else Model
    return model(
        inputs, {"one": value, "label": kind, "list": [value, kind], "dict": {"value": value, "kind": kind}}[outputs]
    )


class ours:
    layers = layers


def twins(outputs="one", **kwargs):
    theirs, mine = network(keras, outputs, **kwargs), network(ours, outputs, **kwargs)
    copy_weights(mine, theirs)
    return mine, theirs


def copy_weights(mine, theirs):
    """Give our model the weights of Keras' layers of the same names."""
    for layer in theirs.layers:
        if layer.weights:
            mine.get_layer(layer.name).set_weights([w.value.detach().numpy() for w in layer.weights])


def steps(model, *data, count=20, size=10, **kwargs):
    """Losses of single training steps over the data's batches in order."""
    found = []
    for step in range(count):
        start = step * size % ROWS
        batch = [part if part is None else _rows(part, start, start + size) for part in data]
        found.append(model.train_on_batch(*batch, return_dict=True, **kwargs))
    return found


def _rows(part, start, stop):
    if isinstance(part, dict):
        return {key: value[start:stop] for key, value in part.items()}
    if isinstance(part, list):
        return [value[start:stop] for value in part]
    return part[start:stop]


def assert_close(mine, theirs, rel=1e-4):
    assert list(mine) == list(theirs)
    for key, value in mine.items():
        assert value == pytest.approx(theirs[key], rel=rel, abs=1e-6), key
