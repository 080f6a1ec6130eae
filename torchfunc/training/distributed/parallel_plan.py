"""Which layers are split over several processes, and how: by default, and as the user says.

As Megatron-LM does (Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053): of two dense layers that follow each other
elementwise the first is split by its columns and the second by its rows, so that nothing is exchanged between them;
attention is split by its heads, and an embedding by its columns or by its vocabulary. Everything else stays whole.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torchfunc import activations, layers
from torchfunc.errors import did_you_mean
from torchfunc.graph import Node, SymbolicTensor, SymbolicValue, is_hooked, modules_within
from torchfunc.modules import DrawnGraph, GraphNetwork
from torchfunc.structures import leaves

__all__ = ["Split", "WeightAxes", "make_plan"]

_STYLES = ("colwise", "rowwise", "heads")
_DENSE = (layers.Dense, layers.EinsumDense, nn.Linear)
_SPLIT_BY_MATRIX = (*_DENSE, layers.Embedding)
_HEADED = (layers.MultiHeadAttention, layers.GroupQueryAttention)

_ACTIVATIONS: set[Any] = {
    *(activations.celu, activations.elu, activations.exponential, activations.gelu, activations.hard_shrink),
    *(activations.hard_sigmoid, activations.hard_silu, activations.hard_tanh, activations.leaky_relu),
    *(activations.linear, activations.log_sigmoid, activations.mish, activations.relu, activations.relu6),
    *(activations.selu, activations.sigmoid, activations.silu, activations.soft_shrink, activations.softplus),
    *(activations.softsign, activations.sparse_plus, activations.sparse_sigmoid, activations.squareplus),
    *(activations.tanh, activations.tanh_shrink, activations.threshold),
}
_ELEMENTWISE_FUNCTIONS: set[Any] = {
    *_ACTIVATIONS,
    *(F.relu, F.gelu, F.silu, F.elu, F.leaky_relu, F.softplus, F.mish, F.hardswish, F.sigmoid, F.tanh),
    *(torch.relu, torch.sigmoid, torch.tanh, torch.square, torch.mul, torch.add, torch.sub),
    *(operator.mul, operator.add, operator.sub, operator.neg),
}
_ELEMENTWISE_METHODS = {"relu", "sigmoid", "tanh", "square", "mul", "add", "sub"}
_ELEMENTWISE_MODULES: set[Any] = {
    *(layers.ELU, layers.Identity, layers.LeakyReLU, layers.ReLU),
    *(layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Multiply, layers.Subtract),
    *(nn.ELU, nn.GELU, nn.Hardswish, nn.Identity, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Softplus),
    nn.Tanh,
}


@dataclass(frozen=True)
class Split:
    """How a layer is split.

    Attributes:
        style: "colwise", "rowwise" or "heads"; "apart" of a dropout that is whole but meets parts.
        within: whether it is one of several that hand on parts: the output of one that is split by columns stays
            split, the input of one that is split by rows is so already.
    """

    style: str
    within: bool = False


@dataclass(frozen=True)
class WeightAxes:
    """The axes of a layer's weights that can be split; None for one that cannot.

    Attributes:
        columns: that of `weight` which gives the last axis of the output.
        rows: that of `weight` which meets the last axis of the input, or counts an embedding's vectors.
        bias: that of `bias` which is split with the columns.
    """

    columns: int | None
    rows: int | None
    bias: int | None

    @classmethod
    def of(cls, layer: nn.Module) -> WeightAxes:
        """The axes of a built layer of a known kind."""
        if isinstance(layer, layers.Embedding):
            return cls(1, 0, None)
        if not isinstance(layer, layers.EinsumDense):
            return cls(0, 1, 0)
        terms, output = layer.equation.split("->")
        inputs, kernel = terms.split(",")
        # (Of an ellipsis at the end, a dot.)
        first, last = inputs[-1], output[-1]
        columns = kernel.index(last) if last in kernel and last not in inputs else None
        rows = kernel.index(first) if first in kernel and first not in output else None
        return cls(columns, rows, -1 if last in (layer.bias_axes or "") else None)


def make_plan(model: nn.Module, size: int, wanted: Mapping[Any, str | None] | None = None) -> dict[str, Split]:
    """How the layers of a built model are split over `size` processes, by their paths (`named_modules`).

    Args:
        model: the model.
        size: how many processes.
        wanted: by the names or classes of layers: "colwise", "rowwise", "heads", or None for a whole layer; others are
            split as by default.

    Raises:
        ValueError: there is no such layer or style, or a layer cannot be split so.
    """
    return _Planner(model, size, wanted or {}).plan()


class _Planner:
    def __init__(self, model: nn.Module, size: int, wanted: Mapping[Any, str | None]) -> None:
        self._model, self._size = model, size
        self._paths = {module: path for path, module in model.named_modules()}
        held = (weight for module in self._paths for weight in module._parameters.values() if weight is not None)
        self._holders = Counter(map(id, held))
        self._drawn = list(_drawn_within(model))
        calls = (node.target for drawn in self._drawn for node in drawn.nodes)
        self._calls = Counter(call for call in calls if isinstance(call, nn.Module))
        self._wanted = dict(self._parse(wanted))
        self._plan: dict[nn.Module, Split] = {}

    def plan(self) -> dict[str, Split]:
        for drawn in self._drawn:
            self._pair(drawn)
        for layer in self._paths:
            if layer not in self._plan and layer in self._wanted:
                style = self._wanted[layer]
                if style is not None:
                    self._plan[layer] = Split(style)
            elif isinstance(layer, (*_HEADED, layers.Embedding)):
                found = [style for style in _STYLES if self._obstacle(layer, style) is None]
                if found:
                    self._plan[layer] = Split(found[0])
        return {path: self._plan[layer] for layer, path in self._paths.items() if layer in self._plan}

    # What the user says

    def _parse(self, wanted: Mapping[Any, str | None]) -> Iterator[tuple[nn.Module, str | None]]:
        for key, style in wanted.items():
            if style is not None and style not in _STYLES:
                raise ValueError(
                    f"`parallelize_plan` splits layers 'colwise', 'rowwise' or by 'heads', or not at all (None), got "
                    f"{style!r} for {key!r}."
                )
            found = [layer for layer, path in self._paths.items() if _is_meant(key, layer, path)]
            if not found:
                names = [path for path in self._paths.values() if path]
                hint = did_you_mean(key, names) if isinstance(key, str) else ""
                raise ValueError(f"`parallelize_plan` names {key!r}, which is no layer of the model.{hint}")
            for layer in found:
                obstacle = None if style is None else self._obstacle(layer, style)
                if obstacle is not None:
                    raise ValueError(
                        f"`parallelize_plan` splits layer {self._paths[layer]!r} ({type(layer).__name__}) {style!r} "
                        f"over {self._size} processes, but {obstacle}. None leaves it whole."
                    )
                yield layer, style

    # What can be split

    def _allowed(self, layer: Any, style: str) -> bool:
        if self._wanted.get(layer, style) != style:
            return False
        return layer not in self._plan and self._calls[layer] == 1 and self._obstacle(layer, style) is None

    def _obstacle(self, layer: nn.Module, style: str) -> str | None:
        """Why a layer cannot be split so; None if it can be."""
        if type(layer) not in (_HEADED if style == "heads" else _SPLIT_BY_MATRIX):
            kinds = _HEADED if style == "heads" else _SPLIT_BY_MATRIX
            return f"only {', '.join(kind.__name__ for kind in kinds)} are split so"
        if isinstance(layer, _HEADED):
            return self._obstacle_of_heads(layer)
        return self._obstacle_of_weights(layer) or self._obstacle_of_size(layer, style)

    def _obstacle_of_weights(self, layer: Any) -> str | None:
        weights = layer._parameters
        if getattr(layer, "activity_regularizer", None) is not None:
            return "its activity_regularizer needs the whole output"
        if not isinstance(weights.get("weight"), nn.Parameter):
            return "its weights are not built, or computed from others"
        if any(weight is not None and self._holders[id(weight)] > 1 for weight in weights.values()):
            return "it shares a weight with another layer"
        return None

    def _obstacle_of_size(self, layer: Any, style: str) -> str | None:
        axes = WeightAxes.of(layer)
        axis = axes.columns if style == "colwise" else axes.rows
        if axis is None:
            what = "its output" if style == "colwise" else "its input"
            return f"the last axis of {what} is not one that {layer.equation!r} could split"
        size = layer.weight.shape[axis]
        return f"{size} {_counted(layer, style)} cannot be shared out evenly" if size % self._size else None

    def _obstacle_of_heads(self, layer: Any) -> str | None:
        groups = layer.num_heads if isinstance(layer, layers.MultiHeadAttention) else layer.num_key_value_heads
        if groups % self._size:
            return f"{groups} heads cannot be shared out evenly"
        if layer.dropout and layer.seed is not None:
            return "its dropout has a seed, by which all would drop the same"
        calls = [node for drawn in self._drawn for node in drawn.nodes if node.target is layer]
        if any(node.kwargs.get("return_attention_scores") for node in calls):
            return "it returns the scores of all heads"
        obstacles = map(self._obstacle_of_weights, _projections(layer))
        return next(filter(None, obstacles), None) if layer.built else "it is not built"

    # Dense layers that follow each other

    def _pair(self, drawn: DrawnGraph) -> None:
        nodes = [*drawn.nodes, *drawn.mask_nodes]
        readers: dict[SymbolicValue, set[Node]] = {}
        for node in nodes:
            for value in node.inputs:
                readers.setdefault(value, set()).add(node)
        outputs = {*drawn.output_tensors, *drawn.masks}
        for node in drawn.nodes:
            last = node.target
            if isinstance(last, _DENSE) and len(node.inputs) == 1 and self._allowed(last, "rowwise"):
                chain = self._chain(node, lambda value: set() if value in outputs else readers[value])
                if chain:
                    self._plan[last] = Split("rowwise", within=True)
                    self._plan.update(chain)

    def _chain(self, last: Node, readers: Callable[[SymbolicValue], set[Node]]) -> dict[nn.Module, Split]:
        """What hands parts on to a layer that is split by rows; nothing if something whole is among it."""
        values, nodes = {last.inputs[0]}, {last}
        pending = list(values)
        chain: dict[nn.Module, Split] = {}
        while pending:
            value = pending.pop()
            node = value.node
            nodes.add(node)
            target = node.target
            if isinstance(target, _DENSE) and _keeps_columns(target) and self._allowed(target, "colwise"):
                chain[target] = Split("colwise", within=True)
                continue
            if not _is_elementwise(node, value):
                return {}
            if _drops(target) and _rate(target):
                chain[target] = Split("apart", within=True)
            pending += [each for each in node.inputs if each not in values]
            values.update(node.inputs)
        # Nobody else may look at a part.
        return chain if all(readers(value) and readers(value) <= nodes for value in values) else {}


def _projections(layer: nn.Module) -> list[nn.Module]:
    """The linear maps of an attention layer."""
    return [child for child in layer.children() if "weight" in child._parameters]


def _drawn_within(model: nn.Module) -> Iterator[DrawnGraph]:
    for each in modules_within(model):
        if isinstance(each, GraphNetwork) and each.drawn is not None and not each.graph_was_changed:
            yield each.drawn


def _is_meant(key: Any, layer: nn.Module, path: str) -> bool:
    if isinstance(key, type):
        return type(layer) is key
    return key in (path, getattr(layer, "name", None)) and path != ""


def _counted(layer: nn.Module, style: str) -> str:
    if isinstance(layer, layers.Embedding) and style == "rowwise":
        return "vectors"
    return "columns" if style == "colwise" else "rows"


def _keeps_columns(layer: Any) -> bool:
    """Whether each column of the output is its own, up to the end of the layer."""
    return not is_hooked(layer) and _is_activation(getattr(layer, "activation", activations.linear))


def _is_activation(function: Any) -> bool:
    if isinstance(function, nn.Module):
        return type(function) in _ELEMENTWISE_MODULES
    return function in _ELEMENTWISE_FUNCTIONS


def _drops(target: Any) -> bool:
    return type(target) in (layers.Dropout, nn.Dropout)


def _rate(dropout: Any) -> float:
    return float(dropout.p if isinstance(dropout, nn.Dropout) else dropout.rate)


def _is_elementwise(node: Node, value: SymbolicValue) -> bool:
    """Whether each element of a call's result depends on those in its place alone, and on numbers."""
    target = node.target
    if node.op == "function" and target not in _ELEMENTWISE_FUNCTIONS:
        return False
    if node.op == "method" and target not in _ELEMENTWISE_METHODS:
        return False
    if node.op not in ("module", "function", "method") or (node.op == "module" and not _is_elementwise_module(target)):
        return False
    given = [leaf for leaf in leaves((node.args, node.kwargs)) if leaf is not None]
    # (With one column, it would be spread over all.)
    return all(
        _columns(leaf) == _columns(value) if isinstance(leaf, SymbolicValue) else isinstance(leaf, (int, float, str))
        for leaf in given
    )


def _columns(value: SymbolicValue) -> object:
    return value.shape[-1] if isinstance(value, SymbolicTensor) and value.shape else None


def _is_elementwise_module(module: Any) -> bool:
    if is_hooked(module) or getattr(module, "activity_regularizer", None) is not None:
        return False
    if isinstance(module, layers.Activation):
        return _is_activation(module.activation)
    if _drops(module):
        return getattr(module, "seed", None) is None and getattr(module, "noise_shape", None) is None
    return type(module) in _ELEMENTWISE_MODULES
