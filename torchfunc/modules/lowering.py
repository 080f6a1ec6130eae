"""Lowering: from the nodes the user drew to a `torch.fx.Graph`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx
from torch.fx.node import base_types, map_aggregate
from torch.utils._pytree import GetAttrKey, MappingKey, SequenceKey

from torchfunc.graph import Node, SymbolicValue
from torchfunc.layers.base.weighted_layer import ActivationLast
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.fx_module import OwnedGraph
from torchfunc.modules.network import Network
from torchfunc.modules.written_inputs import inputs_written
from torchfunc.structures import leaves

__all__ = ["SPECS", "BeforeActivation", "lower"]

SPECS = "specs"
"""Where the `meta` of a call's node holds what it returns."""


@dataclass(frozen=True)
class BeforeActivation:
    """Among the outputs to lower: what the activation is applied to that a call of a layer or model ends in."""

    call: Node


@dataclass(frozen=True)
class _MasksOf:
    """What stands for the masks that a call returns beside its outputs."""

    call: Node


def lower(drawn: DrawnGraph, outputs: Any = None) -> fx.Graph:
    """The `fx.Graph` of a drawn graph: one `call_module` node for each call of a layer or module.

    Args:
        drawn: what was drawn.
        outputs: what to return, if it is not `drawn.outputs`: masks may be among it, and `BeforeActivation`s. The call
            of a layer whose `BeforeActivation` is among it becomes that of a function that returns both.

    Raises:
        TypeError: an argument is of a type that code cannot be written for.
    """
    if outputs is None:
        return _Lowering(drawn).run(drawn.nodes, drawn.outputs)
    return _Lowering(drawn).run([*drawn.nodes, *drawn.mask_nodes], outputs)


class _Lowering:
    def __init__(self, drawn: DrawnGraph) -> None:
        self.drawn = drawn
        self.graph = OwnedGraph()
        self.values: dict[Any, fx.Node] = {}
        # The calls that return more than their outputs.
        self.with_logits: set[Node] = set()
        self.with_masks: set[Node] = set()

    def run(self, nodes: Sequence[Node], outputs: Any) -> fx.Graph:
        written = inputs_written(nodes, self.drawn.input_tensors)
        for name, value in zip(self.drawn.binding.names, self.drawn.input_tensors, strict=True):
            placeholder = self.graph.placeholder(_variable(name))
            # The node's name is an identifier, free and of no meaning in the code; the parameter is called like it.
            placeholder.target = placeholder.name
            self.values[value] = self.graph.call_method("clone", (placeholder,)) if value in written else placeholder
        wanted = leaves(outputs)
        self.with_logits.update(leaf.call for leaf in wanted if isinstance(leaf, BeforeActivation))
        taken = [leaf for leaf in wanted if isinstance(leaf, SymbolicValue)]
        for node in nodes:
            taken += node.inputs
        # (Most values have no path.)
        self.with_masks = {value.node for value in taken if value.path and value.returned_mask is not None}
        for node in nodes:
            if node.op != "input":
                self.values[node] = self._call_with_logits(node) if node in self.with_logits else self._call(node)
                self.values[node].meta[SPECS] = node.specs
        self.graph.output(map_aggregate(outputs, self._argument))
        return self.graph

    def _call(self, node: Node) -> fx.Node:
        args = map_aggregate(node.args, self._argument)
        kwargs = dict(map_aggregate(node.kwargs, self._argument))
        if node.op == "module":
            target = node.target
            key, name = self.drawn.keys[target], _variable(self.drawn.names[target])
            if node not in self.with_masks:
                return self.graph.create_node("call_module", key, args, kwargs, name=name)
            both = self.graph.create_node("call_module", key, args, {**kwargs, "return_masks": True})
            return self._first(node, both, _MasksOf(node))
        return self.graph.create_node(
            f"call_{node.op}", node.target, args, kwargs, name=_variable(self.drawn.names[node])
        )

    def _call_with_logits(self, node: Node) -> fx.Node:
        layer = self.graph.get_attr(self.drawn.keys[node.target])
        found = self.graph.call_function(outputs_and_logits, (layer, *map_aggregate(node.args, self._argument)))
        masks = [_MasksOf(node)] if node in self.with_masks else []
        return self._first(node, found, BeforeActivation(node), *masks)

    def _first(self, node: Node, found: fx.Node, *others: BeforeActivation | _MasksOf) -> fx.Node:
        """The outputs, of a call that returns other things behind them."""
        for place, other in enumerate(others, start=1):
            self.values[other] = self.graph.call_function(operator.getitem, (found, place))
        name = _variable(self.drawn.names[node.target])
        return self.graph.create_node("call_function", operator.getitem, (found, 0), name=name)

    def _argument(self, leaf: Any) -> Any:
        if isinstance(leaf, BeforeActivation):
            return self.values[leaf]
        if isinstance(leaf, SymbolicValue):
            return self._value(leaf)
        if isinstance(leaf, Tensor):
            return self._attribute(self.drawn.paths[id(leaf)])
        if isinstance(leaf, np.generic):
            # Some are Python numbers as well, but the code would show them as `np.float64(3.0)`.
            return leaf.item()
        if leaf is None or leaf is Ellipsis or isinstance(leaf, base_types):
            return leaf
        raise TypeError(
            f"An argument of type {type(leaf).__name__} ({leaf!r}) cannot be recorded in a graph. "
            "Do this call inside a Layer's call() instead."
        )

    def _attribute(self, name: str) -> fx.Node:
        if name not in self.values:
            self.values[name] = self.graph.create_node("get_attr", name)
        return self.values[name]

    def _value(self, value: SymbolicValue) -> fx.Node:
        """The fx node of a value: the call's own, or that of picking it out of what the call returned."""
        if value in self.values:
            return self.values[value]
        if value.returned_mask is not None:
            masks, index = self.values[_MasksOf(value.node)], value.returned_mask.index
            self.values[value] = self.graph.call_function(operator.getitem, (masks, index))
            return self.values[value]
        found = self.values[value.node]
        for depth, key in enumerate(value.path, start=1):
            step = (value.node, value.path[:depth])
            if step not in self.values:
                if isinstance(key, GetAttrKey):
                    self.values[step] = self.graph.call_function(getattr, (found, key.name))
                else:
                    entry = _entry(key)
                    self.values[step] = self.graph.call_function(operator.getitem, (found, entry))
            found = self.values[step]
        return found


def _variable(name: str) -> str:
    """What a value is called in the code, where `self` is the model; torch.fx makes identifiers of all other names."""
    return "self_" if name == "self" else name


def _entry(key: object) -> Any:
    assert isinstance(key, (SequenceKey, MappingKey))
    return key.idx if isinstance(key, SequenceKey) else key.key


def outputs_and_logits(
    layer: ActivationLast | Network, *inputs: Tensor
) -> tuple[Tensor, Tensor | None, Sequence[Tensor | None]]:
    """What the layer returns, what its activation is applied to (of a model, if it can tell), and the output's mask."""
    if isinstance(layer, Network):
        found = layer.forward_for_training(*inputs, logits_of=(0,))
        return found.y_pred, None if found.logits is None else found.logits[0], found.masks or [None]
    logits = layer.before_activation(*inputs)
    return layer.activation(logits), logits, [None]
