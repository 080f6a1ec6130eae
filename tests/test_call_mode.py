"""The mode of a call, train or eval, belongs to the call: other threads do not see it, and need not."""

import copy
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchfunc import Input, Model, Sequential, layers, optimizers

THREADS, CALLS = 8, 48
X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")


class Block(layers.Layer):
    """Plain modules in a layer: called, in a list, and read."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(6)
        self.drop = nn.Dropout(0.5)
        self.more = [nn.BatchNorm1d(6), nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 6))]

    def call(self, inputs):
        x = self.drop(self.dense(inputs))
        for module in self.more:
            x = module(x)
        x = F.dropout(x, 0.5, self.drop.training)
        return self.drop.forward(x)


class Reading(nn.Module):
    """A plain module that reads its own mode and its child's, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return F.dropout(x, 0.5, self.training) if self.drop.training else x


class Subclassed(Model):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.rest = nn.Sequential(nn.Dropout(0.3), nn.BatchNorm1d(6))
        self.out = layers.Dense(2)

    def call(self, inputs, training=None):
        x = self.rest(self.block(inputs))
        return self.out(x) if training else self.out(x) + 1


def drawn(*stack):
    inputs = value = Input((6,))
    for layer in stack:
        value = layer(value)
    return Model(inputs, layers.Dense(2)(value))


def scripted(module):
    with warnings.catch_warnings():
        # torch 2.13 says that TorchScript is on its way out.
        warnings.simplefilter("ignore", DeprecationWarning)
        return layers.TorchModule(torch.jit.script(module), output_shape=(None, 6))


MODELS = {
    "own layers": lambda: drawn(layers.Dense(8), layers.Dropout(0.5), layers.BatchNormalization()),
    "torch's modules": lambda: drawn(nn.Linear(6, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.RReLU()),
    "in a container": lambda: drawn(nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6)))),
    "recurrent": lambda: drawn(layers.Reshape((3, 2)), layers.LSTM(4, dropout=0.5, recurrent_dropout=0.3)),
    "torch's recurrent": lambda: drawn(layers.Reshape((3, 2)), Recurrent(), layers.Flatten()),
    "attention": lambda: drawn(
        layers.Reshape((3, 2)), nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), layers.Flatten()
    ),
    "in a layer": lambda: drawn(Block()),
    "read by a module": lambda: drawn(Reading()),
    "nested": lambda: drawn(drawn(nn.Dropout(0.5), layers.Dropout(0.2)), Sequential([layers.Dropout(0.5)])),
    "time distributed": lambda: drawn(
        layers.Reshape((3, 2)), layers.TimeDistributed(layers.Dropout(0.5)), nn.Flatten()
    ),
    "sequential": lambda: Sequential([Input((6,)), layers.Dense(6), nn.Dropout(0.5), layers.BatchNormalization()]),
    "subclassed": Subclassed,
    "scripted": lambda: drawn(scripted(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6)))),
    "normalized weights": lambda: drawn(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.Dropout(0.5)),
}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


def buffers(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def eval_result(model):
    """What a copy of the model that is really in eval mode gives."""
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        return twin(torch.from_numpy(X)).numpy()


def watch_modes(model):
    """A function that ends the watch and returns the modes that this other thread has seen."""
    seen, stop, modules = set(), threading.Event(), list(model.modules())

    def look():
        while not stop.is_set():
            seen.update(module.training for module in modules)

    thread = threading.Thread(target=look)
    thread.start()

    def end():
        stop.set()
        thread.join()
        return seen

    return end


@pytest.mark.parametrize("kind", MODELS)
def test_threads_predict_with_a_model_in_train_mode(kind):
    torch.manual_seed(0)
    model = MODELS[kind]()
    model(X[:2])
    expected, before = eval_result(model), buffers(model)
    end = watch_modes(model)

    def work(number):
        if number % 3 == 0:
            return model.predict(X, batch_size=5, verbose=0)
        if number % 3 == 1:
            return model.predict_on_batch(X)
        with torch.no_grad():
            return model(X, training=False).numpy()

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(work, range(CALLS)))
    seen = end()
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert all(module.training for module in model.modules())
    # The code of TorchScript has no other mode than its own.
    assert seen == {True} or kind == "scripted"
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("kind", MODELS)
def test_training_is_given_to_a_model_in_eval_mode(kind):
    """`training=True` does what train mode does, buffers included, and leaves the modes."""
    torch.manual_seed(0)
    model = MODELS[kind]()
    model(X[:2])
    twin = copy.deepcopy(model).train()
    model.eval()
    torch.manual_seed(1)
    expected = twin(torch.from_numpy(X))
    torch.manual_seed(1)
    torch.testing.assert_close(model(torch.from_numpy(X), training=True), expected)
    assert not any(module.training for module in model.modules())
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(one, other)


def in_threads(count, function):
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda _: function(), range(count)))


def test_predictions_beside_a_fit():
    """800 predictions of one model in train mode while another thread trains it, at a learning rate of 0."""
    model = drawn(layers.Dropout(0.5), nn.Dropout(0.5))
    model.compile(optimizers.SGD(0.0), "mse", jit_compile=False)
    expected, stop = eval_result(model), threading.Event()

    def train():
        while not stop.is_set():
            losses.append(model.fit(X, np.zeros((24, 2)), batch_size=6, epochs=2, verbose=0).history["loss"])

    losses = []
    thread = threading.Thread(target=train)
    thread.start()
    results = in_threads(800, lambda: model(X, training=False).detach().numpy())
    stop.set()
    thread.join()
    assert len(losses) > 0
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    # With dropout on all the time.
    assert np.mean(losses) > np.mean(expected**2) * 1.1
    assert model.training


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_ends_with_a_call_that_fails(training):
    class Failing(layers.Layer):
        def call(self, inputs, training=None):
            if inputs.shape[0] == 3:
                raise RuntimeError("three rows")
            return inputs * (2 if training else 1)

    model = drawn(Failing(), nn.Dropout(0.5)).train(not training)
    with pytest.raises(RuntimeError, match="three rows"):
        model(X[:3], training=training)
    with pytest.raises(RuntimeError, match="three rows"):
        model.predict(X[:3], verbose=0)
    assert {module.training for module in model.modules()} == {not training}
    assert model.get_layer("dropout").training is not training


def test_a_mode_within_a_mode():
    """The inner call's mode holds for what it calls, and no longer."""
    inner = Sequential([Input((6,)), nn.Dropout(0.5)])

    class Outer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.drop, self.inner = nn.Dropout(0.5), inner

        def call(self, inputs):
            seen.append((self.training, self.drop.training, self.inner.training))
            x = self.inner(inputs, training=True)
            seen.append((self.training, self.drop.training, self.inner.training))
            return self.drop(x)

    seen = []
    layer = Outer()
    result = layer(torch.ones(50, 6), training=False)
    assert seen == [(False, False, False)] * 2
    assert set(result.unique().tolist()) == {0, 2}
    assert layer.training


def test_modules_outside_of_the_model_keep_their_modes():
    teacher = nn.Dropout(0.5)

    class Student(layers.Layer):
        def call(self, inputs):
            return inputs, teacher(inputs)

    inputs = Input((6,))
    own, others = Model(inputs, Student()(inputs)).predict(np.ones((40, 6)), verbose=0)
    assert (own == 1).all()
    assert (others == 0).any()


def test_a_step_may_switch_modules_for_its_run():
    """Dropout at prediction, as it is written in torch: no other thread sees it, and it ends with the run."""

    class MonteCarlo(Model):
        def predict_step(self, data):
            for module in self.modules():
                if isinstance(module, nn.Dropout):
                    module.train()
            assert not self.training
            return super().predict_step(data)

    inputs = Input((6,))
    model = MonteCarlo(inputs, layers.Dropout(0.5)(nn.Dropout(0.5)(inputs))).eval()
    end = watch_modes(model)
    assert set(np.unique(model.predict(np.ones((50, 6)), verbose=0))) == {0, 2}
    assert end() == {False}
    assert not any(module.training for module in model.modules())


def test_modules_that_refuse_a_mode():
    """A `train` of its own is heeded, as `model.eval()` would."""

    class Always(nn.Dropout):
        def train(self, mode=True):
            return super().train(True)

    class Frozen(layers.Layer):
        def train(self, mode=True):
            return super().train(False)

        def call(self, inputs, training=None):
            return inputs * 10 if training else inputs

    model = drawn_as_it_is(Always(0.5), Frozen().eval())
    assert set(np.unique(model.predict(np.ones((50, 6)), verbose=0))) == {0, 2}
    assert set(np.unique(model(np.ones((50, 6)), training=True))) == {0, 2}


def drawn_as_it_is(*stack):
    inputs = value = Input((6,))
    for layer in stack:
        value = layer(value)
    return Model(inputs, value)


def test_hooks_get_the_module_and_its_mode():
    seen = []
    model = drawn_as_it_is(nn.Dropout(0.5))
    dropout = model.layers[-1]
    dropout.register_forward_hook(lambda module, args, output: seen.append((module, module.training)))
    model.predict(X, verbose=0)
    model(X)
    assert seen == [(dropout, False), (dropout, True)]


def test_a_layer_made_in_a_call_is_in_train_mode():
    class Making(layers.Layer):
        def call(self, inputs):
            made.append(nn.Dropout(0.5))
            return inputs

    made = []
    drawn_as_it_is(Making()).predict(X, verbose=0)
    assert all(module.training for module in made)


@pytest.mark.parametrize("place", ["module", "in place", "forward", "attribute"])
def test_parts_that_torch_compile_made(place):
    """They read the modules' own flags, which are set while such a part is called."""

    class Compiled(layers.Layer):
        def __init__(self):
            super().__init__()
            inner = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 6))
            self.inner = torch.compile(inner, backend="eager") if place == "module" else inner
            if place == "in place":
                self.inner.compile(backend="eager")
            self.function = torch.compile(self.inner, backend="eager") if place == "attribute" else self.inner

        def call(self, inputs):
            return self.function(inputs)

    if place == "forward":
        Compiled.forward = torch.compile(Compiled.forward, backend="eager")
    model = drawn(Compiled(), layers.Dropout(0.5))
    weights = model.get_weights()
    expected = copies_result(weights)
    model(torch.from_numpy(X))
    for result in in_threads(24, lambda: model.predict(X, verbose=0)):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert all(module.training for module in model.modules())
    assert (model(torch.from_numpy(X)) - model(torch.from_numpy(X))).abs().max() > 1e-3


def copies_result(weights):
    model = drawn(nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 6)))
    model.set_weights(weights)
    return eval_result(model)


@pytest.mark.parametrize("build", [MODELS["in a layer"], MODELS["torch's modules"], Subclassed])
def test_a_model_compiled_by_torch(build):
    model = build()
    model(X[:2])
    compiled = torch.compile(model, backend="eager")
    x = torch.from_numpy(X)
    with torch.no_grad():
        for _ in range(2):
            expected = eval_result(model)
            np.testing.assert_allclose(compiled(x, training=False), expected, rtol=1e-4, atol=1e-5)
            assert (compiled(x, training=True) - compiled(x, training=True)).abs().max() > 1e-3
    assert all(module.training for module in model.modules())


@pytest.mark.usefixtures("traced")
def test_compiled_steps_in_threads():
    """Steps are traced one at a time, with the flags set; other threads go on in their own modes."""
    model = drawn(nn.Dropout(0.5), layers.BatchNormalization(), layers.Dropout(0.5))
    expected = eval_result(model)
    model.compile("sgd", "mse", jit_compile=True)
    for result in in_threads(24, lambda: model.predict(X, batch_size=8, verbose=0)):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert all(module.training for module in model.modules())


UNTOUCHED = """
import torch
from torch import nn
import torchfunc
from torchfunc import layers, models
model = models.Sequential([layers.Dense(3), layers.Dropout(0.5)])
model(torch.ones(2, 4))
assert "training" not in vars(nn.Module)
model(torch.ones(2, 4), training=False)
assert "training" in vars(nn.Module)
module = nn.Dropout(0.5)
assert module.training and not module.eval().training and module.__dict__["training"] is False
del module.training
try:
    module.training
except AttributeError as error:
    assert "Dropout" in str(error) and not hasattr(module, "training")
    print("fine")
"""


def test_torch_is_untouched_until_a_call_has_a_mode():
    done = subprocess.run([sys.executable, "-W", "error", "-c", UNTOUCHED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "fine"
