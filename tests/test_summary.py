"""Summaries against the tables printed in Keras' guides, and against what Keras prints for the same model."""

from __future__ import annotations

import copy
import random
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import keras
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

from torchfunc import Input, Model, Sequential, layers
from torchfunc.registry import to_snake_case
from torchfunc.viewing import summarize

# Both libraries under one set of names, so that one function builds a model in each.
KERAS = SimpleNamespace(Input=keras.Input, Model=keras.Model, Sequential=keras.Sequential, layers=keras.layers)
OURS = SimpleNamespace(Input=Input, Model=Model, Sequential=Sequential, layers=layers)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def keras_summary(model: Any, **options: Any) -> str:
    printed: list[str] = []
    model.summary(print_fn=printed.append, **options)
    return "".join(printed).removesuffix("\n")


def check_same(build: Any, **options: Any) -> None:
    """Both libraries' summaries of what `build` builds are the same text."""
    keras.backend.clear_session()
    assert summarize(build(OURS), **options) == keras_summary(build(KERAS), **options)


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


# The same models in Keras


def tickets(lib: Any) -> Any:
    title, body = lib.Input((None,), name="title"), lib.Input((None,), name="body")
    tags = lib.Input((12,), name="tags")
    x = lib.layers.LSTM(128)(lib.layers.Embedding(10_000, 64)(title))
    y = lib.layers.LSTM(32)(lib.layers.Embedding(10_000, 64)(body))
    z = lib.layers.concatenate([x, y, tags])
    priority = lib.layers.Dense(1, name="priority")(z)
    department = lib.layers.Dense(4, name="department")(z)
    # Keras sorts a dict of outputs by name, and so its rows; ours keep the order they are given in.
    return lib.Model([title, body, tags], [priority, department], name="tickets")


def siamese(lib: Any) -> Any:
    a, b = lib.Input((8,), name="a"), lib.Input((8,), name="b")
    trunk = lib.Sequential(
        [lib.Input((8,)), lib.layers.Dense(6, name="narrow"), lib.layers.BatchNormalization()], name="trunk"
    )
    trunk.layers[0].trainable = False
    shared = lib.layers.Dense(5)
    out = lib.layers.subtract([shared(trunk(a)), shared(trunk(b))])
    return lib.Model([a, b], out, name="siamese")


def nested_twice(lib: Any) -> Any:
    i = lib.Input((4,), name="i")
    inner = lib.Model(i, lib.layers.Dense(4, name="in_dense")(i), name="inner")
    j = lib.Input((4,), name="j")
    middle = lib.Model(j, lib.layers.Dense(3, name="middle_dense")(inner(inner(j))), name="middle")
    k = lib.Input((4,), name="k")
    frozen = lib.layers.Dense(4, name="frozen", trainable=False)
    drop = lib.layers.Dropout(0.5)
    return lib.Model(k, middle(drop(frozen(k))), name="outer")


def several_outputs(lib: Any) -> Any:
    x = lib.Input((7, 3), name="x")
    states = lib.layers.LSTM(4, return_state=True)(x)
    return lib.Model(x, [states[2], lib.layers.Dense(2)(states[0])], name="states")


def chain_with_taps(lib: Any) -> Any:
    x = lib.Input((5,), name="x")
    first = lib.layers.Dense(4)(x)
    return lib.Model(x, [lib.layers.Dense(3)(first), first], name="taps")


def unused_input(lib: Any) -> Any:
    a, b, c = (lib.Input((5,), name=name) for name in "abc")
    return lib.Model([a, b, c], lib.layers.Dense(3)(lib.layers.Dense(3)(b)), name="unused")


def called_twice_in_a_row(lib: Any) -> Any:
    x, layer = lib.Input((5,), name="x"), lib.layers.Dense(5, use_bias=False)
    return lib.Model(x, lib.layers.Dense(2)(layer(layer(x))), name="twice")


def called_outside_too(lib: Any) -> Any:
    layer = lib.layers.Dense(5)
    layer(lib.Input((5,)))
    x = lib.Input((5,), name="x")
    y = layer(x)
    return lib.Model(x, lib.layers.add([x, y, y]), name="outside")


def inception(lib: Any) -> Any:
    x = lib.Input((16, 16, 3), name="x")
    a = lib.layers.Conv2D(4, 1, padding="same")(x)
    b = lib.layers.Conv2D(4, 3, padding="same")(lib.layers.Conv2D(2, 1)(x))
    c = lib.layers.Conv2D(4, 1)(lib.layers.MaxPooling2D(3, strides=1, padding="same")(x))
    return lib.Model(x, lib.layers.concatenate([a, b, c, x], axis=-1), name="inception")


def stack(lib: Any) -> Any:
    return lib.Sequential(
        [lib.Input((6, 2)), lib.layers.Flatten(), lib.layers.Dense(3), lib.Sequential([lib.layers.Dropout(0.1)])]
    )


def unbuilt(lib: Any) -> Any:
    return lib.Sequential([lib.layers.Dense(3), lib.layers.Flatten(), lib.layers.Dense(3)], name="unbuilt")


def built_later(lib: Any) -> Any:
    model = lib.Sequential([lib.layers.Dense(3), lib.layers.Dense(3)], name="later")
    model.build((None, 4))
    return model


def of_one_size(lib: Any) -> Any:
    x = lib.Input(batch_shape=(4,), name="x")
    return lib.Model(x, lib.layers.Activation("relu")(x), name="one")


def half(lib: Any) -> Any:
    x = lib.Input((6,), name="x", dtype="float16")
    return lib.Model(x, lib.layers.Dense(3000, dtype="float16")(lib.layers.Dense(700, dtype="float16")(x)), name="half")


MODELS = [
    tickets,
    siamese,
    nested_twice,
    several_outputs,
    chain_with_taps,
    unused_input,
    called_twice_in_a_row,
    called_outside_too,
    inception,
    stack,
    unbuilt,
    built_later,
    of_one_size,
    half,
]


@pytest.mark.parametrize("build", MODELS)
def test_same_as_keras(build: Any) -> None:
    check_same(build)


@pytest.mark.parametrize("options", [{"expand_nested": True}, {"show_trainable": True, "expand_nested": True}], ids=str)
@pytest.mark.parametrize("build", [siamese, nested_twice, tickets, stack, unbuilt])
def test_nested_and_trainable_same_as_keras(build: Any, options: dict[str, Any]) -> None:
    check_same(build, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"line_length": 50},
        {"line_length": 61, "show_trainable": True},
        {"line_length": 87, "expand_nested": True},
        {"line_length": 150},
        {"line_length": 97, "positions": [0.2, 0.5, 0.7, 1.0]},
        {"line_length": 100, "positions": [0.1, 0.2, 0.3, 0.5]},
        {"positions": [0.15, 0.35, 0.55, 0.8], "show_trainable": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("build", [siamese, tickets])
def test_widths_same_as_keras(build: Any, options: dict[str, Any]) -> None:
    check_same(build, **options)


@pytest.mark.parametrize("columns", [60, 80, 93, 300])
@pytest.mark.parametrize("build", [stack, siamese])
def test_fits_the_terminal_as_keras_does(build: Any, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    check_same(build)
    check_same(build, show_trainable=True)


@pytest.mark.parametrize(
    "layer_range", [["embedding", "lstm_1"], ["lstm", "tags"], ["concat.*", "priority"], ("priority", "embedding_1")]
)
def test_layer_range_same_as_keras(layer_range: Any) -> None:
    check_same(tickets, layer_range=layer_range)


@pytest.mark.parametrize("seed", range(25))
def test_random_graphs_same_as_keras(seed: int) -> None:
    def build(lib: Any) -> Any:
        rng = random.Random(seed)
        inputs = [lib.Input((4,), name=f"in_{index}") for index in range(rng.randint(1, 3))]
        shared = [lib.layers.Dense(4, name=f"shared_{index}") for index in range(3)]
        tensors = list(inputs)
        for index in range(rng.randint(3, 14)):
            kind = rng.random()
            if kind < 0.4:
                tensors.append(lib.layers.Dense(4, name=f"dense_{index}")(rng.choice(tensors)))
            elif kind < 0.7:
                tensors.append(rng.choice(shared)(rng.choice(tensors)))
            else:
                parts = rng.choices(tensors, k=rng.randint(2, 3))
                tensors.append(lib.layers.Add(name=f"add_{index}")(parts))
        outputs = rng.sample(tensors[len(inputs) :], rng.randint(1, 2))
        return lib.Model(inputs, outputs, name="random")

    check_same(build)


def test_optimizer_params_same_as_keras() -> None:
    def build(lib: Any) -> Any:
        model = stack(lib)
        model.compile("adam", "mse")
        model.fit(np.zeros((4, 6, 2), "float32"), np.zeros((4, 3), "float32"), verbose=0)
        return model

    check_same(build)
    compiled = stack(OURS)
    compiled.compile("adam", "mse")
    assert "Optimizer" not in summarize(compiled)


def subclassed(lib: Any) -> Any:
    class Net(lib.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="net")
            self.first = lib.layers.Dense(3, name="first")
            self.second = lib.layers.Dense(5, name="second")
            image = lib.Input((4,), name="image")
            self.drawn = lib.Model(image, lib.layers.Dense(2, name="inner")(image), name="drawn")
            self.unused = lib.layers.Dense(7, name="unused")

        def call(self, inputs: Any) -> Any:
            return self.second(self.first(inputs))

    return Net()


@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer")
@pytest.mark.parametrize("called", [False, True])
def test_subclassed_same_as_keras(called: bool) -> None:
    def build(lib: Any) -> Any:
        model = subclassed(lib)
        if called:
            model(np.zeros((2, 6), "float32"))
        return model

    check_same(build, expand_nested=True)


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
        ["mul (mul)", "(None, 6, 4)", "0", "tanh[0][0]", "-"],
        ["add (add)", "(None, 6, 4)", "0", "linear[0][0], mul[0][0]", "-"],
        ["sub (sub)", "(None, 6, 4)", "0", "add[0][0]", "-"],
        ["batch_norm1d (BatchNorm1d)", "(None, 6, 4)", "25", "sub[0][0]", "Y"],
        ["gru (GRU)", "[(None, 6, 3), (1, None, 3)]", "81", "batch_norm1d[0][0]", "Y"],
        ["mT (mT)", "(None, 3, 6)", "0", "gru[0][0]", "-"],
        ["size (size)", "()", "0", "gru[0][0]", "-"],
        ["reshape (reshape)", "(None, 18)", "0", "mT[0][0], size[0][0]", "-"],
        ["cat (cat)", "(None, 36)", "0", "reshape[0][0], reshape[0][0]", "-"],
        ["parameter (Parameter)", "(4)", "4", "-", "Y"],
        ["constant (Tensor)", "(6, 1)", "6", "-", "N"],
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
    keras.backend.clear_session()
    model = siamese(OURS)
    text = summarize(model, expand_nested=True)
    assert summarize(copy.deepcopy(model), expand_nested=True) == text
    model.to(torch.float64)
    assert summarize(model).splitlines()[-3] != text.splitlines()[-3]


@pytest.mark.parametrize("shared", [False, True])
def test_ten_thousand_layers(shared: bool) -> None:
    x = inputs = Input((4,))
    layer = layers.Dense(4)
    for _ in range(10_000):
        x = (layer if shared else layers.Dense(4))(x)
    model = Model(inputs, x)
    start = time.perf_counter()
    text = summarize(model)
    assert time.perf_counter() - start < 5
    assert f" Total params: {20 if shared else 200_000:,} " in text
    if shared:
        assert len(rows(text)) == 2
    else:
        assert rows(text)[-1] == ["dense_9999 (Dense)", "(None, 4)", "20"]


def test_deeply_nested_models() -> None:
    x = Input((3,))
    model = Model(x, torch.tanh(x), name="level_0")
    for level in range(1, 60):
        x = Input((3,))
        model = Model(x, model(x), name=f"level_{level}")
    assert len(rows(summarize(model, line_length=400, expand_nested=True))) == 61 + 59
