"""Test-wide settings: Keras, our reference, runs on the torch backend; every test starts from the same seeds."""

import gc
import os
import warnings

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest
import torch

from torchfunc.training import compiled_step
from torchfunc.utils import set_random_seed

pytest_plugins = ["parity_table"]


def pytest_collection_finish():
    # What torch, Keras and the tests' modules are made of stays: the garbage collector need not walk it over and over.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeds():
    """A test that draws must not depend on which others ran before it; steps are compiled from the second one on."""
    set_random_seed(0)


@pytest.fixture
def traced(monkeypatch):
    """Graphs are made by torch.compile and run by autograd's own kernels, which saves the time of a C++ compiler."""

    def compile_whole(step, guarded, on_cuda):
        options = {} if guarded else {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager", options=options)

    monkeypatch.setattr(compiled_step, "compile_whole", compile_whole)
