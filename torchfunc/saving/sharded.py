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

__all__ = ["fill", "gathered", "holds_shards", "is_shard", "is_sharded", "sharded_like", "whole_tensor"]


def whole_tensor(tensor: Tensor) -> Tensor | None:
    """A tensor on the CPU, and None in all processes but the first, if it is sharded; else the tensor itself.

    All processes that have a shard call this.
    """
    if not is_shard(tensor):
        return tensor
    whole: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return whole.detach().cpu() if distributed.get_rank() == 0 else None


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


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor; of a whole one, which all processes have, its shard into a sharded tensor."""
    tensor.copy_(sharded_like(value, tensor))


def sharded_like(value: Tensor, tensor: Tensor) -> Tensor:
    """A whole value, which all processes have, sharded as a tensor of its shape is; itself if that is not."""
    if not is_shard(tensor) or is_shard(value):
        return value
    from torch.distributed.tensor import distribute_tensor  # not needed otherwise

    sharded: Any = tensor
    return distribute_tensor(value.to(sharded.device), sharded.device_mesh, sharded.placements)


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is sharded over several processes, of which this one has a part."""
    return hasattr(tensor, "full_tensor")


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
    whole = {id(weight): whole_tensor(weight) for _, _, weight in places}
    optimizer: Any = getattr(model, "optimizer", None)
    state = _state(optimizer) if include_optimizer else []
    if distributed.get_rank() != 0:
        yield False
        return
    parameters = {
        id(weight): nn.Parameter(whole[id(weight)], weight.requires_grad)  # type: ignore[arg-type]
        for _, _, weight in places
    }
    classes = [(module, type(module)) for module in model.modules()]
    try:
        for module, name, weight in places:
            module._parameters[name] = parameters[id(weight)]
        for module, cls in classes:
            module.__class__ = _own_class(cls)
        if state:
            model.__dict__["optimizer"] = _twin(optimizer, parameters, state)
        yield True
    finally:
        for module, cls in classes:
            module.__class__ = cls
        for module, name, weight in places:
            module._parameters[name] = weight
        if state:
            model.__dict__["optimizer"] = optimizer


def _own_class(cls: type) -> type:
    """The class of a module before torch made another of it, which shards its weights."""
    first, *others = cls.__bases__
    return others[0] if first.__name__ == "FSDPModule" else cls


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
