"""Going through a graph again: on inputs of other shapes, or with other layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from torchfunc.graph import (
    Node,
    SymbolicTensor,
    SymbolicValue,
    infer_call,
    infer_module,
    record,
    record_function,
    record_method,
    replaying,
)
from torchfunc.layers import Layer
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.network import Network
from torchfunc.recursion import Steps
from torchfunc.structures import map_structure

__all__ = ["call_again", "infer_again", "reinferring"]


def reinferring(drawn: DrawnGraph, inputs: Sequence[Any]) -> Steps:
    """What the graph returns for these inputs, as a structure of specs; for `unrolled`."""
    given = tuple(value.spec if isinstance(value, SymbolicTensor) else None for value in inputs)
    if given == tuple(value.spec for value in drawn.input_tensors):
        return map_structure(lambda leaf: leaf.spec, drawn.outputs)
    if None in given:
        return (yield from _reinferring(drawn, inputs))
    if given not in drawn.known_specs:
        drawn.known_specs[given] = yield from _reinferring(drawn, inputs)
    return drawn.known_specs[given]


def _reinferring(drawn: DrawnGraph, inputs: Sequence[Any]) -> Steps:
    values: dict[SymbolicValue, Any] = dict(zip(drawn.input_tensors, inputs, strict=True))
    yield from replaying([node for node in drawn.nodes if node.op != "input"], values, infer_again)
    return map_structure(lambda leaf: values[leaf].spec, drawn.outputs)


def infer_again(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The outputs of a call like that of `node` on other arguments, of which the layer itself does not learn.

    Of a drawn model, the `Steps` that return them.
    """
    target = node.target
    if isinstance(target, Network) and target.records_in_steps:
        return _outputs(target.recording(args, kwargs))
    if isinstance(target, Layer):
        return target.record_call(args, kwargs).outputs
    if isinstance(target, nn.Module):
        specs = infer_module(target, args, kwargs, type(target).__name__)
    else:
        label = f"Tensor.{target}" if node.op == "method" else getattr(target, "__name__", str(target))
        specs = infer_call(target, args, kwargs, label)
    return record(node.op, target, args, kwargs, specs, node.source).outputs


def _outputs(recording: Steps) -> Steps:
    node = yield recording
    return node.outputs


def call_again(op: str, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Make a call of that kind on symbolic values."""
    if op == "module":
        return target(*args, **kwargs)
    return record_method(target, args, kwargs) if op == "method" else record_function(target, args, kwargs)
