"""Layers as users write them, for several test files."""

import torch

from torchfunc.layers.base.layer import Layer
from torchfunc.layers.core import Dense
from torchfunc.layers.normalization.batch import BatchNormalization
from torchfunc.layers.regularization import Dropout


class CustomDense(Layer):
    """The guide's."""

    def __init__(self, units=32):
        super().__init__()
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="random_normal", trainable=True)
        self.b = self.add_weight(shape=(self.units,), initializer="random_normal", trainable=True)

    def call(self, inputs):
        return torch.matmul(inputs, self.w) + self.b

    def get_config(self):
        return {"units": self.units}


class Lazy(Layer):
    """Its sublayers do not know their size before they are called."""

    def __init__(self, units=5):
        super().__init__()
        self.first, self.second = Dense(units), Dense(2)
        self.norm = BatchNormalization()
        self.dropout = Dropout(0.5)

    def call(self, inputs, training=None):
        x = self.norm(self.first(inputs), training=training)
        return self.second(self.dropout(x, training=training))


def layer_of(call, **attributes):
    """A layer whose call is a function, without weights."""
    cls = type("Made", (Layer,), {"call": call, **attributes})
    return cls()
