"""to_torch: a model as a `torch.fx.GraphModule` of torch's own modules and functions."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import GetAttrKey, MappingKey, SequenceKey

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.graph import Node, SymbolicValue, hook_tables, record_input
from torchfunc.layers import Lambda, Layer, TorchModule
from torchfunc.layers.base.shapes import is_shape
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.torch_graph import activations, attention, dense, normalizing, recurrent, reshaping, spatial
from torchfunc.modules.torch_graph.builder import Call, TorchGraph
from torchfunc.modules.torch_graph.tracing import DROPOUTS, InnerGraph, draw_inside
from torchfunc.naming import unique_name
from torchfunc.structures import leaves, map_structure
from torchfunc.tensor_masks import MASKS_OF_INPUTS

__all__ = ["to_torch"]

# Functions that can be called on views of their arguments with the axes in another order.
_ELEMENTWISE: tuple[Any, ...] = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg),
    *(torch.add, torch.sub, torch.mul, torch.relu, torch.sigmoid, torch.tanh, F.relu, F.gelu, F.silu),
)
_SCALARS = (fx.Node, int, float)

_CONVERTERS: dict[type, Callable[..., Any]] = {}
for _family in (activations, attention, dense, normalizing, recurrent, reshaping, spatial):
    _CONVERTERS.update(_family.CONVERTERS)


def to_torch(model: Any) -> fx.GraphModule:
    """The same computation on torch's own modules and functions.

    Parameters and buffers are shared with the model, and have the same names. What torchfunc adds to the loss,
    penalties on weights and outputs, is not part of it.

    Args:
        model: a model that is built.

    Returns:
        A module that takes the inputs in order, as tensors. A layer that cannot be expressed so (one of the user's own
        whose code depends on values, or one with hooks) stays as it is.

    Raises:
        ValueError: the model is not built yet, or is none that can be drawn.
    """
    conversion = _Conversion()
    if isinstance(model, GraphNetwork):
        if model.drawn is None or model.graph_was_changed or not model.runs_its_graph:
            problem = "is not built yet" if model.drawn is None else "does not run the graph that was drawn"
            raise ValueError(f"The model {model.name!r} {problem}, so it cannot be written as torch's own modules.")
        module = conversion.model(model, model.drawn)
    else:
        module = _subclassed(conversion, model)
    for path, each in model.named_modules():
        part = _submodule(module, path)
        if part is not None:
            part.training = each.training
    return module


def _subclassed(conversion: _Conversion, model: Any) -> fx.GraphModule:
    shapes = model.build_shapes
    if not shapes:
        raise ValueError(f"The model {model.name!r} is not built yet: call it on data, or `build` it, first.")
    dtype = as_dtype(floatx())
    inputs = [
        map_structure(lambda shape: record_input("data", shape, dtype).outputs, each, is_leaf=is_shape)
        for each in shapes.values()
    ]
    inner = draw_inside(model, inputs, {})
    if inner is None:
        raise ValueError(
            f"What the model {model.name!r} computes cannot be drawn: its code asks for values, or does other things "
            "in training."
        )
    return _Writer(conversion, model, _of_layer(inner)).write(model.name)


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split(".") if path else ():
        found = module._modules.get(name)
        if found is None:
            return None
        module = found
    return module


@dataclass(frozen=True)
class _Recorded:
    """Recorded calls, and where what they use belongs.

    Attributes:
        inputs: the values that come from outside, by name.
        outputs: what is returned.
        nodes: the calls in topological order.
        path_of: gives the path of a module.
        name_of: gives the name of a call's result.
        tensors: the path of each parameter and constant among the arguments, by `id`.
        follows: the calls that are in training where their owner is, though they were recorded with `training`.
    """

    inputs: Mapping[str, SymbolicValue]
    outputs: Any
    nodes: Sequence[Node]
    path_of: Callable[[Any], str]
    name_of: Callable[[Node], str]
    tensors: Mapping[int, str]
    follows: frozenset[Node] = frozenset()


def _of_model(drawn: DrawnGraph, returns_masks: bool) -> _Recorded:
    inputs = dict(zip(drawn.binding.names, drawn.input_tensors, strict=True))
    outputs, nodes = drawn.outputs, drawn.nodes
    if returns_masks:
        outputs, nodes = (outputs, list(drawn.masks)), [*nodes, *drawn.mask_nodes]
    return _Recorded(inputs, outputs, nodes, drawn.keys.__getitem__, drawn.name_of, drawn.paths)


def _of_layer(inner: InnerGraph) -> _Recorded:
    count = len(inner.inputs)
    names = ["inputs"] if count == 1 else [f"input_{index}" for index in range(1, count + 1)]
    inputs = dict(zip(names, inner.inputs, strict=True))
    tensors = {key: path for key, path in inner.paths.items() if isinstance(key, int)}

    def name_of(node: Node) -> str:
        return inner.names[node.target if node.op == "module" else node]

    return _Recorded(inputs, inner.outputs, inner.nodes, inner.paths.__getitem__, name_of, tensors, inner.follows)


class _Conversion:
    """One conversion, in which a layer that is met twice becomes one module."""

    def __init__(self) -> None:
        self.made: dict[Any, nn.Module] = {}
        # Of a model or layer that has become a module with a graph of its own, what this depends on.
        self.made_for: dict[Any, Any] = {}

    def model(self, model: Any, drawn: DrawnGraph, returns_masks: bool = False) -> fx.GraphModule:
        """A drawn model as a module."""
        return _Writer(self, model, _of_model(drawn, returns_masks)).write(model.name)

    def convert(self, graph: TorchGraph, call: Call) -> Any:
        """Write the call of a layer or module into the graph; its outputs, nested as the layer nests them."""
        layer = call.layer
        kwargs = {name: value for name, value in call.kwargs.items() if name != "training"}
        symbolic_kwargs = {name: value for name, value in call.symbolic_kwargs.items() if name != "training"}
        training = call.kwargs.get("training")
        outer, graph.training = graph.training, graph.training if training is None else bool(training)
        try:
            found = dataclasses.replace(call, kwargs=kwargs, symbolic_kwargs=symbolic_kwargs)
            result = NotImplemented if _is_hooked(layer) else self._convert(graph, found)
            if result is NotImplemented:
                graph.register(call.path, layer)
                result = graph.module(call.path, *call.args, name=call.name, **kwargs)
        finally:
            graph.training = outer
        return result

    def _convert(self, graph: TorchGraph, call: Call) -> Any:
        layer = call.layer
        converter = _CONVERTERS.get(type(layer))
        if isinstance(layer, TorchModule) and not {MASKS_OF_INPUTS, "return_masks"}.isdisjoint(call.kwargs):
            # Its module does not know these arguments.
            return NotImplemented
        if converter is not None:
            result = converter(graph, call, self.convert)
            if result is not NotImplemented or not isinstance(layer, Lambda):
                return result
        if isinstance(layer, GraphNetwork) and layer.drawn is not None:
            return self._nested(graph, call)
        return self._inside(graph, call) if isinstance(layer, Layer) else NotImplemented

    def _nested(self, graph: TorchGraph, call: Call) -> Any:
        """A model within the model: a module of its own."""
        model = call.layer
        if model.graph_was_changed or not model.runs_its_graph:
            return NotImplemented
        masks, symbolic = (_as_list(given.get("mask")) for given in (call.kwargs, call.symbolic_kwargs))
        given = [mask for mask in masks if mask is not None]
        returns_masks = call.kwargs.get("return_masks", False)
        self._remember(model, {"masks given": [mask is not None for mask in masks], "returned": returns_masks})
        if model not in self.made:
            drawn = model.masked_forwards.drawn(symbolic) if given else model.drawn
            self.made[model] = self.model(model, drawn, returns_masks)
        graph.register(call.path, self.made[model])
        return graph.module(call.path, *call.args, *given, name=call.name)

    def _inside(self, graph: TorchGraph, call: Call) -> Any:
        """A layer of the user's own: a module of the calls it makes."""
        layer = call.layer
        constants = [leaf for leaf in leaves((call.args, call.kwargs)) if not isinstance(leaf, fx.Node)]
        if layer not in self.made:
            asked = {"return_masks": True} if call.kwargs.get("return_masks") else {}
            inner = draw_inside(layer, call.symbolic, {**call.symbolic_kwargs, **asked})
            if inner is None:
                return NotImplemented
            self.made[layer] = _Writer(self, layer, _of_layer(inner)).write(type(layer).__name__)
        self._remember(layer, constants)
        graph.register(call.path, self.made[layer])
        given = dict.fromkeys(leaf for leaf in leaves((call.args, call.kwargs)) if isinstance(leaf, fx.Node))
        return graph.module(call.path, *given, name=call.name)

    def _remember(self, layer: Any, what: Any) -> None:
        if self.made_for.setdefault(layer, what) != what:
            raise ValueError(
                f"{layer.describe()} is called several times with other arguments than tensors, or masks, that differ "
                f"({self.made_for[layer]} and {what}): that cannot be one module of torch."
            )


def _as_list(masks: Any) -> list[Any]:
    return list(masks) if isinstance(masks, (list, tuple)) else [masks]


def _is_hooked(layer: nn.Module) -> bool:
    """Whether a layer does more when it is called than its class does."""
    own = int(getattr(layer, "activity_regularizer", None) is not None)
    return sum(map(len, hook_tables(layer))) > own or "forward" in layer.__dict__


class _Writer:
    """Writes recorded calls into a graph.

    Args:
        conversion: writes the calls of layers.
        owner: the model or layer that makes the calls.
        recorded: the calls.
    """

    def __init__(self, conversion: _Conversion, owner: nn.Module, recorded: _Recorded) -> None:
        self.conversion = conversion
        self.owner = owner
        self.recorded = recorded
        self.graph = TorchGraph(conversion.made)
        self.values: dict[Any, Any] = {}
        taken = [*leaves(recorded.outputs), *(value for node in recorded.nodes for value in node.inputs)]
        # The models that return masks: at each of their calls, since they become one module.
        self.returning = {
            value.node.target for value in taken if isinstance(value, SymbolicValue) and value.returned_mask is not None
        }

    def write(self, name: str) -> fx.GraphModule:
        graph, recorded = self.graph, self.recorded
        for called, value in recorded.inputs.items():
            placeholder = graph.graph.placeholder(_variable(called))
            placeholder.target = placeholder.name
            self.values[value] = placeholder
        self._share_own()
        for node in recorded.nodes:
            if node.op != "input":
                self.values[node] = self._call(node)
        outputs = map_structure(self._argument, recorded.outputs)
        self._keep_unused()
        return graph.finish(outputs, _class_name(name))

    def _share_own(self) -> None:
        """The parameters and buffers that the owner itself has."""
        root, transient = self.graph.root, self.owner._non_persistent_buffers_set
        for path, parameter in self.owner._parameters.items():
            root.register_parameter(path, parameter)
        for path, buffer in self.owner._buffers.items():
            root.register_buffer(path, buffer, persistent=path not in transient)

    def _keep_unused(self) -> None:
        """What is not called here, but by masks, say, or never, has its weights in the state_dict as well."""
        there = set(self.graph.root.state_dict())
        for key in self.owner.state_dict():
            path = key.rpartition(".")[0]
            if key not in there and path:
                self.graph.register(path, self.owner.get_submodule(path))

    def _call(self, node: Node) -> Any:
        recorded = self.recorded
        args = map_structure(self._argument, list(node.args))
        kwargs = {key: map_structure(self._argument, value) for key, value in node.kwargs.items()}
        name = _variable(recorded.name_of(node))
        if node.op == "module":
            if node in recorded.follows:
                kwargs.pop("training")
            returns_masks = node.target in self.returning
            if returns_masks:
                kwargs["return_masks"] = True
            call = Call(node.target, recorded.path_of(node.target), name, args, kwargs, node.args, node.kwargs)
            result = self.conversion.convert(self.graph, call)
            if returns_masks:
                result, self.values[node, "masks"] = (self._pick(result, SequenceKey(place)) for place in (0, 1))
            return result
        if node in recorded.follows:
            # A call of `F.dropout` that is told the mode: the module knows it by itself.
            share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            path = unique_name(name, {*dict(self.owner.named_children()), *self.graph.root._modules})
            self.graph.register(path, DROPOUTS[node.target](share).train(self.owner.training))
            return self.graph.module(path, args[0], name=name)
        if node.op == "method":
            return self.graph.method(node.target, *args, name=name, **kwargs)
        if node.target in _ELEMENTWISE and not kwargs and all(isinstance(each, _SCALARS) for each in args):
            return self.graph.elementwise(lambda *each: self.graph.function(node.target, *each, name=name), *args)
        return self.graph.function(node.target, *args, name=name, **kwargs)

    def _argument(self, leaf: Any) -> Any:
        if isinstance(leaf, SymbolicValue):
            return self._value(leaf)
        if isinstance(leaf, Tensor):
            path = self.recorded.tensors[id(leaf)]
            if path not in self.values:
                self.values[path] = self.graph.attribute(path)
            return self.values[path]
        return leaf.item() if isinstance(leaf, np.generic) else leaf

    def _value(self, value: SymbolicValue) -> Any:
        """What stands for a value: the call's result, or what is picked out of it."""
        if value in self.values:
            return self.values[value]
        found, mask = self.values[value.node], value.returned_mask
        if mask is not None:
            self.values[value] = self._pick(self.values[value.node, "masks"], SequenceKey(mask.index))
            return self.values[value]
        for depth, key in enumerate(value.path, start=1):
            step = (value.node, value.path[:depth])
            if step not in self.values:
                self.values[step] = self._pick(found, key)
            found = self.values[step]
        return found

    def _pick(self, found: Any, key: object) -> Any:
        written = isinstance(found, fx.Node)
        if isinstance(key, GetAttrKey):
            return self.graph.function(getattr, found, key.name) if written else getattr(found, key.name)
        assert isinstance(key, (SequenceKey, MappingKey))
        entry = key.idx if isinstance(key, SequenceKey) else key.key
        return self.graph.index(found, entry) if written else found[entry]


def _variable(name: str) -> str:
    return "self_" if name == "self" else name


def _class_name(name: str) -> str:
    """`toy_resnet` -> `ToyResnet`."""
    found = "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", name))
    return found if found.isidentifier() else f"Model{found}"
