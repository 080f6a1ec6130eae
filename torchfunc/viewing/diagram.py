"""What a drawing of a model shows: boxes, arrows between them and, for models within models, frames round them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from torchfunc.dtypes import dtype_name
from torchfunc.graph import Node, SymbolicTensor, SymbolicValue, format_source
from torchfunc.layers import InputLayer, Layer
from torchfunc.modules import DrawnGraph, GraphNetwork, Network
from torchfunc.structures import leaves, map_structure
from torchfunc.viewing.entries import Entry, entries_of, select_range

__all__ = ["Arrow", "Box", "Diagram", "Frame", "diagram_of", "facts_of"]


@dataclass(frozen=True)
class Box:
    """One layer, module, function, input or tensor.

    Attributes:
        key: what no other box is called: the names of the models it is within and its own, joined by "/".
        name: its name in its model.
        kind: the name of its class or function.
        role: what it is, which decides its color.
        inputs, outputs: the shapes of what goes in and comes out, as text; None where that is not known.
        dtype: the dtype of what comes out, likewise.
        activation: the name of its activation, if it has one.
        trains: whether its weights are trained; None if it has none.
        parameters: how many numbers its weights are.
        source: the line of the user's code that made its first call.
        target: the layer or module, the node of a function, the input's symbolic tensor or the tensor itself.
    """

    key: str
    name: str
    kind: str
    role: Literal["input", "layer", "module", "function", "tensor", "model"]
    inputs: str | None
    outputs: str | None
    dtype: str | None
    activation: str | None
    trains: bool | None
    parameters: int
    source: str
    target: Any


@dataclass(frozen=True)
class Arrow:
    """Data that go from one box, by its key, to another.

    Attributes:
        start, end: the keys of the boxes.
        is_mask: whether it is a mask that layers hand on by themselves.
    """

    start: str
    end: str
    is_mask: bool = False


@dataclass(frozen=True)
class Frame:
    """A model whose inside is drawn: a name, and the boxes and frames within, in Keras' order."""

    key: str
    name: str
    kind: str
    contents: Sequence[Box | Frame]

    def boxes(self) -> Iterator[Box]:
        """All boxes within, in order."""
        pending: list[Box | Frame] = list(self.contents)[::-1]
        while pending:
            each = pending.pop()
            if isinstance(each, Box):
                yield each
            else:
                pending.extend(each.contents[::-1])


@dataclass(frozen=True)
class Diagram:
    """A whole drawing: the frame of the model and the arrows between its boxes, one for each value that goes there."""

    frame: Frame
    arrows: Sequence[Arrow]


@dataclass
class _Scope:
    """A drawn model whose inside is shown: where its boxes are and what goes into it.

    Attributes:
        drawn: its graph; None where a model that was never called shows its layers as a chain.
        prefix: what the keys of its boxes begin with.
        entries: its parts.
        keys: the keys of boxes, by the `id` of an entry's target.
        inner: the scopes of models within, by the same.
    """

    drawn: DrawnGraph | None
    prefix: str
    entries: list[Entry]
    keys: dict[int, str] = field(default_factory=dict)
    inner: dict[int, _Scope] = field(default_factory=dict)


def diagram_of(
    model: Network, expand_nested: bool = False, masks: bool = False, layer_range: Sequence[str] | None = None
) -> Diagram:
    """What a drawing of the model shows.

    Args:
        model: a built model.
        expand_nested: whether models within it are shown as frames with their insides.
        masks: whether to show the masks that layers hand on by themselves, and what computes them.
        layer_range: the names, or patterns of them, of the first and the last layer to show.

    Raises:
        ValueError: the model is not built, or no layer matches `layer_range`.
    """
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so there is nothing to draw: call it on data, or `build` it."
        )
    contents, scope = _lay_out(model, "", expand_nested, layer_range)
    arrows = list(_arrows(scope))
    frame = Frame("", model.name, type(model).__name__, contents)
    if not masks:
        frame, arrows = _without_masks(frame, arrows)
    return Diagram(frame, arrows)


def _lay_out(
    model: Network, prefix: str, expand_nested: bool, layer_range: Sequence[str] | None = None
) -> tuple[list[Box | Frame], _Scope]:
    """The boxes of a model and of the models shown within it, and where they are."""
    entries = select_range(entries_of(model)[0], layer_range)
    drawn = model.drawn if isinstance(model, GraphNetwork) else None
    scope = _Scope(drawn, prefix, entries)
    contents: list[Box | Frame] = []
    for entry in entries:
        key = prefix + entry.name
        if expand_nested and isinstance(entry.target, GraphNetwork) and entry.target.drawn is not None:
            inside, scope.inner[id(entry.target)] = _lay_out(entry.target, f"{key}/", True)
            contents.append(Frame(key, entry.name, entry.kind, inside))
        else:
            scope.keys[id(entry.target)] = key
            contents.append(_box(key, entry))
    return contents, scope


def _box(key: str, entry: Entry) -> Box:
    target, call = entry.target, entry.calls[-1] if entry.calls else None
    produced: Any = target if isinstance(target, Tensor | SymbolicTensor) else call and call.outputs
    given = [] if call is None else [value for value in call.inputs if not _is_handed_on(value, call.inputs)]
    weights = _weights(target)
    trains = any(weight.requires_grad for weight in weights) and getattr(target, "trainable", True) if weights else None
    activation = getattr(target, "activation", None)
    name = getattr(activation, "name", None) or getattr(activation, "__name__", None) or type(activation).__name__
    return Box(
        key,
        entry.name,
        entry.kind,
        _role(target),
        _shapes(given) if given else None,
        None if produced is None else _shapes(produced),
        None if produced is None else _dtypes(produced),
        None if activation is None else name,
        trains,
        sum(weight.numel() for weight in weights),
        "" if isinstance(target, Tensor) else format_source(_first_call(entry)),
        target,
    )


def _first_call(entry: Entry) -> Any:
    if entry.calls:
        return entry.calls[0].source
    return entry.target.node.source if isinstance(entry.target, SymbolicValue) else None


def _role(target: Any) -> Literal["input", "layer", "module", "function", "tensor", "model"]:
    if isinstance(target, InputLayer | SymbolicValue):
        return "input"
    if isinstance(target, Network):
        return "model"
    if isinstance(target, Layer):
        return "layer"
    if isinstance(target, nn.Module):
        return "module"
    return "function" if isinstance(target, Node) else "tensor"


def _weights(target: Any) -> list[Tensor]:
    if isinstance(target, Layer):
        return list(target.weights)
    if isinstance(target, nn.Module):
        return list(target.parameters())
    return [target] if isinstance(target, Tensor) else []


def _shapes(values: Any) -> str:
    """`(None, 4)`, or several in the structure they come in."""
    found = [leaf for leaf in leaves(values) if isinstance(leaf, SymbolicValue | Tensor)]
    return _one_shape(found[0]) if len(found) == 1 else _text(map_structure(_one_shape, values))


def _one_shape(value: Any) -> str:
    shape = value.spec.shape if isinstance(value, SymbolicValue) else getattr(value, "shape", None)
    if shape is None:
        return "int" if isinstance(value, SymbolicValue) else str(value)
    return str(tuple(shape))


def _dtypes(values: Any) -> str:
    found = [leaf for leaf in leaves(values) if isinstance(leaf, SymbolicTensor | Tensor)]
    names = list(dict.fromkeys(dtype_name(leaf.dtype) for leaf in found))
    return ", ".join(names) or "int"


def _text(structure: Any) -> str:
    return str(structure).replace("'", "")


# Arrows


def _arrows(scope: _Scope) -> Iterator[Arrow]:
    """What goes where, within a model and the models shown within it."""
    if scope.drawn is None:
        keys = [scope.keys[id(entry.target)] for entry in scope.entries]
        yield from (Arrow(start, end) for start, end in itertools.pairwise(keys))
        return
    drawn: set[tuple[str | None, str, bool, int]] = set()
    for entry in scope.entries:
        inner = scope.inner.get(id(entry.target))
        for call in entry.calls:
            for index, (leaf, is_mask) in enumerate(_arguments(call, scope.drawn)):
                if inner is not None and is_mask:
                    continue
                end = scope.keys[id(entry.target)] if inner is None else _input_key(inner, index)
                start = _start(leaf, scope)
                arrow = start, end, is_mask, id(leaf)
                if start is not None and arrow not in drawn:
                    drawn.add(arrow)
                    yield Arrow(start, end, is_mask)
        if inner is not None:
            yield from _arrows(inner)


def _arguments(call: Node, drawn: DrawnGraph) -> Iterator[tuple[Any, bool]]:
    """The symbolic values and the model's own tensors among the arguments, each with whether it is a mask handed on."""
    arguments = leaves((call.args, call.kwargs))
    found = [leaf for leaf in arguments if isinstance(leaf, SymbolicValue) or id(leaf) in drawn.paths]
    return ((leaf, _is_handed_on(leaf, found)) for leaf in found)


def _is_handed_on(leaf: Any, arguments: Sequence[Any]) -> bool:
    """Whether a value is the mask of another argument, which a layer got without being given it."""
    return any(each.mask is leaf for each in arguments if isinstance(each, SymbolicTensor))


def _start(leaf: Any, scope: _Scope) -> str | None:
    """The box that a value comes from. None for a tensor that no box stands for: a weight of a layer, say."""
    assert scope.drawn is not None
    if not isinstance(leaf, SymbolicValue):
        path = scope.drawn.paths[id(leaf)]
        return next((scope.prefix + path for entry in scope.entries if entry.name == path), None)
    if id(leaf) in scope.keys:
        return scope.keys[id(leaf)]
    node = leaf.node
    target = node.target if isinstance(node.target, nn.Module) else node
    inner = scope.inner.get(id(target))
    if inner is None:
        return scope.keys.get(id(target))
    assert inner.drawn is not None
    mask = leaf.returned_mask
    place = mask.index if mask else next(i for i, value in enumerate(node.output_values) if value is leaf)
    return _start(inner.drawn.output_tensors[place], inner)


def _input_key(scope: _Scope, index: int) -> str:
    assert scope.drawn is not None
    value = scope.drawn.input_tensors[index]
    key = scope.keys.get(id(value)) or scope.keys.get(id(value.node.target))
    if key is not None:
        return key
    # A Sequential model has no box for its input, which its first layer takes.
    first = id(scope.entries[0].target)
    return _input_key(scope.inner[first], index) if first in scope.inner else scope.keys[first]


# What is left out, and what is told


def _without_masks(frame: Frame, arrows: list[Arrow]) -> tuple[Frame, list[Arrow]]:
    """Leave out the masks that layers hand on, and the functions that compute nothing else."""
    hidden: set[str] = set()
    functions = {box.key for box in frame.boxes() if box.role in ("function", "tensor")}
    feeds: dict[str, list[Arrow]] = {}
    for arrow in arrows:
        feeds.setdefault(arrow.start, []).append(arrow)
    # A function that computes part of a mask feeds one that is hidden already.
    changed = any(arrow.is_mask for arrow in arrows)
    while changed:
        found = {
            key
            for key in functions - hidden
            if feeds.get(key) and all(arrow.is_mask or arrow.end in hidden for arrow in feeds[key])
        }
        hidden |= found
        changed = bool(found)
    kept = [arrow for arrow in arrows if not arrow.is_mask and hidden.isdisjoint((arrow.start, arrow.end))]
    return _leave_out(frame, hidden), kept


def _leave_out(frame: Frame, hidden: Set[str]) -> Frame:
    contents = [each if isinstance(each, Box) else _leave_out(each, hidden) for each in frame.contents]
    return Frame(frame.key, frame.name, frame.kind, [each for each in contents if each.key not in hidden])


def facts_of(box: Box) -> Mapping[str, str]:
    """What a reader may want to know of a box, by title."""
    config: Any = {}
    if isinstance(box.target, Layer) and not isinstance(box.target, Network):
        config = box.target.get_config()
    elif isinstance(box.target, nn.Module):
        config = {"module": repr(box.target)}
    known: dict[str, str | None] = {
        "class": box.kind,
        "input shape": box.inputs,
        "output shape": box.outputs,
        "dtype": box.dtype,
        "parameters": f"{box.parameters:,}",
        "source": box.source,
    }
    for name, value in config.items():
        if name not in ("name", "dtype"):
            # An initializer, say, is told by its class.
            known[name] = str(value["class_name"] if isinstance(value, Mapping) and "class_name" in value else value)
    return {name: value for name, value in known.items() if value}
