"""torchfunc: the Keras functional API for people who live in PyTorch.

The examples in docstrings leave out `import numpy as np`, `import torch` and `from torchfunc import *`.
"""

import sys

from torchfunc import (
    activations,
    applications,
    backend,
    callbacks,
    config,
    constraints,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    mixed_precision,
    models,
    ops,
    optimizers,
    preprocessing,
    random,
    regularizers,
    saving,
    schedules,
    utils,
)
from torchfunc.config import DTypePolicy
from torchfunc.errors import suggest_names
from torchfunc.graph import SymbolicTensor
from torchfunc.graph import SymbolicTensor as KerasTensor
from torchfunc.initializers import Initializer
from torchfunc.layers import Input, InputSpec, Layer
from torchfunc.losses import Loss
from torchfunc.metrics import Metric
from torchfunc.models import Functional, GraphModule, Model, Sequential, from_module
from torchfunc.optimizers import Optimizer
from torchfunc.regularizers import Regularizer

__version__ = "0.1.0"

__all__ = [
    "DTypePolicy",
    "Functional",
    "GraphModule",
    "Initializer",
    "Input",
    "InputSpec",
    "KerasTensor",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Optimizer",
    "Regularizer",
    "Sequential",
    "SymbolicTensor",
    "activations",
    "applications",
    "backend",
    "callbacks",
    "config",
    "constraints",
    "datasets",
    "from_module",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "preprocessing",
    "random",
    "regularizers",
    "saving",
    "schedules",
    "utils",
]

for _module in (
    sys.modules[__name__],
    *(activations, applications, backend, callbacks, config, constraints, datasets, initializers, layers, losses),
    *(metrics, mixed_precision, models, ops, ops.image, ops.linalg, ops.nn, ops.numpy, optimizers, preprocessing),
    *(random, regularizers, saving, schedules, utils),
):
    suggest_names(_module)
del _module
