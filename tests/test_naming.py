"""Names: the same code always gives the same ones."""

import copy

import pytest
import torch
from torch import nn

from torchfunc import Input, Layer
from torchfunc.layers import Dense, Embedding, InputLayer
from torchfunc.models import Model, Sequential


def build():
    a, b = Input((4,)), Input((4,))
    left, right = Dense(4)(a), nn.Linear(4, 4)(Dense(4)(b))
    x = torch.cat([left, right], dim=1) + torch.cat([right, left], dim=1)
    return Model([a, b], [Dense(2, name="head")(x), nn.Linear(8, 4)(x)])


def test_the_same_code_gives_the_same_names():
    first, second = build(), build()
    assert list(first.state_dict()) == list(second.state_dict())
    assert first.layer_names() == [
        *("input_layer_1", "input_layer", "dense_1", "dense", "linear", "head", "linear_1")
    ]  # fmt: skip
    assert first.layer_names() == second.layer_names()
    assert first.code == second.code
    assert [first.node_name(node) for node in first.nodes if node.op == "function"] == ["cat", "cat_1", "add"]
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(torch.ones(2, 4), torch.ones(2, 4)), first(torch.ones(2, 4), torch.ones(2, 4)))


def test_drawing_something_else_in_between_does_not_matter():
    x = Input((4,))
    for _ in range(3):
        Dense(4)(x)
    layers = [Dense(4) for _ in range(3)]
    out = x
    for layer in reversed(layers):
        out = layer(out)
    assert [layer.name for layer in layers] == ["dense"] * 3
    Model(x, out)
    assert [layer.name for layer in layers] == ["dense_2", "dense_1", "dense"]


def test_sequential_numbers_likewise():
    def stack():
        return Sequential([Input((4,)), Dense(4), nn.Linear(4, 4), Dense(4, name="last"), nn.Linear(4, 4)])

    keys = [f"{name}.{part}" for name in ("dense", "linear", "last", "linear_1") for part in ("weight", "bias")]
    assert list(stack().state_dict()) == list(stack().state_dict()) == keys
    deferred = Sequential([Dense(4), nn.Linear(4, 4), Dense(4, name="last"), nn.Linear(4, 4)])
    deferred(torch.ones(2, 4))
    assert list(deferred.state_dict()) == keys


def test_snake_case_of_class_names():
    class MyHTTPLayer2D(Layer):
        def call(self, x):
            return x

    x = Input((4,))
    model = Model(x, nn.LayerNorm(4)(nn.GELU()(MyHTTPLayer2D()(x))))
    assert model.layer_names() == ["input_layer", "my_http_layer2d", "gelu", "layer_norm"]


def test_explicit_names_come_before_numbers():
    x = Input((4,))
    y = Dense(4, name="dense_1")(Dense(4)(x))
    model = Model(x, Dense(4)(Dense(4)(y)))
    assert model.layer_names() == ["input_layer", "dense", "dense_1", "dense_2", "dense_3"]


@pytest.mark.parametrize("make", [lambda x: Dense(4, name="same")(x), lambda x: Embedding(9, 4, name="same")(x.long())])
def test_two_layers_of_one_explicit_name_are_refused(make):
    x = Input((4,))
    with pytest.raises(ValueError, match=r"are called 'same'.*Rename one"):
        Model(x, make(Dense(4, name="same")(x)))
    named = Input((4,), name="same")
    with pytest.raises(ValueError, match="are called 'same'"):
        Model(named, make(named))
    with pytest.raises(ValueError, match="are called 'same'"):
        Sequential([Dense(4, name="same"), Dense(4, name="same")])
    layer = Dense(4, name="same")
    assert len(Model(x, layer(layer(x))).layers) == 2


def test_names_from_an_earlier_model_are_kept():
    x = Input((4,))
    hidden = Dense(4)(x)
    first = Model(x, hidden)
    second = Model(x, Dense(4)(hidden))
    assert second.layers[1] is first.layers[1]
    assert second.layer_names() == ["input_layer", "dense", "dense_1"]
    assert [layer.name for layer in second.layers] == ["input_layer", "dense", "dense_1"]


def test_two_layers_of_one_automatic_name_are_renamed_in_the_third_model_only():
    x, y = Input((4,)), Input((4,))
    first, second = Model(x, Dense(4)(x)), Model(y, Dense(4)(y))
    both = Model([x, y], [first.layers[1].output, second.layers[1].output])
    assert list(both.state_dict()) == ["dense.weight", "dense.bias", "dense_1.weight", "dense_1.bias"]
    assert both.layer_names() == ["input_layer", "input_layer_1", "dense", "dense_1"]
    assert list(second.state_dict()) == ["dense.weight", "dense.bias"]
    assert second.layers[1].name == "dense"
    assert both.get_layer("dense_1") is second.layers[1]
    data = torch.ones(2, 4)
    torch.testing.assert_close(both(data, data), [first(data), second(data)])
    assert list(copy.deepcopy(both).state_dict()) == list(both.state_dict())


def test_nested_models_of_one_name():
    def encoder():
        x = Input((4,))
        return Model(x, Dense(4)(x))

    x = Input((4,))
    model = Model(x, encoder()(encoder()(x)))
    assert list(model.state_dict())[::2] == ["functional.dense.weight", "functional_1.dense.weight"]
    named = Model(x, Model(y := Input((4,)), Dense(4)(y), name="encoder")(x), name="whole")
    assert named.name == "whole"
    assert list(named.state_dict()) == ["encoder.dense.weight", "encoder.dense.bias"]


@pytest.mark.parametrize("name", ["output", "outputs", "forward", "training", "graph", "code", "layers", "fit", "name"])
def test_names_that_a_model_uses_itself(name):
    x = Input((4,), name="x")
    model = Model(x, Dense(2, name=name)(x))
    assert list(model.state_dict()) == [f"{name}_.weight", f"{name}_.bias"]
    assert model.output_names == [name]
    assert model.get_layer(name).units == 2
    assert model.name == "functional"
    assert model.eval()(torch.ones(3, 4)).shape == (3, 2)
    both = Model(x, Dense(2, name=f"{name}_")(Dense(2, name=name)(x)))
    assert len(both.state_dict()) == 4
    assert both(torch.ones(3, 4)).shape == (3, 2)
    stack = Sequential([Input((4,)), Dense(2, name=name), Dense(2, name=f"{name}_")])
    assert list(stack.state_dict())[::2] == [f"{name}_.weight", f"{name}__1.weight"]
    assert stack.eval()(torch.ones(3, 4)).shape == (3, 2)


@pytest.mark.parametrize(("name", "error"), [("a/b", ValueError), ("", ValueError), (3, ValueError)])
def test_names_that_are_none(name, error):
    with pytest.raises(error, match="non-empty string without '/'"):
        Dense(2, name=name)


def test_input_names():
    a, b = Input((4,)), Input((4,), name="b")
    model = Model([b, a], a + b)
    assert model.input_names == ["b", "input_layer"]
    assert isinstance(model.layers[0], InputLayer)
    assert Model([a, b], a + b).input_names == ["input_layer", "b"]


def test_output_names():
    x = Input((4,))
    layer = Dense(2)
    hidden = layer(x)
    model = Model(x, [hidden, layer(hidden @ torch.ones(2, 4)), hidden * 2, {"c": hidden}["c"]])
    assert model.output_names == ["dense", "dense_1", "mul", "dense_2"]
    assert Model(x, {"b": hidden, "a": hidden}).output_names == ["b", "a"]


def test_setting_a_name_makes_it_the_layers_own():
    x = Input((4,))
    layer = Dense(4)
    out = layer(x)
    Model(x, out)
    layer.name = "chosen"
    assert Model(x, out).layer_names() == ["input_layer", "chosen"]
