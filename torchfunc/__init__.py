"""torchfunc: the Keras functional API for people who live in PyTorch."""

from torchfunc import (
    activations,
    config,
    constraints,
    initializers,
    layers,
    regularizers,
)
from torchfunc.graph import SymbolicTensor
from torchfunc.layers import Input, Layer

__version__ = "0.1.0"

__all__ = [
    "Input",
    "Layer",
    "SymbolicTensor",
    "activations",
    "config",
    "constraints",
    "initializers",
    "layers",
    "regularizers",
]
