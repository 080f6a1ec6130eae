"""Layers: Keras' names, arguments, defaults and shapes on torch's kernels."""

from torchfunc.layers.core import Activation, Dense, Embedding, Identity, Lambda, TorchModule
from torchfunc.layers.input_layer import Input, InputLayer
from torchfunc.layers.input_spec import InputSpec
from torchfunc.layers.layer import Layer
from torchfunc.registry import register_builtins

__all__ = [
    "Activation",
    "Dense",
    "Embedding",
    "Identity",
    "Input",
    "InputLayer",
    "InputSpec",
    "Lambda",
    "Layer",
    "TorchModule",
]

register_builtins(
    "keras.layers",
    {name: globals()[name] for name in __all__ if name not in ("Input", "InputSpec", "TorchModule")},
)
register_builtins("torchfunc.layers", {"TorchModule": TorchModule})
