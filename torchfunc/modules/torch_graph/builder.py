"""TorchGraph: a `torch.fx` graph that is being built, and the modules it calls."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import fx, nn

from torchfunc.graph import SymbolicTensor

__all__ = ["Call", "TorchGraph", "in_mode", "share_weights"]


@dataclass(frozen=True)
class Call:
    """One call of a layer that is to be written in plain torch.

    Attributes:
        layer: the layer.
        path: where its module, or what takes its place, is registered.
        name: what its result is called in the code.
        args, kwargs: the arguments, with nodes of the new graph for values.
        symbolic, symbolic_kwargs: the arguments as they were drawn.
    """

    layer: Any
    path: str
    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    symbolic: Sequence[Any]
    symbolic_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> Any:
        """The first argument."""
        return self.args[0]

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of the first argument."""
        first = self.symbolic[0]
        assert isinstance(first, SymbolicTensor)
        assert first.shape is not None
        return first.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first argument."""
        first = self.symbolic[0]
        assert isinstance(first, SymbolicTensor)
        return first.dtype


class TorchGraph:
    """A graph module in the making.

    Args:
        made: by the layer, what has taken its place so far; shared by the graphs of models within models.

    Attributes:
        root: holds the modules.
        graph: the graph.
        training: of a call whose mode is not the model's: the mode.
        redirected: paths of modules that are called by way of another one, with its path.
        made: by the layer, what has taken its place.
    """

    def __init__(self, made: dict[Any, nn.Module]) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.training: bool | None = None
        self.redirected: dict[str, str] = {}
        self.made = made
        # Pairs of views of one value, channels last and channels first.
        self._first_of: dict[fx.Node, fx.Node] = {}
        self._last_of: dict[fx.Node, fx.Node] = {}

    # Modules

    def place(self, path: str, layer: Any, make: Callable[[], nn.Module], *weights: str) -> str:
        """Register what takes the place of a layer, made on the first call of it; returns the path.

        Args:
            path: where.
            layer: the layer, whose weights and mode it gets.
            make: makes the module, on the meta device.
            *weights: the names of the layer's weights that it shares; all of them by default.
        """
        if layer not in self.made:
            with torch.device("meta"):
                module = make()
            share_weights(module, layer, weights)
            module.train(layer.training)
            self.made[layer] = module
        self.register(path, self.made[layer])
        return path

    def parameters(self, call: Call) -> str:
        """Register the parameters of a layer that becomes functions, as a `nn.ParameterDict`; returns the path."""
        own = {name: tensor for name, tensor in call.layer._parameters.items() if tensor is not None}
        return self.place(call.path, call.layer, lambda: nn.ParameterDict(own))

    def register(self, path: str, module: nn.Module) -> None:
        """Register a module at a dotted path; what is on the way and not there yet is a `nn.ModuleDict`."""
        *parents, name = path.split(".")
        holder = self.root
        for each in parents:
            if each not in holder._modules:
                holder.add_module(each, nn.ModuleDict())
            holder = holder.get_submodule(each)
        if holder._modules.get(name) is not module:
            holder._modules[name] = module

    # Nodes

    def module(self, path: str, *args: Any, name: str | None = None, **kwargs: Any) -> fx.Node:
        """Call the module at a path."""
        alone = self.training is None or not _follows_mode(self.root.get_submodule(path))
        path = self.redirected.get(path, path)
        if alone:
            return self.graph.create_node("call_module", path, args, kwargs, name=name)
        return self.function(in_mode, self.attribute(path), self.training, *args, name=name, **kwargs)

    def function(self, function: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> fx.Node:
        """Call a function."""
        node = self.graph.create_node("call_function", function, args, kwargs, name=name)
        if isinstance(function, FunctionType) and not function.__module__.startswith("torch."):
            # Another trace takes it for one call, and does not look into it.
            node.meta["is_wrapped"] = True
        return node

    def method(self, method: str, *args: Any, name: str | None = None, **kwargs: Any) -> fx.Node:
        """Call a method of the first argument."""
        return self.graph.create_node("call_method", method, args, kwargs, name=name)

    def index(self, value: fx.Node, index: Any, name: str | None = None) -> fx.Node:
        """`value[index]`."""
        return self.function(operator.getitem, value, index, name=name)

    def cast(self, value: fx.Node, given: torch.dtype, wanted: torch.dtype) -> fx.Node:
        """The value in another dtype, if it is not in that one."""
        return value if given == wanted else self.method("to", value, wanted)

    def attribute(self, path: str) -> fx.Node:
        """A parameter, buffer or module by its path."""
        return self.graph.create_node("get_attr", path)

    # Views with the channels first

    def first(self, value: fx.Node, rank: int) -> fx.Node:
        """(batch, *positions, channels) as (batch, channels, *positions); `rank` counts the positions."""
        if value not in self._first_of:
            self._pair(self.method("permute", value, 0, rank + 1, *range(1, rank + 1)), value)
        return self._first_of[value]

    def last(self, value: fx.Node, rank: int) -> fx.Node:
        """(batch, channels, *positions) as (batch, *positions, channels)."""
        if value not in self._last_of:
            self._pair(value, self.method("permute", value, 0, *range(2, rank + 2), 1))
        return self._last_of[value]

    def _pair(self, first: fx.Node, last: fx.Node) -> None:
        self._first_of[last], self._last_of[first] = first, last

    def elementwise(self, apply: Callable[..., fx.Node], *values: Any) -> fx.Node:
        """`apply(*values)`, on the views with the channels first where all values come from such."""
        nodes = [value for value in values if isinstance(value, fx.Node)]
        if not nodes or not all(value in self._first_of and _is_view(value) for value in nodes):
            return apply(*values)
        rank = len(nodes[0].args) - 3
        if any(len(value.args) - 3 != rank for value in nodes):
            return apply(*values)
        return self.last(apply(*(self._first_of.get(value, value) for value in values)), rank)

    def finish(self, outputs: Any, name: str) -> fx.GraphModule:
        """The module that returns these values."""
        self.graph.output(outputs)
        for node in reversed(self.graph.nodes):
            if (not node.users and (node in self._first_of or node in self._last_of) and node.op == "call_method") or (
                not node.users and node.op == "get_attr"
            ):
                self.graph.erase_node(node)
        module = fx.GraphModule(self.root, self.graph, name)
        # torch.fx copies only what the graph calls; weights that are not used stay in the state_dict, too.
        module._modules.update(self.root._modules)
        module._parameters.update(self.root._parameters)
        module._buffers.update(self.root._buffers)
        return module


def _follows_mode(module: nn.Module) -> bool:
    """Whether something in a module may differ between training and not."""
    return any(
        type(each).__module__ not in _WITHOUT_MODE and not isinstance(each, nn.ParameterDict)
        for each in module.modules()
    )


# Where torch keeps modules that are the same in training.
_WITHOUT_MODE = tuple(
    f"torch.nn.modules.{name}"
    for name in (
        "activation",
        "container",
        "conv",
        "flatten",
        "linear",
        "normalization",
        "padding",
        "pooling",
        "sparse",
    )
)


def _is_view(value: fx.Node) -> bool:
    return value.op == "call_method" and value.target == "permute"


@torch.fx.wrap
def in_mode(module: nn.Module, training: bool, *args: Any, **kwargs: Any) -> Any:
    """Call a module as it is in training or not, whatever its mode is."""
    modes = [(each, each.training) for each in module.modules()]
    module.train(training)
    try:
        return module(*args, **kwargs)
    finally:
        for each, mode in modes:
            each.training = mode


def share_weights(module: nn.Module, layer: nn.Module, names: Sequence[str] = ()) -> None:
    """Give a module the parameters and buffers of a layer that have the same names, and real memory for its others."""
    for own, given in ((module._parameters, layer._parameters), (module._buffers, layer._buffers)):
        for name in list(own):
            if name in given and (not names or name in names):
                setattr(module, name, given[name])
    like = next(layer.parameters(), torch.zeros(()))
    for each in module.modules():
        for name, buffer in each._buffers.items():
            if buffer is not None and buffer.is_meta:
                dtype = like.dtype if buffer.is_floating_point() and like.is_floating_point() else buffer.dtype
                each._buffers[name] = torch.zeros_like(buffer, dtype=dtype, device=like.device)
