"""Which inputs of a drawn model its layers would write to: `nn.ReLU(inplace=True)` as the first layer, say.

They belong to whoever calls the model. (What a layer made may be written to, as in torch.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from torchfunc.graph import Node, SymbolicValue, modules_within, writes_to_arguments
from torchfunc.layers import Layer
from torchfunc.layers.base.layer import has_shape_formula
from torchfunc.modules.network import Network

__all__ = ["inputs_written"]

_KNOWN = ("torch.", "torchfunc.")


def inputs_written(nodes: Sequence[Node], inputs: Iterable[SymbolicValue]) -> set[SymbolicValue]:
    """The inputs, among `inputs`, whose memory a call among `nodes` may write to, directly or through a view."""
    modules = dict.fromkeys(node.target for node in nodes if node.op == "module")
    writing = {module for module in modules if _may_write(module)}
    if not writing:
        return set()
    # The inputs whose memory a value may share.
    shared: dict[SymbolicValue, set[SymbolicValue]] = {value: {value} for value in inputs}
    written: set[SymbolicValue] = set()
    for node in nodes:
        sources = set().union(*(shared.get(value, ()) for value in node.inputs))
        if not sources or node.op == "input":
            continue
        if node.target in writing:
            written |= sources
        if not (node.op == "module" and _makes_new_memory(node.target)):
            shared.update((value, sources | shared.get(value, set())) for value in node.output_values)
    return written


def _may_write(module: nn.Module) -> bool:
    if isinstance(module, Network) and module.keeps_inputs():
        return False
    # What was not run when it was drawn may do anything.
    unknown = isinstance(module, Layer) and has_shape_formula(module) and not _is_known(module)
    return unknown or writes_to_arguments(module)


def _makes_new_memory(module: nn.Module) -> bool:
    """Whether a module surely computes with its input; others may return a view of it."""
    return _is_known(module) and next(module.parameters(), None) is not None


def _is_known(module: nn.Module) -> bool:
    """Whether a module, and all in it, is torch's or torchfunc's."""
    if not module._modules:
        return type(module).__module__.startswith(_KNOWN)
    return all(type(part).__module__.startswith(_KNOWN) for part in modules_within(module))
