"""rewire: the same graph with layers replaced, removed or wrapped, and all others shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn

from torchfunc.errors import did_you_mean
from torchfunc.graph import Node, SymbolicTensor, SymbolicValue, format_source, replay
from torchfunc.layers import InputLayer, Layer
from torchfunc.layers.base.call_arguments import accepts
from torchfunc.modules.drawn_graph import DrawnGraph
from torchfunc.modules.functional_config import name_parts
from torchfunc.modules.graph_network import GraphNetwork
from torchfunc.modules.replaying import call_again, without_found_masks
from torchfunc.modules.sequential import SequentialNetwork
from torchfunc.structures import map_structure

__all__ = ["rewire"]

Replacement: TypeAlias = "nn.Module | Callable[..., Any] | None"
# What drawing a call raises that does not fit.
_ERRORS = (TypeError, ValueError)


def rewire(model: Any, changes: Mapping[Any, Replacement]) -> Any:
    """A model of the same graph in which some calls are other ones; layers and weights are shared with the old one.

    Args:
        model: a drawn model, or a Sequential that is built.
        changes: by a layer, its name, the name of a function's call, or `model.layer` for a layer of a model within the
            model: a layer or module to call instead, a function of symbolic tensors that draws something else, or None
            to leave it out, so that its input takes the place of its output.

    Raises:
        TypeError: the model cannot be rewired, or a replacement cannot be called.
        ValueError: there is no such layer, one without a single input is to be left out, or something does not fit; the
            message names the first such place. The model is as it was.
    """
    drawn = model.drawn if isinstance(model, GraphNetwork) else None
    if drawn is None and isinstance(model, GraphNetwork):
        raise ValueError(f"The model {model.name!r} is not built yet: call it on data, or `build` it, first.")
    if drawn is None or model.graph_was_changed:
        raise TypeError(f"rewire() takes a drawn model whose graph is as it was drawn, got {type(model).__name__}.")
    for key, replacement in changes.items():
        if replacement is not None and not callable(replacement):
            raise TypeError(f"The replacement for {key!r} is {replacement!r}, which cannot be called.")
    own, within = _sorted(drawn, model.name, changes)
    for inner, inner_changes in within.items():
        own[inner] = rewire(inner, inner_changes)
    if isinstance(model, SequentialNetwork):
        return _rewire_row(model, own)
    return _Rewiring(model, drawn, own).run()


def _sorted(
    drawn: DrawnGraph, owner: str, changes: Mapping[Any, Replacement]
) -> tuple[dict[Any, Replacement], dict[Any, dict[Any, Replacement]]]:
    """The changes by the layer or the call of a function; those within models in the graph by model."""
    by_name = {drawn.name_of(node): node.target if node.op == "module" else node for node in drawn.nodes}
    inner = [layer for layer in drawn.layers if isinstance(layer, GraphNetwork)]
    own: dict[Any, Replacement] = {}
    within: dict[Any, dict[Any, Replacement]] = {}
    for key, replacement in changes.items():
        found = by_name.get(key) if isinstance(key, str) else key if key in drawn.keys else None
        if found is not None:
            if isinstance(found, Node) and found.op == "input":
                raise ValueError(f"{key!r} is an input of the model {owner!r}, and no layer that could be replaced.")
            own[found] = replacement
            continue
        name, _, rest = key.partition(".") if isinstance(key, str) else ("", "", "")
        homes = [each for each in inner if (drawn.names[each] == name if rest else _holds(each, key))]
        if not homes:
            names = ", ".join(by_name)
            hint = did_you_mean(key, list(by_name)) if isinstance(key, str) else ""
            raise ValueError(f"The model {owner!r} has no layer {key!r}; it has {names}.{hint}")
        within.setdefault(homes[0], {})[rest or key] = replacement
    return own, within


def _holds(model: GraphNetwork, key: Any) -> bool:
    drawn = model.drawn
    if drawn is None or isinstance(key, str):
        return False
    return key in drawn.keys or any(_holds(each, key) for each in drawn.layers if isinstance(each, GraphNetwork))


def _rewire_row(model: SequentialNetwork, changes: Mapping[Any, Replacement]) -> Any:
    """A Sequential with other layers in it."""
    stack: list[Any] = [InputLayer.from_config(value.node.target.get_config()) for value in model.inputs[:1]]
    names: dict[nn.Module, str] = {}
    for layer, name in zip(model.layers, model.layer_names(), strict=True):
        new = changes.get(layer, layer)
        if new is None:
            continue
        if not isinstance(new, nn.Module):
            raise TypeError(f"A Sequential holds layers and modules, so {name!r} cannot become the function {new!r}.")
        stack.append(_called(new, layer, name))
        names[new] = name
    try:
        return type(model)(stack, name=model.name, **model.own_arguments)
    except _ERRORS as error:
        raise ValueError(f"The model {model.name!r} cannot be rewired so: {error}") from error


def _called(new: Any, old: Any, name: str) -> Any:
    """The replacement; one without a name gets that of the layer whose place it takes."""
    if isinstance(new, Layer) and new is not old and new.assigned_name is None:
        new.assign_name(name)
    return new


class _Rewiring:
    """One rewiring of a drawn graph.

    Args:
        model: the model.
        drawn: its graph.
        changes: by the layer or the call of a function what takes its place.
    """

    def __init__(self, model: GraphNetwork, drawn: DrawnGraph, changes: Mapping[Any, Replacement]) -> None:
        self.model = model
        self.drawn = drawn
        self.changes = changes
        self.values: dict[SymbolicValue, Any] = {}
        self.names: dict[nn.Module, str] = {}
        # The names of what was changed so far, for messages.
        self.changed: list[str] = []

    def run(self) -> Any:
        drawn = self.drawn
        later = list(_that_change(drawn.nodes, self.changes))
        for node in drawn.nodes:
            if node.op == "module":
                self.names.setdefault(node.target, drawn.names[node.target])
        replay(later, self.values, self._call)

        def now(value: SymbolicValue) -> Any:
            return self.values.get(value, value)

        outputs = map_structure(now, drawn.outputs)
        # A class that draws itself from other arguments would draw what it was before.
        bases = type(self.model).__mro__
        cls = next(base for base in bases if issubclass(base, GraphNetwork) and not base.draws_itself())
        own = self.model.own_arguments if cls is type(self.model) else {}
        new = cls(drawn.inputs, outputs, name=self.model.name, **own)
        found: Any = new.drawn and new.drawn.names
        names = {part: name for part, name in self.names.items() if part in found and not isinstance(part, Layer)}
        return name_parts(new, names, {id(each.tensor): each.path for each in drawn.tensors if each.owner == "model"})

    def _call(self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        name = self.drawn.name_of(node)
        key = node.target if node.op == "module" else node
        kwargs = without_found_masks(node, kwargs)
        if key not in self.changes:
            try:
                return call_again(node.op, node.target, args, kwargs)
            except _ERRORS as error:
                raise ValueError(
                    f"The model {self.model.name!r} cannot be rewired so: {name!r} ({format_source(node.source)}) does "
                    f"not fit what comes from {', '.join(self.changed)} now: {error}"
                ) from error
        self.changed.append(repr(name))
        replacement = self.changes[key]
        outputs = self._left_out(name, args) if replacement is None else self._replaced(name, key, args, kwargs)
        self._check(node, name, outputs)
        return outputs

    def _left_out(self, name: str, args: Sequence[Any]) -> Any:
        if not args or not isinstance(args[0], SymbolicTensor):
            raise ValueError(f"{name!r} cannot be left out: it is not called on a single tensor that could replace it.")
        return args[0]

    def _replaced(self, name: str, key: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        replacement: Any = self.changes[key]
        if isinstance(replacement, nn.Module):
            self.names[_called(replacement, key, name)] = name
        function = type(replacement).forward if isinstance(replacement, nn.Module) else replacement
        given = {option: value for option, value in kwargs.items() if _takes(function, option)}
        try:
            return call_again("module", replacement, args, given)
        except _ERRORS as error:
            raise ValueError(f"The replacement for {name!r} does not fit in its place: {error}") from error

    def _check(self, node: Node, name: str, outputs: Any) -> None:
        """Whether what takes the place of a call gives as much as it did."""
        for value in node.output_values:
            found = outputs
            try:
                for entry in value.path:
                    # (A symbolic tensor, too, can be indexed.)
                    found = None if isinstance(found, SymbolicValue) else entry.get(found)
            except (AttributeError, LookupError, TypeError):
                found = None
            if not isinstance(found, SymbolicValue):
                raise ValueError(
                    f"What takes the place of {name!r} returns {outputs!r}, where others take {node.outputs!r} apart."
                )


def _takes(function: Any, option: str) -> bool:
    # A mask that the replacement does not take is none of its business.
    return option not in ("mask", "training") or accepts(function, option)


def _that_change(nodes: Iterable[Node], changes: Mapping[Any, Any]) -> Iterable[Node]:
    """The calls that are other ones, or made on other values."""
    affected: set[SymbolicValue] = set()
    for node in nodes:
        if node.op == "input":
            continue
        key = node.target if node.op == "module" else node
        if key in changes or not affected.isdisjoint(node.inputs):
            affected.update(node.values_made)
            yield node
