"""Nothing recurses over the graph: long chains and wide graphs work within Python's own recursion limit."""

import copy
import gc
import json
import pickle
import sys
import time

import pytest
import torch
from torch import nn

from torchfunc import Input, Layer
from torchfunc.layers import Dense, TorchModule
from torchfunc.layers.base.losses import LossHolder
from torchfunc.models import Model, Sequential, clone_model

LENGTH = 10_000


class Increment(Layer):
    """A layer that costs nothing, so that only the graph's own costs count."""

    def call(self, x):
        return x + 1

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.slow
def test_ten_thousand_layers():
    """Build, run and copy in under a minute (Keras 3 stops with a RecursionError at about 3,000).

    Shorter ones, still beyond the recursion limit, are pickled below.
    """
    limit, start = sys.getrecursionlimit(), time.process_time()
    inputs = x = Input((4,))
    for _ in range(LENGTH):
        x = Dense(4, kernel_initializer="identity", bias_initializer="ones")(x)
    model = Model(inputs, x)
    assert len(model.layers) == LENGTH + 1
    assert len(model.state_dict()) == 2 * LENGTH
    assert model.layers[-1].name == f"dense_{LENGTH - 1}"
    data = torch.zeros(2, 4)
    expected = torch.full((2, 4), float(LENGTH))
    torch.testing.assert_close(model(data), expected)
    torch.testing.assert_close(copy.deepcopy(model)(data), expected)
    assert sys.getrecursionlimit() == limit
    assert time.process_time() - start < 60


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["layers", "operators", "modules"])
def test_long_chains_of_every_kind(kind):
    length = sys.getrecursionlimit() + 1  # one call for each of them would be too many
    step = {"layers": lambda x: Increment()(x), "operators": lambda x: x + 1, "modules": _module}[kind]
    inputs = x = Input((2,))
    for _ in range(length):
        x = step(x)
    model = Model(inputs, [x, x.sum()])
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(each(torch.zeros(1, 2))[0], torch.full((1, 2), float(length)))
    outer = Model(inputs, model(inputs)[0] * 2)
    torch.testing.assert_close(outer(torch.zeros(1, 2)), torch.full((1, 2), 2.0 * length))
    assert model.compute_output_shape((7, 2)) == [(7, 2), ()]


def _module(x):
    return nn.ConstantPad1d((1, -1), 1.0)(x) * 0 + (x + 1)


@pytest.mark.slow
def test_long_chains_as_configs_clones_and_stacks():
    length = sys.getrecursionlimit() + 1
    inputs = x = Input((2,))
    for _ in range(length):
        x = Dense(2, kernel_initializer="identity", bias_initializer="ones")(x)
    model = Model(inputs, x)
    data, expected = torch.zeros(1, 2), torch.full((1, 2), float(length))
    for each in (Model.from_config(model.get_config()), clone_model(model), Sequential(model.layers)):
        torch.testing.assert_close(each(data), expected)


def test_two_hundred_models_within_models(capsys):
    levels, model = 200, None
    for _ in range(levels):
        inputs = Input((2,))
        x = inputs if model is None else model(inputs)
        model = Model(inputs, Dense(2, kernel_initializer="identity", bias_initializer="ones")(x))
    config = json.loads(json.dumps(model.get_config()))
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), clone_model(model), Model.from_config(config)]
    for each in (model, *copies):
        torch.testing.assert_close(each(torch.zeros(1, 2)), torch.full((1, 2), float(levels)))
        assert each.count_params() == 6 * levels
    model.summary(expand_nested=True)
    assert capsys.readouterr().out.count("(Dense)") == levels


def _calls(action):
    """How many Python functions are called."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    # (What other tests have left is not collected meanwhile.)
    gc.collect()
    gc.disable()
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@pytest.mark.parametrize("wrap", [lambda model: model, TorchModule], ids=["as it is", "TorchModule"])
def test_work_grows_like_the_depth(wrap, monkeypatch):
    """Drawing models within models, and their summary: twice the levels are twice the calls."""
    # Once any layer has added a loss, each call looks for losses in all of its model.
    monkeypatch.setattr(LossHolder, "adds_losses", False)

    def nested(levels):
        model = None
        for _ in range(levels):
            inputs = Input((2,))
            model = Model(inputs, Dense(2)(inputs if model is None else wrap(model)(inputs)))
        return model

    nested(3).summary(expand_nested=True, print_fn=lambda text: None)
    models = {levels: [] for levels in (20, 40)}
    drawn = [_calls(lambda levels=levels: models[levels].append(nested(levels))) for levels in models]
    shown = [_calls(lambda m=m: m[0].summary(expand_nested=True, print_fn=lambda text: None)) for m in models.values()]
    assert drawn[1] < 2.3 * drawn[0]
    assert shown[1] < 2.3 * shown[0]


def test_a_wide_graph():
    inputs = Input((2,))
    towers = [Dense(2)(inputs) for _ in range(300)]
    total = towers[0]
    for tower in towers[1:]:
        total = total + tower
    model = Model(inputs, [total, torch.stack(towers, dim=1)])
    together, stacked = model(torch.ones(3, 2))
    torch.testing.assert_close(together, stacked.sum(1))
    assert len(copy.deepcopy(model).layers) == 301


def test_diamonds_are_walked_once():
    """A graph of 60 diamonds has 2 to the 60 paths through it."""
    inputs = x = Input((2,))
    for _ in range(60):
        x = (x + 1) / 2 + (x - 1) / 2
    model = Model(inputs, x)
    assert len(model.nodes) == 301
    torch.testing.assert_close(copy.deepcopy(model)(torch.ones(1, 2)), torch.ones(1, 2))
