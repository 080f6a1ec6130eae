"""The recurrent layers, Keras' and torch's beside them, and how they are compared."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch

from torchfunc.layers.recurrent.layers import GRU, LSTM, SimpleRNN

LAYERS = {
    "LSTM": (LSTM, keras.layers.LSTM, torch.nn.LSTM),
    "GRU": (GRU, keras.layers.GRU, torch.nn.GRU),
    "SimpleRNN": (SimpleRNN, keras.layers.SimpleRNN, torch.nn.RNN),
}


def make(name: str, units: int = 5, features: int = 4, **kwargs: Any) -> Any:
    """A layer of ours, built for batches of 3, with random weights, in eval mode."""
    return ready(LAYERS[name][0](units, **kwargs), features)


def ready(layer: Any, *sizes: int) -> Any:
    """The layer, built for (3, 2, *sizes), with random weights, in eval mode."""
    layer(torch.zeros(3, 2, *sizes, dtype=layer.dtype))
    for weight in layer.parameters():
        torch.nn.init.uniform_(weight, -0.8, 0.8)
    return layer.eval()


def any_mask() -> np.ndarray:
    """Nothing, a right-padded, a left-padded and a scattered sequence."""
    return np.array([[0] * 7, [1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 1, 0, 1]], dtype=bool)


def leaves(outputs: Any) -> list[torch.Tensor]:
    return list(torch.utils._pytree.tree_leaves(outputs))


def gradients(function: Any, layer: Any, inputs: torch.Tensor, **kwargs: Any) -> list[torch.Tensor]:
    """The outputs, and the gradients of inputs, weights and initial states."""
    outputs = leaves(function(inputs, **kwargs))
    loss = sum((output.sin() * (index + 1)).sum() for index, output in enumerate(outputs))
    return [*outputs, *torch.autograd.grad(loss, [inputs, *layer.parameters(), *kwargs.get("initial_state", [])])]


def assert_same(actual: Any, expected: Any) -> None:
    for one, other in zip(leaves(actual), leaves(expected), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
