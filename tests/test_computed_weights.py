"""Layers whose weight torch computes at each call: parametrizations, the older weight and spectral norm, pruning."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from torchfunc import Input, Model, layers, regularizers


class Doubled(nn.Module):
    def forward(self, weight):
        return weight * 2


# (what is done to a layer; the numbers that train, and all that are kept, of a weight of 12 and a bias of 3)
KINDS = {
    "parametrization": (lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()), 15, 15),
    "weight norm": (parametrizations.weight_norm, 18, 18),
    "spectral norm": (parametrizations.spectral_norm, 15, 22),
    "orthogonal": (parametrizations.orthogonal, 15, 31),
    "older weight norm": (nn.utils.weight_norm, 18, 18),
    "older spectral norm": (nn.utils.spectral_norm, 15, 22),
    "pruning": (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), 15, 27),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("before_drawing", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 3), lambda: layers.Dense(3)], ids=["Linear", "Dense"])
def test_counted_trained_and_copied(make, kind, before_drawing):
    change, trained, kept = KINDS[kind]
    x, data, target = Input((4,)), torch.randn(8, 4), torch.randn(8, 3)
    layer = make()
    if isinstance(layer, layers.Dense):
        layer.build((None, 4))
    if before_drawing:
        change(layer)
    y = layer(x)
    if not before_drawing:
        change(layer)
    model = Model(x, y)
    assert sum(parameter.numel() for parameter in model.parameters()) == trained
    assert sum(weight.numel() for weight in model.trainable_weights) == trained
    assert model.count_params() == kept
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.compile("sgd", "mse")
    model.fit(data, target, verbose=0)
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    # A call leaves a weight behind that was computed from parameters.
    model(data)
    duplicate = copy.deepcopy(model)
    torch.testing.assert_close(duplicate(data, training=False), model(data, training=False))
    values = [value + 0.5 for value in model.get_weights() if value.dtype.kind == "f"]
    assert len(values) == len(model.get_weights())
    duplicate.set_weights(model.get_weights())
    assert all((a == b).all() for a, b in zip(duplicate.get_weights(), model.get_weights(), strict=True))
    duplicate.fit(data, target, verbose=0)
    assert not torch.equal(duplicate(data, training=False), model(data, training=False))


def test_a_regularizer_sees_the_computed_weight():
    layer = layers.Dense(3, kernel_regularizer=regularizers.L2(0.5))
    layer.build((None, 4))
    penalty = sum(layer.losses)
    parametrize.register_parametrization(layer, "weight", Doubled())
    torch.testing.assert_close(sum(layer.losses), 4 * penalty)
    sum(layer.losses).backward()
    assert layer.parametrizations.weight.original.grad is not None


def test_a_copy_of_a_parametrized_layer_tracks_its_lists():
    class Blocks(layers.Layer):
        def __init__(self):
            super().__init__()
            self.blocks = [layers.Dense(4)]
            self.scale = nn.Parameter(torch.ones(4))

        def call(self, inputs):
            for block in self.blocks:
                inputs = block(inputs)
            return inputs * self.scale

    layer = Blocks()
    layer(torch.ones(2, 4))
    parametrize.register_parametrization(layer, "scale", Doubled())
    layer(Input((4,)))
    duplicate = copy.deepcopy(layer)
    assert duplicate.inbound_nodes == []
    assert duplicate.blocks[0] is not layer.blocks[0]
    duplicate.blocks.append(layers.Dense(4))
    assert len(list(duplicate.modules())) == len(list(layer.modules())) + 1
    torch.testing.assert_close(copy.deepcopy(layer)(torch.ones(2, 4)), layer(torch.ones(2, 4)))
