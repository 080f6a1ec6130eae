"""The operations by Keras' names, against `keras.ops`: values, shapes, and both on symbolic tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from torchfunc import Input, ops
from torchfunc.models import Model

SHAPE = (2, 3, 4)

# What is done with a (2, 3, 4) tensor `x`, once with our operations `o` and once with Keras'.
CASES: dict[str, Callable[[Any, Any], Any]] = {
    "abs": lambda o, x: o.abs(x),
    "add": lambda o, x: o.add(x, x),
    "add number": lambda o, x: o.add(x, 2.5),
    "all": lambda o, x: o.all(x > 0, axis=1),
    "all of it": lambda o, x: o.all(x > 0),
    "any": lambda o, x: o.any(x > 1, axis=(0, 2), keepdims=True),
    "argmax": lambda o, x: o.argmax(x, axis=-1),
    "argmax flat": lambda o, x: o.argmax(x),
    "argmin": lambda o, x: o.argmin(x, axis=1, keepdims=True),
    "argsort": lambda o, x: o.argsort(x, axis=1),
    "broadcast_to": lambda o, x: o.broadcast_to(x[:1, :, :1], (5, 3, 4)),
    "cast": lambda o, x: o.cast(x > 0, "float32"),
    "ceil": lambda o, x: o.ceil(x),
    "clip": lambda o, x: o.clip(x, -0.5, 0.5),
    "concatenate": lambda o, x: o.concatenate([x, 2 * x], axis=-1),
    "cos": lambda o, x: o.cos(x),
    "cumsum": lambda o, x: o.cumsum(x, axis=1),
    "divide": lambda o, x: o.divide(x, o.abs(x) + 1),
    "einsum": lambda o, x: o.einsum("btd,bsd->bts", x, x),
    "elu": lambda o, x: o.elu(x, 0.7),
    "equal": lambda o, x: o.equal(x, o.abs(x)),
    "exp": lambda o, x: o.exp(x),
    "expand_dims": lambda o, x: o.expand_dims(x, 1),
    "flip": lambda o, x: o.flip(x, axis=1),
    "floor": lambda o, x: o.floor(x),
    "full_like": lambda o, x: o.full_like(x, 3),
    "gelu": lambda o, x: o.gelu(x),
    "gelu exact": lambda o, x: o.gelu(x, approximate=False),
    "greater": lambda o, x: o.greater(x, 0.1),
    "greater_equal": lambda o, x: o.greater_equal(x, x),
    "leaky_relu": lambda o, x: o.leaky_relu(x),
    "less": lambda o, x: o.less(x, o.abs(x)),
    "less_equal": lambda o, x: o.less_equal(x, 0),
    "log": lambda o, x: o.log(o.abs(x)),
    "log_softmax": lambda o, x: o.log_softmax(x, axis=1),
    "logical_and": lambda o, x: o.logical_and(x > 0, x < 1),
    "logical_not": lambda o, x: o.logical_not(x > 0),
    "logical_or": lambda o, x: o.logical_or(x > 1, x < 0),
    "logsumexp": lambda o, x: o.logsumexp(x, axis=1),
    "logsumexp of it": lambda o, x: o.logsumexp(x),
    "matmul": lambda o, x: o.matmul(x, o.transpose(x, (0, 2, 1))),
    "max": lambda o, x: o.max(x, axis=1, keepdims=True),
    "max of it": lambda o, x: o.max(x),
    "maximum": lambda o, x: o.maximum(x, 2 * x),
    "maximum number": lambda o, x: o.maximum(0.2, x),
    "mean": lambda o, x: o.mean(x, axis=(1, 2)),
    "mean of it": lambda o, x: o.mean(x, keepdims=True),
    "mean of whole numbers": lambda o, x: o.mean(o.cast(10 * x, "int32"), axis=[1, 2]),
    "min": lambda o, x: o.min(x, axis=(0, 1)),
    "minimum": lambda o, x: o.minimum(x, -x),
    "minimum number": lambda o, x: o.minimum(x, 0),
    "multiply": lambda o, x: o.multiply(x, np.array([1, 2, 3, 4], "float32")),
    "negative": lambda o, x: o.negative(x),
    "not_equal": lambda o, x: o.not_equal(x, o.abs(x)),
    "one_hot": lambda o, x: o.one_hot(o.cast(o.abs(x), "int32"), 5),
    "one_hot axis": lambda o, x: o.one_hot(o.cast(o.abs(x), "int64"), 6, axis=1, dtype="int32"),
    "ones_like": lambda o, x: o.ones_like(x, dtype="int32"),
    "power": lambda o, x: o.power(x, 2),
    "prod": lambda o, x: o.prod(x, axis=1, keepdims=True),
    "prod of it": lambda o, x: o.prod(x),
    "relu": lambda o, x: o.relu(x),
    "repeat": lambda o, x: o.repeat(x, 3, axis=2),
    "reshape": lambda o, x: o.reshape(x, (-1, 2, 6)),
    "round": lambda o, x: o.round(x, 1),
    "rsqrt": lambda o, x: o.rsqrt(o.abs(x)),
    "selu": lambda o, x: o.selu(x),
    "sigmoid": lambda o, x: o.sigmoid(x),
    "sign": lambda o, x: o.sign(x),
    "silu": lambda o, x: o.silu(x),
    "sin": lambda o, x: o.sin(x),
    "softmax": lambda o, x: o.softmax(x, axis=1),
    "softplus": lambda o, x: o.softplus(x),
    "sort": lambda o, x: o.sort(x, axis=1),
    "split": lambda o, x: o.split(x, 2, axis=2),
    "split at": lambda o, x: o.split(x, [1, 2], axis=1),
    "sqrt": lambda o, x: o.sqrt(o.abs(x)),
    "square": lambda o, x: o.square(x),
    "squeeze": lambda o, x: o.squeeze(x[:, :1, :], axis=1),
    "stack": lambda o, x: o.stack([x, x], axis=1),
    "std": lambda o, x: o.std(x, axis=1),
    "stop_gradient": lambda o, x: o.stop_gradient(x),
    "subtract": lambda o, x: o.subtract(x, 1),
    "sum": lambda o, x: o.sum(x, axis=-1, keepdims=True),
    "sum of it": lambda o, x: o.sum(x),
    "swapaxes": lambda o, x: o.swapaxes(x, 1, 2),
    "take": lambda o, x: o.take(x, [2, 0], axis=1),
    "take flat": lambda o, x: o.take(x, [[2, 0, 5]]),
    "take_along_axis": lambda o, x: o.take_along_axis(x, o.argsort(x, axis=1), axis=1),
    "tanh": lambda o, x: o.tanh(x),
    "tensordot": lambda o, x: o.tensordot(x, o.transpose(x, (2, 1, 0)), axes=1),
    "tile": lambda o, x: o.tile(x, (1, 2, 1)),
    "top_k": lambda o, x: o.top_k(x, 2),
    "transpose": lambda o, x: o.transpose(x, (2, 0, 1)),
    "transpose all": lambda o, x: o.transpose(x[0]),
    "unstack": lambda o, x: o.unstack(x, axis=1),
    "var": lambda o, x: o.var(x, axis=(0, 1), keepdims=True),
    "where": lambda o, x: o.where(x > 0, x, 0.5),
    "zeros_like": lambda o, x: o.zeros_like(x),
}
NEW: dict[str, Callable[[Any], Any]] = {
    "arange": lambda o: o.arange(2, 11, 3),
    "arange stop": lambda o: o.arange(4),
    "arange float": lambda o: o.arange(0.0, 1.0, 0.25),
    "arange dtype": lambda o: o.arange(3, dtype="float32"),
    "convert_to_tensor": lambda o: o.convert_to_tensor([[1.0, 2.0], [3.0, 4.0]]),
    "convert_to_tensor dtype": lambda o: o.convert_to_tensor(np.array([1.5, 2.5]), dtype="int32"),
    "full": lambda o: o.full((2, 3), 7.0),
    "full dtype": lambda o: o.full((3,), 7, dtype="int64"),
    "ones": lambda o: o.ones((2, 3)),
    "ravel": lambda o: o.ravel([[1.0, 2.0], [3.0, 4.0]]),
    "softmax of an array": lambda o: o.softmax(np.array([[1.0, 2.0]], "float32")),
    "squeeze all": lambda o: o.squeeze(np.ones((1, 2, 1), "float32")),
    "flip all": lambda o: o.flip(np.arange(6.0, dtype="float32").reshape(2, 3)),
    "tensordot axes": lambda o: o.tensordot(np.arange(6.0).reshape(2, 3), np.ones((3, 2, 4)), axes=[[1, 0], [0, 1]]),
    "zeros": lambda o: o.zeros((2, 3), dtype="int32"),
}


@pytest.fixture
def x() -> torch.Tensor:
    return 1.7 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))


def assert_same(ours: Any, theirs: Any) -> None:
    ours, theirs = tree_leaves(ours), tree_leaves(theirs)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.is_floating_point() == other.is_floating_point()
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_values_of_tensors(name: str, x: torch.Tensor) -> None:
    assert_same(CASES[name](ops, x), CASES[name](keras.ops, x))


@pytest.mark.parametrize("name", CASES)
def test_symbolic_tensors_give_keras_shapes_and_the_same_values(name: str, x: torch.Tensor) -> None:
    inputs = Input(batch_shape=(None, *SHAPE[1:]))
    outputs = CASES[name](ops, inputs)
    expected = CASES[name](keras.ops, keras.Input(batch_shape=(None, *SHAPE[1:])))
    assert [leaf.shape for leaf in tree_leaves(outputs)] == [leaf.shape for leaf in tree_leaves(expected)]
    model = Model(inputs, outputs)
    assert not model.state_dict() or name in ("multiply", "take", "take flat")
    assert_same(model(x), CASES[name](keras.ops, x))


@pytest.mark.parametrize("name", NEW)
def test_new_tensors(name: str) -> None:
    assert_same(NEW[name](ops), NEW[name](keras.ops))


def test_shape_knows_what_is_known_and_computes_with_the_rest(x: torch.Tensor) -> None:
    assert ops.shape(x) == keras.ops.shape(x) == SHAPE
    inputs = Input((None, 4))
    batch, steps, width = ops.shape(inputs)
    assert width == 4
    merged = ops.reshape(inputs, (batch * steps, width))
    beside = ops.concatenate([inputs, ops.zeros((batch, 1, width))], axis=1)
    counted = inputs + ops.reshape(ops.cast(ops.arange(steps), "float32"), (1, steps, 1))
    filled = ops.broadcast_to(ops.full((1, 1, 1), 2.0), (batch, steps, 2))
    assert merged.shape == (None, 4)
    assert beside.shape == (None, None, 4)
    model = Model(inputs, [merged, beside, counted, filled])
    for size in ((2, 3, 4), (5, 1, 4)):
        y = torch.randn(size)
        expected = [
            y.reshape(-1, 4),
            torch.cat([y, torch.zeros(size[0], 1, 4)], 1),
            y + torch.arange(size[1])[:, None],
            torch.full((*size[:2], 2), 2.0),
        ]
        assert_same(model(y), expected)


def test_conversions() -> None:
    assert ops.convert_to_tensor(np.zeros(2)).dtype == torch.float32
    assert ops.convert_to_tensor(np.zeros(2, "int16")).dtype == torch.int16
    assert ops.convert_to_tensor(3).dtype == torch.int64
    stacked = ops.convert_to_tensor([torch.ones(2), torch.zeros(2)])
    assert stacked.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    weight = torch.nn.Parameter(torch.ones(2))
    assert ops.convert_to_tensor(weight) is weight
    assert isinstance(ops.convert_to_numpy(weight), np.ndarray)
    assert ops.is_tensor(weight)
    assert ops.is_tensor(Input((2,)))
    assert not ops.is_tensor([1, 2])
    assert [index.tolist() for index in ops.where([[True, False], [True, True]])] == [[0, 1, 1], [0, 0, 1]]
    assert not ops.stop_gradient(2 * weight).requires_grad


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda x: ops.zeros((x.shape[0], 3)), ValueError, r"\(None, 3\).*ops.shape\(x\)"),
        (lambda x: ops.broadcast_to(x, x.shape), ValueError, r"ops.shape\(x\)"),
        (lambda x: ops.split(x, 3, axis=1), ValueError, r"axis 1 of \(None, 4\) into 3"),
        (lambda x: ops.squeeze(x, axis=1), ValueError, r"axis 1 of \(None, 4\)"),
        (ops.convert_to_numpy, TypeError, "symbolic"),
        (lambda x: ops.cast(x, "float31"), ValueError, "float31"),
        (lambda x: ops.one_hot([5], 3), RuntimeError, "num_classes"),
    ],
)
def test_mistakes_are_explained(wrong: Callable[[Any], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        wrong(Input((4,)))
