"""Steps with some of the weights, and with weights and gradients of unusual kinds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchfunc import optimizers

KINDS = ["Adam", "SGD", "RMSprop", "Adagrad"]


def weight(*shape, dtype=torch.float32):
    return nn.Parameter(torch.ones(shape, dtype=dtype))


@pytest.mark.parametrize("name", KINDS)
def test_some_of_the_weights(name):
    first, second, stranger = weight(2), weight(3), weight(4)
    optimizer = getattr(optimizers, name)(0.1)
    optimizer.build([first, second])
    optimizer.apply([torch.ones(2)], [first])
    assert (first < 1).all()
    assert (second == 1).all()
    before = first.detach().clone()
    optimizer.apply([torch.ones(3)], [second])
    assert (second < 1).all()
    torch.testing.assert_close(first.detach(), before)
    with pytest.raises(ValueError, match=r"has no state for these, of shapes \[\(4,\)\]"):
        optimizer.apply([torch.ones(2), torch.ones(3), torch.ones(4)], [first, second, stranger])
    with pytest.raises(ValueError, match="There are 1 gradients for 2 weights"):
        optimizer.apply([torch.ones(2)])


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad"])  # Adam changes the rows that it meets.
def test_sparse_gradients(name):
    dense, sparse = nn.Embedding(4, 2), nn.Embedding(4, 2, sparse=True)
    sparse.load_state_dict(dense.state_dict())
    for embedding in (dense, sparse):
        optimizer = getattr(optimizers, name)(0.1)
        for ids in ([0, 2, 2], [1, 2]):
            embedding.zero_grad()
            embedding(torch.tensor(ids)).square().sum().backward()
            optimizer.apply([embedding.weight.grad], [embedding.weight])
    assert sparse.weight.grad.is_sparse
    torch.testing.assert_close(sparse.weight, dense.weight)


@pytest.mark.parametrize("name", KINDS)
def test_weights_of_different_dtypes(name):
    weights = [weight(2), weight(3, dtype=torch.float64), weight(2, dtype=torch.bfloat16)]
    gradients = [torch.full_like(each, 0.5) for each in weights]
    together = getattr(optimizers, name)(0.1)
    for _ in range(2):
        together.apply(gradients, weights)
    for each, gradient in zip(weights, gradients, strict=True):
        alone, twin = getattr(optimizers, name)(0.1), nn.Parameter(torch.ones_like(each))
        for _ in range(2):
            alone.apply([gradient], [twin])
        torch.testing.assert_close(each, twin)


def test_weights_without_values_leave_the_counters_where_they_are():
    weights = [nn.Parameter(torch.empty(3, device="meta"))]
    optimizer = optimizers.Adam(0.1)
    optimizer.build(weights)
    assert [variable.device.type for variable in optimizer.variables] == ["cpu", "cpu", "meta", "meta"]
    assert int(optimizer.iterations) == 0
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


def test_averages_that_are_in_use_when_training_ends():
    param = weight(2)
    optimizer = optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    for _ in range(2):
        optimizer.apply([torch.ones(2)], [param])
    # The weights went 1, 0.5, 0; the averages 0.5, 0.25.
    optimizer.swap_averages()
    assert optimizer.averages_in_use
    for _ in range(2):
        optimizer.finalize_variable_values()
        assert not optimizer.averages_in_use
        torch.testing.assert_close(param.detach(), torch.full((2,), 0.25))
    optimizer.swap_averages()
    torch.testing.assert_close(param.detach(), torch.full((2,), 0.25))


@pytest.mark.parametrize("fused", [False, True])
def test_the_layout_of_weights_of_a_torch_optimizer_is_no_matter(fused):
    torch.manual_seed(0)
    values, gradient = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        for gradient_layout in (torch.contiguous_format, layout):
            param = nn.Parameter(values.clone().to(memory_format=layout))
            optimizer = optimizers.TorchOptimizer(torch.optim.Adam([param], fused=fused))
            for _ in range(2):
                optimizer.apply([gradient.to(memory_format=gradient_layout)], [param])
            found.append(param.detach())
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])
