"""SequentialNetwork: a stack of layers, drawn as a graph as soon as its input's shape is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.graph import CALL_ERRORS, SymbolicTensor, infer_module, record_input, record_module
from torchfunc.layers import InputLayer, Layer
from torchfunc.layers.base.shapes import Shape, differ, is_shape, merge_shapes
from torchfunc.layers.base.weights import set_trainable
from torchfunc.modules.drawn_graph import DrawnGraph, draw
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.integer_inputs import takes_integers
from torchfunc.modules.naming import Namer, submodule_key
from torchfunc.modules.nesting import innermost_first, nested_entries
from torchfunc.modules.own_arguments import accepted
from torchfunc.registry import (
    custom_object_scope,
    deserialize_arguments,
    deserialize_keras_object,
    innermost_deserialized,
    innermost_serialized,
    serialize_keras_object,
)
from torchfunc.structures import Structure, leaves, map_structure

__all__ = ["SequentialNetwork"]


class SequentialNetwork(GraphNetwork):
    """Layers in a row, each called on the output of the one before.

    The graph is lowered when it is first needed after a change.

    Args:
        layers: layers or modules; the first may be an `Input(...)`.
        trainable: whether training may change the weights.
        name: the model's name.
    """

    drawn_from = ("layers",)
    _stack: list[nn.Module]
    _layer_names: dict[nn.Module, str]
    _keys: dict[nn.Module, str]
    # The ends of the row, as soon as the input's shape is known. (Only the input may be nested.)
    _first: Structure = None
    # Whether the sizes of the input are those of the first data, and not declared.
    _follows_data = False
    _last: Structure = None

    def __init__(self, layers: Iterable[Any] | None = None, trainable: bool = True, name: str | None = None) -> None:
        self._begin_empty(name, trainable)
        self._namer = Namer()
        # Not by `__setattr__`, which would track the lists and dicts: layers are registered under their names.
        self.__dict__.update(_stack=[], _layer_names={}, _keys={})
        for layer in layers or ():
            self.add(layer)
        self._lower()

    @property
    def _label(self) -> str:
        return f"Sequential model {self.name!r}"

    def add(self, layer: Any) -> None:
        """Put a layer, module or `Input(...)` behind the others.

        Raises:
            TypeError: it is neither a layer nor a module.
            ValueError: an input comes after other layers, or the layer does not fit the output before it.

        >>> model = Sequential([Input((4,))])
        >>> model.add(layers.Dense(3))
        >>> model.output_shape
        (None, 3)
        """
        if isinstance(layer, SymbolicTensor):
            layer = layer.node.target
        if isinstance(layer, InputLayer):
            if self._stack or self._first is not None:
                raise ValueError(f"{self._label} has layers or an input already: an Input comes first, once.")
            self._start(layer.output)
            return
        if not isinstance(layer, nn.Module):
            hint = " Wrap a function as layers.Lambda(function), or layers.Activation(function)." * callable(layer)
            raise TypeError(
                f"A Sequential model holds layers and modules, got {layer!r} ({type(layer).__name__}).{hint}"
            )
        if self._first is None and not self._stack:
            self._start_as_declared(layer)
        output = None if self._last is None else self._call(layer, self._last)
        self._register(layer)
        self._stack.append(layer)
        self._last, self._drawn = output, None

    def pop(self, rebuild: bool = True) -> nn.Module:
        """Take the last layer off and return it.

        Raises:
            ValueError: there is no layer.

        >>> model = Sequential([Input((4,)), layers.Dense(3), layers.Dense(1)])
        >>> model.pop().units, model.output_shape
        (1, (None, 3))
        """
        if not self._stack:
            raise ValueError(f"{self._label} has no layer to take off.")
        layer: nn.Module = self._stack.pop()
        if self._last is not None:
            node = self._last.node
            self._last, self._drawn = node.args[0] if self._stack else self._first, None
            if isinstance(layer, Layer):
                layer.inbound_calls.remove(node)
        if layer not in self._stack:
            del self._modules[self._keys.pop(layer)]
            self._namer.release(self._layer_names.pop(layer))
        return layer

    def _register(self, layer: nn.Module) -> None:
        if layer in self._keys:
            return
        self._layer_names[layer] = self._namer.name(layer)
        key = submodule_key(self._layer_names[layer], self._modules.keys(), self._is_reserved)
        self._keys[layer] = key
        self._modules[key] = layer
        if not self.trainable:
            set_trainable(layer, False)

    def _start_as_declared(self, layer: nn.Module) -> None:
        """Start drawing, if the first layer says what it takes."""
        if isinstance(layer, GraphNetwork) and layer.built:
            first = layer.inputs[0]
            self._start(InputLayer(batch_shape=first.shape, dtype=first.dtype).output)
        elif isinstance(layer, Layer) and layer.declared_batch_shape is not None:
            self._start(InputLayer(batch_shape=layer.declared_batch_shape).output)

    def _start(self, inputs: Structure) -> None:
        """Draw the layers that are there on these inputs, made by `InputLayer`s."""
        output = inputs
        for layer in self._stack:
            output = self._call(layer, output)
        # Not by `__setattr__`, which would look for layers in a list or dict.
        self.__dict__.update(_first=inputs, _last=output, _drawn=None)
        for value in leaves(inputs):
            layer = value.node.target
            self._layer_names[layer] = self._namer.automatic(layer) if layer.assigned_name is None else layer.name
        self.built = True

    def _call(self, layer: nn.Module, value: Structure) -> SymbolicTensor:
        output = layer(value) if isinstance(layer, Layer) else record_module(layer, (value,), {})
        if not isinstance(output, SymbolicTensor):
            raise ValueError(
                f"The layers of a Sequential model return one tensor each, but {type(layer).__name__} returns "
                f"{_what(output)}. Draw the model with Input(...) and Model(inputs, outputs) instead."
            )
        return output

    def _lower(self) -> None:
        """Lower what has been added since the graph was last needed."""
        if self._drawn is None and self._last is not None:
            owner = f"Model {self.name!r}"
            self._take_graph(draw(self._first, self._last, owner, self._is_reserved, self._layer_names, self._keys))

    @property
    def drawn(self) -> DrawnGraph | None:
        self._lower()
        return self._drawn

    @property
    def graph(self) -> fx.Graph:
        """The torch.fx graph."""
        self._lower()
        return self._graph

    @graph.setter
    def graph(self, graph: fx.Graph) -> None:
        self._set_graph(graph)

    @property
    def code(self) -> str:
        """The code of `forward`."""
        self._lower()
        return super().code

    def build(self, input_shape: Any = None) -> None:
        """Draw the model for an input of this shape, batch axis included."""
        if self._first is None:
            shapes = input_shape
            self._start(map_structure(lambda shape: InputLayer(batch_shape=shape).output, shapes, is_leaf=is_shape))
        self._lower()

    def build_from_inputs(self, *inputs: Any) -> None:
        if self._first is not None:
            return
        strange = [leaf for leaf in leaves(inputs) if not isinstance(leaf, (Tensor, SymbolicTensor))]
        if len(inputs) != 1 or strange:
            got = f"{type(strange[0]).__name__} {strange[0]!r}" if strange else f"{len(inputs)} arguments"
            raise ValueError(f"{self._label} takes one tensor, or a list or dict of tensors, got {got}.")

        def declare(value: Tensor | SymbolicTensor) -> SymbolicTensor:
            shape = value.shape if isinstance(value, SymbolicTensor) else (None, *value.shape[1:])
            # What the first data were is no reason to take no floats later.
            floats = not value.dtype.is_floating_point and not takes_integers(self._stack)
            dtype = self.float_dtype() or as_dtype(floatx()) if floats else value.dtype
            declared: SymbolicTensor = InputLayer(batch_shape=shape, dtype=dtype).output
            return declared

        self._start(map_structure(declare, inputs[0]))
        self.__dict__["_follows_data"] = True
        self._lower()

    def prepare_inputs(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        redraws = self._follows_data and not kwargs and not torch.compiler.is_compiling()
        if redraws and self._drawn is not None and not self._drawn.binding.fits(args):
            self._widen([value.shape for value in self._drawn.binding.arrange(args, {}) if hasattr(value, "shape")])
        return super().prepare_inputs(*args, **kwargs)

    def _widen(self, shapes: Sequence[Shape]) -> None:
        """Draw the model anew for sizes that the first data did not have, unless its layers need those it had."""
        declared = leaves(self._first)
        if len(shapes) != len(declared):
            return
        pairs = list(zip(declared, shapes, strict=True))
        if any(len(value.shape) != len(shape) for value, shape in pairs) or not any(
            differ(value.shape, shape) for value, shape in pairs
        ):
            return
        drawn = self._try_on([tuple(shape) for shape in shapes])
        if drawn is None:
            return
        self._forget(drawn)
        drawn = self._try_on([merge_shapes(value.shape, tuple(shape)) for value, shape in pairs])
        if drawn is None:
            return
        for old, new in zip(declared, leaves(drawn[0]), strict=True):
            self._layer_names[new.node.target] = self._layer_names.pop(old.node.target)
        self.__dict__.update(_first=drawn[0], _last=drawn[-1], _drawn=None)
        self._lower()

    def _try_on(self, shapes: Sequence[Shape]) -> list[Structure] | None:
        """New inputs of these shapes, then what each layer makes of them; None if one of them cannot."""
        following = iter(shapes)

        def resized(value: SymbolicTensor) -> SymbolicTensor:
            layer = InputLayer(batch_shape=next(following), dtype=value.dtype)
            layer.assign_name(value.node.target.name)
            output: SymbolicTensor = layer.output
            return output

        values: list[Structure] = [map_structure(resized, self._first)]
        try:
            for layer in self._stack:
                values.append(self._call(layer, values[-1]))
        except CALL_ERRORS:
            self._forget(values)
            return None
        return values

    def _forget(self, values: Sequence[Structure]) -> None:
        """Let the layers forget the calls that made these values."""
        for layer, output in zip(self._stack, values[1:], strict=False):
            if isinstance(layer, Layer):
                layer.inbound_calls.remove(output.node)

    def compute_output_shape(self, input_shape: Any) -> Any:
        if self._first is not None:
            return super().compute_output_shape(input_shape)
        shape = input_shape
        for layer in self._stack:
            if isinstance(layer, Layer):
                shape = layer.compute_output_shape(shape)
            else:
                value = record_input("data", shape, as_dtype(floatx())).outputs
                shape = infer_module(layer, (value,), {}, type(layer).__name__).shape
        return shape

    def is_fully_built(self) -> bool:
        return self._first is not None

    # What it is made of

    @property
    def layers(self) -> list[nn.Module]:
        """The layers and modules in order, the input layer left out."""
        return list(self._stack)

    @property
    def output_names(self) -> list[str] | None:
        if self._first is None:
            return None
        return [self._layer_names[self._stack[-1]]] if self._stack else ["output"]

    def layer_names(self) -> list[str]:
        return [self._layer_names[layer] for layer in self._stack]

    def get_config(self) -> dict[str, Any]:
        """The layers' configs in order, as Keras writes a Sequential model."""
        if self.draws_itself():
            common = {"name": self.name, "trainable": self.trainable}
            return {**accepted(type(self).__init__, common), **self.own_arguments}
        first = self._first
        stack = [first.node.target, *self._stack] if isinstance(first, SymbolicTensor) else self._stack
        with innermost_serialized(innermost_first(self, GraphNetwork.models_in_config)):
            written = [serialize_keras_object(layer) for layer in stack]
        config = {**Layer.get_config(self), **self.own_arguments, "layers": written}
        return config if first is None else {**config, "build_input_shape": self.input_shape}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """Make the model that `get_config` described, with new weights."""
        if "layers" not in config:
            return cls(**deserialize_arguments(config, custom_objects))
        nested = innermost_first(config, nested_entries)
        with custom_object_scope(custom_objects), innermost_deserialized(nested):
            layers = [deserialize_keras_object(layer) for layer in config["layers"]]
        own = {key: value for key, value in config.items() if key not in ("layers", "build_input_shape", "dtype")}
        model = cls(layers, **{"name": None, "trainable": True, **own})
        if not model.built and config.get("build_input_shape") is not None:
            model.build(config["build_input_shape"])
        return model

    # Copying

    def __getstate__(self) -> dict[str, Any]:
        # A copy has symbolic values of its own.
        return {**super().__getstate__(), "_first": None, "_last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._drawn is not None:
            self._first, self._last = self._drawn.inputs, self._drawn.outputs


def _what(output: Structure) -> str:
    """What a layer returned that is no tensor, for messages."""
    tensors = [leaf for leaf in leaves(output) if isinstance(leaf, SymbolicTensor)]
    shapes = ", ".join(str(tensor.shape) for tensor in tensors)
    return f"{len(tensors)} of shapes {shapes}" if len(tensors) > 1 else repr(output)
