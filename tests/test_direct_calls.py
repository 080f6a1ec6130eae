"""The inner fast path: a model calls its layers' forward directly, unless calling the layers would do more."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchfunc import Input, Model, layers

X = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])


def network():
    inputs = Input((3,))
    x = layers.Dense(4, activation="relu")(inputs)
    return Model(inputs, nn.Linear(4, 2)(x))


def by_hand(model, x=X):
    dense, linear = model.get_layer("dense"), model.get_layer("linear")
    return F.linear(F.linear(x, dense.weight, dense.bias).relu(), linear.weight, linear.bias)


def test_a_module_called_by_keyword():
    inputs = Input((3,))
    model = Model(inputs, nn.Linear(3, 2)(input=inputs))
    linear = model.get_layer("linear")
    torch.testing.assert_close(model(X), F.linear(X, linear.weight, linear.bias))


def check(model, x=X):
    torch.testing.assert_close(model(x), by_hand(model, x), rtol=0, atol=0)


@pytest.fixture
def called(monkeypatch):
    """The modules that were called as modules."""
    seen, original = [], nn.Module._call_impl

    def call(self, *args, **kwargs):
        seen.append(type(self).__name__)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "_call_impl", call)
    return seen


def test_layers_are_not_called_as_modules(called):
    model = network()
    called.clear()
    check(model)
    assert called == []
    torch.testing.assert_close(model(X, training=False), by_hand(model, X), rtol=0, atol=0)
    assert called == []


def test_gradients():
    model = network()
    found = torch.autograd.grad(model(X).sum(), list(model.parameters()))
    expected = torch.autograd.grad(by_hand(model).sum(), list(model.parameters()))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


HOOKS = {
    "forward": lambda module, seen: module.register_forward_hook(lambda *_: seen.append("forward")),
    "pre": lambda module, seen: module.register_forward_pre_hook(lambda *_: seen.append("pre")),
    "backward": lambda module, seen: module.register_full_backward_hook(lambda *_: seen.append("backward")),
    "backward pre": lambda module, seen: module.register_full_backward_pre_hook(lambda *_: seen.append("backward pre")),
    "all modules": lambda module, seen: nn.modules.module.register_module_forward_hook(
        lambda hooked, *_: seen.append("all modules") if hooked is module else None
    ),
}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", ["dense", "linear", None])
def test_hooks_fire_whenever_they_come(kind, name):
    model, seen, x = network(), [], X.clone().requires_grad_()
    check(model)
    module = model if name is None else model.get_layer(name)
    hook = HOOKS[kind](module, seen)
    for count in range(1, 7):
        model(x).sum().backward()
        assert seen == [kind] * count
    hook.remove()
    for _ in range(5):
        model(x).sum().backward()
    assert seen == [kind] * 6


def test_other_layers_stay_direct_beside_a_hooked_one(called):
    model = network()
    model.get_layer("dense").register_forward_hook(lambda *_: None)
    for _ in range(6):
        called.clear()
        check(model)
    assert called == ["Dense"]


def test_other_layers_become_direct_again_beside_one_hooked_later(called):
    """A hook that stays is adapted to after a few calls, and so is its removal."""
    model = network()
    check(model)
    hook = model.get_layer("dense").register_forward_hook(lambda *_: None)
    for _ in range(6):
        called.clear()
        check(model)
    assert called == ["Dense"]
    hook.remove()
    model.get_layer("linear").register_forward_hook(lambda *_: None)
    for _ in range(6):
        called.clear()
        check(model)
    assert called == ["Linear"]


class Nested(Model):
    def __init__(self):
        super().__init__()
        self.inner, self.dense = network(), layers.Dense(2)

    def call(self, x):
        return self.dense(self.inner(x))


@pytest.mark.parametrize("make", [network, Nested])
def test_another_call_of_modules(make, monkeypatch):
    """Tools that follow calls put a function of their own in the place of `nn.Module.__call__` for a while."""
    model, seen, usual = make(), [], nn.Module.__call__
    expected = model(X)

    def call(self, *args):
        seen.append(type(self).__name__)
        return usual(self, *args)

    names = ["Functional", "Dense", "Linear"]
    monkeypatch.setattr(nn.Module, "__call__", call)
    for _ in range(6):
        seen.clear()
        torch.testing.assert_close(model(X), expected, rtol=0, atol=0)
        assert seen == (names if make is network else ["Nested", *names, "Dense"])
    monkeypatch.undo()
    seen.clear()
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)
    assert seen == []


@pytest.mark.parametrize("early", [True, False])
def test_a_new_layer_in_its_place_is_built_when_it_is_called(early):
    model = network()
    if not early:
        check(model)
    model.add_module("dense", layers.Dense(4, activation="relu"))
    assert not model.dense.built
    linear = model.get_layer("linear")
    found = model(X)
    dense = model.dense
    assert dense.built
    expected = F.linear(F.linear(X, dense.weight, dense.bias).relu(), linear.weight, linear.bias)
    for output in (found, model(X)):
        torch.testing.assert_close(output, expected)


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.mark.parametrize("make", [lambda: layers.Dense(4), Doubled])
@pytest.mark.parametrize("early", [True, False])
def test_a_layer_that_is_compiled_by_itself(make, early):
    """`layer.compile()`, before or after the model's first call, changes what a call of the layer does."""
    compiled = []

    def backend(graph, examples):
        compiled.append(graph)
        return graph.forward

    layer, inputs = make(), Input((3,))
    model = Model(inputs, layer(inputs))
    expected = layer(X)
    if not early:
        torch.testing.assert_close(model(X), expected)
    nn.Module.compile(layer, backend=backend)
    torch.testing.assert_close(model(X), expected)
    assert len(compiled) == 1


def test_losses_added_by_each_call_of_a_model_within_another():
    inputs = Input((3,))
    inner = Model(inputs, layers.Dense(4, activity_regularizer="l2")(inputs))
    outer = Input((3,))
    model = Model(outer, inner(outer) + inner(outer * 2))
    for _ in range(2):
        model(X)
        dense = inner.get_layer("dense")
        expected = [0.01 * (F.linear(x, dense.weight, dense.bias) ** 2).sum() / 2 for x in (X, X * 2)]
        torch.testing.assert_close(sum(model.losses), sum(expected))


def test_a_forward_of_its_own():
    model = network()
    check(model)
    model.get_layer("dense").forward = lambda x: torch.ones(2, 4)
    linear = model.get_layer("linear")
    for _ in range(6):
        torch.testing.assert_close(model(X), F.linear(torch.ones(2, 4), linear.weight, linear.bias), rtol=0, atol=0)
    del model.get_layer("dense").forward
    check(model)
    model.forward = lambda x: x * 2
    torch.testing.assert_close(model(X), X * 2)


def test_a_class_with_another_forward(monkeypatch):
    model = network()
    check(model)
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x * 0)
    for _ in range(6):
        assert not model(X).any()


def test_another_layer_in_its_place():
    model = network()
    check(model)
    model.dense = nn.Identity()
    model.linear = nn.Sequential(nn.Linear(3, 1), nn.ReLU())
    for _ in range(6):
        torch.testing.assert_close(model(X), F.linear(X, model.linear[0].weight, model.linear[0].bias).relu())


def test_weights_are_read_when_the_model_runs():
    model = network()
    check(model)
    model.load_state_dict({key: torch.ones_like(value) for key, value in model.state_dict().items()}, assign=True)
    torch.testing.assert_close(
        model(X), F.linear(F.linear(X, torch.ones(4, 3), torch.ones(4)).relu(), torch.ones(2, 4)) + 1
    )
    doubled = {name: value * 2 for name, value in model.named_parameters()}
    found = torch.func.functional_call(model, doubled, (X,))
    hidden = F.linear(X, doubled["dense.weight"], doubled["dense.bias"]).relu()
    torch.testing.assert_close(found, F.linear(hidden, doubled["linear.weight"], doubled["linear.bias"]))
    check(model.double(), X.double())
    model.get_layer("dense").weight = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
    check(model, X.double())


@pytest.mark.parametrize("name", ["dense", "linear"])
def test_parametrized_and_replaced_weights(name):
    model = network()
    check(model)
    nn.utils.parametrizations.weight_norm(model.get_layer(name))
    for _ in range(6):
        check(model)
    nn.utils.parametrize.remove_parametrizations(model.get_layer(name), "weight")
    check(model)
    weight = model.get_layer(name).weight.detach() * 3
    del model.get_layer(name).weight
    model.get_layer(name).weight = weight
    check(model)


def test_settings_are_read_when_the_model_runs():
    model = network()
    check(model)
    model.get_layer("dense").activation = torch.tanh
    dense, linear = model.get_layer("dense"), model.get_layer("linear")
    hidden = torch.tanh(F.linear(X, dense.weight, dense.bias))
    torch.testing.assert_close(model(X), F.linear(hidden, linear.weight, linear.bias))


def test_dropout_and_batch_normalization_follow_the_mode():
    inputs = Input((3,))
    model = Model(inputs, layers.Dropout(0.5)(layers.BatchNormalization(momentum=0.5)(inputs)))
    torch.manual_seed(0)
    found = model(X)
    torch.manual_seed(0)
    normal = layers.BatchNormalization(momentum=0.5)
    expected = F.dropout(normal(X, training=True), 0.5)
    torch.testing.assert_close(found, expected)
    buffers = model.get_layer("batch_normalization")
    torch.testing.assert_close(buffers.running_mean, X.mean(0) / 2)
    model.eval()
    torch.testing.assert_close(model(X), (X - buffers.running_mean) / (buffers.running_var + 1e-3).sqrt())
    torch.manual_seed(0)
    torch.testing.assert_close(model(X, training=True), expected)


def test_added_losses_are_those_of_the_last_call():
    inputs = Input((3,))
    x = layers.ActivityRegularization(l1=1.0)(inputs)
    model = Model(inputs, layers.Dense(2, activity_regularizer="l2")(x))
    for _ in range(3):
        y = model(X)
        torch.testing.assert_close(sum(model.losses), (X.abs().sum() + 0.01 * y.square().sum()) / 2)


def test_constants_parameters_and_shared_layers():
    shared, scale = layers.Dense(3), nn.Parameter(torch.tensor(3.0))
    inputs = Input((3,))
    model = Model(inputs, shared(shared(inputs)) * scale + torch.ones(3))
    twice = F.linear(F.linear(X, shared.weight, shared.bias), shared.weight, shared.bias)
    torch.testing.assert_close(model(X), twice * 3 + 1)


def test_a_training_argument_within_the_graph():
    inputs = Input((3,))
    model = Model(inputs, layers.Dropout(0.99)(inputs, training=False))
    assert model.training
    torch.testing.assert_close(model(X), X)


def test_a_module_with_a_call_of_its_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def __call__(self, x):
            return super().__call__(x) * 2

        def forward(self, x):
            return self.linear(x)

    inputs = Input((3,))
    twice = Twice()
    model = Model(inputs, layers.TorchModule(twice)(inputs))
    torch.testing.assert_close(model(X), twice.linear(X) * 2)


def test_copies_call_their_own_layers():
    model = network()
    check(model)
    duplicate = copy.deepcopy(model)
    with torch.no_grad():
        duplicate.get_layer("dense").weight.zero_()
    check(model)
    check(duplicate)


def test_changed_graphs():
    model = network()
    check(model)
    output = next(node for node in model.graph.nodes if node.op == "output")
    with model.graph.inserting_before(output):
        output.args = (model.graph.call_function(torch.neg, (output.args[0],)),)
    model.recompile()
    torch.testing.assert_close(model(X), -by_hand(model))


def test_tracing_and_compiling_see_the_modules():
    model = network()
    check(model)
    traced = torch.fx.symbolic_trace(model)
    assert "linear" in [node.target for node in traced.graph.nodes if node.op == "call_module"]
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(X), by_hand(model))
    torch.testing.assert_close(torch.export.export(model, (X,)).module()(X), by_hand(model))


def test_the_training_forward_is_direct(called):
    inputs = Input((3,))
    x = layers.Dense(4, activation="relu")(inputs)
    model = Model(inputs, layers.Dense(2, activation="softmax")(x))
    found = model.forward_for_training(X, logits_of=(0,))
    assert called == []
    first, last = model.get_layer("dense"), model.get_layer("dense_1")
    logits = F.linear(F.linear(X, first.weight, first.bias).relu(), last.weight, last.bias)
    torch.testing.assert_close(found.logits, [logits], rtol=0, atol=0)


def test_hooks_come_and_go_while_another_thread_runs():
    model, stop, failures = network(), threading.Event(), []
    expected = by_hand(model)

    def run():
        while not stop.is_set():
            if not torch.equal(model(X), expected):
                failures.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(200):
        model.get_layer("dense").register_forward_hook(lambda *_: None).remove()
        model(X)
    stop.set()
    thread.join()
    assert not failures
