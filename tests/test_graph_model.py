"""Model(inputs, outputs): a torch module in every respect."""

import collections
import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from torchfunc import Input, Layer
from torchfunc.graph import with_own_code
from torchfunc.layers import Dense, Embedding
from torchfunc.models import GraphModule, Model, Sequential, clone_model

A = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
B = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))


class ByHand(nn.Module):
    """What `two_inputs` draws, as a plain torch module with its weights."""

    def __init__(self, model):
        super().__init__()
        self.dense, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))
        parts = ("dense", "norm", "head")
        for mine, its in zip(parts, ("dense", "layer_norm", "head"), strict=True):
            getattr(self, mine).load_state_dict(getattr(model, its).state_dict())
        with torch.no_grad():
            self.scale.copy_(model.parameter)

    def forward(self, a, b):
        x = F.relu(self.dense(a)) + torch.tanh(F.relu(self.dense(b)))
        x = self.norm(x) * self.scale + torch.arange(8.0)
        largest, _ = x[:, 1:].max(dim=1, keepdim=True)
        return {"head": self.head(largest.repeat(1, 8)), "largest": largest}


def two_inputs():
    """Shared layer, operators, indexing, several outputs of a call, a parameter, a constant, a dict of outputs."""
    a, b = Input((8,), name="a"), Input((8,), name="b")
    dense = Dense(8, activation="relu")
    x = dense(a) + torch.tanh(dense(b))
    x = nn.LayerNorm(8)(x) * nn.Parameter(torch.linspace(0.5, 1.5, 8)) + torch.arange(8.0)
    largest, _ = x[:, 1:].max(dim=1, keepdim=True)
    return Model([a, b], {"head": Dense(3, name="head")(largest.repeat(1, 8)), "largest": largest})


@pytest.fixture(name="model")
def fixture_model():
    torch.manual_seed(0)
    return two_inputs()


def assert_same(first, second, **tolerance):
    torch.testing.assert_close(first, second, **tolerance)


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
    assert 'dense = modules["dense"](a)' in model.code
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


CALLS = {
    "one by one": lambda m, a, b: m(a, b),
    "list": lambda m, a, b: m([a, b]),
    "tuple": lambda m, a, b: m((a, b)),
    "dict": lambda m, a, b: m({"b": b, "a": a}),
    "keywords": lambda m, a, b: m(b=b, a=a),
    "mixed": lambda m, a, b: m(a, b=b),
}


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
    outputs = [layer.output for layer in model.layers if isinstance(layer, Layer) and len(layer._inbound_nodes) == 1]
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
    cloned = clone_model(mixed, clone_function=lambda layer: layer)
    for each in (mixed, twin, Model(twin.inputs, twin.output), cloned):
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


# torch's tools


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_compile(model, backend):
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert_same(compiled(A, B), model(A, B), rtol=1e-4, atol=1e-5)
    compiled(A, B)["head"].sum().backward()
    grads = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    model(A, B)["head"].sum().backward()
    assert len(grads) == len(list(model.parameters()))
    assert_same(grads, {name: value.grad for name, value in model.named_parameters()}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CALLS)
def test_torch_compile_takes_every_calling_form(model, case):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_same(CALLS[case](compiled, A, B), model(A, B))


def test_torch_compile_keeps_models_and_modules_apart():
    """There is a limit of graphs for each function that torch.compile starts in; it must not be one for all models."""

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return x

    with torch._dynamo.config.patch(recompile_limit=2):
        for depth in range(1, 5):
            x = out = Input((8,))
            layers = [nn.Linear(8, 8) for _ in range(depth)]
            for layer in layers:
                out = layer(out)
            expected = Model(x, out)(A)
            plain = type("Plain", (nn.Sequential,), {"forward": with_own_code(forward)})(*layers)
            for model in (Model(x, out), Sequential([x, *layers]), plain):
                assert_same(torch.compile(model, fullgraph=True, backend="eager")(A), expected)


def test_torch_compile_of_nested_models_and_modes():
    inner = Model(x := Input((8,)), nn.Dropout(0.5)(Dense(8)(x)))
    outer = Model(x := Input((8,)), inner(inner(x)))
    compiled = torch.compile(outer, fullgraph=True, backend="eager")
    outer.eval()
    assert_same(compiled(A), outer(A))
    assert (compiled(A, training=True) == 0).any()
    assert not any(module.training for module in outer.modules())


@pytest.mark.parametrize("strict", [True, False])
def test_torch_export(model, strict):
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (A, B), dynamic_shapes=({0: batch}, {0: batch}), strict=strict)
    assert_same(program.module()(A, B), model(A, B))
    assert_same(program.module()(A[:3], B[:3]), model(A[:3], B[:3]))
    assert set(program.state_dict) == set(model.state_dict())


def test_functional_call_and_transforms(model):
    doubled = {name: tensor * 2 for name, tensor in model.state_dict().items()}
    out = torch.func.functional_call(model, doubled, (A, B))
    twin = copy.deepcopy(model)
    twin.load_state_dict(doubled)
    assert_same(out, twin(A, B))
    assert_same(torch.func.functional_call(model, doubled, (), {"a": A, "b": B}), out)
    linear = Model(x := Input((8,)), Dense(2)(x))
    assert_same(torch.func.jacrev(linear)(A[:1])[0, :, 0], linear.dense.weight.detach())
    per_sample = torch.func.vmap(
        torch.func.grad(lambda p, x: torch.func.functional_call(linear, p, (x[None],)).sum()), (None, 0)
    )
    assert per_sample(dict(linear.named_parameters()), A)["dense.weight"].shape == (4, 2, 8)


def test_hooks_run_once_for_each_call(model):
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(("model", len(args))))
    model.register_forward_hook(lambda module, args, out: {**out, "hooked": True})
    model.dense.register_forward_hook(lambda *_: seen.append("dense"))
    model.layer_norm.register_forward_pre_hook(lambda *_: seen.append("norm"))
    out = model({"b": B, "a": A})
    assert seen == [("model", 2), "dense", "dense", "norm"]
    assert out["hooked"] is True
    assert two_inputs()(A, B).keys() == {"head", "largest"}


def test_module_surgery(model):
    before = model(A, B)["head"]
    model.head = nn.Sequential(model.head, nn.Softmax(-1))
    assert_same(model(A, B)["head"], before.softmax(-1))
    torch.nn.utils.parametrizations.weight_norm(model.dense)
    assert_same(model(A, B)["head"], before.softmax(-1))
    model.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert [name for name, _ in model.named_children()] == ["dense", "layer_norm", "head"]


def test_train_and_eval_modes():
    dropout = nn.Dropout(0.5)
    inner = Model(x := Input((8,)), dropout(x))
    model = Model(x := Input((8,)), inner(x))
    assert model.training
    assert dropout.training
    assert (model(torch.ones(4, 8)) == 0).any()
    assert_same(model(A, training=False), A)
    assert model.training
    assert dropout.training
    assert not model.eval().training
    assert not dropout.training
    assert_same(model(A), A)
    assert (model(torch.ones(4, 8), training=True) == 0).any()
    assert not dropout.training
    inner.train()
    assert (model(torch.ones(4, 8)) == 0).any()
    assert not model.training


def test_training_recorded_in_the_graph():
    class Switch(Layer):
        def call(self, x, training=None):
            return x * 2 if training else x

    layer = Switch()
    x = Input((8,))
    model = Model(x, [layer(x), layer(x, training=True), layer(x, training=False)])
    for mode in (True, False):
        model.train(mode)
        assert_same(model(A), [A * (2 if mode else 1), A * 2, A])
        assert_same(model(A, training=not mode), [A * (1 if mode else 2), A * 2, A])
        assert layer.training is mode


# torch.fx


def test_the_graph_is_a_torch_fx_graph(model):
    model.graph.lint()
    assert [node.op for node in model.graph.nodes].count("call_module") == 4
    assert_same(fx.Interpreter(model).run(A, B), model(A, B))
    assert_same(fx.GraphModule(model, model.graph)(A, B), model(A, B))
    assert_same(fx.Transformer(model).transform()(A, B), model(A, B))
    assert "dense" in model.print_readable(print_output=False)
    assert model.graph.eliminate_dead_code() is False


def test_fx_passes_over_the_graph(model):
    for node in model.graph.nodes:
        if node.target is torch.tanh:
            with model.graph.inserting_after(node):
                replacement = model.graph.call_function(F.gelu, node.args)
            node.replace_all_uses_with(replacement)
            model.graph.erase_node(node)
    before = model(A, B)["head"]
    model.recompile()
    model.graph.lint()
    after = model(A, B)["head"]
    assert not torch.equal(before, after)
    assert "gelu" in model.code
    by_hand = ByHand(model)
    x = F.relu(by_hand.dense(A)) + F.gelu(F.relu(by_hand.dense(B)))
    x = (by_hand.norm(x) * by_hand.scale + torch.arange(8.0))[:, 1:].amax(1, keepdim=True)
    assert_same(after, by_hand.head(x.repeat(1, 8)))
    for duplicate in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(duplicate(A, B)["head"], after)


def test_fx_pattern_replacement_and_a_new_graph():
    x = Input((8,))
    model = Model(x, torch.relu(x + 1) * 2)
    assert fx.replace_pattern(model, lambda x: torch.relu(x), lambda x: torch.sigmoid(x))
    assert_same(model(A), torch.sigmoid(A + 1) * 2)
    graph = fx.Graph()
    graph.output(graph.call_function(torch.exp, (graph.placeholder("x"),)))
    model.graph = graph
    assert_same(model(A), A.exp())


def test_shape_propagation_agrees_with_the_drawing(model):
    fx.passes.shape_prop.ShapeProp(model).propagate(A, B)
    shapes = {node.name: node.meta["tensor_meta"].shape for node in model.graph.nodes if node.op == "call_module"}
    assert shapes == {"dense": (4, 8), "dense_1": (4, 8), "layer_norm": (4, 8), "head": (4, 3)}


def test_constants_in_code_survive():
    x = Input((3, 8, 8))
    y = F.interpolate(F.pad(x, (1, 1, 1, 1), mode="reflect"), size=(4, 4), mode="bilinear", align_corners=False)
    y = y.masked_fill(y > 9, float("inf")).to(dtype=torch.float64).to("cpu")[..., :3, None]
    model = Model(x, y)
    data = torch.randn(2, 3, 8, 8)
    padded = F.pad(data, (1, 1, 1, 1), mode="reflect")
    expected = F.interpolate(padded, size=(4, 4), mode="bilinear", align_corners=False).double()[..., :3, None]
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(each(data), expected)
