"""Going through a graph again: on inputs of other shapes, with other layers, or out of a pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.fx.node import map_aggregate

from torchfunc.graph import (
    Node,
    SymbolicTensor,
    SymbolicValue,
    infer_call,
    infer_module,
    record,
    record_function,
    record_method,
    replay,
    tensor_method,
)
from torchfunc.layers import Layer
from torchfunc.structures import map_structure

__all__ = ["FlatGraph", "call_again", "flatten_fx", "infer_again", "reinfer", "restore_fx"]


def reinfer(
    nodes: Sequence[Node], inputs: Sequence[SymbolicValue], outputs: Any, new_inputs: Sequence[SymbolicValue]
) -> Any:
    """What the graph from `inputs` to `outputs` returns for other inputs, as a structure of specs."""
    values: dict[SymbolicValue, Any] = dict(zip(inputs, new_inputs, strict=True))
    replay([node for node in nodes if node.op != "input"], values, infer_again)
    return map_structure(lambda leaf: values[leaf].spec if isinstance(leaf, SymbolicValue) else leaf, outputs)


def infer_again(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The outputs of a call like that of `node` on other arguments, of which the layer itself does not learn."""
    target, label = node.target, getattr(node.target, "__name__", str(node.target))
    if isinstance(target, Layer):
        return target.record_call(args, kwargs).outputs
    if isinstance(target, nn.Module):
        specs = infer_module(target, args, kwargs, type(target).__name__)
    elif node.op == "method":
        specs = infer_call(tensor_method(target), args, kwargs, label)
    else:
        specs = infer_call(target, args, kwargs, label)
    return record(node.op, target, args, kwargs, specs, node.source).outputs


def call_again(op: str, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Make a call of that kind on symbolic values."""
    if op == "module":
        return target(*args, **kwargs)
    return record_method(target, args, kwargs) if op == "method" else record_function(target, args, kwargs)


@dataclass(frozen=True)
class _Reference:
    """Output number `output` of call number `node`; in a torch.fx graph, the node called `node`."""

    node: Any
    output: int = 0


class FlatGraph:
    """A graph of nodes as a plain list, without a link from one to the next: to be copied or pickled at any length.

    Args:
        nodes: the calls, in topological order, those of the inputs included.
        given: values that the calls use but none of them makes, by the name to give them.
        roots: structures of symbolic values to keep, by name.
    """

    def __init__(self, nodes: Sequence[Node], given: Mapping[str, SymbolicValue], roots: Mapping[str, Any]) -> None:
        self.given = [(name, value.spec) for name, value in given.items()]
        place = {
            value: _Reference(index, output)
            for index, node in enumerate(nodes, start=len(given))
            for output, value in enumerate(node.output_values)
        }
        place.update((value, _Reference(index)) for index, value in enumerate(given.values()))

        def refer(leaf: Any) -> Any:
            return place[leaf] if isinstance(leaf, SymbolicValue) else leaf

        self.calls = [
            (node.op, node.target, map_aggregate(node.args, refer), map_aggregate(node.kwargs, refer), node.specs)
            for node in nodes
        ]
        self.roots = {name: map_aggregate(structure, refer) for name, structure in roots.items()}
        self.masks = {
            reference: place[value.mask]
            for value, reference in place.items()
            if isinstance(value, SymbolicTensor) and value.mask in place
        }

    def restore(self) -> tuple[list[Node], dict[str, Any]]:
        """The nodes and roots again, as new objects; layers among the targets learn of their calls."""
        nodes: list[Node] = []
        values = [[record("input", name, (), {}, spec).outputs] for name, spec in self.given]

        def look_up(leaf: Any) -> Any:
            return values[leaf.node][leaf.output] if isinstance(leaf, _Reference) else leaf

        for op, target, args, kwargs, specs in self.calls:
            node = record(op, target, map_aggregate(args, look_up), map_aggregate(kwargs, look_up), specs)
            if isinstance(target, Layer):
                target.inbound_nodes.append(node)
            nodes.append(node)
            values.append(node.output_values)
        for reference, mask in self.masks.items():
            look_up(reference).mask = look_up(mask)
        return nodes, {name: map_structure(look_up, structure) for name, structure in self.roots.items()}


def flatten_fx(graph: fx.Graph) -> list[tuple[Any, ...]]:
    """A torch.fx graph as a plain list. Its own pickle follows the links from node to node."""

    def refer(leaf: Any) -> Any:
        return _Reference(leaf.name) if isinstance(leaf, fx.Node) else leaf

    return [
        (node.op, node.name, node.target, map_aggregate(node.args, refer), map_aggregate(node.kwargs, refer))
        for node in graph.nodes
    ]


def restore_fx(calls: Sequence[tuple[Any, ...]], codegen: Callable[[], Any]) -> fx.Graph:
    """The graph that `flatten_fx` flattened."""
    graph = fx.Graph()
    graph.set_codegen(codegen())
    found: dict[str, fx.Node] = {}

    def look_up(leaf: Any) -> Any:
        return found[leaf.node] if isinstance(leaf, _Reference) else leaf

    for op, name, target, args, kwargs in calls:
        arguments = map_aggregate(args, look_up), dict(map_aggregate(kwargs, look_up))
        found[name] = graph.create_node(op, target, *arguments, name=name)
    return graph
