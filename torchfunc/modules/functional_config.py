"""A drawn model as a config and back, in Keras' form: the layers, and for each the calls made of it.

Operators are written as Keras' operations. Calls of other torch functions, which Keras has no word for, are written
beside the layers as `TorchFunction`.
"""

from __future__ import annotations

import contextlib
import contextvars
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchfunc.dtypes import as_dtype, dtype_name
from torchfunc.graph import Node, SymbolicTensor, SymbolicValue, install_hook, symbolic_leaves
from torchfunc.layers import InputLayer, Layer
from torchfunc.layers.augmentation.base import ImageAugmentation
from torchfunc.layers.base.call_arguments import accepts
from torchfunc.modules.drawn_graph import DrawnGraph, draw
from torchfunc.modules.function_names import (
    keras_arguments,
    keras_operation,
    keras_options,
    torch_arguments,
    torch_operation,
)
from torchfunc.modules.keras_order import Part, in_keras_order
from torchfunc.modules.nesting import innermost_first, nested_entries
from torchfunc.modules.network import Network
from torchfunc.modules.replaying import call_again, without_found_masks
from torchfunc.registry import (
    custom_object_scope,
    deserialize_keras_object,
    innermost_deserialized,
    make_named_tuple,
    map_items,
    serialize_keras_object,
)
from torchfunc.structures import Structure, map_structure
from torchfunc.torch_functions import check_method, find_function, function_name

__all__ = ["GRAPH_KEYS", "configs_for_keras", "graph_config", "graph_from_config", "name_parts"]

GRAPH_KEYS = ("layers", "input_layers", "output_layers", "tuples")
"""What of a model's config describes its graph."""

# An augmentation's `training=True` as it is written, to be told from the True of a call without it in Keras' files.
_TRUE = 1
_for_keras: contextvars.ContextVar[bool] = contextvars.ContextVar("for_keras", default=False)


@contextlib.contextmanager
def configs_for_keras() -> Iterator[None]:
    """Within this block, configs are for Keras to read: constant tensors are written with their values."""
    token = _for_keras.set(True)
    try:
        yield
    finally:
        _for_keras.reset(token)


def graph_config(drawn: DrawnGraph) -> dict[str, Any]:
    """The `layers`, `input_layers` and `output_layers` of a drawn graph.

    Raises:
        ValueError: a layer has no config, or a function is not one of torch's.
    """
    return _Writer(drawn).write()


class _Writer:
    def __init__(self, drawn: DrawnGraph) -> None:
        self.drawn = drawn
        self.places: dict[SymbolicValue, list[Any]] = {}
        self.owners = {key: drawn.names[layer] for layer, key in drawn.keys.items()}

    def write(self) -> dict[str, Any]:
        layers: dict[str, dict[str, Any]] = {}
        for name, given in self.drawn.outside_inputs.items():
            stand_in = InputLayer(batch_shape=given.shape, dtype=given.dtype, name=name)
            layers[name] = {**serialize_keras_object(stand_in), "name": name, "inbound_nodes": []}
            self.places[given] = [name, 0, 0]
        for node in _written_calls(self.drawn):
            name = self.drawn.name_of(node)
            if name not in layers:
                layers[name] = {**self._target(node), "name": name, "inbound_nodes": []}
            calls = layers[name]["inbound_nodes"]
            index = len(calls)
            for position, value in enumerate(_in_order(node.outputs, node)):
                self.places.setdefault(value, [name, index, position])
            if node.op != "input":
                options = dict(without_found_masks(node, keras_options(node)))
                if options.get("training") is True and isinstance(node.target, ImageAugmentation):
                    options["training"] = _TRUE
                calls.append({"args": self._write(_as_called(node)), "kwargs": self._write(options)})

        def place(value: SymbolicValue) -> list[Any]:
            name, index, position = self.places[value]
            return [name, index + _calls_before(layers[name]), position]

        config: dict[str, Any] = {
            "layers": list(layers.values()),
            "input_layers": map_structure(place, self.drawn.inputs),
            "output_layers": map_structure(place, self.drawn.outputs),
        }
        if _for_keras.get():
            # In the order in which Keras lists them.
            order = {self._name_of(part): place for place, part in enumerate(self.drawn.parts)}
            config["layers"].sort(key=lambda entry: order.get(entry["name"], len(order)))
            return config
        # JSON and Keras know of lists only.
        tuples = {"input": _tuples_in(self.drawn.inputs), "output": _tuples_in(self.drawn.outputs)}
        return {**config, "tuples": tuples} if any(tuples.values()) else config

    def _name_of(self, part: Part) -> str:
        if isinstance(part, SymbolicValue):
            return str(self.places[part][0])
        return self.drawn.names[part]

    def _target(self, node: Node) -> dict[str, Any]:
        if node.op in ("input", "module"):
            config: dict[str, Any] = serialize_keras_object(node.target)
            return config
        operation = keras_operation(node, self.drawn.name_of(node))
        if operation is not None:
            return operation
        name = check_method(node.target) if node.op == "method" else function_name(node.target)
        return {"module": "torchfunc", "class_name": "TorchFunction", "config": {"op": node.op, "target": name}}

    def _write(self, value: Any) -> Any:
        """An argument as JSON can hold it."""
        if isinstance(value, SymbolicValue):
            shape = (
                list(value.spec.shape) if isinstance(value, SymbolicTensor) and value.spec.shape is not None else None
            )
            dtype = dtype_name(value.dtype) if isinstance(value, SymbolicTensor) else None
            config = {"shape": shape, "dtype": dtype, "keras_history": list(self.places[value])}
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(value, Tensor):
            key, _, path = self.drawn.paths[id(value)].partition(".")
            if not path and not isinstance(value, nn.Parameter) and _for_keras.get():
                return serialize_keras_object(value.detach().cpu())
            weight: dict[str, Any] = {
                "layer": self.owners[key] if path else None,
                "name": path or key,
                "shape": list(value.shape),
                "dtype": dtype_name(value.dtype),
                "trainable": isinstance(value, nn.Parameter),
            }
            return {"class_name": "__weight__", "config": weight}
        if isinstance(value, torch.dtype):
            return {"class_name": "__dtype__", "config": dtype_name(value)}
        if isinstance(value, slice):
            parts = {key: self._write(getattr(value, key)) for key in ("start", "stop", "step")}
            return {"class_name": "__slice__", "config": parts}
        if value is Ellipsis:
            return {"class_name": "__ellipsis__", "config": {}}
        if isinstance(value, tuple):
            return {"class_name": "__tuple__", "items": [self._write(item) for item in value]}
        if isinstance(value, list):
            return [self._write(item) for item in value]
        if isinstance(value, Mapping):
            return {key: self._write(item) for key, item in value.items()}
        return serialize_keras_object(value)


def _written_calls(drawn: DrawnGraph) -> list[Node]:
    """The calls, but those that only make masks of masks which models within the model return.

    In Keras such masks are no part of the graph. Layers find them at their inputs by themselves.
    """
    needed = set(symbolic_leaves(drawn.outputs))
    for node in reversed(drawn.nodes):
        if node.op == "module" or not needed.isdisjoint(node.output_values):
            needed.update(symbolic_leaves((node.args, without_found_masks(node, node.kwargs))))
    kept: list[Node] = []
    left_out: set[SymbolicValue] = set()
    for node in drawn.nodes:
        of_returned = any(value.returned_mask is not None or value in left_out for value in node.inputs)
        if of_returned and node.op != "module" and needed.isdisjoint(node.output_values):
            left_out.update(node.output_values)
        else:
            kept.append(node)
    return kept


def _in_order(outputs: Structure, node: Node | None) -> list[SymbolicValue]:
    """What a call makes, as places are counted: what it returns in Keras' order, then masks that it returns beside."""
    return list(dict.fromkeys([*in_keras_order(outputs), *(node.values_made if node else ())]))


def _as_called(node: Node) -> list[Any]:
    """The positional arguments; for a model with nested inputs one, nested like them, as Keras calls it."""
    drawn: DrawnGraph | None = node.target.drawn if isinstance(node.target, Network) else None
    if drawn is None or isinstance(drawn.inputs, SymbolicValue):
        return keras_arguments(node)
    given = dict(zip(drawn.input_tensors, node.args, strict=True))
    return [map_structure(given.__getitem__, drawn.inputs)]


def _calls_before(entry: Mapping[str, Any]) -> int:
    """How many calls of a layer Keras counts before those of the graph, in `output_layers` (but not in the calls)."""
    return int(entry["class_name"] == "Functional")


class ReadGraph(NamedTuple):
    """What a config describes.

    Attributes:
        inputs, outputs: the new inputs and outputs.
        names: of the modules that do not know their own names, as the config has them.
        tensor_names: of the parameters and constants that no layer has, by `id`.
    """

    inputs: Any
    outputs: Any
    names: dict[nn.Module, str]
    tensor_names: dict[int, str]

    def named(self, model: Any) -> Any:
        """The model of these inputs and outputs, with its parts called as in the config."""
        return name_parts(model, self.names, self.tensor_names)


def name_parts(model: Any, names: Mapping[nn.Module, str], tensor_names: Mapping[int, str]) -> Any:
    """Call the modules and tensors of a drawn model so, in its keys as well; returns the model."""
    drawn = model.drawn
    known = {part: name for part, name in drawn.names.items() if isinstance(part, nn.Module)}
    whole = {part: names.get(part, name) for part, name in known.items()}
    if whole != known or any(tensor_names.get(id(each.tensor), each.path) != each.path for each in drawn.tensors):
        for key in drawn.keys.values():
            del model._modules[key]
        for each in drawn.tensors:
            model._parameters.pop(each.path, None)
            model._buffers.pop(each.path, None)
        again = (drawn.inputs, drawn.outputs, model._label, model._is_reserved, whole)
        model._take_graph(draw(*again, tensor_names=tensor_names))
    return model


def graph_from_config(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> ReadGraph:
    """Draw again what `graph_config` (or Keras) wrote.

    Raises:
        ValueError: a class or function is not known, or calls refer to tensors that nothing makes.
    """
    nested = innermost_first(config, nested_entries)
    with custom_object_scope(custom_objects), innermost_deserialized(nested):
        return _Reader(config).read()


class _Reader:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.values: dict[tuple[str, int, int], SymbolicValue] = {}
        self.weights: dict[str, Tensor] = {}
        self.targets: dict[str, Any] = {}
        self.calls_before: dict[str, int] = {}
        self.operations: dict[str, Mapping[str, Any]] = {}

    def read(self) -> ReadGraph:
        install_hook()
        pending: list[tuple[str, int, Mapping[str, Any]]] = []
        for entry in self.config["layers"]:
            name = entry["name"]
            self.targets[name] = self._make(entry)
            self.calls_before[name] = _calls_before(entry)
            if isinstance(self.targets[name], InputLayer):
                self.values[name, 0, 0] = self.targets[name].output
            pending += [(name, index, call) for index, call in enumerate(entry["inbound_nodes"])]
        while pending:
            waiting = [call for call in pending if not self._draw(*call)]
            if len(waiting) == len(pending):
                raise ValueError(f"The config's calls of {sorted({name for name, *_ in waiting})} cannot be connected.")
            pending = waiting
        modules = {name: each for name, each in self.targets.items() if isinstance(each, nn.Module)}
        names = {each: name for name, each in modules.items() if not isinstance(each, Layer)}
        tensor_names = {id(tensor): name for name, tensor in self.weights.items()}
        return ReadGraph(self._end("input"), self._end("output"), names, tensor_names)

    def _end(self, end: str) -> Structure:
        places, tuples = self.config[f"{end}_layers"], self.config.get("tuples", {})
        return _with_tuples(self._look_up(places), tuples.get(end, ()))

    def _make(self, entry: Mapping[str, Any]) -> Any:
        if entry["class_name"] == "TorchFunction":
            op, target = entry["config"]["op"], entry["config"]["target"]
            return op, check_method(target) if op == "method" else find_function(target)
        operation = torch_operation(entry)
        if operation is not None:
            self.operations[entry["name"]] = entry
            return operation
        layer = deserialize_keras_object(entry)
        if isinstance(layer, Layer) and "name" not in entry["config"]:
            layer.assign_name(entry["name"])
        return layer

    def _draw(self, name: str, index: int, call: Mapping[str, Any]) -> bool:
        """Make one call, if all that goes into it has been made."""
        try:
            args, kwargs = self._read(call["args"]), self._read(call["kwargs"])
        except KeyError:
            return False
        if kwargs.get("mask", False) is None:
            # Keras writes this for a model within a model.
            del kwargs["mask"]
        target = self.targets[name]
        if (
            isinstance(target, Layer)
            and not isinstance(target, Network)
            and not accepts(type(target).forward, "training")
        ):
            # Keras writes it for some layers that do the same either way.
            kwargs.pop("training", None)
        if isinstance(target, ImageAugmentation) and kwargs.get("training"):
            # Keras writes True, the default of its call, and goes by the mode of the model all the same.
            explicit = kwargs.pop("training") is not True
            kwargs |= {"training": True} if explicit else {}
        op, target = target if isinstance(target, tuple) else ("module", target)
        if name in self.operations:
            args, kwargs = torch_arguments(self.operations[name], args, kwargs)
        if target is getattr:
            # `x.T` and its kin: the properties of a tensor, and nothing else of it.
            value, attribute = args
            args = [value, check_method(attribute)]
        made = call_again(op, target, args, kwargs)
        first = next(iter(symbolic_leaves(made)), None)
        for position, value in enumerate(_in_order(made, None if first is None else first.node)):
            self.values[name, index, position] = value
        return True

    def _read(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._read(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        kind, config = value.get("class_name"), value.get("config")
        if kind == "__keras_tensor__":
            assert config is not None
            name, index, position = config["keras_history"]
            return self.values[name, index, position]
        if kind == "__weight__":
            assert config is not None
            return self._weight(config)
        if kind == "__dtype__":
            return as_dtype(config)
        if kind == "__slice__":
            assert config is not None
            return slice(*(self._read(config[key]) for key in ("start", "stop", "step")))
        if kind == "__ellipsis__":
            return Ellipsis
        if kind == "__tuple__":
            return tuple(self._read(item) for item in value["items"])
        if kind is not None:
            return deserialize_keras_object(value)
        return {key: self._read(item) for key, item in value.items()}

    def _weight(self, config: Mapping[str, Any]) -> Tensor:
        """The parameter or constant of that name: a layer's own, or a new one whose value comes with the weights."""
        owner, name = config["layer"], config["name"]
        if owner is not None:
            try:
                found: Tensor = operator.attrgetter(name)(self.targets[owner])
            except AttributeError:
                # The layer has no weights before its first call, which is still to come.
                raise KeyError(owner) from None
            return found
        if name not in self.weights:
            tensor = torch.zeros(config["shape"], dtype=as_dtype(config["dtype"]))
            self.weights[name] = nn.Parameter(tensor) if config["trainable"] else tensor
        return self.weights[name]

    def _look_up(self, places: Any) -> Any:
        if isinstance(places, Mapping) and places.get("class_name") == "__named_tuple__":
            return make_named_tuple(places, [self._look_up(place) for place in places["config"]])
        if isinstance(places, Mapping):
            return {key: self._look_up(place) for key, place in places.items()}
        if len(places) == 3 and isinstance(places[0], str) and isinstance(places[1], int):
            name, index, position = places
            return self.values[name, index - self.calls_before[name], position]
        return map_items(self._look_up, places)


def _tuples_in(structure: Structure, path: Sequence[Any] = ()) -> list[list[Any]]:
    """The paths of the tuples, by keys and positions; those of outer ones first."""
    if not isinstance(structure, (list, tuple, Mapping)):
        return []
    items = structure.items() if isinstance(structure, Mapping) else enumerate(structure)
    inner = [found for key, item in items for found in _tuples_in(item, (*path, key))]
    return [list(path), *inner] if isinstance(structure, tuple) else inner


def _with_tuples(structure: Structure, paths: Sequence[Sequence[Any]]) -> Structure:
    """The structure with tuples in place of the lists at these paths."""
    if isinstance(structure, Mapping):
        return {key: _with_tuples(item, _within(paths, key)) for key, item in structure.items()}
    if isinstance(structure, list):
        items = [_with_tuples(item, _within(paths, index)) for index, item in enumerate(structure)]
        return tuple(items) if any(not path for path in paths) else items
    return structure


def _within(paths: Sequence[Sequence[Any]], key: Any) -> list[Sequence[Any]]:
    return [path[1:] for path in paths if path and path[0] == key]
