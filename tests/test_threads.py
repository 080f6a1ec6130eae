"""Several threads draw at once; and torch is left alone until something is drawn."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from torchfunc import Input
from torchfunc.layers import BatchNormalization, Dense
from torchfunc.models import Model

THREADS = 8


def draw(number, barrier):
    """Build models of a shape of its own, again and again, among real calls of modules."""
    barrier.wait()
    plain = nn.Linear(number + 2, 3)
    for _ in range(5):
        a, b = Input((number + 2,), name="a"), Input((number + 2,), name="b")
        shared = Dense(number + 1, activation="relu")
        x = torch.cat([shared(a), shared(b)], dim=1) * nn.Parameter(torch.ones(2 * number + 2))
        x = nn.LSTM(2 * number + 2, 4, batch_first=True)(BatchNormalization()(x).unsqueeze(1))[0]
        x = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)(x).flatten(1)
        model = Model([a, b], {"out": Dense(2, name="out")(x), "a": a[:, : number + 1]})
        data = torch.randn(6, number + 2)
        out = model.eval()(data, data * 2)
        assert torch.equal(out["a"], data[:, : number + 1])
        assert plain(data).shape == (6, 3)
    return list(model.state_dict()), out["out"].shape, model.code


def test_eight_threads_draw_at_once():
    barrier = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        results = [job.result() for job in [pool.submit(draw, number, barrier) for number in range(THREADS)]]
    keys, shape, _ = results[0]
    alone = draw(0, threading.Barrier(1))
    assert alone[0] == keys
    assert alone[2] == results[0][2]
    assert all(each[0] == keys and each[1] == shape for each in results)


def test_drawing_while_another_thread_runs_the_same_module():
    """Shape inference must not swap anything in a live module."""
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    data = torch.randn(3, 4)
    expected, stop, errors = module(data), threading.Event(), []

    def run():
        while not stop.is_set():
            if not torch.equal(module(data), expected):
                errors.append("the module's result changed")
                return

    runner = threading.Thread(target=run)
    runner.start()
    x = Input((4,))
    for _ in range(50):
        module(x)
    stop.set()
    runner.join()
    assert errors == []


UNTOUCHED = """
import torch
before = torch.nn.Module.__call__
methods = dict(vars(torch.nn.Module)), dict(vars(torch.Tensor))
import torchfunc, torchfunc.layers, torchfunc.models
names = {"assign", "assign_add", "assign_sub", "value", "path"}
assert vars(torch.Tensor).keys() - methods[1].keys() == names
methods[1].update({name: vars(torch.Tensor)[name] for name in names})
assert torch.nn.Module.__call__ is before
torchfunc.layers.Dense(3)(torch.ones(2, 4))
torchfunc.models.Sequential([torchfunc.layers.Dense(3)])
assert torch.nn.Module.__call__ is before
assert (dict(vars(torch.nn.Module)), dict(vars(torch.Tensor))) == methods
x = torchfunc.Input((4,))
assert torch.nn.Module.__call__ is not before
hooked = torch.nn.Module.__call__
torchfunc.Input((4,))
assert torch.nn.Module.__call__ is hooked
assert torch.nn.Linear(4, 3)(x).shape == (None, 3)
assert torch.nn.Linear(4, 3)(torch.ones(2, 4)).shape == (2, 3)
print("fine")
"""


def test_torch_is_untouched_until_something_is_drawn():
    done = subprocess.run([sys.executable, "-W", "error", "-c", UNTOUCHED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "fine"


def test_wrapped_modules_need_no_hook():
    code = """
import torch
from torchfunc import layers
before = torch.nn.Module.__call__
x = layers.InputLayer(shape=(4,)).output
assert layers.TorchModule(torch.nn.Linear(4, 3))(x).shape == (None, 3)
assert torch.tanh(layers.Dense(2)(x) + 1).shape == (None, 2)
assert torch.nn.Module.__call__ is before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
