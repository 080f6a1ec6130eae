"""Freed memory that stays with the process while a model runs on the CPU."""

import os
import subprocess
import sys

import pytest
import torch

from torchfunc import Input, Model, callbacks, layers
from torchfunc.training import process_settings
from torchfunc.training.process_settings import retained_memory

CPU = torch.device("cpu")
needs_glibc = pytest.mark.skipif(
    process_settings._glibc() is None, reason="the allocator is not glibc's, or is set by the user"
)


# malloc.h's numbers of the two limits.
TRIM, MMAP = -1, -3
MIB = 2**20


class Allocator:
    """glibc's limits as `mallopt` sets them, and what glibc itself adapts them to at most."""

    ADAPTED = {TRIM: 64 * MIB, MMAP: 32 * MIB}

    def __init__(self):
        self.limits = dict(self.ADAPTED)
        self.changes = 0

    def mallopt(self, parameter, value):
        self.changes += 1
        if parameter == MMAP and value > 32 * MIB:
            # As an old glibc, which refuses a large threshold.
            return 0
        self.limits[parameter] = value
        return 1

    @property
    def gives_back(self):
        """Whether what a step of 40 MiB blocks frees would be returned to the system."""
        return 0 <= self.limits[TRIM] < 1024 * MIB


@pytest.fixture
def libc(monkeypatch):
    libc = Allocator()
    monkeypatch.setattr(process_settings, "_glibc", lambda: libc)
    return libc


def test_it_is_set_once_however_many_runs_there_are(libc):
    with retained_memory(CPU):
        assert not libc.gives_back
        changes = libc.changes
        with retained_memory(CPU):
            assert libc.changes == changes
        assert not libc.gives_back
        assert libc.changes == changes
    assert libc.limits == Allocator.ADAPTED


def test_a_new_glibc_does_not_map_large_blocks_one_by_one(libc, monkeypatch):
    monkeypatch.setattr(Allocator, "mallopt", lambda self, parameter, value: not self.limits.update({parameter: value}))
    with retained_memory(CPU):
        assert libc.limits[MMAP] > 500 * MIB
    assert libc.limits == Allocator.ADAPTED


def test_an_error_ends_it(libc):
    with pytest.raises(ZeroDivisionError), retained_memory(CPU):
        raise ZeroDivisionError
    assert libc.limits == Allocator.ADAPTED


def test_a_run_elsewhere_does_not_need_it(libc):
    with retained_memory(torch.device("cuda")):
        pass
    assert libc.changes == 0


def test_fit_evaluate_and_predict_use_it(libc):
    inputs = Input((2,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    x, y = torch.zeros(4, 2), torch.zeros(4, 1)
    seen = []
    watch = callbacks.LambdaCallback()
    for hook in ("on_train_batch_end", "on_test_batch_end", "on_predict_batch_end"):
        setattr(watch, hook, lambda *_, **__: seen.append(libc.gives_back))
    for run in (
        lambda: model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[watch]),
        lambda: model.evaluate(x, y, verbose=0, callbacks=[watch]),
        lambda: model.predict(x, verbose=0, callbacks=[watch]),
    ):
        seen.clear()
        run()
        assert seen
        assert not any(seen)
        assert libc.limits == Allocator.ADAPTED


COUNT = """
import contextlib, resource, sys, torch
from torchfunc.training.process_settings import retained_memory

def step():
    torch.ones(10 * 2**20)  # 40 MiB, more than glibc ever keeps by itself

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with retained_memory(torch.device("cpu")) if sys.argv[1] == "kept" else contextlib.nullcontext():
    for _ in range(5):
        step()
    before = faults()
    for _ in range(5):
        step()
    print(faults() - before)
"""


@needs_glibc
def test_memory_is_not_asked_for_again():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", COUNT, how], env=environment, capture_output=True, check=True).stdout)
        for how in ("kept", "given back")
    )
    assert kept < 1000 < 5 * 10_000 < given_back


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stays(monkeypatch, name):
    monkeypatch.setenv(name, "glibc.malloc.trim_threshold=1000")
    assert process_settings._glibc.__wrapped__() is None
