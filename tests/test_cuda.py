"""What only a card shows. `CARD=cpu pytest tests/test_cuda.py` runs what a CPU can of it, to see that it works."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch
from cuda_models import MODELS, ROWS, attention, dense, images, lstm, masked, several, softmax, torch_modules
from torch import nn
from torch.utils.data import DataLoader, Dataset

from torchfunc import Input, Model, Sequential, callbacks, layers, metrics, optimizers
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
        if batch == 4:
            self.model.load_state_dict({name: 0.9 * value for name, value in self.model.state_dict().items()})


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


class Rows(Dataset):
    """The rows of arrays, or of dicts of arrays."""

    def __init__(self, *data):
        self.data = data

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        return tuple(
            {k: v[row] for k, v in each.items()} if isinstance(each, dict) else each[row] for each in self.data
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize(
    ("make", "jit"),
    [(dense, False), (dense, True), (images, False), (masked, False), (several, False), (several, True)],
)
def test_loaders_are_prefetched_and_right(make, workers, pinned, jit):
    if pinned and not ON_CARD:
        pytest.skip("pinning memory needs a card")
    model, x, y = compiled(make, jit_compile=jit)
    other, _, _ = compiled(make, jit_compile=False)
    same_weights(model, other)
    loader = DataLoader(Rows(x, y), batch_size=16, num_workers=workers, pin_memory=pinned)
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


# Layers of which a row of 1024 numbers makes 256 kB.
VAST = {
    "dense": lambda: layers.Dense(1 << 16, name="vast"),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 1024)), nn.Conv1d(1, 64, 1)),
    "upsampling": lambda: Sequential([layers.Reshape((1024, 1)), layers.UpSampling1D(64)]),
    "repeated": lambda: layers.RepeatVector(64, name="vast"),
    "padding": lambda: layers.Lambda(lambda x: nn.functional.pad(x, (0, 63 << 10)), name="vast"),
}


@needs_card
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
@pytest.mark.parametrize("kind", VAST)
def test_running_out_of_memory_names_layer_and_batch(kind, method):
    layer = VAST[kind]()
    inputs = Input((1024,))
    model = Model(inputs, layers.GlobalAveragePooling1D()(layers.Reshape((-1, 1024))(layer(inputs))))
    model.compile("sgd", "mse", device=CARD, jit_compile=False)
    model = Model(inputs, layers.Dense(1)(model(inputs)))
    model.compile("sgd", "mse", device=CARD, jit_compile=False)
    # Less than the card has, for what others do on it meanwhile.
    memory = 3 << 30
    rows = 2 * memory // (1 << 18)
    x, y = np.ones((rows, 1024), np.float32), np.ones((rows, 1), np.float32)
    options = {} if method.endswith("batch") else {"batch_size": rows, "verbose": 0}
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(memory / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(torch.OutOfMemoryError) as caught:
            getattr(model, method)(x, y, **options)
        text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert re.search(r"try batch_size=\d+", text)
        assert "in layer" in text or "in the call" in text or "vast" in text
        model.predict(x[:2], verbose=0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# Masks ---------------------------------------------------------------------------------------------------------------

MASKED = {
    "lstm": lambda x: layers.LSTM(5)(x),
    "lstm-sequences": lambda x: layers.LSTM(5, return_sequences=True)(x),
    "gru": lambda x: layers.GRU(5)(x),
    "gru-sequences": lambda x: layers.GRU(5, return_sequences=True)(x),
    "rnn": lambda x: layers.SimpleRNN(5)(x),
    "backwards": lambda x: layers.LSTM(5, go_backwards=True)(x),
    "bidirectional": lambda x: layers.Bidirectional(layers.GRU(5))(x),
    "stacked": lambda x: layers.GRU(5)(layers.LSTM(5, return_sequences=True)(x)),
    "dense": lambda x: layers.Dense(5)(x),
    "time-distributed": lambda x: layers.TimeDistributed(layers.Dense(5))(x),
    "pooling": lambda x: layers.GlobalAveragePooling1D()(x),
    "attention": lambda x: layers.MultiHeadAttention(2, 3)(x, x),
    "cell": lambda x: layers.RNN(layers.LSTMCell(5))(x),
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_on_the_card_are_those_on_the_cpu(name):
    def make():
        inputs = Input((9,), dtype="int64")
        model = Model(inputs, MASKED[name](layers.Embedding(20, 6, mask_zero=True)(inputs)))
        tokens = np.random.default_rng(1).integers(1, 20, size=(ROWS, 9))
        tokens[np.arange(9) >= np.arange(ROWS)[:, None] % 8 + 2] = 0
        return model, tokens, np.zeros((ROWS, *model.output_shape[1:]), np.float32), "mse"

    _check_beside_cpu(make, {})


# Several inputs and outputs, by name ---------------------------------------------------------------------------------

DICTS = {
    "plain": {},
    "loss-weights": {"loss_weights": {"first": 2.0, "second": 0.1}},
    "metrics": {"metrics": {"second": ["accuracy"]}},
    "several-metrics": {"metrics": {"first": ["mae", "mse"], "second": ["accuracy", "auc"]}},
    "weighted-metrics": {"weighted_metrics": {"first": ["mae"], "second": None}},
    "other-losses": {"loss": {"first": "huber", "second": "kl_divergence"}},
    "rmsprop": {"optimizer": "rmsprop"},
    "clipped": {"optimizer": optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5)},
    "several-at-once": {"steps_per_execution": 3},
    "compiled": {"jit_compile": True},
    "compiled-several-at-once": {"jit_compile": True, "steps_per_execution": 3},
}


@pytest.mark.parametrize("name", DICTS)
def test_dicts_on_the_card_are_those_on_the_cpu(name):
    _check_beside_cpu(several, DICTS[name])


def _check_beside_cpu(make, settings):
    """Train a model there and here, and compare what they log and predict, and their weights."""
    found, settings = [], {"optimizer": "adam", "jit_compile": False, **settings}
    for device in (CARD, torch.device("cpu")):
        torch.manual_seed(0)
        model, x, y, loss = make()
        model.to(device)
        if found:
            same_weights(found[0][0], model)
        start = {key: value.clone() for key, value in model.state_dict().items()}
        given = dict(settings)
        if not isinstance(given["optimizer"], str):
            given["optimizer"] = optimizers.SGD.from_config(given["optimizer"].get_config())
        # Without a card there is nothing to compile for, and this must not depend on a compiler.
        given["jit_compile"] = given["jit_compile"] and device.type == "cuda"
        model.compile(**{"loss": loss, **given})
        found.append((model, start, x, y))
    (there, start, x, y), (here, *_) = found
    there.load_state_dict(start)
    logs = [each.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history for each in (there, here)]
    assert logs[0].keys() == logs[1].keys()
    for key in logs[0]:
        np.testing.assert_allclose(logs[0][key], logs[1][key], rtol=5e-3, atol=1e-3)
    assert_close(there, here, rtol=2e-2, atol=2e-3)


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
