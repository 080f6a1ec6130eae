"""clone_model: the same architecture with new layers and new weights."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from torchfunc.graph import Node, SymbolicTensor, SymbolicValue, replay
from torchfunc.layers import InputLayer, Layer
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.functional_config import name_parts
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.replaying import call_again, without_found_masks
from torchfunc.modules.sequential import SequentialNetwork
from torchfunc.registry import in_process_configs
from torchfunc.structures import map_structure

__all__ = ["clone_model"]


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable[[Any], Any] | None = None,
    call_function: Callable[..., Any] | None = None,
    recursive: bool = False,
    **kwargs: Any,
) -> Any:
    """Make a model of the same architecture with new layers and newly initialized weights, which is not compiled.

    `torchfunc.models.clone_model`, which calls this, tells the arguments and errors.
    """
    if kwargs:
        raise ValueError(f"clone_model() was given arguments it does not take: {', '.join(map(repr, kwargs))}.")
    if isinstance(model, GraphNetwork) and model.draws_itself():
        return _from_config(model)
    cloner = _Cloner(clone_function or _from_config, call_function, recursive)
    if isinstance(model, SequentialNetwork):
        return cloner.sequential(model, input_tensors)
    if isinstance(model, GraphNetwork):
        return cloner.graph(model, input_tensors)
    return _from_config(model)


def _from_config(layer: Any) -> Any:
    if not hasattr(layer, "get_config"):
        raise ValueError(
            f"{type(layer).__name__} has no get_config(), so it cannot be cloned. "
            "Give clone_model() a clone_function, or use copy.deepcopy(model)."
        )
    with in_process_configs():
        return type(layer).from_config(layer.get_config())


class _Cloner:
    def __init__(
        self, clone_function: Callable[[Any], Any], call_function: Callable[..., Any] | None, recursive: bool
    ) -> None:
        self.clone_function = clone_function
        self.call_function = call_function
        self.recursive = recursive

    def layer(self, layer: nn.Module) -> Any:
        if isinstance(layer, (GraphNetwork, SequentialNetwork)) and self.recursive:
            return clone_model(layer, None, self.clone_function, self.call_function, True)
        made = self.clone_function(layer)
        if isinstance(layer, Layer) and isinstance(made, Layer) and made is not layer:
            made.has_explicit_name = layer.has_explicit_name
        return made

    def sequential(self, model: SequentialNetwork, inputs: Any) -> Any:
        layers = [self.layer(layer) for layer in model.layers]
        first: list[Any] = []
        if inputs is not None:
            first = [inputs if isinstance(inputs, SymbolicTensor) else inputs[0]]
        elif model.built:
            first = [InputLayer.from_config(model.inputs[0].node.target.get_config())]
        return type(model)([*first, *layers], name=model.name, **model.own_arguments)

    def graph(self, model: GraphNetwork, inputs: Any) -> Any:
        drawn = model.drawn
        assert drawn is not None
        if inputs is None:
            named = zip(drawn.input_tensors, drawn.binding.names, strict=True)
            new_inputs = [_like(value, name) for value, name in named]
        else:
            new_inputs = drawn.binding.arrange((inputs,), {})
        values: dict[SymbolicValue, Any] = dict(zip(drawn.input_tensors, new_inputs, strict=True))
        parts = _Parts(model, drawn, self.layer)

        def call(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            args, kwargs = map_structure(parts.tensor, (args, without_found_masks(node, kwargs)))
            if node.op != "module":
                return call_again(node.op, node.target, args, kwargs)
            if self.call_function is not None:
                return self.call_function(parts.layer(node.target), *args, **kwargs)
            return parts.layer(node.target)(*args, **kwargs)

        replay([node for node in drawn.nodes if node.op != "input"], values, call)

        copied = type(model)(
            map_structure(values.__getitem__, drawn.inputs),
            map_structure(values.__getitem__, drawn.outputs),
            name=model.name,
            **model.own_arguments,
        )
        names = {new: drawn.names[old] for old, new in parts.layers.items() if not isinstance(new, Layer)}
        return name_parts(copied, names, {id(tensor): name for name, tensor in parts.tensors.items()})


class _Parts:
    """The layers and tensors of a copy, each made when it is first needed.

    Args:
        model: the model that is cloned.
        drawn: its graph.
        make: makes the new layer from the old one.
    """

    def __init__(self, model: GraphNetwork, drawn: DrawnGraph, make: Callable[[Any], Any]) -> None:
        self.model = model
        self.make = make
        self.layers: dict[Any, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.paths = drawn.paths
        self.owners = {key: layer for layer, key in drawn.keys.items()}

    def layer(self, old: Any) -> Any:
        if old not in self.layers:
            self.layers[old] = self.make(old)
        return self.layers[old]

    def tensor(self, leaf: Any) -> Any:
        """For a parameter or constant of the old graph: the same place of the new layer it belongs to, or a copy."""
        if not isinstance(leaf, Tensor):
            return leaf
        key, _, path = self.paths[id(leaf)].partition(".")
        if path:
            old = self.owners[key]
            new = self.layer(old)
            if isinstance(new, Layer) and not new.built and isinstance(old, Layer) and old.build_shapes:
                new.build_from_shapes(old.build_shapes)
            return operator.attrgetter(path)(new)
        if key not in self.tensors:
            self.tensors[key] = copy.deepcopy(getattr(self.model, key))
        return self.tensors[key]


def _like(value: SymbolicTensor, name: str) -> SymbolicTensor:
    layer = InputLayer(batch_shape=value.shape, dtype=value.dtype, name=name)
    output: SymbolicTensor = layer.output
    return output
