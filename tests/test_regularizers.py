"""Regularizers against Keras on the torch backend."""

import keras
import numpy as np
import pytest
import torch

from torchfunc import regularizers

CASES = [
    ("L1", {}),
    ("L1", {"l1": 0.3}),
    ("L2", {}),
    ("L2", {"l2": 0.3}),
    ("L1L2", {}),
    ("L1L2", {"l1": 0.3}),
    ("L1L2", {"l2": 0.2}),
    ("L1L2", {"l1": 0.3, "l2": 0.2}),
    ("OrthogonalRegularizer", {}),
    ("OrthogonalRegularizer", {"factor": 0.5, "mode": "columns"}),
    ("OrthogonalRegularizer", {"factor": 0.5, "mode": "rows"}),
]


def weight(shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize(
    ("name", "kwargs", "shape"),
    [
        (*case, shape)
        for case in CASES
        for shape in [(6, 4), (3, 7), (3, 3, 4, 5), (5,)]
        if case[0] != "OrthogonalRegularizer" or len(shape) == 2
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_keras(name, kwargs, shape, dtype):
    x = weight(shape, dtype)
    ours = getattr(regularizers, name)(**kwargs)(x)
    theirs = getattr(keras.regularizers, name)(**kwargs)(x)
    assert ours.shape == ()
    assert ours.dtype == dtype
    # Keras holds some factors in single precision.
    torch.testing.assert_close(ours, theirs.to(dtype), rtol=1e-6, atol=0)
    if theirs.requires_grad:
        gradients = [torch.autograd.grad(penalty, x)[0] for penalty in (ours, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_configs_are_those_of_keras(name, kwargs):
    ours = getattr(regularizers, name)(**kwargs)
    theirs = getattr(keras.regularizers, name)(**kwargs)
    config = regularizers.serialize(ours)
    expected = keras.regularizers.serialize(theirs)
    # Keras rounds some factors to single precision.
    rounded = {key: value if key == "mode" else pytest.approx(value) for key, value in expected["config"].items()}
    assert config == {**expected, "config": rounded}
    x = weight((4, 4))
    torch.testing.assert_close(regularizers.get(keras.regularizers.serialize(theirs))(x), theirs(x))
    torch.testing.assert_close(keras.regularizers.get(regularizers.serialize(ours))(x), theirs(x))


def test_names():
    x = weight((3, 3))
    for name in ("l1", "L1", "l2", "L2", "l1l2", "orthogonal_regularizer"):
        torch.testing.assert_close(regularizers.get(name)(x), keras.regularizers.get(name)(x))
    for found in (regularizers.get("l1_l2"), regularizers.deserialize("l1_l2")):
        assert found.get_config() == {"l1": 0.01, "l2": 0.01}
    assert regularizers.l1_l2(l2=0.5).get_config() == {"l1": 0.0, "l2": 0.5}
    assert regularizers.L2(None).l2 == 0.01
    assert regularizers.get(None) is None
    assert regularizers.get(torch.sum) is torch.sum
    with pytest.raises(ValueError, match="no regularizer called 'L3'"):
        regularizers.get("L3")


def test_a_single_row_has_no_pair():
    x = weight((1, 4))
    penalty = regularizers.OrthogonalRegularizer()(x)
    assert penalty == 0
    assert torch.autograd.grad(penalty, x)[0].isfinite().all()


def test_a_zero_row_does_no_harm():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    assert torch.autograd.grad(regularizers.OrthogonalRegularizer()(x), x)[0].isfinite().all()


def test_subclasses():
    class Peak(regularizers.Regularizer):
        def __call__(self, x):
            return x.abs().max()

    assert regularizers.get(Peak)(torch.tensor([1.0, -3.0])) == 3
    assert regularizers.Regularizer()(weight((2,))) == 0
    with pytest.raises(NotImplementedError, match=r"Peak.*get_config"):
        regularizers.serialize(Peak())


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "0.1", [0.1]])
def test_factors_are_checked(value):
    for build, argument in [
        (regularizers.L1, "l1"),
        (regularizers.L2, "l2"),
        (lambda v: regularizers.L1L2(l2=v), "l2"),
        (regularizers.OrthogonalRegularizer, "factor"),
    ]:
        with pytest.raises(ValueError, match=f"{argument} is a number that is not negative, got"):
            build(value)


def test_numpy_numbers_are_factors():
    assert regularizers.L2(np.float32(0.5)).get_config() == {"l2": 0.5}


def test_orthogonal_regularizer_checks_what_it_gets():
    with pytest.raises(ValueError, match="'rows' or 'columns', got 'diagonal'"):
        regularizers.OrthogonalRegularizer(mode="diagonal")
    with pytest.raises(ValueError, match=r"takes a matrix.*\(3, 3, 2\)"):
        regularizers.OrthogonalRegularizer()(weight((3, 3, 2)))
