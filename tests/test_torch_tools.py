"""Models in the hands of torch: compile, export, functional calls, hooks, modes, and passes of torch.fx."""

import copy
import pickle
import types

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from two_inputs import CALLS, A, B, ByHand, assert_same, two_inputs

from torchfunc import Input, Layer
from torchfunc.graph import with_own_code
from torchfunc.layers import Dense
from torchfunc.models import Model, Sequential


@pytest.fixture(name="model")
def fixture_model():
    torch.manual_seed(0)
    return two_inputs()


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


def test_a_method_in_place_of_forward(model):
    """As tools write it that wrap `forward` for a while and then give back what it was."""
    expected = model(A, B)
    model.forward = types.MethodType(type(model).forward, model)
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(each(A, B), expected)
    assert_same(type(model).forward(model, A, B), expected)


def test_torch_profiler_names_layers():
    """With stacks, as it does for torch's own modules: in a call, and in the steps of `fit`."""
    x = Input((8,))
    model = Model(x, nn.Linear(3, 1)(Dense(3, name="hidden")(x)))
    model.compile("sgd", "mse")
    for run in (lambda: model(A), lambda: model.fit(A, A[:, :1], verbose=0)):
        run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_stack=True) as profile:
            run()
        names = {event.name for event in profile.events()}
        assert {"nn.Module: Functional_0", "nn.Module: Dense_0", "nn.Module: Linear_0"} <= names


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


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_jit_trace_of_a_model_that_is_not_compiled_for_training(model):
    assert not hasattr(model, "metrics_names")
    with pytest.raises(AttributeError, match=r"Call `compile\(\)` first"):
        _ = model.metrics_names
    inputs = Input((8,))
    single = Model(inputs, nn.Linear(8, 3)(inputs))
    torch.testing.assert_close(torch.jit.trace(single, A)(A), single(A))
