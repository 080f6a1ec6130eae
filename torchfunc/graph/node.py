"""Node: one recorded call, and the walk that puts recorded calls in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.fx.node import map_aggregate
from torch.utils._pytree import KeyPath, tree_flatten_with_path, tree_map, tree_unflatten

from torchfunc.graph.source import Source, user_source
from torchfunc.structures import Structure, leaves, map_structure

__all__ = [
    "Args",
    "Kwargs",
    "Node",
    "Outputs",
    "Spec",
    "Specs",
    "SymbolicValue",
    "replay",
    "symbolic_leaves",
    "topological_order",
]

_sequence = itertools.count()


# What a call returns: any nesting of `Spec`s and constants, in lists, tuples, dicts and classes registered with torch.
Specs: TypeAlias = Any
# Those with the symbolic values in place of the `Spec`s.
Outputs: TypeAlias = Any
# The arguments of a call: anything, with symbolic values anywhere.
Args: TypeAlias = Sequence[Any]
Kwargs: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Spec:
    """What is known of one output before anything ran.

    Attributes:
        shape: the sizes, None where unknown; None as a whole for an integer.
        dtype: the dtype; None for an integer.
        examples: two concrete values that fit what is unknown: two shapes, or for an integer two integers.
            Whatever differs between them is unknown.
    """

    shape: tuple[int | None, ...] | None
    dtype: torch.dtype | None
    examples: tuple[Any, Any]


class SymbolicValue:
    """An output of a node: stands for a value that exists only when the graph runs."""

    __slots__ = ("__weakref__", "node", "path", "spec")

    def __init__(self, spec: Spec, node: Node, path: KeyPath = ()) -> None:
        self.spec = spec
        self.node = node
        self.path = path

    def __deepcopy__(self, memo: dict[int, Any]) -> SymbolicValue:
        # A handle on an immutable graph: a copy would be a tensor of no model.
        return self

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be pickled: it is a place in a graph. Pickle the model it belongs to.")


MakeValue: TypeAlias = "Callable[[Spec, Node, KeyPath], SymbolicValue]"


class Node:
    """One call: what was called, on what, and what came out.

    Attributes:
        op: "input", "module", "function" or "method", as `torch.fx` tells them apart.
        target: the module, the function, or the method's name; of an input, the layer that declares it.
        args, kwargs: the arguments, with a `SymbolicValue` wherever a value of the graph goes in.
        inputs: the values of the graph among the arguments, in order of appearance.
        outputs: what the call returned: any nesting of `SymbolicValue`s and constants.
        output_values: the values of the graph among the outputs.
        order: a number that grows with every node, so that sorting by it is a topological order.
        source: the user's file and line that made the call.
    """

    __slots__ = ("args", "inputs", "kwargs", "op", "order", "output_values", "outputs", "source", "target")

    def __init__(
        self,
        op: str,
        target: Any,
        args: Args,
        kwargs: Kwargs,
        specs: Specs,
        make_value: MakeValue,
        source: Source | None = None,
    ) -> None:
        self.op = op
        self.target = target
        self.inputs: list[SymbolicValue] = []

        def collect(leaf: Any) -> Any:
            if isinstance(leaf, SymbolicValue):
                self.inputs.append(leaf)
            return leaf

        # torch.fx's own walk, for its immutable containers: a recorded call cannot be changed. It is also the fastest.
        arguments: tuple[tuple[Any, ...], Mapping[str, Any]] = map_aggregate((tuple(args), dict(kwargs)), collect)
        self.args: tuple[Any, ...] = arguments[0]
        self.kwargs: Kwargs = arguments[1]
        self.order = next(_sequence)
        self.source = source or user_source()
        self.output_values: list[SymbolicValue] = []
        self.outputs = self._make_outputs(specs, make_value)

    def _make_outputs(self, specs: Specs, make_value: MakeValue) -> Outputs:
        if isinstance(specs, Spec):
            value = make_value(specs, self, ())
            self.output_values.append(value)
            return value
        paths, structure = tree_flatten_with_path(specs)
        made = [make_value(leaf, self, path) if isinstance(leaf, Spec) else leaf for path, leaf in paths]
        self.output_values.extend(leaf for leaf in made if isinstance(leaf, SymbolicValue))
        return tree_unflatten(made, structure)

    @property
    def specs(self) -> Specs:
        """What `outputs` was made of: the same structure with a `Spec` for each value."""
        return tree_map(lambda leaf: leaf.spec if isinstance(leaf, SymbolicValue) else leaf, self.outputs)

    def __repr__(self) -> str:
        target = self.target if isinstance(self.target, str) else getattr(self.target, "__name__", None)
        return f"Node({self.op} {target or type(self.target).__name__} -> {self.outputs})"


def symbolic_leaves(structure: Structure) -> list[SymbolicValue]:
    """The symbolic values in nested lists, tuples, dicts and slices, left to right."""
    if isinstance(structure, SymbolicValue):
        return [structure]
    return [leaf for leaf in leaves(structure) if isinstance(leaf, SymbolicValue)]


def topological_order(outputs: Iterable[SymbolicValue], inputs: Iterable[SymbolicValue] = ()) -> list[Node]:
    """Every node that `outputs` depend on, each after what it depends on, without going past `inputs`."""
    stops = set(inputs)
    pending = [value for value in outputs if value not in stops]
    nodes: set[Node] = set()
    while pending:
        node = pending.pop().node
        if node not in nodes:
            nodes.add(node)
            pending.extend(value for value in node.inputs if value not in stops)
    return sorted(nodes, key=lambda node: node.order)


def replay(
    nodes: Iterable[Node],
    values: dict[SymbolicValue, Any],
    call: Callable[[Node, tuple[Any, ...], dict[str, Any]], Outputs],
) -> None:
    """Make the calls of `nodes` again, in order, on other values.

    Args:
        nodes: the calls, in topological order.
        values: what stands for each value of the old graph: at first that of the inputs; the rest is filled in.
        call: makes one call: gets the old node and its arguments with the new values in place, returns the
            new outputs in the same structure.
    """

    def substitute(leaf: Any) -> Any:
        return values.get(leaf, leaf) if isinstance(leaf, SymbolicValue) else leaf

    for node in nodes:
        new = call(node, map_structure(substitute, node.args), map_structure(substitute, node.kwargs))
        for old_value in node.output_values:
            found = new
            for key in old_value.path:
                found = key.get(found)
            values.setdefault(old_value, found)
