"""Model classes with arguments of their own: their configs, clones and copies."""

import copy
import pickle

import numpy as np
import pytest
import torch

from torchfunc import Input, Model, Sequential, layers
from torchfunc.models import clone_model
from torchfunc.registry import deserialize_keras_object, serialize_keras_object


class Factor(Model):
    """Drawn from outside, with a further argument."""

    def __init__(self, inputs, outputs, factor=1.0, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.factor = factor


class Mlp(Model):
    """Draws itself from a number and a layer."""

    def __init__(self, units, last=None):
        inputs = Input((3,))
        hidden = layers.Dense(units)(inputs)
        super().__init__(inputs, hidden if last is None else last(hidden))
        self.units = units


class Stack(Sequential):
    def __init__(self, units, depth=2, **kwargs):
        super().__init__([Input((3,)), *(layers.Dense(units) for _ in range(depth))], **kwargs)
        self.depth = depth


class Labelled(Sequential):
    def __init__(self, layers=None, label="", **kwargs):
        super().__init__(layers, **kwargs)
        self.label = label


def factor():
    inputs = Input((3,))
    return Factor(inputs, layers.Dense(2)(inputs), factor=3.0, name="scaled")


MODELS = {
    "drawn from outside": (factor, "factor", 3.0),
    "drawn by itself": (lambda: Mlp(5, layers.Dense(4)), "units", 5),
    "a Sequential that draws itself": (lambda: Stack(4, depth=3, name="stack"), "depth", 3),
    "a Sequential with a label": (lambda: Labelled([Input((3,)), layers.Dense(2)], label="x"), "label", "x"),
}

WAYS = {
    "from_config": lambda model: type(model).from_config(model.get_config()),
    "deserialized": lambda model: deserialize_keras_object(
        serialize_keras_object(model), {cls.__name__: cls for cls in (Factor, Mlp, Stack, Labelled)}
    ),
    "clone_model": clone_model,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_own_arguments_come_back(kind, way):
    make, attribute, value = MODELS[kind]
    model = make()
    twin = WAYS[way](model)
    assert getattr(twin, attribute) == value
    assert twin.name == model.name
    assert [tuple(w.shape) for w in twin.weights] == [tuple(w.shape) for w in model.weights]
    twin.set_weights(model.get_weights())
    x = torch.ones(2, 3)
    torch.testing.assert_close(twin(x), model(x))


def test_a_layer_made_of_layers():
    class Around(layers.Layer):
        def __init__(self, inner, times=1, **kwargs):
            super().__init__(**kwargs)
            self.inner, self.times = inner, times

        def call(self, inputs):
            return self.inner(inputs) * self.times

    config = serialize_keras_object(Around(layers.Dense(2), times=4))
    twin = deserialize_keras_object(config, {"Around": Around})
    assert twin.inner.units == 2
    assert twin.times == 4
    np.testing.assert_allclose(twin(torch.zeros(1, 3)).detach(), 0)
