"""How far a batch travels: Python calls of one eager step, and how often a fit looks a loss's name up."""

import sys

import numpy as np
import torch

from torchfunc import Input, Model, layers, losses
from torchfunc.callbacks.callback_list import BatchHooks
from torchfunc.layers.base.losses import LossHolder
from torchfunc.losses import catalogue


class Counter:
    """Counts between the begin and the end hook of one batch.

    A call is that of a Python function, torch's own and generated code included (comprehensions and steps of generators
    count as Python's profiler sees them). A move is a call whose callee stands in another file than its caller.
    """

    def __init__(self):
        self.calls = self.moves = 0

    def profile(self, frame, event, argument):
        if event == "call":
            self.calls += 1
            self.moves += frame.f_code.co_filename != frame.f_back.f_code.co_filename

    def watch(self, monkeypatch, batch):
        """Count in this batch. The call of the end hook itself is taken off."""
        begin, end = BatchHooks.begin, BatchHooks.end

        def begin_and_count(hooks, number):
            begin(hooks, number)
            if number == batch:
                sys.setprofile(self.profile)

        def count_and_end(hooks, number, read_logs):
            if number == batch:
                sys.setprofile(None)
                self.calls -= 1
                self.moves -= 1
            end(hooks, number, read_logs)

        monkeypatch.setattr(BatchHooks, "begin", begin_and_count)
        monkeypatch.setattr(BatchHooks, "end", count_and_end)


def test_calls_of_one_eager_batch(monkeypatch):
    # Another test's layer may have added a loss, after which calls forget what earlier ones have added.
    monkeypatch.setattr(LossHolder, "adds_losses", False)
    inputs = Input((4,))
    model = Model(inputs, layers.Dense(3)(inputs))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False, device="cpu")
    counter = Counter()
    counter.watch(monkeypatch, 5)
    model.fit(torch.rand(64, 4), torch.randint(0, 3, (64,)), batch_size=8, verbose=0)
    assert 0 < counter.calls <= 120
    assert 0 < counter.moves <= 60


def test_one_fit_looks_a_loss_up_once(monkeypatch):
    looked_up = []
    get = catalogue._FAMILY.get
    monkeypatch.setattr(catalogue._FAMILY, "get", lambda identifier: looked_up.append(identifier) or get(identifier))
    inputs = Input((4,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse", metrics=["accuracy"])
    model.fit(np.zeros((8, 4)), np.zeros((8, 1)), epochs=2, validation_split=0.5, verbose=0)
    assert looked_up == ["mse"]
