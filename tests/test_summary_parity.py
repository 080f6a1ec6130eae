"""Summaries against what Keras prints for the same model, character for character."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from torchfunc import Input, Model, Sequential, layers
from torchfunc.viewing import summarize as summary_of

# Both libraries under one set of names, so that one function builds a model in each.
KERAS = SimpleNamespace(Input=keras.Input, Model=keras.Model, Sequential=keras.Sequential, layers=keras.layers)
OURS = SimpleNamespace(Input=Input, Model=Model, Sequential=Sequential, layers=layers)


def summarize(model: Any, **options: Any) -> str:
    return str(summary_of(model, **options))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def keras_summary(model: Any, **options: Any) -> str:
    printed: list[str] = []
    model.summary(print_fn=printed.append, **options)
    return "".join(printed).removesuffix("\n")


def check_same(build: Any, **options: Any) -> None:
    """Both libraries' summaries of what `build` builds are the same text."""
    keras.backend.clear_session(free_memory=False)
    assert summarize(build(OURS), **options) == keras_summary(build(KERAS), **options)


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
    x = lib.layers.Dense(3)(b)
    return lib.Model([a, b, c], lib.layers.Dense(3)(x), name="unused")


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
    b = lib.layers.Conv2D(2, 1)(x)
    b = lib.layers.Conv2D(4, 3, padding="same")(b)
    c = lib.layers.Conv2D(4, 1)(lib.layers.MaxPooling2D(3, strides=1, padding="same")(x))
    return lib.Model(x, lib.layers.concatenate([a, b, c, x], axis=-1), name="inception")


def stack(lib: Any) -> Any:
    inner = lib.Sequential([lib.layers.Dropout(0.1)], name="inner")
    return lib.Sequential([lib.Input((6, 2)), lib.layers.Flatten(), lib.layers.Dense(3), inner], name="stack")


def unbuilt(lib: Any) -> Any:
    return lib.Sequential([lib.layers.Dense(3), lib.layers.Flatten(), lib.layers.Dense(3)], name="unbuilt")


def built_later(lib: Any) -> Any:
    model = lib.Sequential([lib.layers.Dense(3), lib.layers.Dense(3)], name="later")
    model.build((None, 4))
    return model


def of_one_size(lib: Any) -> Any:
    x = lib.Input(batch_shape=(4,), name="x")
    return lib.Model(x, lib.layers.Activation("relu")(x), name="one")


def near_and_far(lib: Any) -> Any:
    shared = lib.layers.Dense(4, name="shared")
    a, b = lib.Input((4,), name="a"), lib.Input((4,), name="b")
    far = shared(a)
    for index in range(3):
        far = lib.layers.Dense(4, name=f"dense_{index}")(far)
    return lib.Model([a, b], lib.layers.add([shared(b), far]), name="near_and_far")


def a_kilobyte(lib: Any) -> Any:
    x = lib.Input((16,), name="an-input-with-quite-a-few-hyphens-in-its-name")
    return lib.Model(x, lib.layers.Dense(16, use_bias=False)(x), name="kilobyte")


def half(lib: Any) -> Any:
    x = lib.Input((6,), name="x", dtype="float16")
    y = lib.layers.Dense(700, dtype="float16")(x)
    return lib.Model(x, lib.layers.Dense(3000, dtype="float16")(y), name="half")


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
    near_and_far,
    a_kilobyte,
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


def test_optimizer_params() -> None:
    def fitted(lib: Any) -> str:
        keras.backend.clear_session(free_memory=False)
        model = stack(lib)
        model.compile("adam", "mse")
        if lib is OURS:
            assert "Optimizer" not in summarize(model)
        model.fit(np.zeros((4, 6, 2), "float32"), np.zeros((4, 3), "float32"), verbose=0)
        return summarize(model) if lib is OURS else keras_summary(model)

    # Two moments for each of 39 weights, the learning rate, and the step count: eight bytes with us, four in Keras.
    assert " Optimizer params: 80 (320.00 B)" in fitted(KERAS)
    assert fitted(OURS) == fitted(KERAS).replace("80 (320.00 B)", "80 (324.00 B)").replace("476.00", "480.00")


def subclassed(lib: Any) -> Any:
    class Net(lib.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="net")
            self.first = lib.layers.Dense(3, name="first")
            self.second = lib.layers.Dense(5, name="second")
            image = lib.Input((4,), name="image")
            self.inner = lib.Model(image, lib.layers.Dense(2, name="inner")(image), name="drawn")
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
