"""Recurrent layers: on `nn.LSTM` and its like where they compute the same, else step by step.

Their dropout draws from torch's generator, also where the layer has a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torchfunc import activations, layers
from torchfunc.layers.recurrent.bidirectional import Bidirectional
from torchfunc.layers.recurrent.cells import GRUCell, LSTMCell, SimpleRNNCell
from torchfunc.layers.recurrent.layers import GRU, LSTM, SimpleRNN
from torchfunc.layers.recurrent.rnn import RNN, StackedRNNCells
from torchfunc.layers.recurrent.step_formulas import GatedStep, GRUStep
from torchfunc.modules.plain import recurrent
from torchfunc.modules.torch_graph.activations import torch_function
from torchfunc.modules.torch_graph.builder import Call, TorchGraph
from torchfunc.structures import leaves

__all__ = ["CONVERTERS"]

_TANH = (activations.tanh, torch.tanh, F.tanh)
_SIGMOID = (activations.sigmoid, torch.sigmoid, F.sigmoid)
_RELU = (activations.relu, torch.relu, F.relu)


def _torch_module(layer: Any) -> Callable[[], nn.Module] | None:
    """What makes the module of torch that computes the same; None if there is none."""
    units, size = layer.units, layer.weight_ih_l0.shape[1]
    if layer.stateful or layer.dropout or layer.recurrent_dropout:
        return None
    fits = layer.activation in _TANH
    if isinstance(layer, SimpleRNN):
        if not fits and layer.activation not in _RELU:
            return None
        kind = "tanh" if fits else "relu"
        if layer.use_bias:
            return lambda: recurrent.RNN(size, units, kind)
        return lambda: nn.RNN(size, units, nonlinearity=kind, bias=False, batch_first=True)
    if not fits or layer.recurrent_activation not in _SIGMOID:
        return None
    if isinstance(layer, GRU):
        return (lambda: nn.GRU(size, units, bias=layer.use_bias, batch_first=True)) if layer.reset_after else None
    if layer.use_bias:
        return lambda: recurrent.LSTM(size, units)
    return lambda: nn.LSTM(size, units, bias=False, batch_first=True)


def _cell(layer: Any, suffix: str) -> Callable[[], nn.Module]:
    """What makes the plain cell with the weights of a recurrent layer or cell."""
    weight = layer.weight_ih_l0 if suffix else layer.weight_ih
    given: dict[str, Any] = {"suffix": suffix} if suffix else {}
    kind: Any = recurrent.SimpleRNNCell
    if isinstance(layer, GatedStep):
        kind = recurrent.GRUCell if isinstance(layer, GRUStep) else recurrent.LSTMCell
        given["recurrent_activation"] = torch_function(layer.recurrent_activation)
    if isinstance(layer, GRUStep):
        given["reset_after"] = layer.reset_after
    given |= {"bias": layer.use_bias, "dropout": layer.dropout, "recurrent_dropout": layer.recurrent_dropout}
    return lambda: kind(weight.shape[1], layer.units, torch_function(layer.activation), **given)


def _recurrent(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, value = call.layer, call.inputs
    states, mask = _states_and_mask(call)
    make = _torch_module(layer) if mask is None else None
    if make is None:
        path = graph.place(call.path, layer, _cell(layer, "_l0"))
        return _stepped(graph, call, [path], value, states, mask)
    path = graph.place(call.path, layer, make)
    value = graph.function(torch.flip, value, (1,)) if layer.go_backwards else value
    given = [graph.method("unsqueeze", state, 0) for state in states or ()]
    start = () if not given else (tuple(given) if len(given) > 1 else given[0],)
    both = graph.module(path, value, *start, name=call.name)
    outputs = graph.index(both, 0)
    output = outputs if layer.return_sequences else graph.index(outputs, (slice(None), -1))
    if not layer.return_state:
        return output
    finals = graph.index(both, 1)
    several = [graph.index(finals, index) for index in range(2)] if isinstance(layer, LSTM) else [finals]
    return (output, *(graph.method("squeeze", final, 0) for final in several))


def _states_and_mask(call: Call) -> tuple[list[Any] | None, Any]:
    states = call.args[1] if len(call.args) > 1 else call.kwargs.get("initial_state")
    mask = call.args[2] if len(call.args) > 2 else call.kwargs.get("mask")
    return (None if states is None else leaves(states)), mask


def _stepped(
    graph: TorchGraph, call: Call, paths: Sequence[str], value: Any, states: list[Any] | None, mask: Any
) -> Any:
    """The cells at these paths, one after the other, over all steps."""
    layer = call.layer
    options = {"zero_output_for_mask": True} if layer.zero_output_for_mask and mask is not None else {}
    options |= {"stateful": True} if layer.stateful else {}
    if layer.return_state:
        options["return_state"] = True
    given: dict[str, Any] = {} if mask is None else {"mask": mask}
    if layer.go_backwards and len(paths) > 1:
        value = graph.function(torch.flip, value, (1,))
        given = {} if mask is None else {"mask": graph.function(torch.flip, mask, (1,))}
    elif layer.go_backwards:
        options["go_backwards"] = True
    if graph.training is not None:
        options["training"] = graph.training
    finals: list[Any] = []
    count = 0
    for path in paths:
        cell = graph.attribute(path)
        size = 2 if isinstance(graph.root.get_submodule(path), recurrent.LSTMCell) else 1
        start = {} if states is None else {"states": states[count : count + size]}
        count += size
        found = graph.function(recurrent.over_steps, cell, value, name=call.name, **start, **given, **options)
        if layer.return_state:
            finals += [graph.index(found, index + 1) for index in range(size)]
            found = graph.index(found, 0)
        value = found
    output = value if layer.return_sequences else graph.index(value, (slice(None), -1))
    return (output, *finals) if layer.return_state else output


def _rnn(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    cell = call.layer.cell
    stacked = type(cell) is StackedRNNCells
    cells = {f"cell.cells.{index}": each for index, each in enumerate(cell.cells)} if stacked else {"cell": cell}
    if any(type(each) not in (SimpleRNNCell, LSTMCell, GRUCell) for each in cells.values()):
        return NotImplemented
    paths = [graph.place(f"{call.path}.{key}", each, _cell(each, "")) for key, each in cells.items()]
    states, mask = _states_and_mask(call)
    result = _stepped(graph, call, paths, call.inputs, states, mask)
    if not call.layer.return_state:
        return result
    output, *finals = result
    following = iter(finals)
    sizes = call.layer.state_size
    return (output, *([next(following) for _ in size] if isinstance(size, list) else next(following) for size in sizes))


def _conv_lstm(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer, rank = call.layer, call.layer.rank
    last = layer.data_format == "channels_last"

    def make() -> nn.Module:
        windows = (layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)
        functions = (torch_function(layer.activation), torch_function(layer.recurrent_activation))
        shares = (layer.use_bias, layer.dropout, layer.recurrent_dropout)
        return recurrent.ConvLSTMCell(layer.weight_ih.shape[1], layer.filters, *windows, *functions, *shares)

    path = graph.place(call.path, layer, make)
    states, mask = _states_and_mask(call)
    value = graph.function(torch.movedim, call.inputs, -1, 2) if last else call.inputs
    if last and states is not None:
        states = [graph.first(state, rank) for state in states]
    result = _stepped(graph, call, [path], value, states, mask)
    if not last:
        return result
    output, *finals = result if layer.return_state else (result,)
    output = graph.function(torch.movedim, output, -1 - rank, -1)
    return (output, *(graph.last(final, rank) for final in finals)) if layer.return_state else output


def _bidirectional(graph: TorchGraph, call: Call, convert: Callable[..., Any]) -> Any:
    layer = call.layer
    states, mask = _states_and_mask(call)
    half = len(states or ()) // 2
    results = []
    for key, part in (("forward_layer", slice(half)), ("backward_layer", slice(half, None))):
        given = {} if mask is None else {"mask": mask}
        start = () if states is None else (states[part],)
        inner = Call(
            getattr(layer, key), f"{call.path}.{key}", f"{call.name}_{key}", (call.inputs, *start), given, call.symbolic
        )
        results.append(convert(graph, inner))
    finals: list[Any] = []
    if layer.return_state:
        finals = [state for result in results for state in result[1:]]
        results = [result[0] for result in results]
    forward, backward = results
    if layer.return_sequences:
        backward = graph.function(torch.flip, backward, (1,))
    if layer.merge_mode is None:
        return (forward, backward, *finals)
    merged = _merge(graph, call, forward, backward)
    return (merged, *finals) if layer.return_state else merged


def _merge(graph: TorchGraph, call: Call, forward: fx.Node, backward: fx.Node) -> fx.Node:
    mode = call.layer.merge_mode
    if mode == "concat":
        return graph.function(torch.cat, [forward, backward], -1, name=call.name)
    merged = graph.function(torch.mul if mode == "mul" else torch.add, forward, backward, name=call.name)
    return graph.function(torch.div, merged, 2) if mode == "ave" else merged


CONVERTERS: dict[type, Callable[..., Any]] = {
    Bidirectional: _bidirectional,
    GRU: _recurrent,
    LSTM: _recurrent,
    RNN: _rnn,
    SimpleRNN: _recurrent,
    **{getattr(layers, f"ConvLSTM{rank}D"): _conv_lstm for rank in (1, 2, 3)},
}
