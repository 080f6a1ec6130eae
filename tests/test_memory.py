"""Memory stays flat: what a step or a call takes, it gives back."""

import gc
import pathlib
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from torchfunc.layers import Dense, Dropout, Input
from torchfunc.models import Model

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 16)).astype("float32")
Y = RNG.integers(0, 3, 400)
STATUS = pathlib.Path("/proc/self/statm")
PAGE = 4096


def resident():
    return int(STATUS.read_text().split()[1]) * PAGE if STATUS.exists() else 0


def make_model():
    inputs = Input((16,))
    model = Model(inputs, Dense(3, activation="softmax", activity_regularizer="l2")(Dropout(0.1)(inputs)))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(model, steps):
    model.fit(X, Y, batch_size=8, epochs=steps // 50, verbose=0)


def predict(model, calls):
    for _ in range(calls):
        model.predict(X[:12], batch_size=8, verbose=0)


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="tells the memory of a process on Linux only")
@pytest.mark.parametrize(("work", "times"), [(fit, 1000), (predict, 300)])
def test_flat(work, times):
    model = make_model()
    tracemalloc.start()
    try:
        # Whatever is made once is there now, and known to have been made.
        work(model, times)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0], resident()
        work(model, times)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0], resident()
    finally:
        tracemalloc.stop()
    # A float kept for each step, or a batch for each call, would be more.
    assert after[0] - before[0] < 20_000
    assert after[1] - before[1] < 4_000_000


def fits(model, times):
    for _ in range(times // 4):
        model.fit(X[:32], Y[:32], 8, sample_weight=X[:32, 0] ** 2, validation_data=(X[:8], Y[:8]), verbose=0)


def fit_loader(model, times):
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), 8, shuffle=True)
    model.fit(loader, epochs=times // 50, verbose=0)


def single_batches(model, times):
    for _ in range(times):
        model.train_on_batch(X[:8], Y[:8])
        model.test_on_batch(X[:8], Y[:8])
        model.predict_on_batch(X[:8])


@pytest.mark.parametrize("work", [fits, fit_loader, single_batches])
def test_no_object_is_kept(work):
    """Quicker, since the interpreter counts its objects anyway: fewer are left than one for four steps."""
    model = make_model()
    work(model, 100)
    grown = []
    # The interpreter's own tables grow for a while, less each time; what is kept of each step grows every time alike.
    while len(grown) < 12 and min(grown, default=40) >= 40:
        gc.collect()
        before = sys.getallocatedblocks()
        work(model, 160)
        gc.collect()
        grown.append(sys.getallocatedblocks() - before)
    assert min(grown) < 40, grown
