"""Freed memory that stays with the process while a model runs on the CPU."""

import os
import subprocess
import sys

import pytest
import torch

from torchfunc import Input, Model, layers
from torchfunc.training import process_settings
from torchfunc.training.process_settings import kept_heap

CPU = torch.device("cpu")
needs_glibc = pytest.mark.skipif(
    process_settings._glibc() is None, reason="the allocator is not glibc's, or is set by the user"
)


class Recorded:
    def __init__(self):
        self.calls = []

    def mallopt(self, parameter, value):
        self.calls.append((parameter, value))
        # As an old glibc, which refuses a large threshold.
        return value <= 32 * 2**20


@pytest.fixture
def libc(monkeypatch):
    libc = Recorded()
    monkeypatch.setattr(process_settings, "_glibc", lambda: libc)
    return libc


def test_it_is_set_once_however_many_runs_there_are(libc):
    with kept_heap(CPU):
        begun = list(libc.calls)
        with kept_heap(CPU):
            pass
        assert libc.calls == begun == [(-1, -1), (-3, 2**30), (-3, 2**25)]
    assert libc.calls[3:] == [(-1, 2**26), (-3, 2**25)]


def test_an_error_ends_it(libc):
    with pytest.raises(ZeroDivisionError), kept_heap(CPU):
        raise ZeroDivisionError
    assert len(libc.calls) == 5


def test_a_run_elsewhere_does_not_need_it(libc):
    with kept_heap(torch.device("cuda")):
        pass
    assert libc.calls == []


def test_fit_evaluate_and_predict_use_it(libc):
    inputs = Input((2,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    x, y = torch.zeros(4, 2), torch.zeros(4, 1)
    for run in (
        lambda: model.fit(x, y, validation_data=(x, y), verbose=0),
        lambda: model.evaluate(x, y, verbose=0),
        lambda: model.predict(x, verbose=0),
    ):
        libc.calls.clear()
        run()
        assert [parameter for parameter, _ in libc.calls] == [-1, -3, -3, -1, -3]


COUNT = """
import contextlib, resource, sys, torch
from torchfunc.training.process_settings import kept_heap

def step():
    torch.ones(10 * 2**20)  # 40 MiB, more than glibc ever keeps by itself

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with kept_heap(torch.device("cpu")) if sys.argv[1] == "kept" else contextlib.nullcontext():
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
