"""Activations against Keras on the torch backend: values and gradients, kinks included."""

import keras
import pytest
import torch

from torchfunc import activations

CASES = [
    ("relu", {}),
    ("relu", {"negative_slope": 0.3}),
    ("relu", {"max_value": 6.0}),
    ("relu", {"max_value": 2.0}),
    ("relu", {"threshold": 1.0}),
    ("relu", {"threshold": -1.5, "max_value": 3.0}),
    ("relu", {"negative_slope": 0.3, "max_value": 6.0}),
    ("relu", {"negative_slope": 0.3, "threshold": 0.5}),
    ("relu", {"negative_slope": 0.3, "max_value": 2.0, "threshold": -0.5}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.01}),
    ("relu6", {}),
    ("softmax", {}),
    ("softmax", {"axis": 0}),
    ("softmax", {"axis": (0, 1)}),
    ("log_softmax", {}),
    ("log_softmax", {"axis": 1}),
    ("elu", {}),
    ("elu", {"alpha": 0.5}),
    ("celu", {}),
    ("celu", {"alpha": 0.5}),
    ("selu", {}),
    ("softplus", {}),
    ("softsign", {}),
    ("squareplus", {}),
    ("squareplus", {"b": 0.5}),
    ("soft_shrink", {}),
    ("soft_shrink", {"threshold": 1.0}),
    ("hard_shrink", {}),
    ("hard_shrink", {"threshold": 1.0}),
    ("tanh_shrink", {}),
    ("sparse_plus", {}),
    ("silu", {}),
    ("swish", {}),
    ("gelu", {}),
    ("gelu", {"approximate": True}),
    ("glu", {}),
    ("glu", {"axis": 1}),
    ("tanh", {}),
    ("hard_tanh", {}),
    ("threshold", {"threshold": 0.5, "default_value": -2.0}),
    ("sigmoid", {}),
    ("log_sigmoid", {}),
    ("hard_sigmoid", {}),
    ("sparse_sigmoid", {}),
    ("hard_silu", {}),
    ("hard_swish", {}),
    ("mish", {}),
    ("exponential", {}),
    ("linear", {}),
]
cases = pytest.mark.parametrize(("name", "kwargs"), CASES)


def inputs(dtype: torch.dtype) -> torch.Tensor:
    """Values on both sides of every kink, and on it, as (5, 2, 8)."""
    generator = torch.Generator().manual_seed(0)
    kinks = torch.tensor([-30, -6, -3, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 6, 30], dtype=dtype)
    others = 4 * torch.randn(80 - len(kinks), generator=generator, dtype=dtype)
    return torch.cat([kinks, others])[torch.randperm(80, generator=generator)].view(5, 2, 8)


def value_and_gradient(function, x, kwargs):
    x = x.clone().requires_grad_()
    y = function(x, **kwargs)
    weights = torch.linspace(0.5, 1.5, y.numel(), dtype=x.dtype).view(y.shape)
    return y.detach(), torch.autograd.grad((y * weights).sum(), x)[0]


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_keras(name, kwargs, dtype):
    x = inputs(dtype)
    ours = value_and_gradient(getattr(activations, name), x, kwargs)
    theirs = value_and_gradient(getattr(keras.activations, name), x, kwargs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@cases
def test_symbolic_objects(name, kwargs):
    """A `torch.fx.Proxy` knows nothing but `__torch_function__` and operators."""
    function = getattr(activations, name)
    x = inputs(torch.float32)
    traced = torch.fx.symbolic_trace(lambda x: function(x, **kwargs))
    torch.testing.assert_close(traced(x), function(x, **kwargs), rtol=0, atol=0)


def test_sparsemax_of_a_symbolic_object():
    x = inputs(torch.float32)
    torch.testing.assert_close(torch.fx.symbolic_trace(lambda x: activations.sparsemax(x))(x), activations.sparsemax(x))


@pytest.mark.parametrize(
    ("name", "target"),
    [("relu", torch.relu), ("softmax", torch.softmax), ("tanh", torch.tanh), ("exponential", torch.exp)],
)
def test_defaults_are_one_call(name, target):
    function = getattr(activations, name)
    graph = torch.fx.symbolic_trace(lambda x: function(x)).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [target]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@cases
def test_half_precision_is_kept(name, kwargs, dtype):
    assert getattr(activations, name)(inputs(dtype), **kwargs).dtype == dtype


def simplex_threshold(x: torch.Tensor, axis: int) -> torch.Tensor:
    """The tau with `sum(max(x - tau, 0)) == 1`, by bisection."""
    low = torch.amax(x, axis, keepdim=True) - 1
    high = low + 1
    for _ in range(80):
        middle = (low + high) / 2
        too_low = torch.sum(torch.relu(x - middle), axis, keepdim=True) > 1
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    return low


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_sparsemax_is_the_projection_on_the_simplex(axis, scale):
    x = scale * torch.randn(4, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.relu(x - simplex_threshold(x, axis))
    y, gradient = value_and_gradient(activations.sparsemax, x, {"axis": axis})
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    # The Jacobian on the support S is the identity minus 1 / |S| (Martins and Astudillo, equation 9).
    support = (expected > 0).double()
    weights = torch.linspace(0.5, 1.5, y.numel(), dtype=torch.float64).view(y.shape)
    mean = (weights * support).sum(axis, keepdim=True) / support.sum(axis, keepdim=True)
    torch.testing.assert_close(gradient, support * (weights - mean))


def test_sparsemax_agrees_with_keras_where_one_entry_is_left():
    x = torch.tensor([[3.0, 1.0, 0.0], [-2.0, 5.0, 2.0]])
    torch.testing.assert_close(activations.sparsemax(x), keras.activations.sparsemax(x))


def test_sparsemax_of_large_logits_in_single_precision():
    x = 1e4 + 0.02 * torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    expected = torch.relu(x.double() - simplex_threshold(x.double(), -1)).float()
    torch.testing.assert_close(activations.sparsemax(x), expected, rtol=0, atol=1e-6)


def test_get():
    module = torch.nn.Hardtanh()
    assert activations.get(None) is activations.linear
    assert activations.get("relu") is activations.relu
    assert activations.get("swish") is activations.silu
    assert activations.get("hard_swish") is activations.hard_silu
    assert activations.get(torch.sin) is torch.sin
    assert activations.get(module) is module
    assert isinstance(activations.get(torch.nn.ReLU), torch.nn.ReLU)
    with pytest.raises(ValueError, match=r"no activation called 'ReLU'.*Did you mean 'relu'"):
        activations.get("ReLU")
    with pytest.raises(ValueError, match="3 is no activation"):
        activations.get(3)


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES} | {"sparsemax"}))
def test_serialized_as_keras_does(name):
    function = getattr(activations, name)
    written = activations.serialize(function)
    assert written == keras.activations.serialize(getattr(keras.activations, name))
    assert activations.deserialize(written) is function
    config = keras.saving.serialize_keras_object(getattr(keras.activations, name))
    assert activations.deserialize(config) is function
    assert activations.get(config) is function
