"""Files of models whose weights are sharded over several processes: the same as those of one process.

Each process gathers one weight after the other, which the first one alone keeps, and writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn

from torchfunc.graph import modules_within
from torchfunc.optimizers import Optimizer, TorchOptimizer
from torchfunc.shards import is_shard, own_class, whole

__all__ = ["gathered", "holds_shards", "is_sharded", "own_classes", "whole_tensor"]


def whole_tensor(tensor: Tensor) -> Tensor | None:
    """A tensor on the CPU, and None in all processes but the first, if it is sharded; else the tensor itself.

    All processes that have a shard call this.
    """
    if not is_shard(tensor):
        return tensor
    found = whole(tensor)
    return found.detach().cpu() if distributed.get_rank() == 0 else None


def is_sharded(model: nn.Module) -> bool:
    """Whether the weights of a model are sharded, of which all are or none."""
    return holds_shards(modules_within(model))


def holds_shards(modules: Iterable[nn.Module]) -> bool:
    """Whether the weights of these modules are sharded, of which all are or none."""
    for module in modules:
        for _, weight in module._parameters.items():
            if weight is not None:
                return is_shard(weight)
    return False


@contextlib.contextmanager
def gathered(model: nn.Module, include_optimizer: bool) -> Iterator[bool]:
    """The model with all of its weights, on the CPU, for a block that writes it, and its optimizer with all its state.

    Does nothing if the weights are not sharded.

    Yields:
        whether there is something to write here: not in the other processes, if the weights are sharded.

    Raises:
        ValueError: the optimizer is torch's, whose state is not gathered.
    """
    places = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module._parameters.items()
        if weight is not None and is_shard(weight)
    ]
    if not places:
        yield True
        return
    values = {id(weight): whole_tensor(weight) for _, _, weight in places}
    optimizer: Any = getattr(model, "optimizer", None)
    state = _state(optimizer) if include_optimizer else []
    if distributed.get_rank() != 0:
        yield False
        return
    parameters = {
        id(weight): nn.Parameter(values[id(weight)], weight.requires_grad)  # type: ignore[arg-type]
        for _, _, weight in places
    }
    try:
        for module, name, weight in places:
            module._parameters[name] = parameters[id(weight)]
        if state:
            model.__dict__["optimizer"] = _twin(optimizer, parameters, state)
        with own_classes(model):
            yield True
    finally:
        for module, name, weight in places:
            module._parameters[name] = weight
        if state:
            model.__dict__["optimizer"] = optimizer


@contextlib.contextmanager
def own_classes(model: nn.Module) -> Iterator[None]:
    """Modules with the classes, by whose names files know them, that they had before torch sharded their weights."""
    classes = [(module, type(module)) for module in model.modules() if own_class(type(module)) is not type(module)]
    try:
        for module, cls in classes:
            module.__class__ = own_class(cls)
        yield
    finally:
        for module, cls in classes:
            module.__class__ = cls


def _state(optimizer: Optimizer | None) -> list[Tensor | None]:
    if optimizer is None or not optimizer.built:
        return []
    if isinstance(optimizer, TorchOptimizer):
        raise ValueError(
            "The state of a torch optimizer whose weights are sharded cannot be written. Save the model with "
            "include_optimizer=False, its weights alone, or the state with torch.distributed.checkpoint."
        )
    return [whole_tensor(variable) for variable in optimizer.variables]


def _twin(optimizer: Optimizer, parameters: dict[int, nn.Parameter], state: list[Tensor | None]) -> Optimizer:
    """An optimizer with the same settings and state for the whole weights."""
    twin = type(optimizer).from_config(optimizer.get_config())
    twin.build([parameters[id(weight)] for weight in optimizer.trained_weights])
    with torch.no_grad():
        for variable, value in zip(twin.variables, state, strict=True):
            variable.copy_(value)  # type: ignore[arg-type]
    return twin
