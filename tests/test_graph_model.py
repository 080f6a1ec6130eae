"""Model(inputs, outputs): what goes in and comes out, graphs that share tensors and layers, copies."""

import collections
import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from two_inputs import CALLS, A, B, ByHand, assert_same, two_inputs

from torchfunc import Input, Layer
from torchfunc.layers import Dense, Embedding
from torchfunc.models import GraphModule, Model, clone_model


@pytest.fixture(name="model")
def fixture_model():
    torch.manual_seed(0)
    return two_inputs()


# Against plain torch


def test_values_and_gradients_are_those_of_the_module_written_by_hand(model):
    by_hand = ByHand(model)
    assert_same(model(A, B), by_hand(A, B))
    for each in (model, by_hand):
        each(A, B)["head"].square().sum().backward()
    for mine, its in (("dense", "dense"), ("head", "head"), ("layer_norm", "norm")):
        assert_same(getattr(model, mine).weight.grad, getattr(by_hand, its).weight.grad)
    assert_same(model.parameter.grad, by_hand.scale.grad)


def test_a_shared_layer_has_one_key_and_the_sum_of_the_gradients(model):
    keys = list(model.state_dict())
    assert [key for key in keys if key.startswith("dense")] == ["dense.weight", "dense.bias"]
    assert len([node for node in model.graph.nodes if node.target == "dense"]) == 2
    inputs, layer = Input((8,)), Dense(8, use_bias=False)
    thrice = Model(inputs, layer(torch.relu(layer(layer(inputs)))))
    assert list(thrice.state_dict()) == ["dense.weight"]
    weights = [layer.weight.detach().clone().requires_grad_() for _ in range(3)]
    thrice(A).sum().backward()
    F.linear(torch.relu(F.linear(F.linear(A, weights[0]), weights[1])), weights[2]).sum().backward()
    assert_same(layer.weight.grad, weights[0].grad + weights[1].grad + weights[2].grad)


def test_what_it_says_of_itself(model):
    assert isinstance(model, GraphModule)
    assert isinstance(model, fx.GraphModule)
    assert model.input_names == ["a", "b"]
    assert model.output_names == ["head", "largest"]
    assert (model.input_shape, model.output_shape) == (
        [(None, 8), (None, 8)],
        {"head": (None, 3), "largest": (None, 1)},
    )
    assert model.compute_output_shape([(5, 8), (5, 8)]) == {"head": (5, 3), "largest": (5, 1)}
    assert [model.layer_names()[0], model.layer_names()[-1]] == ["a", "head"]
    assert model.get_layer("head") is model.get_layer(index=-1) is model.head
    assert model.head.output is model.output["head"]
    assert "dense = self.dense(a)" in model.code
    assert "layer_norm * parameter" in model.code


# Inputs and outputs

STRUCTURES = {
    "tensor": lambda x, y: y,
    "list": lambda x, y: [y, x],
    "tuple": lambda x, y: (y, y * 2),
    "dict": lambda x, y: {"z": y, "a": x},
    "ordered dict": lambda x, y: collections.OrderedDict(z=y, a=x),
    "nested": lambda x, y: {"pair": [y, (x, x)], "one": y},
    "twice the same": lambda x, y: [y, y],
    "only the input": lambda x, y: x,
    "one in a list": lambda x, y: [y],
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_outputs_keep_their_structure(case):
    make = STRUCTURES[case]
    inputs, layer = Input((8,)), nn.Linear(8, 2)
    model = Model(inputs, make(inputs, layer(inputs)))
    expected = make(A, layer(A))
    assert_same(model(A), dict(expected) if case == "ordered dict" else expected)
    assert type(model(inputs)) is type(model.output)
    if not isinstance(expected, torch.Tensor):
        assert type(model.output) is type(model(A))
    if isinstance(expected, dict):
        assert list(model(A)) == list(expected)
    for duplicate in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(duplicate(A), model(A))
        assert type(duplicate.output) is type(model.output)


@pytest.mark.parametrize("case", CALLS)
def test_calling_forms(case, model):
    call = CALLS[case]
    expected = model(A, B)
    assert_same(call(model, A, B), expected)
    assert_same(call(model, A.numpy(), B.double().numpy()), expected)
    a, b = Input((8,)), Input((8,))
    assert_same(Model([a, b], call(model, a, b))(A, B), expected)


@pytest.mark.parametrize("case", ["dict", "keywords", "names", "positions", "list"])
def test_dict_inputs_take_keys_and_names(case):
    left, right = Input((8,), name="a"), Input((8,), name="b")
    model = Model({"left": left, "right": right}, left - right)
    calls = {
        "dict": lambda: model({"right": B, "left": A}),
        "keywords": lambda: model(right=B, left=A),
        "names": lambda: model(b=B, a=A) + 0 * model({"a": A, "b": B}),
        "positions": lambda: model(A, B),
        "list": lambda: model([A, B]),
    }
    assert_same(calls[case](), A - B)


def test_keys_count_where_names_cross_them():
    """Each input is called like the other one's key: the keys of the dict the model was made with decide."""
    left, right = Input((8,), name="right"), Input((8,), name="left")
    model = Model({"left": left, "right": right}, left - right)
    assert_same(model({"left": A, "right": B}), A - B)
    assert_same(model(left=A, right=B), A - B)
    assert_same(model(A, right=B), A - B)
    np.testing.assert_allclose(model.predict({"right": B, "left": A}, verbose=0), A - B)


def test_one_input_in_any_wrapping():
    inputs = Input((8,), name="a")
    model = Model(inputs, inputs * 2)
    for call in (
        lambda: model([A]),
        lambda: model((A,)),
        lambda: model({"a": A}),
        lambda: model(a=A),
        lambda: model(A),
    ):
        assert_same(call(), A * 2)


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (A.numpy(), torch.float32),
        (A.double().numpy(), torch.float32),
        (A.numpy().astype(np.float16), torch.float32),
        (np.ones((4, 8), np.uint8), torch.float32),
        (np.ones((4, 8), bool), torch.float32),
        (torch.ones(4, 8, dtype=torch.int64), torch.float32),
        (A.clone(), torch.float32),
    ],
)
def test_input_dtypes(data, dtype):
    inputs = Input((8,))
    model = Model(inputs, [inputs, Dense(2)(inputs)])
    passed, out = model(data)
    assert passed.dtype == out.dtype == dtype
    assert_same(passed, torch.as_tensor(data).to(dtype))


def test_integer_inputs_and_single_columns():
    inputs = Input((), dtype="int32")
    model = Model(inputs, Embedding(5, 3)(inputs))
    assert model(np.array([1, 2])).shape == (2, 3)
    column = Input((1,))
    assert Model(column, column * 2)(np.ones(4, np.float32)).shape == (4, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_moved_to_another_dtype(model, dtype):
    model.to(dtype)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
    out = model(A.to(dtype), B.to(dtype))["head"]
    assert out.dtype == dtype
    assert model(A.numpy(), B.numpy())["head"].dtype == dtype
    again = copy.deepcopy(model)
    assert again(A.to(dtype), B.to(dtype))["head"].dtype == dtype
    assert model.float()(A, B)["head"].dtype == torch.float32


def test_optional_inputs():
    class MaybeAdd(Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

    a, b = Input((8,), name="a"), Input((8,), name="b", optional=True)
    model = Model([a, b], MaybeAdd()(a, b))
    for call in (lambda: model(A, None), lambda: model([A, None]), lambda: model({"a": A}), lambda: model(a=A)):
        assert_same(call(), A)
    assert_same(model(A, B), A + B)


def test_unused_inputs_and_input_names_that_are_no_identifiers():
    names = ["my input", "my_input", "class", "1st", "torch", "modules", "slice", "self"]
    inputs = [Input((8,), name=name) for name in names]
    out = torch.relu((inputs[0] - inputs[1])[:, 1:4]) + inputs[5][:, :3] * inputs[7][:, 0:3]
    model = Model(inputs, Dense(2)(nn.Linear(3, 3)(out)))
    values = [A * index for index in range(len(names))]
    assert_same(model(dict(zip(names, values, strict=True))), model(*values))
    assert model.input_names == names
    model.graph.lint()
    assert_same(copy.deepcopy(model)(*values), model(*values))


def test_layer_names_that_mean_something_in_code():
    inputs = x = Input((8,))
    names = ["modules", "forward", "output", "torch", "a.b", "getattr", "training", "self", "class", "0"]
    for name in names:
        x = Dense(8, name=name)(x)
    model = Model(inputs, torch.relu(x))
    expected = A
    for name in names:
        expected = model.get_layer(name)(expected)
    assert_same(model(A), torch.relu(expected))
    assert_same(pickle.loads(pickle.dumps(model))(A), model(A))
    assert len(model.state_dict()) == 2 * len(names)
    assert {"output_.weight", "forward_.weight", "a_b.weight"} < set(model.state_dict())


# Graphs that share tensors


def test_nested_models_to_depth():
    model = None
    layers = [nn.Linear(8, 8) for _ in range(25)]
    for layer in layers:
        inputs = Input((8,))
        model = Model(inputs, layer(inputs if model is None else model(inputs)))
    expected = A
    for layer in layers:
        expected = layer(expected)
    assert_same(model(A), expected)
    for duplicate in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(duplicate(A), expected)
        assert list(duplicate.state_dict()) == list(model.state_dict())


def test_a_model_is_a_layer_with_nodes():
    inputs = Input((8,))
    encoder = Model(inputs, Dense(2)(inputs), name="encoder")
    x, y = Input((8,)), Input((8,))
    siamese = Model([x, y], encoder(x) - encoder(y))
    assert_same(siamese(A, B), encoder(A) - encoder(B))
    assert list(siamese.state_dict()) == ["encoder.dense.weight", "encoder.dense.bias"]
    assert encoder.get_output_at(0).shape == (None, 2)
    assert encoder.get_input_at(1) is y
    assert siamese.layers[-1] is encoder


def test_symbolic_calls_convert_and_reshape_as_real_ones_do():
    inputs = Input((1,))
    model = Model(inputs, nn.Linear(1, 2)(inputs))
    numbers = Input((), dtype="int64")
    assert_same(Model(numbers, model(numbers))(torch.arange(3)), model(torch.arange(3)))
    open_size = Model(x := Input((None, 3)), x.sum(1))
    assert open_size(Input((5, 3))).shape == (None, 3)
    assert Model(x, x * 2)(Input((5, 3))).shape == (None, 5, 3)
    known_size = Model(x := Input((5, 3)), x.sum(1))
    assert known_size(Input((None, 3))).shape == (None, 3)


def test_symbolic_calls_on_another_float_type():
    x = Input((8,))
    model = Model(x, torch.tanh(x) * 2)
    double = Input((8,), dtype="float64")
    assert model(double).dtype == torch.float64
    assert Model(double, model(double))(A.double()).dtype == torch.float64


def test_several_models_over_one_graph():
    inputs = Input((8,))
    encoded = Dense(3, name="encoded")(inputs)
    decoded = Dense(8, name="decoded")(encoded)
    whole, encoder = Model(inputs, decoded), Model(inputs, encoded)
    code = Input((3,))
    decoder = Model(code, whole.layers[-1](code))
    assert_same(decoder(encoder(A)), whole(A))
    chained = Model((x := Input((8,))), decoder(encoder(x)))
    assert_same(chained(A), whole(A))
    with torch.no_grad():
        encoder.encoded.weight.zero_()
    assert_same(chained(A), whole(A))


def test_intermediate_tensors_as_outputs(model):
    outputs = [layer.output for layer in model.layers if isinstance(layer, Layer) and len(layer.inbound_nodes) == 1]
    features = Model(model.inputs, outputs)
    values = features(A, B)
    assert len(values) == 3
    assert_same(values, [A, B, model(A, B)["head"]])
    chain = Model(x := Input((8,)), Dense(2)(Dense(4)(x)))
    found = Model(chain.inputs, [layer.output for layer in chain.layers])(A)
    assert_same(found, [A, chain.layers[1](A), chain(A)])


def test_intermediate_tensors_as_inputs():
    inputs = Input((8,))
    hidden = Dense(4, name="hidden")(inputs)
    merged = hidden + 1
    values, indices = merged.max(dim=1)
    whole = Model(inputs, Dense(2)(torch.relu(merged)))
    upper = Model(hidden, whole.output)
    data = torch.randn(3, 4)
    expected = whole.layers[-1](torch.relu(data + 1))
    for each in (upper, copy.deepcopy(upper), pickle.loads(pickle.dumps(upper)), copy.deepcopy(copy.deepcopy(upper))):
        assert_same(each(data), expected)
        assert_same(each(hidden=data), expected)
        assert each.input_names == ["hidden"]
        assert list(each.state_dict()) == ["dense.weight", "dense.bias"]
    # One output of a call given, the other computed.
    mixed = Model([inputs, values], values + indices)
    twin = copy.deepcopy(mixed)
    fresh = [Input((8,)), Input(())]
    cloned = clone_model(mixed, input_tensors=fresh, clone_function=lambda layer: layer)
    for each in (mixed, twin, Model(twin.inputs, twin.output), Model(fresh, cloned.output)):
        assert_same(each(A, torch.zeros(4)), (whole.layers[1](A) + 1).argmax(1).float())


def test_parameters_and_constants():
    inputs = Input((8,))
    scale, shift = nn.Parameter(torch.ones(8)), torch.arange(8.0)
    model = Model(inputs, inputs * scale + shift + shift - torch.ones(8) * 0.5)
    assert dict(model.named_parameters())["parameter"] is scale
    assert [name for name, _ in model.named_buffers()] == ["constant", "constant_1"]
    assert list(model.state_dict()) == ["parameter", "constant", "constant_1"]
    model(A).sum().backward()
    assert_same(scale.grad, A.sum(0))
    other = copy.deepcopy(model)
    with torch.no_grad():
        scale.mul_(2)
        shift.mul_(2)
    assert_same(model(A), A * 2 + 4 * torch.arange(8.0) - 0.5)
    assert_same(other(A), A + 2 * torch.arange(8.0) - 0.5)
    other.load_state_dict(model.state_dict())
    assert_same(other(A), model(A))


@pytest.mark.parametrize("embedding", [nn.Embedding, Embedding])
def test_tied_parameters(embedding):
    tokens, layer = Input((5,), dtype="int64"), embedding(10, 4)
    model = Model(tokens, F.linear(torch.tanh(layer(tokens)), layer.weight))
    assert list(model.state_dict()) == ["embedding.weight"]
    data = torch.arange(10).reshape(2, 5)
    model(data).sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    F.linear(torch.tanh(F.embedding(data, weight)), weight).sum().backward()
    assert_same(layer.weight.grad, weight.grad)
    for duplicate in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert len(list(duplicate.parameters())) == 1
        with torch.no_grad():
            next(duplicate.parameters()).zero_()
        assert duplicate(data).abs().sum() == 0
    assert model(data).abs().sum() > 0


def test_drawing_on_does_not_change_a_model():
    """The list of outputs is the caller's: filling it further is no business of a model made from it."""
    inputs = Input((8,))
    outputs = [inputs * 2]
    first = Model(inputs, outputs)
    outputs.append(inputs * 3)
    second = Model(inputs, outputs)
    assert len(first.outputs) == len(first(A)) == 1
    assert len(second(A)) == 2
    assert first.get_config()["output_layers"] != second.get_config()["output_layers"]


# Copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(model, duplicate):
    model.eval()
    model.note = "kept"
    twin = duplicate(model)
    assert type(twin).__mro__[1] is type(model).__mro__[1]
    assert (twin.name, twin.note, twin.training) == (model.name, "kept", False)
    assert twin.code == model.code
    assert list(twin.state_dict()) == list(model.state_dict())
    assert_same(twin(A, B), model(A, B))
    assert {id(tensor) for tensor in twin.parameters()}.isdisjoint(id(tensor) for tensor in model.parameters())
    assert twin.head.output is twin.output["head"]
    assert twin.layer_names() == model.layer_names()
    inner = Model(twin.inputs, twin.head.output)
    assert_same(inner(A, B), model(A, B)["head"])
    with torch.no_grad():
        twin.head.bias.add_(1)
    assert_same(twin(A, B)["head"], model(A, B)["head"] + 1)


def test_models_copied_together_keep_what_they_share():
    inputs, layer = Input((8,)), Dense(8)
    pair = copy.deepcopy([Model(inputs, layer(inputs)), Model(inputs, torch.relu(layer(inputs)))])
    assert pair[0].layers[1] is pair[1].layers[1]
    assert pair[0].layers[1] is not layer
    assert_same(torch.relu(pair[0](A)), pair[1](A))


class Scaled(Model):
    """A model class with a method of its own."""

    def scaled(self, x, factor):
        return self(x) * factor


def test_drawn_models_of_a_subclass():
    inputs = Input((8,))
    model = Scaled(inputs, Dense(2)(inputs), name="mine")
    assert isinstance(model, Scaled)
    assert isinstance(model, GraphModule)
    assert type(model).__name__ == "Scaled"
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(each, Scaled)
        assert each.name == "mine"
        assert_same(each.scaled(A, 2), model(A) * 2)
