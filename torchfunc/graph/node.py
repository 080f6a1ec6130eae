"""Node: one recorded call, and the walk that puts recorded calls in order."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import torch
from torch import nn
from torch.fx.node import map_aggregate
from torch.utils._pytree import KeyPath, tree_flatten_with_path, tree_unflatten

from torchfunc.graph.source import Source, user_source
from torchfunc.recursion import Steps, unrolled
from torchfunc.structures import Structure, leaves, map_structure

__all__ = [
    "Args",
    "Kwargs",
    "Node",
    "Opaque",
    "Outputs",
    "ReturnedMask",
    "Spec",
    "Specs",
    "SymbolicValue",
    "replay",
    "replaying",
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


@dataclass(frozen=True)
class ReturnedMask:
    """The mask of an output that the call returns beside its outputs, if it is asked for; the path of such a value.

    Attributes:
        index: the number of the output, the first that has this mask.
        spec: what is known of the mask.
    """

    index: int
    spec: Spec = field(compare=False)

    def get(self, outputs: Outputs) -> Any:
        """The mask that takes its place where the call is made again, and returned these outputs."""
        return getattr(leaves(outputs)[self.index], "mask", None)


class SymbolicValue:
    """An output of a node: stands for a value that exists only when the graph runs."""

    __slots__ = ("__weakref__", "_target", "node", "path", "spec")

    def __init__(self, spec: Spec, node: Node, path: KeyPath = ()) -> None:
        self.spec = spec
        self.node = node
        self.path = path
        # Which the node does not hold.
        self._target = node.target

    @property
    def returned_mask(self) -> ReturnedMask | None:
        """What this is if it is a mask that a call returns beside its outputs."""
        first = self.path[0] if self.path else None
        return first if isinstance(first, ReturnedMask) else None

    def __deepcopy__(self, memo: dict[int, Any]) -> SymbolicValue:
        # A handle on an immutable graph: a copy would be a tensor of no model.
        return self

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be pickled: it is a place in a graph. Pickle the model it belongs to.")


class Opaque:
    """Stands for an object among the outputs of a call in which no tensors can be found, a cache, say.

    It is of no use but does no harm, as long as nobody asks it for anything.
    """

    def __init__(self, label: str, kind: str) -> None:
        self.label, self.kind = label, kind

    @property
    def refusal(self) -> str:
        return (
            f"{self.label} returns a {self.kind}, in which no tensors can be found. Return tensors in lists, "
            "tuples, dicts or named tuples, or register the class with torch.utils._pytree.register_dataclass."
        )

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name if name.startswith("__") else self.refusal)

    def __getitem__(self, index: object) -> NoReturn:
        raise TypeError(self.refusal)

    def __repr__(self) -> str:
        return f"<{self.kind} that {self.label} returned>"


MakeValue: TypeAlias = "Callable[[Spec, Node, KeyPath], SymbolicValue]"


class Node:
    """One call: what was called, on what, and what came out.

    A value refers to the node that made it and to the module that was called, and a node to the values it was called
    on: so whoever has a value has all that it was made of. In the other direction nothing is held, neither the values
    that came out nor, since a layer refers to its calls, the module: a graph ends with the last of its values.

    Attributes:
        op: "input", "module", "function" or "method", as `torch.fx` tells them apart.
        target: the module, the function, or the method's name; of an input, the layer that declares it. None of a
            module that nobody has any more.
        args, kwargs: the arguments, with a `SymbolicValue` wherever a value of the graph goes in.
        inputs: the values of the graph among the arguments, in order of appearance.
        specs: what the call returned: any nesting of `Spec`s and constants.
        masks: the mask of each output that has one, by the output's path: a value, or what the call itself returns.
        order: a number that grows with every node, so that sorting by it is a topological order.
        source: the user's file and line that made the call.
    """

    __slots__ = (
        "__weakref__",
        "_holds_weakly",
        "_make_value",
        "_target",
        "_values",
        "args",
        "inputs",
        "kwargs",
        "masks",
        "op",
        "order",
        "source",
        "specs",
    )

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
        self._holds_weakly = isinstance(target, nn.Module)
        self._target = weakref.ref(target) if self._holds_weakly else target
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
        self.specs = specs
        self.masks: dict[KeyPath, SymbolicValue | ReturnedMask] = {}
        self._make_value = make_value
        # Those values that somebody has.
        self._values: dict[KeyPath, weakref.ref[SymbolicValue]] = {}

    @property
    def target(self) -> Any:
        # (torch.compile of torch 2.11 traces this, and cannot tell the type of a reference.)
        return self._target() if self._holds_weakly else self._target

    def _value(self, spec: Spec, path: KeyPath) -> SymbolicValue:
        known = self._values.get(path)
        value = None if known is None else known()
        if value is None:
            value = self._make_value(spec, self, path)
            self._values[path] = weakref.ref(value)
        return value

    @property
    def outputs(self) -> Outputs:
        """What the call returned: any nesting of `SymbolicValue`s and constants."""
        if isinstance(self.specs, Spec):
            return self._value(self.specs, ())
        paths, structure = tree_flatten_with_path(self.specs)
        made = [self._value(leaf, path) if isinstance(leaf, Spec) else leaf for path, leaf in paths]
        return tree_unflatten(made, structure)

    @property
    def output_values(self) -> list[SymbolicValue]:
        """The values of the graph among the outputs."""
        if isinstance(self.specs, Spec):
            return [self._value(self.specs, ())]
        paths, _ = tree_flatten_with_path(self.specs)
        return [self._value(leaf, path) for path, leaf in paths if isinstance(leaf, Spec)]

    def mask_value(self, mask: ReturnedMask) -> SymbolicValue:
        """The value that stands for a mask which the call returns."""
        return self._value(mask.spec, (mask,))

    @property
    def returned_masks(self) -> list[SymbolicValue]:
        """The masks that the call itself returns."""
        masks = dict.fromkeys(mask for mask in self.masks.values() if isinstance(mask, ReturnedMask))
        return [self.mask_value(mask) for mask in masks]

    @property
    def values_made(self) -> list[SymbolicValue]:
        """The values of the graph among the outputs, and behind them the masks that the call itself returns."""
        return [*self.output_values, *self.returned_masks] if self.masks else self.output_values

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


def replaying(
    nodes: Iterable[Node],
    values: dict[SymbolicValue, Any],
    call: Callable[[Node, tuple[Any, ...], dict[str, Any]], Outputs | Steps],
) -> Steps:
    """`replay` for `unrolled`; `call` may return `Steps` that return the new outputs."""

    def substitute(leaf: Any) -> Any:
        return values.get(leaf, leaf) if isinstance(leaf, SymbolicValue) else leaf

    for node in nodes:
        if node.op != "module" and any(values.get(value, value) is None for value in node.inputs):
            # It is computed from a mask that there is no longer.
            values.update(dict.fromkeys(node.output_values))
            continue
        new = call(node, map_structure(substitute, node.args), map_structure(substitute, node.kwargs))
        if isinstance(new, Generator):
            new = yield new
        for old_value in node.values_made:
            found = new
            for key in old_value.path:
                found = key.get(found)
            values.setdefault(old_value, found)


def replay(
    nodes: Iterable[Node],
    values: dict[SymbolicValue, Any],
    call: Callable[[Node, tuple[Any, ...], dict[str, Any]], Outputs | Steps],
) -> None:
    """Make the calls of `nodes` again, in order, on other values.

    Args:
        nodes: the calls, in topological order.
        values: what stands for each value of the old graph: at first that of the inputs; the rest is filled in.
        call: makes one call: gets the old node and its arguments with the new values in place, returns the
            new outputs in the same structure.
    """
    unrolled(replaying(nodes, values, call))
