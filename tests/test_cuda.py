"""What only a card shows. `CARD=cpu pytest tests/test_cuda.py` runs what a CPU can of it, to see that it works."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchfunc import Input, Model, Sequential, callbacks, layers, losses, metrics, optimizers
from torchfunc.models import load_model

CARD = torch.device(os.environ.get("CARD", "cuda"))
ON_CARD = CARD.type == "cuda" and torch.cuda.is_available()

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not ON_CARD and CARD.type != "cpu", reason="needs a CUDA device"),
    # torch's compiler uses its own deprecated functions.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def quick_graphs(request):
    """Without a card, graphs are run by autograd's own kernels."""
    if not ON_CARD:
        request.getfixturevalue("traced")


needs_card = pytest.mark.skipif(not ON_CARD, reason="needs a CUDA device")

RNG = np.random.default_rng(0)
ROWS = 48


def floats(*shape: int) -> np.ndarray:
    return RNG.random(shape, dtype=np.float32)


# Models, with their data ---------------------------------------------------------------------------------------------


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


def compiled(make, device=CARD, optimizer="adam", **arguments):
    torch.manual_seed(0)
    model, x, y, loss = make()
    model.to(device).compile(optimizer, loss, **arguments)
    return model, x, y


def same_weights(one, other):
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})


def assert_close(one, other, rtol=1e-4, atol=1e-5):
    mine, theirs = one.state_dict(), other.state_dict()
    for name, value in mine.items():
        torch.testing.assert_close(
            value.cpu(), theirs[name].cpu(), rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


# The step ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS)
def test_the_compiled_step_is_the_eager_one(make):
    eager, x, y = compiled(make, jit_compile=False)
    whole, _, _ = compiled(make, jit_compile=True)
    same_weights(eager, whole)
    a = eager.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    b = whole.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3)
    assert_close(eager, whole, rtol=1e-2, atol=1e-3)


@needs_card
@pytest.mark.parametrize("make", MODELS)
def test_a_step_on_the_card_is_the_one_on_the_cpu(make):
    here, x, y = compiled(make, "cpu", "sgd", jit_compile=False)
    there, _, _ = compiled(make, CARD, "sgd", jit_compile=False)
    same_weights(here, there)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        a = here.train_on_batch(_first(x), _first(y), return_dict=True)
        b = there.train_on_batch(_first(x), _first(y), return_dict=True)
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
    assert_close(here, there, rtol=1e-3, atol=1e-4)


def _first(data):
    return {name: value[:16] for name, value in data.items()} if isinstance(data, dict) else data[:16]


@pytest.mark.parametrize(
    "optimizer",
    ["sgd", "rmsprop", "adam", "adamw", "nadam", "adagrad", "adadelta", "adamax", "lion", "ftrl"],
)
def test_learning_rates_and_weights_change_between_replays(optimizer):
    """A graph that is replayed reads both where they stand: it must see what a callback changed."""
    eager, x, y = compiled(dense, optimizer=optimizer, jit_compile=False)
    whole, _, _ = compiled(dense, optimizer=optimizer, jit_compile=True)
    same_weights(eager, whole)
    for model in (eager, whole):
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[Change()])
    assert_close(eager, whole, rtol=1e-3, atol=1e-4)


class Change(callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.01 / (batch + 1)
        if batch == 2:
            with torch.no_grad():
                for weight in self.model.parameters():
                    weight.mul_(0.5)


# Recurrent operators --------------------------------------------------------------------------------------------------

RECURRENT = {
    "lstm": lambda: layers.LSTM(6),
    "lstm-sequences": lambda: layers.LSTM(6, return_sequences=True),
    "lstm-backwards": lambda: layers.LSTM(6, go_backwards=True),
    "lstm-no-bias": lambda: layers.LSTM(6, use_bias=False),
    "lstm-state": lambda: layers.LSTM(6, return_state=True),
    "gru": lambda: layers.GRU(6),
    "gru-sequences": lambda: layers.GRU(6, return_sequences=True),
    "gru-before": lambda: layers.GRU(6, reset_after=False),
    "rnn": lambda: layers.SimpleRNN(6),
    "rnn-relu": lambda: layers.SimpleRNN(6, activation="relu"),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(6)),
    "masked": lambda: Sequential([layers.Masking(), layers.LSTM(6)]),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_operators_against_float64(name):
    layer = RECURRENT[name]().to(CARD)
    x = torch.randn(5, 9, 4, device=CARD)
    x[1, 4:] = x[3, 2:] = 0
    layer(x)
    exact = _double(RECURRENT[name](), layer)
    found = []
    for each, data in ((layer, x), (exact, x.cpu().double())):
        data = data.clone().requires_grad_()
        outputs = each(data)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        sum(
            (out * torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)).sum() for out in outputs
        ).backward()
        gradients = [weight.grad for weight in each.parameters()]
        found.append([value.detach().cpu().double() for value in (*outputs, data.grad, *gradients)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4)


def _double(layer, like):
    layer(torch.zeros(1, 9, 4))
    layer.double().load_state_dict({name: value.double().cpu() for name, value in like.state_dict().items()})
    return layer


# Precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("make", [dense, softmax, images, lstm, attention, several])
def test_mixed_precision_learns_as_single_does(make, precision):
    if precision == "16-mixed" and not ON_CARD:
        pytest.skip("half precision is a card's")
    single, x, y = compiled(make, jit_compile=False)
    mixed, _, _ = compiled(make, precision=precision, jit_compile=False)
    same_weights(single, mixed)
    runs = [
        each.fit(x, y, batch_size=16, epochs=4, shuffle=False, verbose=0).history["loss"] for each in (single, mixed)
    ]
    assert all(weight.dtype == torch.float32 for weight in mixed.parameters())
    np.testing.assert_allclose(*runs, rtol=0.06, atol=0.02)


# Data ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS)
def test_every_row_is_seen_once_an_epoch(make):
    """Arrays that stay on the card are shuffled there."""
    model, x, y = compiled(make, jit_compile=False, optimizer=optimizers.SGD(0.0))
    history = model.fit(x, y, batch_size=16, epochs=2, shuffle=True, verbose=0).history["loss"]
    if make not in (images, torch_modules):
        assert history[0] == pytest.approx(
            model.evaluate(x, y, batch_size=48, verbose=0, return_dict=True)["loss"], rel=1e-3
        )
    assert history[0] == pytest.approx(history[1], rel=0.05)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("jit", [False, True])
def test_loaders_are_prefetched_and_right(workers, pinned, jit):
    if pinned and not ON_CARD:
        pytest.skip("pinning memory needs a card")
    model, x, y = compiled(dense, jit_compile=jit)
    other, _, _ = compiled(dense, jit_compile=False)
    same_weights(model, other)
    loader = DataLoader(
        TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=16, num_workers=workers, pin_memory=pinned
    )
    a = model.fit(loader, epochs=2, verbose=0).history["loss"]
    b = other.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(a, b, rtol=1e-3)


@needs_card
@pytest.mark.parametrize("make", MODELS)
def test_no_step_of_a_hundred_waits_for_the_card(make):
    model, x, y = compiled(make, jit_compile=False)
    model.fit(x, y, batch_size=8, verbose=0)

    class Watch(callbacks.Callback):
        defers_logs = True

        def on_train_batch_end(self, batch, logs=None):
            torch.cuda.set_sync_debug_mode("error" if batch < 98 else "default")

    repeat = 17
    x = {k: np.concatenate([v] * repeat) for k, v in x.items()} if isinstance(x, dict) else np.concatenate([x] * repeat)
    y = {k: np.concatenate([v] * repeat) for k, v in y.items()} if isinstance(y, dict) else np.concatenate([y] * repeat)
    try:
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[Watch()])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_card
def test_running_out_of_memory_names_layer_and_batch():
    inputs = Input((1024,))
    x = layers.Dense(1 << 16, name="vast")(inputs)
    model = Model(inputs, layers.Dense(1)(x))
    model.compile("sgd", "mse", device=CARD)
    total = torch.cuda.get_device_properties(0).total_memory
    rows = int(total / 4 / (1 << 16)) * 2
    with pytest.raises(torch.OutOfMemoryError) as caught:
        model.fit(np.ones((rows, 1024), np.float32), np.ones((rows, 1), np.float32), batch_size=rows, verbose=0)
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert re.search(r"batch", text)
    assert "vast" in text
    model.predict(np.ones((2, 1024), np.float32), verbose=0)


def test_metrics_move_to_the_card_in_place():
    metric = metrics.MeanSquaredError()
    metric.update_state(torch.zeros(2, 1), torch.ones(2, 1))
    before = metric.variables
    assert metric.to(CARD) is metric
    assert all(a is b for a, b in zip(metric.variables, before, strict=True))
    assert {variable.device.type for variable in before} == {CARD.type}
    metric.update_state(torch.zeros(2, 1, device=CARD), torch.full((2, 1), 3.0, device=CARD))
    assert metric.result().item() == 5.0


@pytest.mark.parametrize("make", MODELS)
def test_evaluate_and_predict_on_the_card_are_those_on_the_cpu(make):
    model, x, y = compiled(make, jit_compile=False)
    other, _, _ = compiled(make, "cpu", jit_compile=False)
    same_weights(model, other)
    a, b = (each.evaluate(x, y, batch_size=11, verbose=0, return_dict=True) for each in (model, other))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=2e-3, atol=1e-4)
    p, q = (each.predict(x, batch_size=11, verbose=0) for each in (model, other))
    for one, two in zip(*((list(r.values()) if isinstance(r, dict) else [r]) for r in (p, q)), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-3, atol=2e-4)


@needs_card
def test_a_model_read_onto_a_card_is_there_once(tmp_path):
    x = Input((2048,))
    model = Model(x, nn.Linear(4096, 2048)(layers.Dense(4096)(x)))
    model.save(tmp_path / "model.torchfunc")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    again = load_model(tmp_path / "model.torchfunc", device=CARD)
    size = sum(weight.nbytes for weight in model.weights)
    assert torch.cuda.max_memory_allocated() - before <= 1.05 * size
    for weight, other in zip(model.weights, again.weights, strict=True):
        assert other.device.type == "cuda"
        assert torch.equal(weight, other.cpu())
