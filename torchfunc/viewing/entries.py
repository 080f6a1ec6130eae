"""What a model is made of, in the order in which Keras lists it, and what is connected to what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchfunc.graph import Node, SymbolicValue
from torchfunc.layers import Layer
from torchfunc.modules import DrawnGraph, GraphNetwork, Network, SequentialNetwork
from torchfunc.shards import own_class
from torchfunc.structures import leaves

__all__ = ["Entry", "connections", "entries_of", "select_range"]


@dataclass(frozen=True)
class Entry:
    """One part of a model.

    Attributes:
        name: its name in the model.
        kind: the name of its class, or of the function that is called.
        target: the layer or module; the `Node` of a function's call; the input tensor, if it is made outside the
            model; the parameter or constant that belongs to the model itself.
        calls: the calls of it in the model, in the order they were made.
    """

    name: str
    kind: str
    target: Any
    calls: Sequence[Node] = ()


def entries_of(model: Network) -> tuple[list[Entry], bool]:
    """The parts of a model, and whether it is a plain chain.

    A drawn model's are in Keras' order: the farther from the outputs the earlier, then in the order in which a walk
    from the outputs backwards meets them. A parameter or constant of the model itself comes before the first call
    that takes it, and last where that is not known.
    """
    own = _own_tensors(model)
    drawn = model.drawn if isinstance(model, GraphNetwork) else None
    if drawn is None or isinstance(model, SequentialNetwork):
        return [*_listed(model, drawn), *own.values()], True
    found, is_chain = _in_keras_order(drawn)
    recorded = _recorded_names(drawn, own)
    entries: list[Entry] = []
    for entry in found:
        if recorded:
            taken = [recorded.get(id(leaf)) for call in entry.calls for leaf in _arguments(call, recorded)]
            entries.extend(own.pop(name) for name in taken if name in own)
        entries.append(entry)
    return [*entries, *own.values()], is_chain


def select_range(entries: list[Entry], layer_range: Sequence[str] | None) -> list[Entry]:
    """The entries from the first to the last that match two names or patterns of the beginning of names.

    Raises:
        ValueError: `layer_range` is something else, or nothing matches one of them.
    """
    if layer_range is None:
        return entries
    if len(layer_range) != 2 or not all(isinstance(each, str) for each in layer_range):
        raise ValueError(f"`layer_range` is two strings, the first and the last layer's name, got {layer_range!r}.")
    first, last = ([i for i, entry in enumerate(entries) if re.match(each, entry.name)] for each in layer_range)
    if not first or not last:
        names = ", ".join(entry.name for entry in entries)
        raise ValueError(
            f"No layer matches {layer_range[0 if not first else 1]!r} of `layer_range`. The layers are: {names}."
        )
    start, stop = (first[0], last[-1]) if first[0] <= last[-1] else (last[0], first[-1])
    return entries[start : stop + 1]


def _listed(model: Network, drawn: DrawnGraph | None) -> list[Entry]:
    calls = {} if drawn is None else _calls(drawn.nodes)
    names = dict(zip(model.layers, model.layer_names(), strict=True))
    return [Entry(name, own_class(type(layer)).__name__, layer, calls.get(layer, ())) for layer, name in names.items()]


def _own_tensors(model: Network) -> dict[str, Entry]:
    """The parameters and persistent buffers of the model itself, by name."""
    buffers = {name: each for name, each in model._buffers.items() if name not in model._non_persistent_buffers_set}
    tensors = {**model._parameters, **buffers}
    return {name: Entry(name, type(each).__name__, each) for name, each in tensors.items() if each is not None}


def _recorded_names(drawn: DrawnGraph, own: Mapping[str, Entry]) -> dict[int, str]:
    """The names of the model's own tensors, by the `id` of what stands for them among the arguments of calls."""
    return {key: path for key, path in drawn.paths.items() if path in own}


def _arguments(call: Node, recorded: Mapping[int, str]) -> list[Any]:
    """The symbolic values and recorded tensors among a call's arguments, in order of appearance.

    The mask that a model within the model returns with its output does not show, as in Keras.
    """
    arguments = leaves((call.args, call.kwargs))
    return [leaf for leaf in arguments if _is_shown(leaf) or id(leaf) in recorded]


def _is_shown(leaf: Any) -> bool:
    return isinstance(leaf, SymbolicValue) and leaf.returned_mask is None


def _in_keras_order(drawn: DrawnGraph) -> tuple[list[Entry], bool]:
    calls = _calls(drawn.nodes)
    outside = _outside_inputs(drawn)
    entries = []
    for target in drawn.parts:
        if isinstance(target, SymbolicValue):
            entries.append(Entry(outside[target], "InputLayer", target))
        elif isinstance(target, Node):
            entries.append(Entry(drawn.name_of(target), _called(target), target, (target,)))
        else:
            kind = own_class(type(target)).__name__
            entries.append(Entry(drawn.name_of(calls[target][0]), kind, target, calls[target]))
    branches = len(set(drawn.parts.values())) < len(drawn.parts)
    calls_made = [entry.calls for entry in entries]
    joins = any(len(nodes) > 1 or any(sum(map(_is_shown, node.inputs)) > 1 for node in nodes) for nodes in calls_made)
    return entries, not branches and not joins


def _calls(nodes: Iterable[Node]) -> dict[nn.Module, list[Node]]:
    """The calls of each layer and module."""
    calls: dict[nn.Module, list[Node]] = {}
    for node in nodes:
        if isinstance(node.target, nn.Module):
            calls.setdefault(node.target, []).append(node)
    return calls


def _outside_inputs(drawn: DrawnGraph) -> dict[SymbolicValue, str]:
    """The inputs that are not made by an `Input`, but by calls outside of the model, with their names."""
    return {value: name for name, value in drawn.outside_inputs.items()}


def _called(node: Node) -> str:
    """The name of what a function or method call calls."""
    if node.target is getattr:
        return str(node.args[1])
    return str(getattr(node.target, "__name__", node.target))


def connections(model: Network, entries: Iterable[Entry]) -> dict[int, str]:
    """What goes into each entry's calls: `dense[1][0], add[0][0]`, by the `id` of its target.

    The numbers are the call of that layer (`get_output_at`) and the place among that call's outputs. A parameter or
    constant of the model itself is there with its bare name.
    """
    drawn = model.drawn if isinstance(model, GraphNetwork) else None
    assert drawn is not None
    recorded = _recorded_names(drawn, _own_tensors(model))
    labels = {value: f"{name}[0][0]" for value, name in _outside_inputs(drawn).items()}
    for entry in entries:
        known = entry.target.inbound_nodes if isinstance(entry.target, Layer) else entry.calls
        places = {node: index for index, node in enumerate(known)}
        for call in entry.calls:
            for index, value in enumerate(call.output_values):
                labels.setdefault(value, f"{entry.name}[{places[call]}][{index}]")

    def label(leaf: Any) -> str:
        return labels[leaf] if isinstance(leaf, SymbolicValue) else recorded[id(leaf)]

    return {
        id(entry.target): ", ".join(label(leaf) for call in entry.calls for leaf in _arguments(call, recorded))
        for entry in entries
    }
