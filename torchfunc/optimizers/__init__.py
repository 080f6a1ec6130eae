"""Optimizers with Keras' names, arguments and formulas, and any `torch.optim` optimizer beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchfunc.families import Family
from torchfunc.optimizers import schedules
from torchfunc.optimizers.adafactor import Adafactor
from torchfunc.optimizers.adagrad import Adadelta, Adagrad
from torchfunc.optimizers.adam import Adam, AdamW
from torchfunc.optimizers.adamax import Adamax
from torchfunc.optimizers.base import Optimizer
from torchfunc.optimizers.ftrl import Ftrl
from torchfunc.optimizers.lamb import Lamb
from torchfunc.optimizers.learning_rate import LearningRate
from torchfunc.optimizers.lion import Lion
from torchfunc.optimizers.loss_scale import LossScaleOptimizer
from torchfunc.optimizers.muon import Muon
from torchfunc.optimizers.nadam import Nadam
from torchfunc.optimizers.rmsprop import RMSprop
from torchfunc.optimizers.schedule_free import ScheduleFreeAdamW
from torchfunc.optimizers.sgd import SGD
from torchfunc.optimizers.torch_optimizer import TorchOptimizer
from torchfunc.registry import register_builtins

__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "LearningRate",
    "Lion",
    "LossScaleOptimizer",
    "Muon",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "ScheduleFreeAdamW",
    "TorchOptimizer",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]

_CLASSES = (
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    AdamW,
    Adamax,
    Ftrl,
    Lamb,
    Lion,
    LossScaleOptimizer,
    Muon,
    Nadam,
    RMSprop,
    ScheduleFreeAdamW,
    SGD,
)
_classes = {cls.__name__: cls for cls in _CLASSES}
_aliases = {cls.__name__.lower(): cls for cls in _classes.values()}
_family = Family("optimizer", "keras.optimizers", _classes, _aliases)
register_builtins("torchfunc.optimizers", {"TorchOptimizer": TorchOptimizer})


def get(identifier: Any) -> Optimizer | None:
    """The optimizer that `identifier` stands for.

    Args:
        identifier: None; a name in any case ("adam", "RMSprop"); a config; an `Optimizer` or a class of one; a
            `torch.optim.Optimizer`; or a class, `functools.partial` or function that makes one from the weights.

    Raises:
        ValueError: there is no optimizer of that name, or it is something else.

    >>> optimizers.get("adam").name
    'adam'
    >>> optimizers.get({"class_name": "SGD", "config": {"learning_rate": 0.5}}).learning_rate
    tensor(0.5000)
    """
    if identifier is None or isinstance(identifier, Optimizer):
        return identifier
    found: Any = identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        found = _family.get(identifier)
    elif isinstance(identifier, str):
        found = _family.get(identifier.lower() if identifier.lower() in _aliases else identifier)
    elif isinstance(identifier, dict):
        found = deserialize(identifier)
    elif isinstance(identifier, torch.optim.Optimizer) or callable(identifier):
        found = TorchOptimizer(identifier)
    if not isinstance(found, Optimizer):
        raise ValueError(
            f"Not an optimizer: {identifier!r} ({type(identifier).__name__}). Give a name such as 'adam', an optimizer "
            "of torchfunc or torch, or a function that makes one from the weights."
        )
    return found


def serialize(optimizer: Optimizer | None) -> Any:
    """The config of an optimizer, without its state.

    >>> optimizers.serialize(optimizers.SGD(0.5))["class_name"]
    'SGD'
    """
    return _family.serialize(optimizer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The optimizer that a config or a name describes. The class name may be in any case.

    >>> optimizers.deserialize(optimizers.serialize(optimizers.SGD(0.5))).learning_rate
    tensor(0.5000)
    """
    if isinstance(config, dict) and _is_builtin(config):
        # Keras on torch names the private module of its backend here.
        name = _aliases[config["class_name"].lower()].__name__
        config = {**config, "class_name": name, "module": "keras.optimizers"}
    return _family.deserialize(config, custom_objects)


def _is_builtin(config: Mapping[str, Any]) -> bool:
    return str(config.get("class_name")).lower() in _aliases and (config.get("module") or "keras").startswith("keras")
