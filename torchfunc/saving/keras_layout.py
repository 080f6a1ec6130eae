"""Where Keras keeps the parts of a model in its files: a walk of the model that gives each part its path.

A path is made of the names of attributes, private ones last; what is in a list or dict is named after its class. Each
part is at the first path that the walk meets. Source: `_walk_saveable` in keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn

from torchfunc.layers import GroupQueryAttention, Layer, MultiHeadAttention
from torchfunc.layers.base.tracking import TrackedDict, TrackedList, TrackedTuple
from torchfunc.layers.recurrent.convlstm import ConvLSTM
from torchfunc.layers.recurrent.layers import RecurrentLayer
from torchfunc.modules import GraphNetwork, Network
from torchfunc.optimizers import Optimizer
from torchfunc.registry import to_snake_case

__all__ = ["Part", "parts_of"]

# What every layer keeps: tables of torch's, the arguments it was made with ...
_OF_ANY_LAYER = frozenset(vars(Layer()))
_CONTAINERS = (list, tuple, dict, TrackedList, TrackedTuple, TrackedDict, nn.ModuleList, nn.ModuleDict)
# The projections of attention layers, as Keras calls them.
_ROLES = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "gate_proj": "gate", "out_proj": "output"}


class Part(NamedTuple):
    """A part of a model that has weights or a state of its own.

    Attributes:
        path: where Keras keeps it; () for the model itself.
        holder: a layer, a module or an optimizer.
    """

    path: tuple[str, ...]
    holder: nn.Module | Optimizer

    @property
    def variables_path(self) -> tuple[str, ...]:
        """Where its variables are; Keras' recurrent layers have theirs in a cell."""
        in_cell = isinstance(self.holder, (RecurrentLayer, ConvLSTM))
        return (*self.path, "cell", "vars") if in_cell else (*self.path, "vars")


def parts_of(model: nn.Module) -> Iterator[Part]:
    """The parts of a model, itself first, each once, in the order in which Keras visits them."""
    # With the values, since a list that is made for the walk would give its number to the next one.
    seen: dict[int, Any] = {}
    pending: list[Iterator[tuple[tuple[str, ...], Any]]] = [iter([((), model)])]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        path, value = found
        if id(value) not in seen:
            seen[id(value)] = value
            if isinstance(value, _CONTAINERS):
                pending.append(_in_container(path, value))
            else:
                yield Part(path, value)
                pending.append(_in_attributes(path, value))


def _in_attributes(path: tuple[str, ...], holder: nn.Module | Optimizer) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(holder, Optimizer):
        inner = getattr(holder, "inner_optimizer", None)
        return iter([] if inner is None else [((*path, "inner_optimizer"), inner)])
    children = [*_attributes(holder).items()]
    if isinstance(holder, GraphNetwork):
        # First the layers, then what else a subclass has.
        children = [("layers", holder.layers), *children]
    return (((*path, name), child) for name, child in children)


def _attributes(holder: nn.Module) -> dict[str, Any]:
    """The attributes with something to save, in Keras' order."""
    found: dict[str, Any] = {
        name: value
        for name, value in itertools.chain(holder.__dict__.items(), holder._modules.items())
        if name not in _OF_ANY_LAYER and _is_saved(value) and not name.startswith("__")
    }
    if isinstance(holder, (MultiHeadAttention, GroupQueryAttention)):
        found = {_attention_name(holder, name): value for name, value in found.items()}
    found.update(_properties(holder))
    if isinstance(holder, Network) and not isinstance(holder, GraphNetwork):
        found["layers"] = holder.layers
    return dict(sorted(found.items(), key=lambda item: f"~{item[0]}" if item[0].startswith("_") else item[0]))


def _properties(holder: nn.Module) -> Iterator[tuple[str, Any]]:
    """What properties of a user's class give: Keras meets a layer under the name of one, if that comes first."""
    for cls in type(holder).__mro__:
        if cls.__module__.split(".")[0] in ("torchfunc", "torch"):
            continue
        for name, member in vars(cls).items():
            if isinstance(member, property) and not name.startswith("__"):
                try:
                    value = getattr(holder, name)
                except Exception:  # noqa: BLE001 - whatever a user's code raises, there is nothing to save then
                    continue
                if _is_saved(value):
                    yield name, value


def _attention_name(holder: nn.Module, name: str) -> str:
    if name not in _ROLES:
        return name
    is_public = isinstance(holder, MultiHeadAttention) and name != "gate_proj"
    return f"{_ROLES[name]}_dense" if is_public else f"_{_ROLES[name]}_dense"


def _is_saved(value: object) -> bool:
    return isinstance(value, (nn.Module, Optimizer)) or (isinstance(value, _CONTAINERS) and bool(value))


def _in_container(path: tuple[str, ...], container: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    counts: dict[str, int] = {}
    for value in container.values() if isinstance(container, (Mapping, nn.ModuleDict)) else container:
        if isinstance(value, _CONTAINERS):
            name = "container"
        elif isinstance(value, (nn.Module, Optimizer)):
            name = to_snake_case(_class_name(value))
        else:
            continue
        number = counts[name] = counts.get(name, -1) + 1
        yield (*path, f"{name}_{number}" if number else name), value


def _class_name(value: nn.Module | Optimizer) -> str:
    if isinstance(value, Layer):
        return getattr(value, "class_in_config", type(value)).__name__
    return type(value).__name__
