"""Questions to a graph that is being drawn."""

from __future__ import annotations

from typing import Any

from torchfunc.graph import SymbolicTensor, SymbolicValue, topological_order

__all__ = ["get_source_inputs", "is_keras_tensor"]


def get_source_inputs(tensor: SymbolicTensor) -> list[SymbolicValue]:
    """The inputs that a symbolic tensor depends on, itself if it is one, in the order in which they were made.

    Raises:
        TypeError: it is no symbolic tensor.

    >>> x = Input((4,))
    >>> utils.get_source_inputs(x + 1) == [x]
    True
    """
    if not isinstance(tensor, SymbolicValue):
        raise TypeError(f"get_source_inputs() takes a symbolic tensor, such as Input(...), got {tensor!r}.")
    return [value for node in topological_order([tensor]) if node.op == "input" for value in node.output_values]


def is_keras_tensor(x: Any) -> bool:
    """Whether it is symbolic: what `Input` returns, and what is drawn from it.

    >>> utils.is_keras_tensor(Input((3,))), utils.is_keras_tensor(torch.ones(3))
    (True, False)
    """
    return isinstance(x, SymbolicValue)
