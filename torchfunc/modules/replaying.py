"""Going through a graph again: on inputs of other shapes, or with other layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from torchfunc.graph import (
    Node,
    Spec,
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
from torchfunc.layers.base.call_arguments import bind_call
from torchfunc.layers.base.masks import masks_of
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.network import Network
from torchfunc.recursion import Steps
from torchfunc.structures import leaves, map_structure
from torchfunc.tensor_masks import MASKS_OF_INPUTS

__all__ = ["call_again", "infer_again", "reinferring", "without_found_masks"]


def reinferring(drawn: DrawnGraph, inputs: Sequence[Any]) -> Steps:
    """What the graph returns for these inputs: its outputs, and a list of their masks, as specs; for `unrolled`."""
    given = tuple(value.spec if isinstance(value, SymbolicTensor) else None for value in inputs)
    if given == tuple(value.spec for value in drawn.input_tensors):
        return _specs(drawn, {})
    if given not in drawn.known_specs:
        drawn.known_specs[given] = yield from _reinferring(drawn, given)
    return drawn.known_specs[given]


def _reinferring(drawn: DrawnGraph, given: Sequence[Spec | None]) -> Steps:
    values: dict[SymbolicValue, Any] = {
        value: None if spec is None else record("input", "argument", (), {}, spec).outputs
        for value, spec in zip(drawn.input_tensors, given, strict=True)
    }
    for value in drawn.input_tensors:
        if value.mask is not None and value.mask in values:
            values[value].mask = values[value.mask]
    calls = [node for node in (*drawn.nodes, *drawn.mask_nodes) if node.op != "input"]
    yield from replaying(calls, values, infer_again)
    return _specs(drawn, values)


def _specs(drawn: DrawnGraph, values: Mapping[SymbolicValue, Any]) -> tuple[Any, list[Spec | None]]:
    masks = [None if mask is None else values.get(mask, mask).spec for mask in drawn.masks]
    return map_structure(lambda leaf: values.get(leaf, leaf).spec, drawn.outputs), masks


def without_found_masks(node: Node, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by keyword of a call like that of `node`, without the masks that the layer finds at its inputs itself.

    Args:
        node: the call.
        kwargs: the arguments by the same keywords.
    """
    layer, found = node.target, {}
    kwargs = {name: value for name, value in kwargs.items() if name != MASKS_OF_INPUTS}
    if node.kwargs and isinstance(layer, Layer):
        if isinstance(layer, Network) and layer.records_in_steps:
            found["mask"] = [getattr(value, "mask", None) for value in node.args]
        else:
            given = {name: value for name, value in node.kwargs.items() if name not in ("training", MASKS_OF_INPUTS)}
            arguments = bind_call(type(layer).forward, layer, node.args, given)
            found = {f"{name}_mask": leaves(masks_of(value)) for name, value in arguments.items()}
            found["mask"] = leaves(masks_of(next(iter(arguments.values()), None)))
    return {name: value for name, value in kwargs.items() if not _are(leaves(node.kwargs.get(name)), found.get(name))}


def _are(values: Sequence[Any], found: Sequence[Any] | None) -> bool:
    """Whether these are those masks, of which there is one at least."""
    if found is None or len(values) != len(found) or all(mask is None for mask in found):
        return False
    return all(value is mask for value, mask in zip(values, found, strict=True))


def infer_again(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The outputs of a call like that of `node` on other arguments, of which the layer itself does not learn.

    Of a drawn model, the `Steps` that return them.
    """
    target, kwargs = node.target, without_found_masks(node, kwargs)
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
