"""Which layers are made for integers, so that integer data for a stack of them stay integers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from torchfunc import layers
from torchfunc.layers import Layer
from torchfunc.layers.base.weighted_layer import WeightedLayer
from torchfunc.layers.preprocessing import categories

__all__ = ["takes_integers"]

_OF_FLOATS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)
_OF_INTEGERS = (layers.Embedding, nn.Embedding, nn.EmbeddingBag)


def takes_integers(stack: Iterable[nn.Module]) -> bool:
    """Whether the first of these layers that minds is made for integers, or is one that is not known here."""
    for layer in stack:
        if isinstance(layer, _OF_INTEGERS) or type(layer).__module__ == categories.__name__:
            return True
        if isinstance(layer, (WeightedLayer, *_OF_FLOATS)):
            return False
        if isinstance(layer, nn.Sequential) or (isinstance(layer, Layer) and hasattr(layer, "layers")):
            return takes_integers(layer.children())
        if not type(layer).__module__.startswith((layers.__name__, "torch.nn.")) or isinstance(layer, layers.Lambda):
            return True
    return False
