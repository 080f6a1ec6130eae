"""Constraints against Keras on the torch backend."""

import keras
import pytest
import torch

from torchfunc import constraints

CASES = [
    ("MaxNorm", {}),
    ("MaxNorm", {"max_value": 0.7, "axis": 1}),
    ("MaxNorm", {"max_value": 1.5, "axis": [0, 1]}),
    ("NonNeg", {}),
    ("UnitNorm", {}),
    ("UnitNorm", {"axis": 1}),
    ("UnitNorm", {"axis": None}),
    ("MinMaxNorm", {}),
    ("MinMaxNorm", {"min_value": 0.5, "max_value": 1.5, "rate": 0.3, "axis": 1}),
    ("MinMaxNorm", {"min_value": 2.0, "max_value": 2.5, "axis": [0, 1]}),
]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
@pytest.mark.parametrize("shape", [(6, 4), (3, 3, 2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_those_of_keras(name, kwargs, shape, dtype):
    w = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    w[:, 0] = 0  # a vector of norm zero stays so
    before = w.clone()
    ours = getattr(constraints, name)(**kwargs)(w)
    theirs = getattr(keras.constraints, name)(**kwargs)(w)
    assert ours.dtype == dtype
    # Keras' NonNeg returns single precision whatever it gets.
    torch.testing.assert_close(ours, theirs.to(dtype), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(w, before, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_configs_are_those_of_keras(name, kwargs):
    ours = constraints.serialize(getattr(constraints, name)(**kwargs))
    theirs = keras.constraints.serialize(getattr(keras.constraints, name)(**kwargs))
    assert ours == theirs
    assert constraints.serialize(constraints.get(theirs)) == ours
    assert keras.constraints.serialize(keras.constraints.get(ours)) == ours


def test_names():
    w = torch.tensor([[-3.0, 1.0], [4.0, 1.0]])
    for name in ("max_norm", "MaxNorm", "non_neg", "unit_norm", "min_max_norm"):
        torch.testing.assert_close(constraints.get(name)(w), keras.constraints.get(name)(w))
        assert getattr(constraints, name) is type(constraints.get(name))
    assert constraints.get(None) is None
    with pytest.raises(ValueError, match=r"no constraint called 'maxnorm'.*Did you mean.*'max_norm'"):
        constraints.get("maxnorm")


def test_subclasses():
    class Clip(constraints.Constraint):
        def __call__(self, w):
            return w.clamp(-1, 1)

    w = torch.tensor([-3.0, 0.5])
    assert constraints.get(Clip)(w).tolist() == [-1.0, 0.5]
    assert Clip().get_config() == {}
    assert constraints.Constraint()(w) is w
    config = constraints.serialize(Clip())
    assert isinstance(constraints.deserialize(config, {"Clip": Clip}), Clip)
