"""What the inputs and outputs of a drawn model must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx.node import map_aggregate

from torchfunc.graph import Node, SymbolicTensor, format_source

__all__ = ["check_connected", "check_symbolic"]


def check_symbolic(structure: Any, what: str) -> list[SymbolicTensor]:
    """The symbolic tensors in a model's inputs or outputs.

    Raises:
        TypeError: there is something else among them.
        ValueError: there are none, or an input is given twice.
    """
    leaves: list[Any] = []
    map_aggregate(structure, lambda leaf: leaves.append(leaf))
    for leaf in leaves:
        if not isinstance(leaf, SymbolicTensor):
            raise TypeError(
                f"The {what} of a Model are symbolic tensors, made by Input(...) and by calling layers on it, "
                f"but these hold {leaf!r} ({type(leaf).__name__})."
            )
    if not leaves:
        raise ValueError(f"A Model needs {what}, got {structure!r}.")
    if what == "inputs" and len(set(leaves)) < len(leaves):
        raise ValueError("The inputs of a Model must differ, but one tensor is given twice.")
    return leaves


def check_connected(nodes: Sequence[Node], inputs: Sequence[SymbolicTensor]) -> None:
    """Raise a ValueError if the calls of a graph depend on an input that is not among the model's."""
    given = ", ".join(repr(value.name) for value in inputs)
    for node in nodes:
        if node.op == "input":
            raise ValueError(
                f"Graph disconnected: the outputs depend on input {getattr(node.target, 'name', node.target)!r} "
                f"(made at {format_source(node.source)}), which is not among the model's inputs ({given}). "
                "Add it to `inputs`, or take the outputs from tensors that depend on the given inputs only."
            )
