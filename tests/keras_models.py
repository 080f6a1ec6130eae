"""Models that Keras and torchfunc build alike, for tests of files: each is a function of the library."""

from __future__ import annotations

import numpy as np
from layer_examples import EXAMPLES


def of_layer(name):
    """One layer on its inputs, with the data of the catalogue's example."""
    kwargs, inputs = EXAMPLES[name]

    def build(lib):
        def declare(value):
            shape = value if isinstance(value, tuple) else value.shape
            return lib.Input(shape[1:], dtype="float32" if isinstance(value, tuple) else "int32")

        x = [declare(each) for each in inputs] if isinstance(inputs, list) else declare(inputs)
        cls = getattr(lib.layers, name)
        return lib.Model(x, cls(**kwargs, name="it")(x))

    return build


def sequential(lib):
    return lib.Sequential(
        [lib.Input((6,)), lib.layers.Dense(5, activation="relu"), lib.layers.Dropout(0.2), lib.layers.Dense(3)],
        name="stack",
    )


def chain(lib):
    x = lib.Input((6,), name="x")
    y = lib.layers.Dense(5, activation="relu", kernel_regularizer="l2", bias_constraint="non_neg")(x)
    return lib.Model(x, lib.layers.Dense(3, name="out", kernel_initializer="he_normal")(y), name="chain")


def shared(lib):
    a, b = lib.Input((6,), name="a"), lib.Input((6,), name="b")
    dense = lib.layers.Dense(4)
    joined = lib.layers.Concatenate()([dense(a), lib.layers.Add()([dense(b), dense(a)])])
    return lib.Model([a, b], [lib.layers.Dense(2, name="y")(joined), lib.layers.Activation("tanh", name="z")(joined)])


def in_dicts(lib):
    a, b = lib.Input((6,), name="a"), lib.Input((6,), name="b")
    y = lib.layers.Dense(4)(lib.layers.Concatenate()([a, b]))
    return lib.Model({"a": a, "b": b}, {"y": lib.layers.Dense(2, name="y")(y), "z": lib.layers.Dense(1, name="z")(y)})


def nested(lib):
    x = lib.Input((6,))
    inner = lib.Model(x, lib.layers.Dense(6, activation="tanh", name="zz")(x), name="inner")
    stack = lib.Sequential([lib.layers.Dense(8), lib.layers.BatchNormalization(), lib.layers.Dense(3)], name="stack")
    y = lib.Input((6,))
    return lib.Model(y, [stack(inner(inner(y))), inner(y)], name="outer")


def masked(lib):
    tokens = lib.Input((None,), dtype="int32")
    x = lib.layers.Embedding(9, 4, mask_zero=True)(tokens)
    x = lib.layers.Bidirectional(lib.layers.LSTM(3, return_sequences=True))(x)
    return lib.Model(tokens, lib.layers.GRU(3)(x))


def cells(lib):
    x = lib.Input((5, 4))
    y = lib.layers.RNN([lib.layers.LSTMCell(3), lib.layers.GRUCell(2)], return_sequences=True)(x)
    y = lib.layers.RNN(lib.layers.SimpleRNNCell(3), return_sequences=True)(y)
    y = lib.layers.Bidirectional(lib.layers.GRU(2, return_sequences=True, reset_after=False), merge_mode="sum")(y)
    return lib.Model(x, lib.layers.TimeDistributed(lib.layers.Dense(2))(y))


def wrapped(lib):
    x = lib.Input((6, 6, 2))
    y = lib.layers.SpectralNormalization(lib.layers.Conv2D(3, 2))(x)
    y = lib.layers.TimeDistributed(lib.Sequential([lib.layers.Dense(4), lib.layers.Dense(2)]))(y)
    return lib.Model(x, y)


def attention(lib):
    x = lib.Input((5, 4))
    y = lib.layers.MultiHeadAttention(2, 3, value_dim=2, dropout=0.1)(x, x)
    y = lib.layers.GroupQueryAttention(2, 4, 2)(y, x, use_causal_mask=True)
    return lib.Model(x, lib.layers.LayerNormalization()(lib.layers.Add()([x, y])))


def operators(lib):
    x, y = lib.Input((6,), name="x"), lib.Input((6,), name="y")
    z = (x + y) * 2 - x / (abs(y) + 1.0)
    return lib.Model([x, y], lib.layers.Dense(2)(-z * (x > 0)) ** 2)


def convolutional(lib):
    x = lib.Input((8, 8, 3))
    y = lib.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = lib.layers.BatchNormalization()(y)
    y = lib.layers.MaxPooling2D()(y)
    y = lib.layers.SeparableConv2D(4, 3)(lib.layers.DepthwiseConv2D(2)(y))
    return lib.Model(x, lib.layers.Dense(3, activation="softmax")(lib.layers.GlobalAveragePooling2D()(y)))


COMPOSED = {
    function.__name__: function
    for function in (*(sequential, chain, shared, in_dicts, nested, masked, cells, wrapped, attention, convolutional),)
}


def data_for(model, batch=4):
    """Data for a model's inputs, as the model takes it: floats or small integers."""
    rng = np.random.default_rng(2)

    def make(value):
        shape = (batch, *(size or 5 for size in value.shape[1:]))
        if "int" in str(value.dtype):
            return rng.integers(0, 5, shape).astype("int32")
        return rng.standard_normal(shape).astype("float32")

    inputs = model.inputs if type(model).__name__ == "Sequential" else model.input
    inputs = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
    if isinstance(inputs, dict):
        return {name: make(value) for name, value in inputs.items()}
    return [make(value) for value in inputs] if isinstance(inputs, (list, tuple)) else make(inputs)


def randomize(model):
    """Give a model of either library weights that no initializer gives."""
    rng = np.random.default_rng(1)
    model.set_weights(
        [
            rng.uniform(0.3, 1.2, each.shape).astype(each.dtype) if each.dtype.kind == "f" else each
            for each in model.get_weights()
        ]
    )
    return model
