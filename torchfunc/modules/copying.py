"""Drawn graphs as plain lists, without a link from one call to the next: to be copied or pickled at any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import fx, nn
from torch.fx.node import map_aggregate

from torchfunc.graph import Node, ReturnedMask, SymbolicTensor, SymbolicValue, record
from torchfunc.layers import Layer
from torchfunc.modules.binding import InputBinding
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.fx_module import OwnedGraph
from torchfunc.modules.keras_order import in_keras_order, parts_by_depth
from torchfunc.structures import map_structure

__all__ = ["FlatGraph"]

FxCall: TypeAlias = "tuple[str, str, Any, Any, Any]"
"""Of a torch.fx node the op, name, target, positional and keyword arguments."""


@dataclass(frozen=True)
class _Reference:
    """Output number `output` of call number `node`; in a torch.fx graph, the node called `node`."""

    node: Any
    output: int = 0


class FlatGraph:
    """A drawn graph and its torch.fx graph as plain lists.

    Args:
        drawn: what was drawn.
        graph: the torch.fx graph, as lowered or as somebody changed it since.
    """

    def __init__(self, drawn: DrawnGraph, graph: fx.Graph) -> None:
        outside = drawn.outside_inputs
        self.outside = [(name, value.spec) for name, value in outside.items()]
        nodes = [*drawn.nodes, *drawn.mask_nodes]
        place = {
            value: _Reference(index, output)
            for index, node in enumerate(nodes, start=len(outside))
            for output, value in enumerate(node.values_made)
        }
        place.update((value, _Reference(index)) for index, value in enumerate(outside.values()))

        def refer(leaf: Any) -> Any:
            return place[leaf] if isinstance(leaf, SymbolicValue) else leaf

        self.calls = [
            (node.op, node.target, map_aggregate(node.args, refer), map_aggregate(node.kwargs, refer), node.specs)
            for node in nodes
        ]
        self.mask_calls = len(drawn.mask_nodes)
        self.inputs, self.outputs = map_aggregate(drawn.inputs, refer), map_aggregate(drawn.outputs, refer)
        self.masks = [refer(mask) for mask in drawn.masks]
        self.masks_of_values = {
            reference: place[value.mask]
            for value, reference in place.items()
            if isinstance(value, SymbolicTensor) and value.mask in place
        }
        self.returned_masks = [
            {path: mask for path, mask in node.masks.items() if isinstance(mask, ReturnedMask)} for node in nodes
        ]
        targets = [node.target if isinstance(node.target, nn.Module) else None for node in nodes]
        self.names = [
            drawn.names[node if target is None else target] for target, node in zip(targets, nodes, strict=True)
        ]
        self.keys = [None if target is None else drawn.keys.get(target) for target in targets]
        self.tensors = list(drawn.tensors)
        self.input_names = drawn.binding.names
        self.owner = drawn.binding.owner
        self.fx_calls = _flatten_fx(graph)

    def restore(self) -> tuple[DrawnGraph, fx.Graph]:
        """Both graphs again, made of new nodes, which the layers among their targets have as inbound nodes."""
        nodes: list[Node] = []
        values = [[record("input", name, (), {}, spec).outputs] for name, spec in self.outside]

        def look_up(leaf: Any) -> Any:
            return values[leaf.node][leaf.output] if isinstance(leaf, _Reference) else leaf

        for (op, target, args, kwargs, specs), masks in zip(self.calls, self.returned_masks, strict=True):
            node = record(op, target, map_aggregate(args, look_up), map_aggregate(kwargs, look_up), specs)
            if isinstance(target, Layer):
                target.inbound_calls.add(node, held=False)
            node.masks.update(masks)
            nodes.append(node)
            values.append(node.values_made)
        for reference, mask in self.masks_of_values.items():
            look_up(reference).mask = look_up(mask)
        targets = [node.target if isinstance(node.target, nn.Module) else node for node in nodes]
        inputs = map_structure(look_up, self.inputs)
        outputs = map_structure(look_up, self.outputs)
        outside = {value for made in values[: len(self.outside)] for value in made}
        parts = parts_by_depth(in_keras_order(inputs), in_keras_order(outputs), outside)
        keys = {node.target: key for node, key in zip(nodes, self.keys, strict=True) if key is not None}
        count = len(nodes) - self.mask_calls
        drawn = DrawnGraph(
            inputs=inputs,
            outputs=outputs,
            nodes=nodes[:count],
            masks=[look_up(mask) for mask in self.masks],
            mask_nodes=nodes[count:],
            parts=parts,
            names=dict(zip(targets, self.names, strict=True)),
            keys={part: keys[part] for part in parts if isinstance(part, nn.Module) and part in keys},
            tensors=self.tensors,
            binding=InputBinding(inputs, self.input_names, self.owner),
        )
        return drawn, _restore_fx(self.fx_calls)


def _flatten_fx(graph: fx.Graph) -> list[FxCall]:
    """A torch.fx graph as a plain list. Its own pickle follows the links from node to node."""

    def refer(leaf: Any) -> Any:
        return _Reference(leaf.name) if isinstance(leaf, fx.Node) else leaf

    return [
        (node.op, node.name, node.target, map_aggregate(node.args, refer), map_aggregate(node.kwargs, refer))
        for node in graph.nodes
    ]


def _restore_fx(calls: Sequence[FxCall]) -> fx.Graph:
    graph = OwnedGraph()
    found: dict[str, fx.Node] = {}

    def look_up(leaf: Any) -> Any:
        return found[leaf.node] if isinstance(leaf, _Reference) else leaf

    for op, name, target, args, kwargs in calls:
        arguments = map_aggregate(args, look_up), dict(map_aggregate(kwargs, look_up))
        found[name] = graph.create_node(op, target, *arguments, name=name)
    return graph
