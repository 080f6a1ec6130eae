"""The order in which Keras lists the parts of a drawn model: in `model.layers`, `get_weights()`, files and tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from torch import nn

from torchfunc.graph import Node, SymbolicValue
from torchfunc.structures import Structure, leaves
from torchfunc.tensor_masks import MASKS_OF_INPUTS

__all__ = ["Part", "in_keras_order", "parts_by_depth"]

Part: TypeAlias = "nn.Module | Node | SymbolicValue"
"""A layer or module; the call of a function or method; an input of the model that a call outside of it makes."""

# A call; or an input that some call outside of the model makes.
Vertex: TypeAlias = "Node | SymbolicValue"


def parts_by_depth(
    inputs: Sequence[SymbolicValue], outputs: Sequence[SymbolicValue], outside: Collection[SymbolicValue]
) -> dict[Part, int]:
    """The parts of the graph between inputs and outputs, in Keras' order, and how far each is from the outputs.

    The farther from the outputs the earlier, then in the order in which a walk from the outputs backwards meets them.
    Source: `map_graph` in keras/src/ops/function.py, without its recursion.

    Args:
        inputs, outputs: the symbolic tensors in Keras' flat order.
        outside: those of the inputs that calls outside of the graph make.
    """
    finished, order = _walk_back(outputs, outside)
    vertex_depths: dict[Vertex, int] = {}
    depths: dict[Part, int] = {}
    for vertex, part in reversed(finished):
        # A shared layer stands where its earliest call does.
        depth = max(vertex_depths.get(vertex, 0), depths.get(part, 0))
        vertex_depths[vertex] = depths[part] = depth
        for before in _before(vertex, outside):
            vertex_depths[before] = max(depth + 1, vertex_depths.get(before, 0))
    for value in inputs:
        part = _part(_vertex(value, outside))
        if part not in depths:
            depths[part], order[part] = 0, -1
    return {part: depths[part] for part in sorted(order, key=lambda part: (-depths[part], order[part]))}


def _walk_back(
    outputs: Iterable[SymbolicValue], outside: Collection[SymbolicValue]
) -> tuple[list[tuple[Vertex, Part]], dict[Part, int]]:
    """Depth first from the outputs: the vertices with their parts, behind what they depend on; when parts were met."""
    finished: list[tuple[Vertex, Part]] = []
    order: dict[Part, int] = {}
    seen: set[Vertex] = set()
    path: list[tuple[Vertex, Part, Iterator[Vertex]]] = []
    for output in outputs:
        ahead: Iterator[Vertex] = iter([_vertex(output, outside)])
        while True:
            vertex = next(ahead, None)
            if vertex is not None and vertex not in seen:
                seen.add(vertex)
                part = _part(vertex)
                order.setdefault(part, len(order))
                path.append((vertex, part, ahead))
                ahead = iter(_before(vertex, outside))
            elif vertex is None and path:
                vertex, part, ahead = path.pop()
                finished.append((vertex, part))
            elif vertex is None:
                break
    return finished, order


def _vertex(value: SymbolicValue, outside: Collection[SymbolicValue]) -> Vertex:
    return value if value in outside else value.node


def _before(vertex: Vertex, outside: Collection[SymbolicValue]) -> list[Vertex]:
    if not isinstance(vertex, Node):
        return []
    values: Iterable[SymbolicValue] = vertex.inputs
    if vertex.kwargs:
        # (Keras does not have the masks that tensors bring along. Sizes within slices are inputs too, and come last.)
        kwargs = {name: value for name, value in vertex.kwargs.items() if name != MASKS_OF_INPUTS}
        brought = set() if kwargs.keys() == vertex.kwargs.keys() else set(leaves(vertex.kwargs[MASKS_OF_INPUTS]))
        others = [value for value in vertex.inputs if value not in brought]
        values = dict.fromkeys([*in_keras_order((vertex.args, kwargs)), *others])
    return [_vertex(value, outside) for value in values]


def in_keras_order(structure: Structure) -> list[SymbolicValue]:
    """The symbolic values in a structure in Keras' flat order, in which dicts are sorted by their keys."""
    found: list[SymbolicValue] = []
    pending = [structure]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(value[key] for key in sorted(value, key=str, reverse=True))
        elif isinstance(value, (list, tuple)):
            pending.extend(reversed(value))
        elif isinstance(value, SymbolicValue):
            found.append(value)
    return found


def _part(vertex: Vertex) -> Part:
    target = vertex.target if isinstance(vertex, Node) else None
    return target if isinstance(target, nn.Module) else vertex
