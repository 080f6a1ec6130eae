"""What a user's layer does inside, drawn: the calls of its `call` or `forward` on symbolic values."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torchfunc.graph import Node, SymbolicTensor, SymbolicValue, install_hook, record, topological_order
from torchfunc.layers import Layer
from torchfunc.modules.naming import name_nodes
from torchfunc.structures import leaves, map_structure
from torchfunc.tensor_masks import MASKS_OF_INPUTS, mask_of

__all__ = ["DROPOUTS", "InnerGraph", "draw_inside"]

DROPOUTS: dict[Any, type[nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
}
"""The functions that modules are made of which look at their own mode."""

# What code that cannot be drawn may raise: it asks a symbolic value for what only a real one has.
_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class InnerGraph:
    """The calls that a layer makes.

    Attributes:
        inputs: stand for the values among the arguments, in order.
        outputs: what the layer returns.
        nodes: the calls in topological order.
        paths: the path within the layer of each module that is called, and of each tensor by its `id`.
        names: of each module and call.
        follows: the calls that are in training where the layer is: of layers, and of `F.dropout` and its like.
    """

    inputs: Sequence[SymbolicValue]
    outputs: Any
    nodes: Sequence[Node]
    paths: Mapping[Any, str]
    names: Mapping[Any, str]
    follows: frozenset[Node] = frozenset()


def draw_inside(layer: Layer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> InnerGraph | None:
    """The calls that a layer makes on arguments like these, if they are the same in training.

    Args:
        layer: the layer, built.
        args, kwargs: the arguments of a call of it, as they were drawn.

    Returns:
        None if the layer's code does something that cannot be recorded, or other things in training.
    """
    drawn = [_draw(layer, args, kwargs, training) for training in (True, False)]
    if drawn[0] is None or drawn[1] is None:
        return None
    return _merged(drawn[0], drawn[1])


def _draw(layer: Layer, args: Sequence[Any], kwargs: Mapping[str, Any], training: bool) -> InnerGraph | None:
    stand_ins: dict[SymbolicValue, SymbolicValue] = {}

    def stand_in(leaf: Any) -> Any:
        if isinstance(leaf, SymbolicValue) and leaf not in stand_ins:
            stand_ins[leaf] = record("input", "argument", (), {}, leaf.spec).outputs
        return stand_ins[leaf] if isinstance(leaf, SymbolicValue) else leaf

    arguments: tuple[list[Any], dict[str, Any]] = map_structure(stand_in, (list(args), dict(kwargs)))
    args, options = arguments
    masks, returns_masks = options.pop(MASKS_OF_INPUTS, ()), options.pop("return_masks", False)
    tensors = [leaf for leaf in leaves((args, options)) if isinstance(leaf, (Tensor, SymbolicTensor))]
    for value, mask in zip(tensors, masks, strict=bool(masks)):
        if isinstance(value, SymbolicTensor):
            value.mask = mask
    view = _view(layer, training)
    paths: dict[Any, str] = {}
    for path, module in view.named_modules(remove_duplicate=True):
        paths.setdefault(module, path)
    for path, tensor in [*view.named_parameters(), *view.named_buffers()]:
        paths.setdefault(id(tensor), path)
    install_hook()
    with _inbound_nodes_kept(layer):
        try:
            outputs = type(layer).forward(view, *args, **options)
        except _ERRORS:
            return None
    if returns_masks:
        outputs = outputs, list(map(mask_of, leaves(outputs)))
    results = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, SymbolicValue)]
    if not results or _wrote(view, layer):
        return None
    nodes = topological_order(results, stand_ins.values())
    known = all(node.op != "input" and (node.op != "module" or node.target in paths) for node in nodes)
    tensors = [leaf for node in nodes for leaf in leaves((node.args, node.kwargs)) if isinstance(leaf, Tensor)]
    if not known or any(id(tensor) not in paths for tensor in tensors):
        return None
    return InnerGraph(list(stand_ins.values()), outputs, nodes, paths, name_nodes(nodes))


def _view(layer: Layer, training: bool) -> Any:
    """The layer once more in a mode of its own: the same sublayers and parameters, copies of its buffers."""
    view = object.__new__(type(layer))
    buffers = {name: None if buffer is None else buffer.detach().clone() for name, buffer in layer._buffers.items()}
    tables = {"_modules": dict(layer._modules), "_parameters": dict(layer._parameters), "_buffers": buffers}
    view.__dict__.update({**layer.__dict__, **tables, "training": training, "call_losses": []})
    return view


def _wrote(view: nn.Module, layer: nn.Module) -> bool:
    """Whether a call of a view changed its buffers, which no recorded call would do."""
    pairs = [(buffer, view._buffers.get(name)) for name, buffer in layer._buffers.items()]
    same = all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)
    return not same or view._buffers.keys() != layer._buffers.keys()


@contextlib.contextmanager
def _inbound_nodes_kept(layer: nn.Module) -> Iterator[None]:
    """The calls recorded within this are not counted among the layers' own."""
    before = {each: set(each.inbound_nodes) for each in layer.modules() if isinstance(each, Layer)}
    try:
        yield
    finally:
        for each, known in before.items():
            for node in each.inbound_nodes:
                if node not in known:
                    each.inbound_calls.remove(node)


def _merged(training: InnerGraph, otherwise: InnerGraph) -> InnerGraph | None:
    """The graph that stands for both; None if they differ in more than the mode that is handed on."""
    places = [_places(each) for each in (training, otherwise)]
    if len(training.nodes) != len(otherwise.nodes):
        return None
    follows: set[Node] = set()
    for first, second in zip(training.nodes, otherwise.nodes, strict=True):
        if first.op != second.op or first.target is not second.target:
            return None
        modes = first.kwargs.get("training"), second.kwargs.get("training")
        if modes == (True, False) and (first.op == "module" or first.target in DROPOUTS):
            follows.add(first)
        elif modes[0] != modes[1]:
            return None
        described = [_described(node, place) for node, place in zip((first, second), places, strict=True)]
        if described[0] != described[1]:
            return None
    outputs = [
        map_structure(lambda leaf, place=place: place.get(leaf, repr(leaf)), each.outputs)
        for each, place in zip((training, otherwise), places, strict=True)
    ]
    return dataclasses.replace(training, follows=frozenset(follows)) if outputs[0] == outputs[1] else None


def _places(graph: InnerGraph) -> dict[Any, tuple[int, int]]:
    found: dict[Any, tuple[int, int]] = {value: (-1, index) for index, value in enumerate(graph.inputs)}
    for number, node in enumerate(graph.nodes):
        found.update({value: (number, index) for index, value in enumerate(node.values_made)})
    return found


def _described(node: Node, places: Mapping[Any, Any]) -> Any:
    """The arguments without the mode, comparable to those of another drawing."""

    def describe(leaf: Any) -> Any:
        if isinstance(leaf, SymbolicValue):
            return places[leaf]
        return id(leaf) if isinstance(leaf, nn.Parameter) else "tensor" if isinstance(leaf, Tensor) else repr(leaf)

    kwargs = {name: value for name, value in node.kwargs.items() if name != "training"}
    return map_structure(describe, (list(node.args), kwargs))
