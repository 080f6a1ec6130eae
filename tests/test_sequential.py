"""Sequential: a stack of layers, drawn when its input is known."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
from torch import nn

from torchfunc import Input, Layer, layers
from torchfunc.layers import Dense
from torchfunc.models import Model, Sequential

A = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def parts():
    return [Dense(4, activation="relu"), nn.Linear(4, 4), layers.Dropout(0.5), Dense(2, name="last")]


WAYS = {
    "input in the list": lambda parts: Sequential([Input((8,)), *parts]),
    "input layer": lambda parts: Sequential([layers.InputLayer(shape=(8,)), *parts]),
    "deferred": Sequential,
    "input_shape": lambda parts: Sequential([Dense(4, activation="relu", input_shape=(8,)), *parts[1:]]),
    "input_dim": lambda parts: Sequential([Dense(4, activation="relu", input_dim=8), *parts[1:]]),
    "build": lambda parts: _built(Sequential(parts)),
    "added": lambda parts: _added([Input((8,)), *parts]),
    "added after": lambda parts: _added(parts),
    "generator": lambda parts: Sequential(part for part in parts),
}


def _built(model):
    model.build((None, 8))
    return model


def _added(layers):
    model = Sequential()
    for layer in layers:
        model.add(layer)
    return model


@pytest.mark.parametrize("case", WAYS)
def test_every_way_to_make_one(case):
    torch.manual_seed(0)
    model = WAYS[case](parts()).eval()
    early = case not in ("deferred", "added after", "generator")
    assert model.built is early
    out = model(A)
    assert isinstance(model, Model)
    assert (model.input_shape, model.output_shape) == ((None, 8), (None, 2))
    assert list(model.state_dict())[::2] == ["dense.weight", "linear.weight", "last.weight"]
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "Linear", "Dropout", "Dense"]
    expected = A
    for layer in model.layers:
        expected = layer(expected)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(model(A.numpy()), expected)
    assert "dense = self.dense(" in model.code
    assert model.output_names == ["last"]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(A), expected)
        assert list(twin.state_dict()) == list(model.state_dict())
        twin.add(Dense(1))
        assert twin(A).shape == (4, 1)
    assert model(A).shape == (4, 2)


def test_add_and_pop():
    model = Sequential([Input((8,)), Dense(4)])
    assert model(A).shape == (4, 4)
    model.add(nn.Linear(4, 3))
    assert model(A).shape == (4, 3)
    assert model.output_shape == (None, 3)
    removed = model.pop()
    assert isinstance(removed, nn.Linear)
    assert model(A).shape == (4, 4)
    model.add(Dense(4))
    model.add(Dense(5))
    assert list(model.state_dict())[::2] == ["dense.weight", "dense_1.weight", "dense_2.weight"]
    assert [model.pop().units for _ in range(3)] == [5, 4, 4]
    torch.testing.assert_close(model(A), A)
    with pytest.raises(ValueError, match="no layer to take off"):
        model.pop()
    model.add(Dense(7))
    assert model(A).shape == (4, 7)
    assert list(model.state_dict()) == ["dense.weight", "dense.bias"]


def test_a_layer_used_twice_shares_its_weights():
    layer = Dense(8)
    model = Sequential([Input((8,)), layer, nn.ReLU(), layer])
    assert list(model.state_dict()) == ["dense.weight", "dense.bias"]
    torch.testing.assert_close(model(A), layer(torch.relu(layer(A))))
    assert model.pop() is layer
    torch.testing.assert_close(model(A), torch.relu(layer(A)))
    torch.testing.assert_close(copy.deepcopy(model)(A), model(A))


def test_symbolic_calls_and_nesting():
    inner = Sequential([Dense(8), nn.ReLU()], name="inner")
    x = Input((8,))
    model = Model(x, inner(x) + x)
    torch.testing.assert_close(model(A), inner(A) + A)
    assert list(model.state_dict()) == ["inner.dense.weight", "inner.dense.bias"]
    outer = Sequential([model, Sequential([Dense(2)])])
    assert outer.built
    torch.testing.assert_close(outer(A), outer.layers[1](model(A)))
    assert list(outer.state_dict())[-1] == "sequential.dense.bias"
    features = Model(inner.inputs, [layer.output for layer in inner.layers if isinstance(layer, Layer)])
    torch.testing.assert_close(features(A)[0], inner.layers[0](A))


def test_adding_to_a_nested_stack_does_not_change_what_was_drawn():
    inner = Sequential([Input((8,)), Dense(8)])
    x = Input((8,))
    model = Model(x, inner(x))
    assert model(A).shape == (4, 8)
    assert model.output_shape == (None, 8)


def test_unknown_sizes_and_other_ranks():
    model = Sequential([Dense(4), layers.GlobalAveragePooling1D(), Dense(2)])
    assert model(torch.ones(2, 5, 8)).shape == (2, 2)
    assert model.input_shape == (None, 5, 8)
    assert model.output_shape == (None, 2)
    open_steps = Sequential([Input((None, 8)), Dense(4), layers.GlobalAveragePooling1D()])
    assert open_steps(torch.ones(2, 5, 8)).shape == open_steps(torch.ones(2, 9, 8)).shape == (2, 4)
    assert open_steps.compute_output_shape((3, 9, 8)) == (3, 4)


def test_integers_decide_the_dtype_of_a_deferred_input():
    model = Sequential([layers.Embedding(9, 4), nn.Flatten(), Dense(2)])
    assert model(np.array([[1, 2, 8]])).shape == (1, 2)
    assert not model.inputs[0].dtype.is_floating_point


def test_it_is_a_torch_module():
    model = Sequential([Dense(4, activation="relu"), nn.Linear(4, 2)])
    model(A)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(A), model(A))
    program = torch.export.export(model, (A,))
    torch.testing.assert_close(program.module()(A), model(A))
    model.graph.lint()
    assert model.double()(A.double()).dtype == torch.float64
    model(A.double()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    assert not any(layer.training for layer in model.layers)
    model.trainable = False
    assert not any(parameter.requires_grad for parameter in model.parameters())


class Doubling(Sequential):
    """A user's own kind of stack."""

    def doubled(self, x):
        return self(x) * 2


def test_subclass():
    model = Doubling([Input((8,)), Dense(2)])
    for each in (
        model,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        Doubling.from_config(model.get_config()),
    ):
        assert isinstance(each, Doubling)
        assert each.doubled(A).shape == (4, 2)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, of a tensor
def test_as_keras():
    stack = [("Dense", {"units": 4, "activation": "tanh"}), ("Dropout", {"rate": 0.5}), ("Dense", {"units": 2})]
    theirs = keras.Sequential([keras.Input((8,)), *(getattr(keras.layers, name)(**config) for name, config in stack)])
    ours = Sequential([Input((8,)), *(getattr(layers, name)(**config) for name, config in stack)])
    ours.set_weights(theirs.get_weights())
    expected = theirs(A.numpy()).detach()
    torch.testing.assert_close(ours.eval()(A), expected)
    assert ours.count_params() == theirs.count_params()
    assert len(ours.layers) == len(theirs.layers)
    assert [layer.name for layer in ours.layers] == ["dense", "dropout", "dense_1"]


# (what is done, the error, what the message names)
MISTAKES = {
    "no layer": (lambda: Sequential([Dense(2), 3]), TypeError, "got 3"),
    "a class": (lambda: Sequential([Dense]), TypeError, "Dense"),
    "two inputs": (lambda: Sequential([Input((8,)), Input((8,))]), ValueError, "input already: an Input comes first"),
    "input after a layer": (lambda: Sequential([Dense(2), Input((8,))]), ValueError, "comes first"),
    "does not fit": (lambda: Sequential([Input((8,)), nn.Linear(3, 2)]), ValueError, r"Linear\(in_features=3"),
    "one name twice": (
        lambda: Sequential([Dense(2, name="a"), Dense(2, name="a")]), ValueError, "called 'a'",
    ),
    "several outputs": (lambda: Sequential([Input((5, 8)), nn.LSTM(8, 2)]), ValueError, "LSTM returns"),
    "several inputs": (lambda: Sequential([Dense(2)])(A, A), ValueError, "takes one tensor"),
    "wrong size": (lambda: Sequential([Input((8,)), Dense(2)])(A[:, :3]), ValueError, r"\(None, 8\).*\(4, 3\)"),
    "unknown layer": (lambda: Sequential([Dense(2)]).get_layer("x"), ValueError, "no layer called 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case):
    call, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        call()


def test_a_layer_that_does_not_fit_is_not_added():
    model = Sequential([Input((8,)), Dense(4)])
    with pytest.raises(ValueError, match="Linear"):
        model.add(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="called 'dense'"):
        model.add(Dense(3, name="dense"))
    deferred = Sequential([nn.Linear(3, 2)])
    with pytest.raises(ValueError, match="Linear"):
        deferred(A)
    assert not deferred.built
    assert deferred(A[:, :3]).shape == (4, 2)
    assert len(model.layers) == 1
    assert model(A).shape == (4, 4)
    model.add(nn.Linear(4, 3))
    assert model(A).shape == (4, 3)


class Joined(layers.Layer):
    def call(self, inputs):
        return inputs["a"] + inputs["b"]


@pytest.mark.parametrize("form", [dict, list])
def test_nested_inputs(form):
    first, second = torch.randn(3, 2), torch.randn(3, 2)
    given = {"a": first, "b": second} if form is dict else [first, second]
    model = Sequential([Joined() if form is dict else layers.Add(), layers.Dense(4)])
    outputs = model(given)
    torch.testing.assert_close(outputs, model.layers[1](first + second))
    assert model.input_shape == ({"a": (None, 2), "b": (None, 2)} if form is dict else [(None, 2), (None, 2)])
    torch.testing.assert_close(copy.deepcopy(model)(given), outputs)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(given), outputs)
    again = Sequential.from_config(model.get_config(), {"Joined": Joined})
    again.set_weights(model.get_weights())
    torch.testing.assert_close(again(given), outputs)
    model.pop()
    model.pop()
    assert model.layers == []
    model.add(Joined() if form is dict else layers.Add())
    torch.testing.assert_close(model(given), first + second)


def test_nested_inputs_are_trained_on():
    rows = torch.randn(16, 2)
    model = Sequential([Joined(), layers.Dense(1)])
    model.compile("sgd", "mse")
    losses = model.fit({"a": rows, "b": rows}, rows.sum(1), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_before_the_input_is_known():
    model = Sequential([layers.Dense(4), nn.ReLU(), layers.Dense(8)])
    assert model.compute_output_shape((None, 2)) == (None, 8)
    assert not model.layers[0].built
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.drawn is None
        assert isinstance(twin.layers[1], nn.ReLU)
        assert twin(torch.zeros(2, 3)).shape == (2, 8)


# Sizes of data


def pools():
    return Sequential([layers.Conv1D(2, 3, padding="same"), layers.GlobalMaxPooling1D()])


def test_other_lengths_than_the_first_data_had():
    model = pools()
    first = model(torch.ones(2, 5, 3))
    assert model.input_shape == (None, 5, 3)
    conv, pool = model.layers
    x = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x), pool(conv(x)))
    torch.testing.assert_close(model(torch.ones(2, 5, 3)), first)
    assert model.input_shape == (None, None, 3)
    assert conv.output.shape == (None, None, 2)
    assert [layer.name for layer in model.layers] == ["conv1d", "global_max_pooling1d"]


def test_other_sizes_that_the_layers_refuse():
    model = Sequential([layers.Flatten(), Dense(1)])
    model(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=r"expects shape \(None, 3, 4\), but was given \(2, 4, 4\)"):
        model(torch.ones(2, 4, 4))
    assert model.layers[0].output.shape == (None, 12)
    assert model(torch.ones(5, 3, 4)).shape == (5, 1)


def test_declared_sizes_stay():
    model = Sequential([Input((5, 3)), *pools().layers])
    with pytest.raises(ValueError, match=r"expects shape \(None, 5, 3\)"):
        model(torch.ones(2, 9, 3))


class Block(Layer):
    """A Sequential within a layer, as Transformer blocks have one."""

    def __init__(self):
        super().__init__()
        self.inner = Sequential([Dense(4, activation="relu"), Dense(3)])

    def call(self, inputs):
        return inputs + self.inner(inputs)


DUPLICATES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@pytest.mark.parametrize("way", DUPLICATES)
@pytest.mark.parametrize("built", [False, True])
def test_a_sequential_within_a_layer(way, built):
    block = Block()
    if built:
        block(torch.ones(2, 5, 3))
    inner = DUPLICATES[way](block.inner)
    assert inner(torch.ones(2, 6, 3)).shape == (2, 6, 3)
    twin = copy.deepcopy(block)
    assert twin.compute_output_shape((None, 7, 3)) == (None, 7, 3)
    for length in (4, 8):
        assert twin(torch.ones(2, length, 3)).shape == (2, length, 3)
    inputs = Input((None, 3))
    model = Model(inputs, block(inputs))
    x = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    first, second = block.inner.layers
    torch.testing.assert_close(model(x), x + second(first(x)))


def test_lengths_of_dicts_and_lists():
    class Both(Layer):
        def call(self, inputs):
            return inputs["a"] + inputs["b"]

    by_key = Sequential([Both(), Dense(2)])
    in_list = Sequential([layers.Concatenate(), Dense(2)])
    for length in (5, 6):
        x = torch.ones(2, length, 3)
        assert by_key({"a": x, "b": x}).shape == (2, length, 2)
        assert in_list([x, x]).shape == (2, length, 2)
    assert copy.deepcopy(by_key)({"a": x, "b": x}).shape == (2, 6, 2)
