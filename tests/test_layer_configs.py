"""`layers.serialize` and `layers.deserialize`, and what needs no doing here of Keras' settings."""

import keras
import numpy as np
import pytest

from torchfunc import config, layers, losses


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(3, activation="relu", kernel_regularizer="l2", name="head"),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
        layers.Conv2D(4, 3, padding="same"),
        layers.Rescaling(0.5),
    ],
    ids=lambda layer: layer.name,
)
def test_keras_reads_what_is_written_and_the_other_way_round(layer):
    theirs = keras.layers.deserialize(layers.serialize(layer))
    assert type(theirs).__name__ == type(layer).__name__
    back = layers.deserialize(keras.layers.serialize(theirs))
    assert type(back) is type(layer)
    assert back.name == theirs.name == layer.name
    assert back.get_config() == layer.get_config()


def test_a_class_name_and_a_config_are_enough():
    dense = layers.deserialize({"class_name": "Dense", "config": {"units": 3}})
    assert dense(np.ones((2, 4), "float32")).shape == (2, 3)

    class Twice(layers.Layer):
        def call(self, inputs):
            return inputs * 2

    made = layers.deserialize({"class_name": "Twice", "config": {"name": "two"}}, {"Twice": Twice})
    assert (type(made), made.name) == (Twice, "two")


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match=r"takes a layer, got .*MeanSquaredError"):
        layers.serialize(losses.MeanSquaredError())
    with pytest.raises(ValueError, match=r"config of a layer, but this one is of .*MeanSquaredError"):
        layers.deserialize(losses.serialize(losses.MeanSquaredError()))


def test_tracebacks_are_complete():
    config.disable_traceback_filtering()
    assert not config.is_traceback_filtering_enabled()
