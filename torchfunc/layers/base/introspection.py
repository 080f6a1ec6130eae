"""The calls of a layer on symbolic tensors: their inputs and outputs (`layer.output`, `get_input_at(i)` ...)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from torchfunc.errors import MissingAttribute
from torchfunc.graph import Node, symbolic_leaves, symbolic_tensors
from torchfunc.layers.base.shapes import Shape, Shapes

__all__ = ["InboundNodes", "NodeIntrospection"]


WITHOUT_INIT = (
    "{0} has no weights or layers of its own yet: its `__init__` calls `super().__init__()` late or not at all. "
    "Call it first, as `super().__init__(**kwargs)`, and set attributes after that."
)


class InboundNodes:
    """The symbolic calls of one layer, in the order they were made.

    A call refers to its layer. Once it is part of a model, that model holds it, and the layer only knows of it, so
    that a dropped model leaves nothing behind. A call that is part of no model is held here.
    """

    __slots__ = ("_held", "_known", "_limit")

    def __init__(self) -> None:
        self._known: list[weakref.ref[Node]] = []
        self._held: set[Node] = set()
        # How many may be known until those that ended are looked for.
        self._limit = 8

    def __deepcopy__(self, memo: dict[int, Any]) -> InboundNodes:
        # The copy of a layer has not been called on anything yet.
        return InboundNodes()

    def add(self, node: Node, held: bool) -> None:
        """Append a call, and hold it if nobody else does."""
        if len(self._known) >= self._limit:
            self._known = [known for known in self._known if known() is not None]
            self._limit = 8 + 2 * len(self._known)
        self._known.append(weakref.ref(node))
        if held:
            self._held.add(node)

    def release(self, node: Node) -> None:
        """Hold a call no longer: a model does."""
        self._held.discard(node)

    def remove(self, node: Node) -> None:
        """Forget a call."""
        self._held.discard(node)
        self._known = [known for known in self._known if known() is not node]

    def nodes(self) -> list[Node]:
        """The calls that there are still."""
        return [node for known in self._known if (node := known()) is not None]


class NodeIntrospection:
    """The symbolic calls of a layer: what they were made on, and what came out."""

    inbound_calls: InboundNodes
    name: str
    # The weight that Keras' layer has under a name, None if there is none.
    keras_weight: Callable[[str], Any]

    @property
    def inbound_nodes(self) -> list[Node]:
        """The symbolic calls of the layer, in the order they were made, while a model or a tensor needs them."""
        return self.inbound_calls.nodes()

    def __getattr__(self, name: str) -> Any:
        # Weights first: layers read them at every call.
        parameters = self.__dict__.get("_parameters")
        if parameters is not None and name in parameters:
            return parameters[name]
        try:
            return nn.Module.__getattr__(self, name)  # type: ignore[arg-type]
        except AttributeError as error:
            if parameters is None and not name.startswith("__"):
                raise AttributeError(WITHOUT_INIT.format(type(self).__name__)) from None
            weight = self.keras_weight(name)
            if weight is not None:
                return weight
            if not isinstance(getattr(type(self), name, None), property):
                if name.startswith("__") or torch.compiler.is_compiling():
                    raise
                raise MissingAttribute(f"{error}.", name, partial(dir, self)) from None
        # Python calls this when a property raises AttributeError: raise the property's own error again.
        return getattr(type(self), name).__get__(self)

    @property
    def input(self) -> Any:
        """The symbolic input of the layer's only call; AttributeError when there were none or several."""
        return _inputs(self._only_node("input"))

    @property
    def output(self) -> Any:
        """The symbolic output of the layer's only call; AttributeError when there were none or several."""
        return self._only_node("output").outputs

    @property
    def input_shape(self) -> Any:
        """The shape, or list of shapes, of the input, if it is the same at every call."""
        return self._only_shape("input", [_shapes(_inputs(node)) for node in self.inbound_nodes])

    @property
    def output_shape(self) -> Any:
        """The shape, or list of shapes, of the output, if it is the same at every call."""
        return self._only_shape("output", [_shapes(node.outputs) for node in self.inbound_nodes])

    def get_input_at(self, node_index: int) -> Any:
        """The symbolic input of call number `node_index`.

        >>> layer, x = layers.Dense(3), Input((5,))
        >>> y = layer(x)
        >>> layer.get_input_at(0) is x
        True
        """
        return _inputs(self._node_at(node_index, "input"))

    def get_output_at(self, node_index: int) -> Any:
        """The symbolic output of call number `node_index`.

        >>> layer = layers.Dense(3)
        >>> first, second = layer(Input((5,))), layer(Input((5,)))
        >>> layer.get_output_at(1) is second
        True
        """
        return self._node_at(node_index, "output").outputs

    def get_input_shape_at(self, node_index: int) -> Shape | list[Shape]:
        """The shape, or list of shapes, of the input of call number `node_index`.

        >>> layer = layers.Dense(3)
        >>> first, second = layer(Input((5,))), layer(Input((7, 5)))
        >>> layer.get_input_shape_at(1)
        (None, 7, 5)
        """
        return _shapes(_inputs(self._node_at(node_index, "input shape")))

    def get_output_shape_at(self, node_index: int) -> Shape | list[Shape]:
        """The shape, or list of shapes, of the output of call number `node_index`.

        >>> layer = layers.Dense(3)
        >>> first, second = layer(Input((5,))), layer(Input((7, 5)))
        >>> layer.get_output_shape_at(1)
        (None, 7, 3)
        """
        return _shapes(self._node_at(node_index, "output shape").outputs)

    def _only_node(self, what: str) -> Node:
        nodes = self.inbound_nodes
        if not nodes:
            raise AttributeError(
                f"Layer {self.name} has never been called on a symbolic tensor, so it has no {what}. "
                "Call it on an Input(...) first."
            )
        if len(nodes) > 1:
            raise AttributeError(
                f'Layer {self.name} has multiple inbound nodes, hence the notion of "layer {what}" is ill-defined. '
                f"Use `get_{what}_at(node_index)` instead."
            )
        return nodes[0]

    def _only_shape(self, what: str, shapes: list[Any]) -> Shapes:
        if not shapes:
            self._only_node(f"{what} shape")
        if any(shape != shapes[0] for shape in shapes):
            raise AttributeError(
                f"Layer {self.name} has multiple inbound nodes with different {what} shapes, hence the notion of "
                f'"layer {what} shape" is ill-defined. Use `get_{what}_shape_at(node_index)` instead.'
            )
        return shapes[0]

    def _node_at(self, node_index: int, what: str) -> Node:
        nodes = self.inbound_nodes
        if not 0 <= node_index < len(nodes):
            raise ValueError(
                f"Asked for the {what} of node {node_index} of layer {self.name}, which has {len(nodes)} inbound nodes."
            )
        return nodes[node_index]


def _inputs(node: Node) -> Any:
    """The first argument: a tensor, or the list or dict of tensors the layer was called on."""
    if node.op == "input":
        return node.outputs
    first = node.args[0] if node.args else next(iter(node.kwargs.values()))
    others = symbolic_leaves((node.args[1:], dict(node.kwargs) if node.args else {}))
    return [*symbolic_leaves(first), *others] if others else first


def _shapes(structure: Any) -> Shapes:
    tensors = symbolic_tensors(structure)
    return tensors[0].shape if len(tensors) == 1 else [tensor.shape for tensor in tensors]
