"""A model that uses much of what a graph can hold, and the same written by hand."""

import torch
import torch.nn.functional as F
from torch import nn

from torchfunc import Input
from torchfunc.layers import Dense
from torchfunc.models import Model

A = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
B = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))

assert_same = torch.testing.assert_close

# The ways to call a model of two inputs, "a" and "b".
CALLS = {
    "one by one": lambda m, a, b: m(a, b),
    "list": lambda m, a, b: m([a, b]),
    "tuple": lambda m, a, b: m((a, b)),
    "dict": lambda m, a, b: m({"b": b, "a": a}),
    "keywords": lambda m, a, b: m(b=b, a=a),
    "mixed": lambda m, a, b: m(a, b=b),
}


class ByHand(nn.Module):
    """What `two_inputs` draws, as a plain torch module with its weights."""

    def __init__(self, model):
        super().__init__()
        self.dense, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))
        parts = ("dense", "norm", "head")
        for mine, its in zip(parts, ("dense", "layer_norm", "head"), strict=True):
            getattr(self, mine).load_state_dict(getattr(model, its).state_dict())
        with torch.no_grad():
            self.scale.copy_(model.parameter)

    def forward(self, a, b):
        x = F.relu(self.dense(a)) + torch.tanh(F.relu(self.dense(b)))
        x = self.norm(x) * self.scale + torch.arange(8.0)
        largest, _ = x[:, 1:].max(dim=1, keepdim=True)
        return {"head": self.head(largest.repeat(1, 8)), "largest": largest}


def two_inputs():
    """Shared layer, operators, indexing, several outputs of a call, a parameter, a constant, a dict of outputs."""
    a, b = Input((8,), name="a"), Input((8,), name="b")
    dense = Dense(8, activation="relu")
    x = dense(a) + torch.tanh(dense(b))
    x = nn.LayerNorm(8)(x) * nn.Parameter(torch.linspace(0.5, 1.5, 8)) + torch.arange(8.0)
    largest, _ = x[:, 1:].max(dim=1, keepdim=True)
    return Model([a, b], {"head": Dense(3, name="head")(largest.repeat(1, 8)), "largest": largest})
