"""`compile(remat=...)`: the numbers are those of a training that keeps all, and it keeps less.

What a model without `remat` computes is the reference throughout; that it is right is tested elsewhere.
"""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from peak_memory import Peak
from torch import nn

from torchfunc import Input, Model, Sequential, callbacks, layers, metrics, optimizers, random
from torchfunc.models import load_model
from torchfunc.utils import set_random_seed


class Noise(layers.Layer):
    """Draws from a generator of torch's that is its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = torch.Generator().manual_seed(3)

    def call(self, inputs):
        return inputs + torch.rand(inputs.shape, generator=self.generator, dtype=inputs.dtype).to(inputs.device)


class Counting(layers.Layer):
    """Adds a loss and a metric, and keeps an average of its own that it also computes with."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = metrics.Sum(name="seen")
        self.average = self.add_weight(shape=(), initializer="zeros", trainable=False, name="average")

    def call(self, inputs):
        self.add_loss(0.1 * inputs.square().mean())
        self.seen.update_state(torch.ones(()))
        with torch.no_grad():
            self.average.lerp_(inputs.mean(), 0.5)
        return torch.tanh(inputs * (1 + self.average.detach().clone()))


class Block(layers.Layer):
    """A block with layers in it, which returns a dict."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(units, activation="gelu"), layers.Dense(units)
        self.drop = layers.Dropout(0.3, seed=4)

    def call(self, inputs, training=None):
        hidden = self.first(inputs)
        return {"out": inputs + self.second(self.drop(hidden)), "size": hidden.abs().mean(-1, keepdim=True)}


class Stack(Model):
    """A model with a `call` of its own."""

    def __init__(self, count=3):
        super().__init__()
        self.blocks = [Block(8) for _ in range(count)]
        self.noise, self.head = Noise(), layers.Dense(3)

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(self.noise(inputs))["out"]
        return self.head(inputs)


def everything(noise=Noise):
    """All that may go wrong in one graph: shared and nested, random and stateful, dicts, masks, many inputs."""
    tokens, table = Input((5,), dtype="int64", name="tokens"), Input((8,), name="table")
    words = layers.Embedding(11, 8, mask_zero=True)(tokens)
    read = layers.LSTM(8)(layers.Dropout(0.2)(words))
    shared, normalize = layers.Dense(8, activation="relu"), layers.BatchNormalization()
    x = normalize(shared(table)) + normalize(shared(read))
    x = noise()(Counting(activity_regularizer="l2")(layers.Reshape((2, 4))(x)))
    inner = Input((2, 4))
    flat = layers.Flatten()(layers.GaussianNoise(0.1, seed=7)(layers.Conv1D(4, 2, padding="same")(inner)))
    nested = Model(inner, {"flat": flat, "more": layers.Dense(2, activation="sigmoid")(flat)}, name="nested")
    found = nested(x)
    x = Block(8)(found["flat"])
    x = layers.SpectralNormalization(layers.Dense(8))(layers.Concatenate()([x["out"], x["size"], found["more"]]))
    x = random.dropout(x, 0.3) * x.size(0)
    named = {"kind": layers.Dense(3, activation="softmax", name="kind")(x), "sign": layers.Dense(1, name="sign")(x)}
    return Model([tokens, table], named)


def data(rows=12):
    rng = np.random.default_rng(0)
    x = {"tokens": rng.integers(0, 11, (rows, 5)), "table": rng.normal(size=(rows, 8))}
    return x, {"kind": rng.integers(0, 3, rows), "sign": rng.normal(size=(rows, 1))}


LOSSES = {"kind": "sparse_categorical_crossentropy", "sign": "mse"}


def trained(make, x, y, loss, jit=False, epochs=2, **settings):
    set_random_seed(1)
    model = make().double()
    model.compile(optimizers.SGD(0.01), loss, jit_compile=jit, device="cpu", **settings)
    model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    return model


def assert_equal(model, reference, tolerance=0.0):
    logs, expected = model.history.history, reference.history.history
    assert list(logs) == list(expected)
    for name in expected:
        # (They are counted in single precision.)
        np.testing.assert_allclose(logs[name], expected[name], rtol=tolerance and 1e-6)
    for (key, value), other in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance, msg=lambda text, key=key: key + text)


@pytest.fixture(scope="module")
def reference():
    return trained(everything, *data(), LOSSES)


# (A second pass scales the weight that SpectralNormalization has scaled by 1, up to rounding.)
CHOICES = {"auto": ("auto", 0.0), "some": (["nested", Block, "lstm"], 0.0), "all": ([layers.Layer], 1e-12)}


@pytest.mark.parametrize("choice", CHOICES)
def test_numbers_are_those_of_one_pass(reference, choice):
    remat, tolerance = CHOICES[choice]
    model = trained(everything, *data(), LOSSES, remat=remat)
    assert_equal(model, reference, tolerance)


def small(count=2):
    model = Sequential([Input((8,))])
    for _ in range(count):
        model.add(layers.Dense(8, activation="gelu"))
    for layer in (layers.Dropout(0.3), layers.Dropout(0.2, seed=3), layers.BatchNormalization()):
        model.add(layer)
    model.add(layers.ActivityRegularization(0.1))
    return model


@pytest.mark.usefixtures("traced")
def test_compiled_steps_recompute_in_one_graph():
    x = y = data()[0]["table"]
    reference = trained(small, x, y, "mse")
    model = trained(small, x, y, "mse", jit=True, remat=[layers.Layer])
    assert_equal(model, reference, 1e-10)
    graph = model._training_settings.only_graph("train_step")
    assert graph.graphs == 1
    with torch.profiler.profile() as found:
        model.fit(x[:4], y[:4], batch_size=4, verbose=0)
    products = [event for event in found.events() if event.name in ("aten::addmm", "aten::mm")]
    # Two forward and three backward; and both of the forward pass are made again.
    assert len(products) == 7


class Own(Stack):
    def train_step(self, data):
        x, y = data
        loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(torch.autograd.grad(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss.detach()}


def peak(model, x, y):
    model.train_on_batch(x, y)
    with Peak() as found:
        model.train_on_batch(x, y)
    return found.bytes


@pytest.mark.parametrize("make", [Stack, Own])
def test_models_with_a_call_recompute_their_blocks(make):
    x, y = np.random.default_rng(0).normal(size=(12, 8)), np.zeros((12, 3))
    reference = trained(make, x, y, "mse")
    for remat in ("auto", [Block], ["blocks.0", "blocks.1", "blocks.2"]):
        assert_equal(trained(make, x, y, "mse", remat=remat), reference)


def test_a_stack_of_24_layers_needs_half_the_memory():
    x, y = np.zeros((512, 16), "float32"), np.zeros((512, 16))

    def stack(layer=lambda: layers.Dense(16, activation="gelu")):
        return Sequential([Input((16,)), *(layer() for _ in range(24))])

    def nested():
        return Sequential([Input((16,)), Sequential([Input((16,)), stack()])])

    def wrapped():
        return Sequential([Input((16,)), layers.TorchModule(nn.Sequential(*map(torch_block, range(12))))])

    for make in (stack, nested, wrapped):
        found = []
        for remat in (None, "auto"):
            model = make()
            model.compile("sgd", "mse", remat=remat)
            found.append(peak(model, x, y))
        assert found[1] < 0.5 * found[0], (make.__name__, found)


def torch_block(_):
    return nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.LayerNorm(16))


@pytest.mark.parametrize("remat", ["auto", ["dense", layers.Dropout]])
def test_models_are_as_before_when_a_training_ends(remat, tmp_path):
    kept, models = [], [small()]

    def keep(epoch, logs):
        kept.extend([copy.deepcopy(models[0]), pickle.loads(pickle.dumps(models[0]))])

    x = np.random.default_rng(0).normal(size=(12, 8)).astype("float32")
    models[0].compile("sgd", "mse", jit_compile=False, remat=remat)
    models[0].fit(x, x, verbose=0, callbacks=[callbacks.LambdaCallback(on_epoch_end=keep)])
    expected = models[0].predict(x, verbose=0)
    for made in kept:
        np.testing.assert_array_equal(made.predict(x, verbose=0), expected)
        made.fit(x, x, verbose=0)
    assert not any("forward" in vars(module) for module in models[0].modules())
    if remat == "auto":
        models[0].save(tmp_path / "model.keras")
        assert load_model(tmp_path / "model.keras")._training_settings.execution.remat == "auto"
    gc.collect()
    gc.disable()
    try:
        reference = weakref.ref(models.pop())
        assert reference() is None
    finally:
        gc.enable()


def test_what_cannot_be_recomputed_is_named():
    model = small()
    for remat, message in (
        ("dense", "`remat` is 'auto', a list of layers, their names or classes, or None, got 'dense'"),
        (["dense_9"], "`remat` holds 'dense_9', which is no module of the model .* Did you mean 'dense_1'"),
        ([layers.Dense(3)], "which is no module of the model"),
    ):
        with pytest.raises(ValueError, match=message):
            model.compile("sgd", "mse", remat=remat)
    assert not model.compiled
    holder = Stack()
    holder.compile("sgd", "mse", remat=[type(holder.blocks)], jit_compile=False)
    with pytest.raises(ValueError, match="which is not called itself: name the layers in it"):
        holder.fit(np.zeros((4, 8)), np.zeros((4, 3)), verbose=0)
    flat = Flat()
    flat.compile("sgd", "mse", remat="auto", jit_compile=False)
    with pytest.warns(UserWarning, match="remat='auto' finds no blocks"):
        flat.fit(np.zeros((4, 8)), np.zeros((4, 3)), verbose=0)


class Flat(Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)
