"""Optimizers: their steps, arguments and configs against Keras', and torch's optimizers behind the same protocol."""

import copy
import functools
import io
import pickle
import re

import keras
import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from torchfunc import optimizers

# Keras' own variables are not ready for NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

SHAPES = [(3, 4), (4,), (2, 2, 2)]
DTYPES = [torch.float64, torch.float32, torch.float64]


def gradients(steps, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [[(scale * rng.standard_normal(shape)).astype("float32") for shape in SHAPES] for _ in range(steps)]


def weights(seed=1):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype("float32") for shape in SHAPES]


def parameters():
    return [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in weights()]


def run_ours(optimizer, grads, params=None):
    params = params or parameters()
    for step in grads:
        optimizer.apply([torch.from_numpy(g) for g in step], params)
    return params


def run_keras(optimizer, grads):
    variables = [keras.Variable(w) for w in weights()]
    for step in grads:
        optimizer.apply([torch.from_numpy(g) for g in step], variables)
    return variables


def assert_same(params, variables, rtol=2e-5):
    for param, variable in zip(params, variables, strict=True):
        expected = variable.value.detach().numpy()
        np.testing.assert_allclose(param.detach().numpy(), expected, rtol=rtol, atol=2e-6)


def test_keras_config_is_read():
    config = keras.optimizers.serialize(keras.optimizers.Adam(0.25, beta_1=0.5))
    ours = optimizers.deserialize(config)
    assert type(ours) is optimizers.Adam
    assert ours.beta_1 == 0.5
    assert float(ours.learning_rate) == 0.25


@pytest.mark.parametrize(
    ("identifier", "cls"),
    [
        ("sgd", optimizers.SGD),
        ("SGD", optimizers.SGD),
        ("rmsprop", optimizers.RMSprop),
        ("rm_sprop", optimizers.RMSprop),
        ("RMSprop", optimizers.RMSprop),
        ("Adam", optimizers.Adam),
        ("adamw", optimizers.AdamW),
        (optimizers.Adam, optimizers.Adam),
        ({"class_name": "adam", "config": {}}, optimizers.Adam),
        (torch.optim.Adagrad, optimizers.TorchOptimizer),
    ],
)
def test_get(identifier, cls):
    assert type(optimizers.get(identifier)) is cls


def test_get_passes_instances_and_none():
    adam = optimizers.Adam()
    assert optimizers.get(adam) is adam
    assert optimizers.get(None) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optimizers.get("adamm"), ["adamm", "Did you mean 'adam'"]),
        (lambda: optimizers.get(3), ["3", "optimizer"]),
        (lambda: optimizers.Adam(foo=1), ["Adam", "'foo'"]),
        (lambda: optimizers.Adam("fast"), ["learning_rate", "'fast'"]),
        (lambda: optimizers.SGD(momentum=2.0), ["momentum", "2.0"]),
        (lambda: optimizers.RMSprop(rho=1.0), ["rho", "1.0"]),
        (lambda: optimizers.SGD().load_own_variables({"0": 1}), ["SGD", "the store holds {'0': ()}"]),
        (lambda: optimizers.AdamW(weight_decay=None), ["AdamW", "weight_decay"]),
        (lambda: optimizers.SGD(clipnorm=1.0, clipvalue=1.0), ["clipnorm", "clipvalue"]),
        (lambda: optimizers.SGD(use_ema=True, ema_momentum=2.0), ["ema_momentum"]),
        (lambda: optimizers.SGD(use_ema=True, ema_overwrite_frequency=0), ["ema_overwrite_frequency"]),
        (lambda: optimizers.SGD(gradient_accumulation_steps=1), ["gradient_accumulation_steps", "1"]),
        (lambda: optimizers.SGD().build([]), ["SGD", "no weights"]),
        (lambda: optimizers.SGD().apply([torch.ones(1)]), ["not built"]),
        (lambda: optimizers.SGD().apply([None], [torch.ones(1)]), ["All gradients are None"]),
        (lambda: optimizers.SGD().apply([torch.ones(1)], [torch.ones(1), torch.ones(1)]), ["1 gradients", "2"]),
        (lambda: optimizers.get(torch.optim.LBFGS).build([torch.ones(1, requires_grad=True)]), ["LBFGS", "closure"]),
    ],
)
def test_wrong_use(make, words):
    with pytest.raises(ValueError, match=r"(?s)" + "".join(f"(?=.*{re.escape(word)})" for word in words)):
        make()


def test_other_weights_are_an_error():
    optimizer = optimizers.Adam()
    run_ours(optimizer, gradients(1))
    with pytest.raises(ValueError, match="built for 3 other weights"):
        run_ours(optimizer, gradients(1))


def test_update_step_is_abstract():
    with pytest.raises(NotImplementedError, match="update_step"):
        run_ours(optimizers.Optimizer(0.1), gradients(1))


def test_old_spelling_of_learning_rate():
    assert float(optimizers.Adam(lr=0.5).learning_rate) == 0.5
    with pytest.warns(UserWarning, match="decay"):
        optimizers.SGD(lr=0.5, decay=1e-6)


def test_learning_rate_can_be_set_between_steps():
    ours, theirs = optimizers.SGD(0.1, momentum=0.9), keras.optimizers.SGD(0.1, momentum=0.9)
    grads = gradients(6)
    params, variables = parameters(), [keras.Variable(w) for w in weights()]
    for index, step in enumerate(grads):
        ours.learning_rate = theirs.learning_rate = 0.1 / (index + 1)
        ours.apply([torch.from_numpy(g) for g in step], params)
        theirs.apply([torch.from_numpy(g) for g in step], variables)
    assert_same(params, variables)
    with pytest.raises(ValueError, match="learning_rate"):
        ours.learning_rate = "slow"


def test_schedule_gets_the_step_and_a_function_gets_nothing():
    seen = []
    scheduled = optimizers.SGD(lambda step: seen.append(int(step)) or 0.5)
    run_ours(scheduled, gradients(3))
    assert seen == [0, 1, 2]
    with pytest.raises(TypeError, match="schedule"):
        scheduled.learning_rate = 0.1
    constant = optimizers.SGD(lambda: 0.25)
    assert constant.learning_rate == 0.25
    assert_same(run_ours(constant, gradients(3)), run_keras(keras.optimizers.SGD(0.25), gradients(3)))
    settable = optimizers.SGD(0.1)
    settable.learning_rate = lambda step: 0.25
    assert_same(run_ours(settable, gradients(3)), run_keras(keras.optimizers.SGD(0.25), gradients(3)))


def test_apply_gradients_and_build():
    optimizer = optimizers.Adam()
    params = parameters()
    optimizer.build(params)
    grads = [torch.from_numpy(g) for g in gradients(1)[0]]
    before = [g.clone() for g in grads]
    assert int(optimizer.apply_gradients(zip(grads, params, strict=True))) == 1
    optimizer.apply(grads)
    assert int(optimizer.iterations) == int(optimizer.variables[0]) == 2
    assert all(torch.equal(a, b) for a, b in zip(grads, before, strict=True))
    assert_same(params, run_keras(keras.optimizers.Adam(), gradients(1) * 2))


@pytest.mark.parametrize("options", [{}, {"clipnorm": 0.1}, {"global_clipnorm": 0.1}, {"clipvalue": 0.1}])
def test_missing_gradients_leave_their_weights(options):
    optimizer = optimizers.Adam(0.1, weight_decay=0.1, **options)
    params = parameters()
    start = [p.detach().clone() for p in params]
    for step in gradients(3):
        optimizer.apply([torch.from_numpy(step[0]), None, torch.from_numpy(step[2])], params)
    assert torch.equal(params[1], start[1])
    theirs = keras.optimizers.Adam(0.1, weight_decay=0.1, **options)
    variables = [keras.Variable(w) for w in weights()]
    for step in gradients(3):
        theirs.apply([torch.from_numpy(step[0]), torch.from_numpy(step[2])], [variables[0], variables[2]])
    assert_same([params[0], params[2]], [variables[0], variables[2]])


def test_infinite_gradients_are_not_hidden_by_clipping():
    optimizer = optimizers.SGD(global_clipnorm=1.0)
    param = torch.zeros(2, requires_grad=True)
    optimizer.apply([torch.tensor([float("inf"), 1.0])], [param])
    assert param.isnan().all()


def test_sparse_gradients():
    table = torch.nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 3])).sum().backward()
    before = table.weight.detach().clone()
    optimizers.SGD(1.0).apply([table.weight.grad], [table.weight])
    expected = before - torch.tensor([0.0, 1, 0, 1, 0]).unsqueeze(1)
    torch.testing.assert_close(table.weight.detach(), expected)


def test_exclude_from_weight_decay():
    params = parameters()
    optimizer = optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[params[0]], var_names=["bias"])
    optimizer.name_weights(zip(["a.weight", "a.bias", "b.weight"], params, strict=True))
    zeros = [torch.zeros_like(p) for p in params]
    start = [p.detach().clone() for p in params]
    optimizer.apply(zeros, params)
    assert torch.equal(params[0], start[0])
    assert torch.equal(params[1], start[1])
    torch.testing.assert_close(params[2].detach(), start[2] * 0.95)
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay()


def test_a_constraint_on_the_weight_is_kept():
    param = torch.nn.Parameter(torch.ones(3))
    param.constraint = lambda weight: weight.clamp_min(0)
    optimizers.SGD(1.0).apply([torch.tensor([2.0, 0.5, 3.0])], [param])
    assert param.tolist() == [0.0, 0.5, 0.0]


def test_own_optimizer_written_as_in_keras():
    class Momentum(optimizers.Optimizer):
        def build(self, variables):
            super().build(variables)
            self.momentums = [self.add_variable_from_reference(v, name="momentum") for v in variables]

        def update_step(self, gradient, variable, learning_rate):
            velocity = self.momentums[self._get_variable_index(variable)]
            self.assign(velocity, velocity * 0.9 - gradient * learning_rate)
            self.assign_add(variable, velocity)

    assert_same(run_ours(Momentum(0.1), gradients(5)), run_keras(keras.optimizers.SGD(0.1, momentum=0.9), gradients(5)))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam"])
def test_copies_go_on_alike(name, copier):
    optimizer = getattr(optimizers, name)(0.1)
    params = run_ours(optimizer, gradients(3))
    twin, twin_params = copier((optimizer, params))
    run_ours(optimizer, gradients(3, seed=5), params)
    run_ours(twin, gradients(3, seed=5), twin_params)
    for a, b in zip(params, twin_params, strict=True):
        assert a is not b
        assert torch.equal(a, b)
    assert int(twin.iterations) == 6


@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_mixed_dtypes_take_the_formula(name):
    params = [torch.nn.Parameter(p.detach().to(d)) for p, d in zip(parameters(), DTYPES, strict=True)]
    optimizer = getattr(optimizers, name)(0.01)
    for step in gradients(5):
        optimizer.apply([torch.from_numpy(g).to(p.dtype) for g, p in zip(step, params, strict=True)], params)
    assert_same(params, run_keras(getattr(keras.optimizers, name)(0.01), gradients(5)))


@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", {"momentum": 0.9}), ("RMSprop", {}), ("RMSprop", {"momentum": 0.9, "centered": True}), ("Adam", {})],
    ids=str,
)
def test_compiled_update_equals_the_eager_one(name, options):
    compiled, eager = getattr(optimizers, name)(0.1, **options), getattr(optimizers, name)(0.1, **options)
    params = parameters()
    compiled.build(params)
    count = CompileCounter()
    step = torch.compile(lambda grads: compiled.apply(grads), fullgraph=True, dynamic=False, backend=count)
    expected = parameters()
    for index, grads in enumerate(gradients(4)):
        compiled.learning_rate = eager.learning_rate = 0.1 / (index + 1)
        step([torch.from_numpy(g) for g in grads])
        eager.apply([torch.from_numpy(g) for g in grads], expected)
    for a, b in zip(params, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert count.frame_count == 1, "a changed learning rate must not compile again"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adagrad", "RMSprop", "SGD", "Nadam"])
def test_the_layout_of_gradients_and_weights_in_memory_is_no_matter(name, layout):
    start, gradient = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    plain, other = start.clone(), start.clone(memory_format=layout)
    for weight, format in ((plain, torch.contiguous_format), (other, torch.channels_last)):
        optimizer = getattr(optimizers, name)(0.1)
        for step in range(3):
            optimizer.apply([(gradient + step).contiguous(memory_format=format)], [weight])
    torch.testing.assert_close(other, plain)


class TestTorchOptimizer:
    def test_gradients_for_fused_kernels_are_laid_out_as_the_weights(self):
        gradient, found = torch.randn(3, 4, 2, 2), []
        for layout in (torch.contiguous_format, torch.channels_last):
            weight = torch.nn.Parameter(torch.zeros(3, 4, 2, 2))
            optimizer = optimizers.get(torch.optim.Adam([weight], fused=True))
            optimizer.apply([gradient.contiguous(memory_format=layout)], [weight])
            found.append(weight.detach())
        torch.testing.assert_close(*found)

    @pytest.mark.parametrize(
        "make",
        [
            lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
            functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        ],
    )
    def test_equals_a_torch_loop(self, make):
        params, expected = parameters(), parameters()
        reference = torch.optim.SGD(expected, lr=0.1, momentum=0.9)
        optimizer = optimizers.get(make)
        for step in gradients(4):
            for param, grad in zip(expected, step, strict=True):
                param.grad = torch.from_numpy(grad)
            reference.step()
        run_ours(optimizer, gradients(4), params)
        for a, b in zip(params, expected, strict=True):
            assert torch.equal(a, b)
            assert a.grad is None
        assert int(optimizer.iterations) == 4
        assert len(optimizer.variables) == 4
        optimizer.learning_rate = 0.5
        assert optimizer.torch_optimizer.param_groups[0]["lr"] == optimizer.learning_rate == 0.5

    def test_instance_of_other_weights_is_an_error(self):
        optimizer = optimizers.get(torch.optim.Adam(parameters()))
        with pytest.raises(ValueError, match=r"Adam holds none of the model's 3 trainable weights"):
            optimizer.build(parameters())

    def test_weights_it_does_not_hold_stay(self):
        params = parameters()
        optimizer = optimizers.get(torch.optim.SGD(params[:1], lr=1.0))
        start = [p.detach().clone() for p in params]
        run_ours(optimizer, gradients(1), params)
        assert not torch.equal(params[0], start[0])
        assert torch.equal(params[1], start[1])

    def test_a_function_that_makes_something_else(self):
        with pytest.raises(TypeError, match=r"torch\.optim\.Optimizer"):
            optimizers.get(lambda params: "sgd").build(parameters())

    def test_learning_rate_before_it_is_made(self):
        with pytest.raises(ValueError, match="first meets the model's weights"):
            _ = optimizers.get(torch.optim.SGD).learning_rate

    def test_config(self):
        optimizer = optimizers.get(torch.optim.AdamW(parameters(), lr=0.5, betas=(0.5, 0.9)))
        again = optimizers.deserialize(optimizers.serialize(optimizer))
        again.build(parameters())
        assert type(again.torch_optimizer) is torch.optim.AdamW
        assert again.torch_optimizer.defaults["lr"] == 0.5
        assert again.torch_optimizer.defaults["betas"] == (0.5, 0.9)

    def test_pickle(self):
        params = parameters()
        optimizer = optimizers.get(torch.optim.Adam(params, lr=0.1))
        run_ours(optimizer, gradients(2), params)
        buffer = io.BytesIO()
        torch.save((optimizer, params), buffer)
        buffer.seek(0)
        twin, twin_params = torch.load(buffer, weights_only=False)
        run_ours(optimizer, gradients(2, seed=9), params)
        run_ours(twin, gradients(2, seed=9), twin_params)
        assert all(torch.equal(a, b) for a, b in zip(params, twin_params, strict=True))


def test_weights_of_an_optimizer_are_set_in_order():
    weight = torch.nn.Parameter(torch.ones(2))
    ours, twin = optimizers.Adam(0.1), optimizers.Adam(0.1)
    for optimizer in (ours, twin):
        optimizer.build([weight])
    ours.apply([torch.tensor([1.0, 2.0])], [weight])
    twin.set_weights([variable.numpy() for variable in ours.variables])
    for one, other in zip(ours.variables, twin.variables, strict=True):
        assert torch.equal(one, other)
    assert int(twin.iterations) == 1
    with pytest.raises(ValueError, match="Build the optimizer"):
        optimizers.Adam().set_weights([variable.numpy() for variable in ours.variables])
