"""Arrays, lists and numbers where a tensor is taken."""

import numpy as np
import pytest
import torch

from torchfunc import activations, constraints, regularizers

ARRAY = np.random.default_rng(0).normal(size=(3, 4))
NAMES = sorted(set(activations.__all__) - {"get", "serialize", "deserialize"})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", [ARRAY, ARRAY.astype("float32"), ARRAY.tolist(), torch.from_numpy(ARRAY).float()])
def test_activations(name, given):
    arguments = (0.5, 0.0) if name == "threshold" else ()
    function = getattr(activations, name)
    found = function(given, *arguments)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, function(torch.from_numpy(ARRAY), *arguments).float(), atol=1e-6, rtol=1e-5)


def test_activations_of_arrays_against_numpy():
    odds = np.exp(ARRAY)
    np.testing.assert_allclose(activations.softmax(ARRAY), odds / odds.sum(-1, keepdims=True), rtol=1e-5)
    assert activations.relu([-1.0, 2.0]).tolist() == [0.0, 2.0]
    assert activations.relu(-3).item() == 0


def test_constraints():
    assert constraints.NonNeg()(np.array([-1.0, 2.0])).tolist() == [0.0, 2.0]
    np.testing.assert_allclose(constraints.UnitNorm()([[3.0], [4.0]]), [[0.6], [0.8]], rtol=1e-5)
    np.testing.assert_allclose(constraints.MaxNorm(1)(np.array([[3.0], [4.0]])), [[0.6], [0.8]], rtol=1e-5)


def test_regularizers():
    assert regularizers.L1(0.5)([-1.0, 3.0]).item() == 2.0
    assert regularizers.L2(0.5)(np.array([-1.0, 3.0])).item() == 5.0
    assert regularizers.L1L2(1.0, 0.5)([-1.0, 3.0]).item() == 9.0
    assert regularizers.OrthogonalRegularizer(1.0)(np.eye(2)).item() == 0.0
