"""What the calls of a model cost for one sample: the FLOPs of torch's own counter, and the memory of what they return.

Calls run on fake tensors, in eval mode, on copies: nothing real is computed or changed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from torchfunc.dtypes import dtype_name
from torchfunc.graph import (
    ATTENTION_ON_CPU,
    CALL_ERRORS,
    CUDNN_SEQUENCE,
    Node,
    Spec,
    SymbolicValue,
    fake_copy,
    infer,
    record_input,
    symbolic_leaves,
    tensor_method,
)
from torchfunc.layers.base.shapes import map_shapes
from torchfunc.modules import DrawnGraph, GraphNetwork, Network
from torchfunc.structures import leaves
from torchfunc.viewing.entries import Entry

__all__ = ["Cost", "Costs", "costs_of", "total_cost"]


@dataclass(frozen=True)
class Cost:
    """What a part of a model costs for one sample, in all its calls together.

    Attributes:
        flops: additions and multiplications of products of matrices, convolutions and attention, in one pass forwards;
            what else there is does not count. None where it depends on an open size, or where running tells nothing.
        memory: the bytes of what it returns; of a drawn model, of what its parts return. None where that is not known.
        dtypes: the types of what it returns.
    """

    flops: int | None = 0
    memory: int | None = 0
    dtypes: tuple[str, ...] = ()

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            None if self.flops is None or other.flops is None else self.flops + other.flops,
            None if self.memory is None or other.memory is None else self.memory + other.memory,
            tuple(dict.fromkeys(self.dtypes + other.dtypes)),
        )


Costs: TypeAlias = dict[int, Cost]
"""What each part of a model costs, by the `id` of an entry's target."""

_UNKNOWN = Cost(None, None)


def total_cost(costs: Costs) -> Cost:
    """The costs of all parts together."""
    return sum(costs.values(), Cost())


def costs_of(model: Network, entries: Sequence[Entry]) -> Costs:
    """The cost of each entry of a model, by the `id` of its target."""
    drawn = model.drawn if isinstance(model, GraphNetwork) else None
    if drawn is not None:
        batch = _Batch.of(drawn)
        return {id(entry.target): _entry_cost(entry, batch) for entry in entries}
    found = _costs_in_run(model)
    return {
        id(entry.target): Cost() if isinstance(entry.target, Tensor) else found.get(id(entry.target), _UNKNOWN)
        for entry in entries
    }


@dataclass(frozen=True)
class _Batch:
    """The numbers of samples in the two runs in which shapes are inferred, and whether other sizes are unknown, too."""

    sizes: tuple[int, int]
    others_unknown: bool

    @classmethod
    def of(cls, drawn: DrawnGraph) -> _Batch:
        values = drawn.input_tensors
        first, second = values[0].spec.examples
        return cls(
            (first[0], second[0]) if first else (1, 1),
            any(None in value.shape[1:] for value in values),
        )

    def for_one(self, counts: tuple[int, int], values: Sequence[Spec]) -> int | None:
        """What was counted in the two runs, for one sample; None if the values have other unknown sizes."""
        if counts == (0, 0):
            return 0
        if self.others_unknown and any(spec.shape is None or spec.shape.count(None) > 1 for spec in values):
            return None
        (few, many), (less, more) = self.sizes, counts
        if few == many:
            return round(less / few)
        each = (more - less) / (many - few)
        # What does not grow with the batch, a product of two weights say, is done for a single sample as well.
        return round(less - few * each + each)


def _entry_cost(entry: Entry, batch: _Batch) -> Cost:
    if isinstance(entry.target, SymbolicValue):
        return _returned([entry.target.spec], batch)
    return sum((_call_cost(node, batch) for node in entry.calls), Cost())


def _call_cost(node: Node, batch: _Batch) -> Cost:
    specs = [value.spec for value in node.output_values]
    returned = _returned(specs, batch)
    if node.op == "input":
        return returned
    inner = node.target.drawn if isinstance(node.target, GraphNetwork) else None
    memory = returned.memory if inner is None else _memory_within(inner)
    given = [value.spec for value in node.inputs]
    try:
        counts = _counted(node.target, node.args, node.kwargs)
    except CALL_ERRORS:
        # The user said what it returns, and it cannot be run without data.
        return Cost(None, memory, returned.dtypes)
    return Cost(batch.for_one(counts, [*given, *specs]), memory, returned.dtypes)


def _memory_within(drawn: DrawnGraph) -> int | None:
    """The memory of what all calls in a graph return, those in the models within it as well."""
    total, pending = 0, [drawn]
    while pending:
        graph = pending.pop()
        batch = _Batch.of(graph)
        for node in graph.nodes:
            inner = node.target.drawn if isinstance(node.target, GraphNetwork) else None
            if inner is not None:
                pending.append(inner)
            elif node.op != "input":
                memory = _returned([value.spec for value in node.output_values], batch).memory
                if memory is None:
                    return None
                total += memory
    return total


def _returned(specs: Sequence[Spec], batch: _Batch) -> Cost:
    """The memory and the types of some outputs."""
    memory: int | None = 0
    tensors = [spec for spec in specs if spec.shape is not None and spec.dtype is not None]
    for spec in tensors:
        assert spec.dtype is not None
        first, second = (math.prod(example) * spec.dtype.itemsize for example in spec.examples)
        each = batch.for_one((first, second), [spec])
        memory = None if memory is None or each is None else memory + each
    return Cost(0, memory, tuple(dict.fromkeys(dtype_name(spec.dtype) for spec in tensors if spec.dtype is not None)))


# Counting


class _Counting(nn.Module):
    """A function or a module in eval mode, whose FLOPs are counted, each time it runs to its end."""

    def __init__(self, target: Callable[..., Any], counts: list[int]) -> None:
        super().__init__()
        self.target, self.counts = target, counts

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _counter() as counter:
            result = self.target(*args, **kwargs)
        self.counts.append(counter.get_total_flops())
        return result


class _OneOwner:
    """All FLOPs are counted for one. (Torch's tracker sets hooks on all modules, and so on those of other threads.)"""

    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def _counter() -> FlopCounterMode:
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    counter.mod_tracker = _OneOwner()  # type: ignore[assignment]
    return counter


def _counted(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, int]:
    """The FLOPs of a call in the two runs."""
    counts: list[int] = []

    def prepare(mode: Any) -> nn.Module:
        if isinstance(target, nn.Module):
            return _Counting(fake_copy(target, mode).eval(), counts)
        return _Counting(tensor_method(target) if isinstance(target, str) else target, counts)

    infer(prepare, args, kwargs, "")
    given = symbolic_leaves((args, kwargs))
    one_run = all(value.spec.examples[0] == value.spec.examples[1] and value.spec.shape for value in given)
    return (counts[-1], counts[-1]) if one_run else (counts[-2], counts[-1])


def _costs_in_run(model: Network) -> Costs:
    """The costs of the layers of a model that is not drawn, by `id`, from a run of all of it on its first input."""
    if not model.build_shapes:
        return {}
    for dtype in (model.float_dtype() or torch.get_default_dtype(), torch.int64):
        shapes = list(model.build_shapes.values())
        inputs = [map_shapes(lambda shape, dtype=dtype: _input(shape, dtype), each) for each in shapes]
        with contextlib.suppress(*CALL_ERRORS):
            return _costs_on(model, inputs)
    return {}


def _input(shape: Any, dtype: torch.dtype) -> Any:
    return record_input("data", (None, *shape[1:]), dtype).outputs


def _costs_on(model: Network, inputs: Sequence[Any]) -> Costs:
    runs: list[dict[str, Cost]] = []
    layers = {id(layer) for layer in model.layers}
    paths = {path: id(module) for path, module in model.named_modules() if id(module) in layers}

    def prepare(mode: Any) -> nn.Module:
        copy = fake_copy(model, mode).eval()
        runs.append({})
        for path in paths:
            _count_calls(copy.get_submodule(path), path, runs[-1])
        return copy

    infer(prepare, inputs, {}, model.name)
    values = symbolic_leaves(inputs)
    batch = _Batch(tuple(example[0] for example in values[0].spec.examples), False)
    first, second = runs[-2:]
    found = {}
    for path, cost in first.items():
        flops, memory = (
            batch.for_one((getattr(cost, what), getattr(second[path], what)), ()) for what in ("flops", "memory")
        )
        found[paths[path]] = Cost(flops, memory, cost.dtypes)
    return found


def _count_calls(module: nn.Module, path: str, costs: dict[str, Cost]) -> None:
    """Have the costs of each call of a module added to those of its path."""
    running: list[FlopCounterMode] = []

    def enter(module: nn.Module, args: Any) -> None:
        running.append(_counter().__enter__())

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        counter = running.pop()
        counter.__exit__(None, None, None)
        tensors = [leaf for leaf in leaves(output) if isinstance(leaf, Tensor)]
        dtypes = tuple(dict.fromkeys(dtype_name(tensor.dtype) for tensor in tensors))
        cost = Cost(counter.get_total_flops(), sum(tensor.nbytes for tensor in tensors), dtypes)
        costs[path] = costs.get(path, Cost()) + cost

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


# What torch's counter has no formula for. Each gets the shapes of the operator's tensors.


def _formulas() -> dict[Any, Callable[..., int]]:
    aten, own = torch.ops.aten, torch.ops.torchfunc
    return {
        ATTENTION_ON_CPU: _attention,
        aten.mkldnn_rnn_layer: _onednn_sequence,
        CUDNN_SEQUENCE: _cudnn_sequence,
        aten.mv: _matrix_vector,
        aten.addmv: lambda bias, matrix, *rest, **options: _matrix_vector(matrix),
        aten.dot: _matrix_vector,
        own.recurrent: lambda kernel, inputs, states, weights, **options: _sequence(inputs[:2], weights),
        own.recurrent_cudnn: lambda kernel, inputs, states, weights, **options: _sequence(inputs[:2], weights),
    }


def _attention(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _matrix_vector(matrix: Any, *rest: Any, **options: Any) -> int:
    return 2 * math.prod(matrix)


def _onednn_sequence(inputs: Any, weight_ih: Any, weight_hh: Any, *rest: Any, **options: Any) -> int:
    return _sequence(inputs[:2], [weight_ih, weight_hh])


def _cudnn_sequence(inputs: Any, weights: Any, *rest: Any, **options: Any) -> int:
    return _sequence(inputs[:2], weights)


def _sequence(steps_and_batch: Any, weights: Sequence[Any]) -> int:
    """Each step multiplies each sample with each matrix; biases are added for nothing."""
    return 2 * math.prod(steps_and_batch) * sum(math.prod(weight) for weight in weights if len(weight) > 1)
