"""Modules of torch.jit and torch.export in a drawn model: drawn, counted, trained, copied."""

import copy
import warnings

import pytest
import torch
from torch import nn

from torchfunc import Input, Model

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")


def _network():
    return nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.BatchNorm1d(3)))


def _exported(module, batch=None):
    sizes = None if batch else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (torch.randn(batch or 2, 4),), dynamic_shapes=sizes).module()


def _quietly(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


MAKE = {
    "scripted": lambda module: _quietly(lambda: torch.jit.script(module)),
    "traced": lambda module: _quietly(lambda: torch.jit.trace(module, torch.randn(2, 4))),
    "exported": _exported,
}


@pytest.mark.parametrize("kind", MAKE)
def test_drawn_counted_trained_and_copied(kind):
    module = MAKE[kind](_network())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x, data = Input((4,)), torch.randn(8, 4)
    model = Model(x, module(x))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert model.output_shape == (None, 3)
    torch.testing.assert_close(model(data), copy.deepcopy(module)(data))
    # Linear 15, scale and offset 6, moving statistics 6, count of batches 1.
    assert model.count_params() == 28
    assert sum(weight.numel() for weight in model.trainable_weights) == 21
    assert len(model.get_weights()) == 7
    model.compile("sgd", "mse")
    model.fit(data, torch.randn(8, 3), epochs=2, batch_size=4, verbose=0)
    changed = [name for name, value in module.named_parameters() if not torch.equal(value, before[name])]
    assert len(changed) == 4
    assert model.predict(data, verbose=0).shape == (8, 3)
    duplicate = copy.deepcopy(model)
    torch.testing.assert_close(duplicate(data, training=False), model(data, training=False))
    duplicate.fit(data, torch.randn(8, 3), verbose=0)
    assert all(parameter.is_leaf for parameter in duplicate.parameters())
    assert not torch.equal(duplicate(data, training=False), model(data, training=False))


def test_an_exported_module_of_one_batch_size_is_refused_for_others():
    module = _exported(_network(), batch=2)
    with pytest.raises(ValueError, match=r"Guard failed"):
        module(Input((4,)))
    x = Input(batch_shape=(2, 4))
    assert Model(x, module(x))(torch.randn(2, 4)).shape == (2, 3)


def test_linear_called_by_keyword():
    linear, x, data = nn.Linear(4, 3), Input((4,)), torch.randn(8, 4)
    model = Model(x, linear(input=x))
    assert torch.equal(model(data), linear(data))
    model.compile("sgd", "mse")
    model.fit(data, torch.randn(8, 3), verbose=0)
    assert torch.equal(model(data), linear(data))
