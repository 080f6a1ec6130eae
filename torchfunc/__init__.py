"""torchfunc: the Keras functional API for people who live in PyTorch.

The examples in docstrings take three lines for granted:

    import numpy as np
    import torch
    from torchfunc import *
"""

from torchfunc import (
    activations,
    callbacks,
    config,
    constraints,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    random,
    regularizers,
    saving,
    schedules,
    utils,
)
from torchfunc.graph import SymbolicTensor
from torchfunc.layers import Input, Layer
from torchfunc.models import Functional, GraphModule, Model, Sequential, from_module

__version__ = "0.1.0"

__all__ = [
    "Functional",
    "GraphModule",
    "Input",
    "Layer",
    "Model",
    "Sequential",
    "SymbolicTensor",
    "activations",
    "callbacks",
    "config",
    "constraints",
    "datasets",
    "from_module",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "random",
    "regularizers",
    "saving",
    "schedules",
    "utils",
]
