"""Summaries against the tables in Keras' guides, and of what only torchfunc has: torch functions and modules."""

from __future__ import annotations

import contextlib
import copy
import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from summary_tables import (
    AUTOENCODER,
    DECODER,
    ENCODER,
    MNIST_MODEL,
    NESTED_AUTOENCODER,
    NESTED_ENCODER,
    TOY_RESNET,
)
from torch import nn

from torchfunc import Input, Model, Sequential, callbacks, layers
from torchfunc.registry import to_snake_case
from torchfunc.viewing import summarize as summary_of


def summarize(model: Any, **options: Any) -> str:
    return str(summary_of(model, **options))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without the header; lines of one cell are joined."""
    found: list[list[str]] = []
    fresh = True
    for line in text.splitlines():
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            if fresh:
                found.append(cells)
            else:
                found[-1] = [f"{old} {new}".strip() for old, new in zip(found[-1], cells, strict=True)]
        fresh = not line.startswith("│")
    return found


# The guides' tables, character for character


def named(**first: int) -> Any:
    """Makes layers with the guides' names, which count on through a whole page."""
    used: Counter[str] = Counter(first)

    def make(cls: Any, *args: Any, **kwargs: Any) -> Any:
        base = to_snake_case(cls.__name__)
        number, used[base] = used[base], used[base] + 1
        return cls(*args, **kwargs, name=f"{base}_{number}" if number else base)

    return make


def mnist_model() -> Model:
    make = named(dense=10)
    inputs = Input(shape=(784,), name="input_layer_5")
    x = make(layers.Dense, 64, activation="relu")(inputs)
    x = make(layers.Dense, 64, activation="relu")(x)
    return Model(inputs=inputs, outputs=make(layers.Dense, 10)(x), name="mnist_model")


def encode(make: Any, inputs: Any) -> Any:
    x = make(layers.Conv2D, 16, 3, activation="relu")(inputs)
    x = make(layers.Conv2D, 32, 3, activation="relu")(x)
    x = make(layers.MaxPooling2D, 3)(x)
    x = make(layers.Conv2D, 32, 3, activation="relu")(x)
    x = make(layers.Conv2D, 16, 3, activation="relu")(x)
    return make(layers.GlobalMaxPooling2D)(x)


def decode(make: Any, encoded: Any) -> Any:
    x = make(layers.Reshape, (4, 4, 1))(encoded)
    x = make(layers.Conv2DTranspose, 16, 3, activation="relu")(x)
    x = make(layers.Conv2DTranspose, 32, 3, activation="relu")(x)
    x = make(layers.UpSampling2D, 3)(x)
    x = make(layers.Conv2DTranspose, 16, 3, activation="relu")(x)
    return make(layers.Conv2DTranspose, 1, 3, activation="relu")(x)


def test_chain_of_the_guide() -> None:
    assert summarize(mnist_model()) == MNIST_MODEL


def test_one_graph_many_models_of_the_guide() -> None:
    make = named()
    inputs = Input(shape=(28, 28, 1), name="img")
    encoded = encode(make, inputs)
    encoder = Model(inputs, encoded, name="encoder")
    autoencoder = Model(inputs, decode(make, encoded), name="autoencoder")
    assert summarize(encoder, line_length=76) == ENCODER
    assert summarize(autoencoder, line_length=76) == AUTOENCODER


def test_nested_models_of_the_guide() -> None:
    make = named(conv2d=4, max_pooling2d=1, global_max_pooling2d=1, reshape=1, conv2d_transpose=4, up_sampling2d=1)
    image, code = Input(shape=(28, 28, 1), name="original_img"), Input(shape=(16,), name="encoded_img")
    encoder = Model(image, encode(make, image), name="encoder")
    decoder = Model(code, decode(make, code), name="decoder")
    inputs = Input(shape=(28, 28, 1), name="img")
    autoencoder = Model(inputs, decoder(encoder(inputs)), name="autoencoder")
    assert summarize(encoder, line_length=76) == NESTED_ENCODER
    assert summarize(decoder, line_length=76) == DECODER
    assert summarize(autoencoder, line_length=76) == NESTED_AUTOENCODER


def test_toy_resnet_of_the_guide() -> None:
    make = named(conv2d=8, max_pooling2d=2, dense=6)
    inputs = Input(shape=(32, 32, 3), name="img")
    x = make(layers.Conv2D, 32, 3, activation="relu")(inputs)
    x = make(layers.Conv2D, 64, 3, activation="relu")(x)
    block = make(layers.MaxPooling2D, 3)(x)
    for _ in range(2):
        x = make(layers.Conv2D, 64, 3, activation="relu", padding="same")(block)
        x = make(layers.Conv2D, 64, 3, activation="relu", padding="same")(x)
        block = layers.add([x, block])
    x = make(layers.Conv2D, 64, 3, activation="relu")(block)
    x = make(layers.GlobalAveragePooling2D)(x)
    x = make(layers.Dense, 256, activation="relu")(x)
    x = make(layers.Dropout, 0.5)(x)
    model = Model(inputs, make(layers.Dense, 10)(x), name="toy_resnet")
    # The guide was printed in a terminal of 80 columns.
    assert summarize(model, line_length=76) == TOY_RESNET


def test_summary_prints_once_or_calls_print_fn(capsys: pytest.CaptureFixture[str]) -> None:
    model, printed = mnist_model(), []
    model.summary()
    assert capsys.readouterr().out == MNIST_MODEL + "\n"
    model.summary(print_fn=printed.append)
    assert printed == [MNIST_MODEL]
    assert capsys.readouterr().out == ""


# What Keras does not have


def test_torch_functions_modules_and_tensors_have_rows() -> None:
    x = Input((6, 4), name="x")
    y = nn.Linear(4, 4)(x)
    y = y + torch.tanh(y) * nn.Parameter(torch.zeros(4))
    y = nn.BatchNorm1d(6)(y - torch.ones(6, 1, dtype=torch.float64).float())
    out, state = nn.GRU(4, 3, batch_first=True)(y)
    flat = out.mT.reshape(out.size(0), -1)
    model = Model(x, [torch.cat([flat, flat], dim=1), state], name="mixed")
    assert rows(summarize(model, line_length=140, show_trainable=True)) == [
        ["x (InputLayer)", "(None, 6, 4)", "0", "-", "-"],
        ["linear (Linear)", "(None, 6, 4)", "20", "x[0][0]", "Y"],
        ["tanh (tanh)", "(None, 6, 4)", "0", "linear[0][0]", "-"],
        ["parameter (Parameter)", "(4)", "4", "-", "Y"],
        ["mul (mul)", "(None, 6, 4)", "0", "tanh[0][0], parameter", "-"],
        ["add (add)", "(None, 6, 4)", "0", "linear[0][0], mul[0][0]", "-"],
        ["constant (Tensor)", "(6, 1)", "6", "-", "N"],
        ["sub (sub)", "(None, 6, 4)", "0", "add[0][0], constant", "-"],
        ["batch_norm1d (BatchNorm1d)", "(None, 6, 4)", "25", "sub[0][0]", "Y"],
        ["gru (GRU)", "[(None, 6, 3), (1, None, 3)]", "81", "batch_norm1d[0][0]", "Y"],
        ["mT (mT)", "(None, 3, 6)", "0", "gru[0][0]", "-"],
        ["size (size)", "()", "0", "gru[0][0]", "-"],
        ["reshape (reshape)", "(None, 18)", "0", "mT[0][0], size[0][0]", "-"],
        ["cat (cat)", "(None, 36)", "0", "reshape[0][0], reshape[0][0]", "-"],
    ]
    # Running mean and variance and the constant: 18 floats; the counter of batches is one int64.
    assert summarize(model).splitlines()[-3:] == [
        " Total params: 136 (548.00 B)",
        " Trainable params: 117 (468.00 B)",
        " Non-trainable params: 19 (80.00 B)",
    ]


def test_weights_that_two_modules_share_count_once() -> None:
    x = Input((4,), name="x")
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    text = summarize(Model(x, second(first(x))))
    assert [row[2] for row in rows(text)] == ["0", "16", "16"]
    assert " Total params: 16 (64.00 B)" in text
    tied = summarize(Model(x, nn.Sequential(first, nn.ReLU(), second)(x)))
    assert rows(tied)[1] == ["sequential (Sequential)", "(None, 4)", "16"]


def test_frozen_in_either_way() -> None:
    x = Input((4,), name="x")
    first, second, third = layers.Dense(4), layers.Dense(4), nn.Linear(4, 4)
    model = Model(x, third(second(first(x))))
    first.trainable = False
    second.requires_grad_(False)
    third.requires_grad_(False)
    text = summarize(model, show_trainable=True)
    assert [row[3] for row in rows(text)] == ["-", "N", "N", "N"]
    assert " Trainable params: 0 (0.00 B)" in text
    third.bias.requires_grad_(True)
    assert rows(summarize(model, show_trainable=True))[3][3] == "Y"


def test_model_that_starts_at_an_inner_tensor() -> None:
    x = Input((4,), name="x")
    y = layers.Dense(3, name="skipped")(x)
    model = Model(y, layers.add([torch.tanh(y), y]), name="tail")
    assert rows(summarize(model)) == [
        ["skipped (InputLayer)", "(None, 3)", "0", "-"],
        ["tanh (tanh)", "(None, 3)", "0", "skipped[0][0]"],
        ["add (Add)", "(None, 3)", "0", "tanh[0][0], skipped[0][0]"],
    ]


def test_unbuilt_torch_modules_and_own_tensors_of_a_model() -> None:
    class Net(Model):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.scale = nn.Parameter(torch.ones(2, 3))
            self.register_buffer("kept", torch.ones(2))
            self.register_buffer("dropped", torch.ones(2), persistent=False)
            self.dense = layers.Dense(3, name="dense")

    assert rows(summarize(Net())) == [
        ["dense (Dense)", "?", "0 (unbuilt)"],
        ["scale (Parameter)", "(2, 3)", "6"],
        ["kept (Tensor)", "(2)", "2"],
    ]
    lazy = Sequential([nn.LazyLinear(3), nn.Linear(3, 2)])
    assert rows(summarize(lazy)) == [["lazy_linear (LazyLinear)", "?", "0 (unbuilt)"], ["linear (Linear)", "?", "8"]]
    assert " Total params: 8 (32.00 B)" in summarize(lazy)


def test_layers_of_a_subclassed_model_are_numbered_and_found_in_lists() -> None:
    class Net(Model):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.first = layers.Dense(3)
            self.blocks = [layers.Dense(3, name="dense"), {"a": layers.Dense(3)}]
            self.heads = nn.ModuleList([nn.Linear(2, 3), self.first, nn.Linear(3, 3)])

    model = Net()
    assert [row[0] for row in rows(summarize(model))] == [
        "dense_1 (Dense)",
        "dense (Dense)",
        "dense_2 (Dense)",
        "linear (Linear)",
        "linear_1 (Linear)",
    ]
    assert model.get_layer("dense_2") is model.blocks[1]["a"]


def test_layers_of_ones_own_in_a_subclassed_model_have_shapes() -> None:
    class Half(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return {"first": inputs[:, ::2], "rest": [inputs[:, 1::2]]}

    class Net(Model):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.split = Half(name="half")

        def call(self, inputs: Any) -> Any:
            return self.split(inputs)["first"]

    model = Net()
    assert rows(summarize(model)) == [["half (Half)", "?", "0 (unbuilt)"]]
    model(np.zeros((2, 6), "float32"))
    assert rows(summarize(model)) == [["half (Half)", "{first: (2, 3), rest: [(2, 3)]}", "0"]]


def test_positions_in_characters() -> None:
    table = summarize(mnist_model(), positions=[40, 70, 88]).splitlines()
    assert [len(line) for line in table[1:11]] == [88] * 10
    assert [index for index, letter in enumerate(table[1]) if letter in "┳┓"] == [39, 69, 87]
    table = summarize(mnist_model(), positions=[40, 70, 88], show_trainable=True).splitlines()
    assert [index for index, letter in enumerate(table[1]) if letter in "┳┓"] == [39, 69, 87, 99]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"line_length": 12}, "12 characters wide is too narrow for 3 columns"),
        ({"line_length": 100, "positions": [0.5, 0.5, 1.0]}, r"\[0.5, 0.5, 1.0\].*at least 4 characters"),
        ({"positions": [0.5, 1.0]}, r"'Layer \(type\)', 'Output Shape', 'Param #'.*has 2 items"),
        ({"layer_range": ["dense_10"]}, r"two strings.*\['dense_10'\]"),
        ({"layer_range": [0, 1]}, r"two strings.*\[0, 1\]"),
        ({"layer_range": ["dense_11", "conv"]}, "No layer matches 'conv'.*input_layer_5, dense_10, dense_11, dense_12"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarize(mnist_model(), **options)


def test_copies_have_the_same_summary() -> None:
    make, inputs = named(), Input(shape=(28, 28, 1))
    encoder = Model(inputs, encode(make, inputs), name="encoder")
    a, b = Input((28, 28, 1), name="a"), Input((28, 28, 1), name="b")
    model = Model([a, b], encoder(a) - encoder(b) * torch.ones(16), name="pair")
    text = summarize(model, expand_nested=True)
    assert summarize(copy.deepcopy(model), expand_nested=True) == text
    model.to(torch.float64)
    # Buffers are other tensors now, yet the constant is still found where it is used.
    assert summarize(model, expand_nested=True).splitlines()[:-3] == text.splitlines()[:-3]
    assert "constant (Tensor)" in text
    assert "mul (mul)" in text
    assert summarize(model).splitlines()[-3] == " Total params: 18,688 (146.00 KB)"


@pytest.mark.parametrize("shared", [False, True])
def test_ten_thousand_layers(shared: bool) -> None:
    x = inputs = Input((4,))
    layer = layers.Dense(4)
    for _ in range(10_000):
        x = (layer if shared else layers.Activation("relu"))(x)
    model = Model(inputs, x)
    text = summarize(model)
    last = ["dense (Dense)", "(None, 4)", "20"] if shared else ["activation_9999 (Activation)", "(None, 4)", "0"]
    assert rows(text)[-1][:3] == last
    assert len(rows(text)) == (2 if shared else 10_001)


def test_deeply_nested_models() -> None:
    x = Input((3,))
    model = Model(x, torch.tanh(x), name="level_0")
    for level in range(1, 60):
        x = Input((3,))
        model = Model(x, model(x), name=f"level_{level}")
    assert len(rows(summarize(model, line_length=400, expand_nested=True))) == 61 + 59


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_output(encoding):
    inputs = Input((3,))
    model = Model(inputs, layers.Dense(1, name="größe")(inputs))
    model.compile("sgd", "mse")
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, write_through=True)
    with contextlib.redirect_stdout(stream):
        model.summary()
        for verbose in (1, 2):
            model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=verbose, callbacks=[callbacks.EarlyStopping("loss")])
    text = written.getvalue().decode(encoding)
    assert ("│ größe" in text) == (encoding == "utf-8")
    assert ("| gr??e" in text) == (encoding == "ascii")
    assert text.count("loss: ") == 2
