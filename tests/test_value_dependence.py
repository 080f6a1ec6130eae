"""Modules that look at values inside, but whose outputs have shapes that do not depend on them."""

import pytest
import torch
from torch import nn

from torchfunc import Input, Model


class GraphConvolution(nn.Module):
    """The mean over the neighbours; edges from a node to itself are removed, and then added for every node."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x, edges):
        edges = edges[:, edges[0] != edges[1]]
        places = torch.arange(x.size(0))
        edges = torch.cat([edges, torch.stack([places, places])], 1)
        counts = torch.zeros(x.size(0)).index_add(0, edges[1], torch.ones(edges.size(1)))
        sums = torch.zeros(x.size(0), 3).index_add(0, edges[1], self.linear(x)[edges[0]])
        return sums / counts[:, None]


def test_inner_sizes_that_depend_on_values():
    x, edges = Input((4,)), Input(batch_shape=(2, None), dtype="int64")
    layer = GraphConvolution()
    model = Model([x, edges], layer(x, edges))
    data, links = torch.randn(3, 4), torch.tensor([[0, 1, 2, 2], [1, 1, 0, 1]])
    torch.testing.assert_close(model(data, links), layer(data, links))
    assert model.output_shape == (None, 3)


class Masking(nn.Module):
    def forward(self, x):
        filled = x.clone()
        filled[x < 0] = 0
        return filled, x[x > 0].mean(), torch.unique(x).numel() * x


def test_boolean_masks_and_counts_inside():
    x = Input((4,))
    outputs = Masking()(x)
    assert [each.shape for each in outputs] == [(None, 4), (), (None, 4)]
    data = torch.tensor([[1.0, -2.0, 3.0, 1.0]])
    filled, mean, scaled = Model(x, list(outputs))(data)
    assert filled.tolist() == [[1.0, 0.0, 3.0, 1.0]]
    assert mean.item() == pytest.approx(5 / 3)
    assert torch.equal(scaled, 3 * data)


class Sampling(nn.Module):
    """Its distributions check their arguments."""

    def forward(self, mean, scale):
        found = torch.distributions.Normal(mean, scale.exp())
        return found.mean + found.variance, torch.distributions.kl_divergence(
            found, torch.distributions.Normal(0.0, 1.0)
        )


MODULES = {
    "momentum of None": lambda: nn.BatchNorm1d(4, momentum=None),
    "fake quantisation": lambda: torch.ao.quantization.FakeQuantize(),
    "fused fake quantisation": lambda: torch.ao.quantization.FusedMovingAvgObsFakeQuantize(),
    "histogram observer": lambda: torch.ao.quantization.FakeQuantize(torch.ao.quantization.MinMaxObserver),
    "vmap": lambda: Mapped(),
}


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return torch.vmap(torch.func.jacrev(self.linear))(x)


def test_a_number_among_the_arguments_of_a_function():
    x, data, share = Input((4,)), torch.rand(3, 4), torch.tensor(0.3)
    torch.testing.assert_close(Model(x, torch.quantile(x, share, -1))(data), torch.quantile(data, share, -1))
    # What is written into does not reach the caller's tensor.
    torch.addcmul(share, share, x)
    assert share == torch.tensor(0.3)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize("case", MODULES)
def test_state_and_checks_of_values(case):
    x, data = Input((4,)), torch.randn(3, 4)
    module = MODULES[case]()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = Model(x, module(x))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    torch.testing.assert_close(model(data), MODULES[case]().load_state_dict(before) and module(data))


def test_distributions():
    x, y = Input((4,)), Input((4,))
    data = torch.randn(3, 4), torch.randn(3, 4)
    for call in (Sampling(), Sampling().forward):
        found = Model([x, y], list(call(x, y)))(*data)
        torch.testing.assert_close(found, list(Sampling()(*data)))
    normal = torch.distributions.Normal(torch.randn(4), torch.rand(4), validate_args=False)
    torch.testing.assert_close(Model(x, normal.log_prob(x))(data[0]), normal.log_prob(data[0]))


def test_ctc_loss_is_drawn():
    scores = Input(batch_shape=(50, None, 20))
    targets = Input((30,), dtype="int64")
    lengths = Input(batch_shape=(None,), dtype="int64"), Input(batch_shape=(None,), dtype="int64")
    loss = nn.CTCLoss(reduction="none")
    model = Model([scores, targets, *lengths], loss(scores.log_softmax(2), targets, *lengths))
    data = torch.randn(50, 3, 20), torch.randint(1, 20, (3, 30)), torch.full((3,), 50), torch.tensor([30, 25, 20])
    assert model.output_shape == (None,)
    torch.testing.assert_close(model(*data), loss(data[0].log_softmax(2), *data[1:]))


class Choosing(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Cutting(nn.Module):
    def forward(self, x):
        return x[:, : int(x.sum())]


@pytest.mark.parametrize("module", [Choosing(), Cutting()])
def test_what_a_users_code_decides_by_value_is_refused(module):
    with pytest.raises(ValueError, match=r"depends on the values.*output_shape="):
        module(Input((4,)))


class Cache:
    """Holds what no pytree knows."""


class Decoder(nn.Module):
    def forward(self, x, cache=None):
        return {"hidden": x * 2, "cache": Cache(), "count": 3}


def test_an_object_that_nobody_uses_is_no_harm():
    x, data = Input((5,)), torch.randn(2, 5)
    found = Decoder()(x)
    assert torch.equal(Model(x, found["hidden"])(data), data * 2)
    assert found["count"] == 3
    assert "Cache that Decoder() returned" in repr(found["cache"])
    for use in (lambda: found["cache"].keys(), lambda: found["cache"][0], lambda: Decoder()(x, found["cache"])):
        with pytest.raises((AttributeError, TypeError, ValueError), match="Cache, in which no tensors can be found"):
            use()
    with pytest.raises(TypeError, match="Cache"):
        Model(x, found)
