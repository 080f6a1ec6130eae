"""The models of `test_cuda.py`, each with its data and its loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from torchfunc import Input, Model, layers, losses

RNG = np.random.default_rng(0)
ROWS = 48


def floats(*shape: int) -> np.ndarray:
    return RNG.random(shape, dtype=np.float32)


def dense():
    inputs = Input((8,))
    x = layers.Dense(16, activation="relu")(inputs)
    return Model(inputs, layers.Dense(3)(x)), floats(ROWS, 8), RNG.integers(3, size=ROWS), _sparse()


def softmax():
    inputs = Input((8,))
    return (
        Model(inputs, layers.Dense(3, activation="softmax")(inputs)),
        floats(ROWS, 8),
        RNG.integers(3, size=ROWS),
        ("sparse_categorical_crossentropy"),
    )


def images():
    inputs = Input((10, 10, 3))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(2)(x))
    return Model(inputs, layers.Dense(3)(x)), floats(ROWS, 10, 10, 3), RNG.integers(3, size=ROWS), _sparse()


def separable():
    inputs = Input((10, 10, 4))
    x = layers.SeparableConv2D(6, 3, activation="relu", padding="same")(inputs)
    x = layers.Conv2DTranspose(3, 3, strides=2)(layers.DepthwiseConv2D(3)(x))
    return Model(inputs, layers.GlobalMaxPooling2D()(x)), floats(ROWS, 10, 10, 4), floats(ROWS, 3), "mse"


def lstm():
    inputs = Input((7, 4))
    return Model(inputs, layers.Dense(2)(layers.LSTM(6)(inputs))), floats(ROWS, 7, 4), floats(ROWS, 2), "mse"


def gru():
    inputs = Input((7, 4))
    x = layers.Bidirectional(layers.GRU(5, return_sequences=True))(inputs)
    return Model(inputs, layers.Dense(2)(x)), floats(ROWS, 7, 4), floats(ROWS, 7, 2), "mse"


def simple_rnn():
    inputs = Input((7, 4))
    return Model(inputs, layers.SimpleRNN(5)(inputs)), floats(ROWS, 7, 4), floats(ROWS, 5), "mae"


def masked():
    inputs = Input((None,), dtype="int64")
    x = layers.LSTM(5, return_sequences=True)(layers.Embedding(20, 6, mask_zero=True)(inputs))
    tokens = RNG.integers(1, 20, size=(ROWS, 9))
    tokens[np.arange(9) >= RNG.integers(3, 10, size=(ROWS, 1))] = 0
    return Model(inputs, layers.Dense(4)(x)), tokens, RNG.integers(4, size=(ROWS, 9)), _sparse()


def attention():
    inputs = Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([inputs, x]))
    return Model(inputs, layers.GlobalAveragePooling1D()(x)), floats(ROWS, 6, 8), floats(ROWS, 8), "huber"


def several():
    a, b = Input((4,), name="a"), Input((5,), name="b")
    x = layers.concatenate([layers.Dense(6)(a), layers.Dense(6)(b)])
    model = Model({"a": a, "b": b}, {"first": layers.Dense(1)(x), "second": layers.Dense(3, activation="softmax")(x)})
    y = {"first": floats(ROWS, 1), "second": np.eye(3, dtype=np.float32)[RNG.integers(3, size=ROWS)]}
    return (
        model,
        {"a": floats(ROWS, 4), "b": floats(ROWS, 5)},
        y,
        {
            "first": "mse",
            "second": "categorical_crossentropy",
        },
    )


def torch_modules():
    inputs = Input((8,))
    x = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU())(inputs)
    x = torch.tanh(x) * nn.Parameter(torch.ones(16))
    return Model(inputs, nn.Linear(16, 2)(x)), floats(ROWS, 8), floats(ROWS, 2), "mse"


def _sparse():
    return losses.SparseCategoricalCrossentropy(from_logits=True)


MODELS = (dense, softmax, images, separable, lstm, gru, simple_rnn, masked, attention, several, torch_modules)
