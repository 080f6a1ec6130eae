"""Graphs that another process prepares: training goes on eagerly meanwhile, and then finds the graph on disk."""

import contextlib
import os
import pathlib
import pickle
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch

import torchfunc
from torchfunc import callbacks, config, layers, losses, optimizers, schedules
from torchfunc.models import Model, Sequential
from torchfunc.training import compiled_step, waiting
from torchfunc.training.compile_request import compile_request
from torchfunc.training.dataless import dump_dataless, load_dataless

ROWS, BATCH = 64, 8
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, 6))
LABELS = RNG.integers(0, 3, ROWS)

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function"),
]


@pytest.fixture(autouse=True)
def at_any_step():
    config.set_reproducible(False)
    yield
    waiting.Preparation.stop()


def classifier(*more, **settings):
    torch.manual_seed(0)
    hidden = inputs = layers.Input((6,))
    for layer in more:
        hidden = layer(hidden)
    model = Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile(
        "sgd", "sparse_categorical_crossentropy", **{"metrics": ["accuracy"], "jit_compile": True, **settings}
    )
    return model


def fit(model, epochs=1, **arguments):
    torch.manual_seed(1)
    return model.fit(X, LABELS, batch_size=BATCH, epochs=epochs, verbose=0, **arguments).history


class Process:
    """Stands for the other process: remembers requests, and is ready when the test says so."""

    begun: list = []
    is_running = has_succeeded = True

    def __init__(self, request):
        self.request = request
        self.was_stopped = False
        self.begun.append(self)

    def stop(self):
        self.was_stopped, self.is_running = True, False

    is_possible = staticmethod(lambda: True)


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(Process, "begun", [])
    monkeypatch.setattr(waiting, "CompilerProcess", Process)
    monkeypatch.setattr(waiting, "load_compiler", lambda: iter([None, None]))
    return Process.begun


class Watches(callbacks.Callback):
    """Notes after each batch how many graphs there are; the other process is ready after so many batches."""

    def __init__(self, processes=(), ready_after=None):
        super().__init__()
        self.seen = []
        self.processes, self.ready_after = processes, ready_after

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(graphs(self.model))
        if len(self.seen) == self.ready_after:
            self.processes[-1].is_running = False


def graphs(model, method="train_step"):
    return sum(step.graphs for step in model._training_settings.graphs[method].values())


@pytest.fixture
def at_once(monkeypatch):
    """Graphs that cost nothing: the step itself."""
    monkeypatch.setattr(compiled_step, "compile_whole", lambda step, *_: step)


@pytest.mark.usefixtures("at_once")
class TestWhen:
    def test_training_goes_on_until_the_graph_is_there(self, processes):
        model, watches = classifier(), Watches(processes, ready_after=6)
        fit(model, epochs=2, callbacks=[watches])
        # Two more are for importing the compiler.
        assert watches.seen == [0] * 8 + [1] * 8
        assert len(processes) == 1
        assert (processes[0].request.method, processes[0].request.niceness) == ("train_step", 0)

    def test_a_short_training_begins_no_process(self, processes):
        model, watches = classifier(), Watches()
        fit(model, steps_per_epoch=4, callbacks=[watches])
        assert watches.seen == [0] * 4
        assert not processes
        fit(model)
        assert len(processes) == 1

    @pytest.mark.parametrize("how", ["seed", "flag", "deterministic", "impossible", "own code", "no process"])
    def test_the_second_step_waits(self, processes, monkeypatch, how):
        own = []
        if how == "seed":
            torchfunc.utils.set_random_seed(0)
        elif how == "flag":
            config.set_reproducible(True)
        elif how == "deterministic":
            torch.use_deterministic_algorithms(True)
        elif how == "impossible":
            monkeypatch.setattr(Process, "is_possible", lambda: False)
        elif how == "own code":
            own = [layers.Lambda(lambda x: x)]
        else:

            def fails(*_):
                raise OSError

            monkeypatch.setattr(waiting, "CompilerProcess", fails)
            fails.is_possible = lambda: True
        watches = Watches()
        try:
            fit(classifier(*own), callbacks=[watches])
        finally:
            torch.use_deterministic_algorithms(False)
        assert watches.seen == ([0] * 4 + [1] * 4 if how == "no process" else [0] + [1] * 7)
        assert not processes

    def test_one_process_at_a_time(self, processes):
        one, other = classifier(), classifier()
        fit(one)
        fit(other)
        assert len(processes) == 1
        processes[0].is_running = False
        fit(other)
        assert len(processes) == 2
        assert graphs(other) == 0
        fit(one)
        assert graphs(one) == 1

    def test_validation_has_its_own(self, processes):
        model, watches = classifier(), Watches(processes, ready_after=5)
        fit(model, epochs=2, callbacks=[watches], validation_data=(X, LABELS), validation_batch_size=BATCH)
        assert [process.request.method for process in processes] == ["train_step", "test_step"]
        assert (graphs(model), graphs(model, "test_step")) == (1, 0)

    def test_what_is_left_over_of_an_epoch_asks_for_nothing(self, processes):
        model = classifier()
        torch.manual_seed(1)
        model.fit(X[:-3], LABELS[:-3], batch_size=BATCH, epochs=9, verbose=0)
        assert len(processes) == 1
        processes[0].is_running = False
        model.fit(X[:-3], LABELS[:-3], batch_size=BATCH, epochs=9, verbose=0)
        assert len(processes) == 1
        assert graphs(model) == 1

    def test_kinds_that_wait_count(self):
        waits = {"is over": False}
        step = compiled_step.CompiledStep(lambda data: None, "It", True, False, wait=lambda: lambda _: waits["is over"])
        kinds = [torch.zeros(2, 1 + length) for length in range(compiled_step.MAX_GRAPHS + 3)]
        step(kinds[0])
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for kind in kinds * 2:
                step(kind)
                step(kind[:1])
        assert step.graphs == 0
        assert ["more than 8 kinds" in str(each.message) for each in told] == [True]
        waits["is over"] = True
        for kind in kinds * 2:
            step(kind)
        assert step.graphs == 8

    def test_an_error_ends_it(self, processes):
        class Interrupts(callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 6:
                    raise KeyboardInterrupt

        model = classifier()
        with pytest.raises(KeyboardInterrupt):
            fit(model, callbacks=[Interrupts()])
        assert processes[0].was_stopped
        fit(model)
        assert len(processes) == 2
        assert graphs(model) == 0

    @pytest.mark.parametrize(("jit", "share", "asked"), [("auto", 1e9, 1), ("payback", 1e9, 1), ("auto", 0.0, 0)])
    def test_to_pay_off(self, processes, monkeypatch, jit, share, asked):
        monkeypatch.setattr(torchfunc.training.payback, "_RISK", share)
        watches = Watches(processes, ready_after=40)
        model = classifier(jit_compile=jit)
        fit(model, epochs=10, callbacks=[watches] if asked else [])
        assert [process.request.niceness for process in processes] == [10] * asked
        assert graphs(model) == asked

    def test_a_reproducible_training_is_not_timed(self, processes, monkeypatch):
        monkeypatch.setattr(torchfunc.training.payback, "_RISK", 1e9)
        config.set_reproducible(True)
        model = classifier(jit_compile="auto")
        fit(model, epochs=10)
        assert not model._training_settings.graphs


@pytest.mark.parametrize("jit", [True, "payback"])
def test_where_the_other_process_fails_so_it_is_told_here(processes, monkeypatch, jit):
    def fails(*_):
        raise OSError("Read-only file system")

    monkeypatch.setattr(waiting, "load_compiler", fails)
    monkeypatch.setattr(compiled_step, "compile_by_content", fails)
    monkeypatch.setattr(torchfunc.training.payback, "_RISK", 1e9)
    monkeypatch.setattr(Process, "has_succeeded", False)
    monkeypatch.setattr(Process, "is_running", False)
    told = r"training step of model 'functional' .*Read-only file system.*jit_compile=False"
    with pytest.raises(ValueError, match=told) if jit is True else pytest.warns(UserWarning, match=told) as told:
        fit(classifier(jit_compile=jit), epochs=8)
    assert len(processes) == 1


class Found(Exception):
    """The name was made under which a graph is cached."""


def recurrent():
    words = layers.Input((5,), dtype="int32")
    hidden = layers.LSTM(3)(layers.Embedding(9, 4, mask_zero=True)(words))
    return Model(words, layers.Dense(3, activation="softmax")(hidden)), RNG.integers(0, 9, (ROWS, 5))


def mixed():
    inputs = layers.Input((6,))
    hidden = layers.Dropout(0.2)(layers.BatchNormalization()(torch.nn.Linear(6, 4)(inputs)))
    hidden = torch.tanh(hidden) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    return Model(inputs, layers.Dense(3, activation="softmax", kernel_regularizer="l2")(hidden)), X


def attentive():
    tokens = layers.Input((3, 2))
    hidden = layers.LayerNormalization()(tokens + layers.MultiHeadAttention(2, 2)(tokens, tokens))
    return Model(tokens, layers.Dense(3, activation="softmax")(layers.Flatten()(hidden))), X.reshape(ROWS, 3, 2)


RATE = {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.9}


@pytest.mark.parametrize(
    ("make", "method", "settings"),
    [
        (recurrent, "fit", {"optimizer": lambda: optimizers.Adam(schedules.ExponentialDecay(**RATE), clipnorm=1.0)}),
        (mixed, "fit", {"precision": "bf16-mixed", "optimizer": lambda: optimizers.SGD(0.1, momentum=0.9)}),
        (mixed, "evaluate", {"optimizer": lambda: "rmsprop"}),
        (attentive, "fit", {"optimizer": lambda: optimizers.RMSprop(use_ema=True), "steps_per_execution": 2}),
    ],
)
def test_both_processes_name_a_graph_alike(processes, monkeypatch, make, method, settings):
    """By what the compiler finds it on disk. (Here, the other process is this one.)"""
    caches = pytest.importorskip("torch._functorch._aot_autograd.autograd_cache")
    name_of, names = caches.autograd_cache_key, []

    def note(*arguments, **settings):
        names.append(name_of(*arguments, **settings)[0])
        raise Found

    monkeypatch.setattr(caches, "autograd_cache_key", note)
    monkeypatch.setattr(waiting, "load_compiler", lambda: iter(()))
    monkeypatch.setattr(Process, "is_running", False)
    model, x = make()
    model.compile(
        **{**settings, "optimizer": settings["optimizer"]()},
        loss=losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=True,
    )
    with pytest.raises(Found):
        getattr(model, method)(np.tile(x, (2, *[1] * (x.ndim - 1))), np.tile(LABELS, 2), batch_size=BATCH, verbose=0)
    with pytest.raises(Found):
        compile_request(pickle.loads(pickle.dumps(processes[0].request)))
    assert len(names) == 2
    assert names[0] == names[1]


def test_no_data_cross():
    model = Sequential([layers.Input((100,)), layers.Dense(500, name="wide")])
    weight = model.get_layer("wide").weight
    dump = dump_dataless((model, weight, weight.detach()[1:].T))
    assert len(dump) < weight.nbytes / 20
    other, same, view = load_dataless(dump)
    assert other.get_layer("wide").weight is same
    assert (view.shape, view.stride()) == ((100, 499), (1, 100))
    assert view.untyped_storage().data_ptr() == same.untyped_storage().data_ptr()
    assert not same.any()


@pytest.mark.parametrize("value", [Found, classifier, lambda: 1, {"nested": [Process]}])
def test_no_code_of_the_users_crosses(value):
    """Another process would have to import it, and so to run whatever stands beside it."""
    with pytest.raises(pickle.PicklingError, match=r"is not torchfunc's or torch's"):
        dump_dataless(value)


@pytest.mark.slow
def test_another_process_makes_the_graph_that_this_one_uses():
    """In a process of its own, since torch's caches heed much that other tests change."""
    command = [sys.executable, "-W", "ignore", pathlib.Path(__file__).with_name("prepared_graph.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


ORPHAN = """
import os, signal, sys
from torchfunc.training.compiler_process import CompilerProcess, Request

process = CompilerProcess(Request.make(b"", "train_step", 1, 0))
print(process.number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def is_there(number):
    """Whether it runs: one that has ended may be listed until its parent, the first process of all, looks."""
    with contextlib.suppress(OSError):
        os.kill(number, 0)
        listed = f"/proc/{number}/stat"
        if not os.path.exists(listed):
            return True
        with open(listed, encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_it_ends_with_the_process_that_began_it():
    ran = subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, check=False)
    number = int(ran.stdout)
    until = time.monotonic() + 100
    while is_there(number) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_there(number)
