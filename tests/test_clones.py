"""clone_model within a program: functions and classes that nobody registered, lambdas too."""

import numpy as np
import pytest
import torch

from torchfunc import Input, Model, Sequential, layers
from torchfunc.models import clone_model, model_from_json


def doubled(x):
    return x * 2


class Around(layers.Layer):
    def __init__(self, units, function=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(units, activation=function)

    def call(self, inputs):
        return self.inner(inputs)


def drawn():
    inputs = Input((4, 3))
    x = Around(3, lambda x: x * 3)(inputs)
    lstm = layers.LSTM(3, activation=lambda x: x * 0.5, recurrent_activation=doubled, return_sequences=True)
    x = layers.Lambda(lambda x: -x)(layers.Lambda(doubled)(layers.Bidirectional(lstm)(x)))
    return Model(inputs, x)


def stacked():
    ones = layers.Dense(2, kernel_initializer=lambda shape, dtype=None: torch.ones(shape))
    return Sequential([Input((4, 3)), Around(2, doubled), ones, layers.Activation(lambda x: x + 1)])


@pytest.mark.parametrize("make", [drawn, stacked])
def test_clones_compute_the_same(make):
    model = make()
    clone = clone_model(clone_model(model))
    clone.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_array_equal(clone.predict(x, verbose=0), model.predict(x, verbose=0))


def test_two_functions_of_one_name():
    def named(factor):
        def function(x):
            return x * factor

        return function

    inputs = Input((1,))
    model = Model(inputs, [layers.Activation(named(2))(inputs), layers.Activation(named(3))(inputs)])
    assert [each.item() for each in clone_model(model)(torch.ones(1, 1))] == [2, 3]


def test_configs_that_are_kept_name_what_can_be_found():
    inputs = Input((3,))
    with pytest.raises(ValueError, match="A lambda cannot be written to a config"):
        Model(inputs, layers.Activation(lambda x: x)(inputs)).to_json()
    clone_model(model := Model(inputs, layers.Activation(doubled)(inputs)))
    assert "@" not in model.to_json()
    with pytest.raises(ValueError, match=r"'doubled' .* is not known"):
        model_from_json(model.to_json())
