"""Models of every kind that a file has to keep, each with data to train it on."""

import collections

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from torchfunc import constraints, initializers, layers, regularizers, saving
from torchfunc.layers import Input
from torchfunc.models import Model, Sequential

ROWS = 24
Point = collections.namedtuple("Point", "first second")


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal((ROWS, *shape)).astype("float32")


X, Y = floats(8), floats(1, seed=1)


@saving.register_serializable("whole_models")
def double(x):
    return x * 2


@saving.register_serializable("whole_models")
class Written(Model):
    """A subclassed model, one layer of which its call does not use."""

    def __init__(self, width, name=None):
        super().__init__(name=name)
        self.width = width
        self.first = layers.Dense(width, activation="relu")
        self.unused = layers.Dense(3)
        self.blocks = [layers.Dense(width) for _ in range(2)]
        self.head = Sequential([layers.Dense(2), layers.Dense(1)])

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def get_config(self):
        return {"width": self.width, "name": self.name}


@saving.register_serializable("whole_models")
class Counting(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")
        self.count = self.add_weight((), "zeros", trainable=False, name="count")

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@saving.register_serializable("whole_models")
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + self.linear(x)


def simple():
    x = Input((8,))
    return Model(x, layers.Dense(1)(layers.Dropout(0.3, seed=3)(layers.Dense(4, "relu")(x)))), X, Y


def sequential():
    activation = layers.LeakyReLU(0.3)
    stack = [Input((8,)), layers.Dense(4, activation=activation), layers.BatchNormalization(), layers.Dense(1)]
    return Sequential(stack), X, Y


def written():
    model = Written(4)
    model(X)
    return model, X, Y


def shared():
    x = Input((8,))
    dense = layers.Dense(
        8,
        "tanh",
        kernel_initializer=initializers.HeNormal(seed=1),
        kernel_regularizer=regularizers.L2(0.01),
        kernel_constraint=constraints.MaxNorm(1.0),
    )
    return Model(x, layers.Dense(1)(dense(dense(x)))), X, Y


def nested():
    a, x = Input((8,)), Input((8,))
    inner = Model(a, layers.Dense(8)(a), name="encoder")
    return Model(x, Sequential([layers.Dense(1)])(inner(inner(x)) + x)), X, Y


def dicts():
    a, b = Input((8,), name="a"), Input((4,), name="b")
    model = Model({"a": a, "b": b}, {"out": layers.Dense(1)(a), "other": layers.Dense(2)(b)})
    return model, {"a": X, "b": floats(4)}, {"out": Y, "other": floats(2)}


def tuples():
    x = Input((8,))
    return Model(x, (layers.Dense(1)(x), [layers.Dense(2)(x), layers.Dense(3)(x)])), X, None


def named_tuples():
    x = Input((8,))
    return Model(x, Point(layers.Dense(1)(x), [layers.Dense(2)(x)])), X, None


def masks():
    tokens = Input((5,), dtype="int32")
    embedded = layers.Embedding(9, 4, mask_zero=True)(tokens)
    model = Model(tokens, layers.Dense(1)(layers.LSTM(3)(embedded)))
    return model, np.random.default_rng(0).integers(0, 9, (ROWS, 5)), Y


def torch_modules():
    x = Input((8,))
    y = nn.BatchNorm1d(8)(nn.Linear(8, 8)(x))
    y = Block(8)(F.gelu(y, approximate="tanh") + torch.tanh(x))
    return Model(x, nn.Linear(8, 1)(y.clamp(-1, 1)[:, 0:8])), X, Y


def constants():
    x = Input((8,))
    return Model(x, layers.Dense(1)(x * nn.Parameter(torch.randn(8)) + torch.randn(8))), X, Y


def functions():
    x = Input((8,))
    y = layers.Dense(8, activation=torch.sigmoid)(layers.Lambda(double)(x))
    return Model(x, layers.Dense(1)(layers.Lambda(torch.cumsum, arguments={"dim": 1})(y))), X, Y


def own_layers():
    x = Input((8,))
    return Model(x, Counting(1)(x)), X, Y


def attention():
    x = Input((6, 4))
    y = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x)
    return Model(x, layers.Dense(1)(layers.Flatten()(y))), floats(6, 4), Y


def frozen():
    x = Input((8,))
    dense, linear = layers.Dense(4, trainable=False), nn.Linear(4, 4)
    linear.bias.requires_grad_(False)
    return Model(x, layers.Dense(1)(linear(dense(x)))), X, Y


def tied():
    x = Input((8,))
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    return Model(x, layers.Dense(1)(second(torch.relu(first(x))))), X, Y


def wrappers():
    x = Input((6, 4))
    y = layers.TimeDistributed(nn.Linear(4, 4))(x)
    return Model(x, layers.Dense(1)(layers.Bidirectional(layers.GRU(3))(y))), floats(6, 4), Y


def transformer():
    x = Input((6, 8))
    y, _ = nn.MultiheadAttention(8, 2, batch_first=True)(x, x, x, need_weights=False)
    y = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)(y)
    return Model(x, layers.Dense(1)(y.mean(1))), floats(6, 8), Y


MODELS = {
    make.__name__: make
    for make in (
        *(simple, sequential, written, shared, nested, dicts, tuples, named_tuples, masks, torch_modules, constants),
        *(functions, own_layers, attention, frozen, tied, wrappers, transformer),
    )
}


@saving.register_serializable("whole_models")
def double_error(y_true, y_pred):
    return 2 * (y_true - y_pred).abs().mean(-1)
