"""Masks that come into a model from outside: its layers see them, and they come out of it, as in Keras.

`model.graph` stays as it was drawn, without masks for its inputs. A call with masks runs a variant of it, with the same
layers, in which the masks are inputs as well. In the graph around, it is still one call of the model, with `mask=`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from torchfunc.graph import (
    Spec,
    SymbolicTensor,
    SymbolicValue,
    once_for_all,
    record,
    replay,
    topological_order,
)
from torchfunc.modules.codegen import compile_forward
from torchfunc.modules.lowering import lower
from torchfunc.modules.naming import name_nodes
from torchfunc.modules.other_forward import call_with_forward
from torchfunc.modules.replaying import call_again, infer_again
from torchfunc.structures import map_structure

if TYPE_CHECKING:
    from torchfunc.modules.graph_network import GraphNetwork

__all__ = ["MaskedCalls"]


class MaskedCalls:
    """The variants of a drawn model for masks of its inputs, as they stand until its graph changes.

    Args:
        model: the model.
    """

    def __init__(self, model: GraphNetwork) -> None:
        self._model = model
        # By the number of axes of each input's mask, None where it has none.
        self._graphs: dict[tuple[int | None, ...], _MaskedGraph] = {}
        self._forwards: dict[tuple[int | None, ...], Callable[..., Any] | None] = {}

    def run(self, values: Sequence[Any], masks: Sequence[Any], training: bool | None) -> Any:
        """Call the model on prepared inputs with a mask, or None, for each."""
        ranks = _ranks(masks)
        self._generate(ranks)
        forward = self._forwards[ranks]
        if forward is None:
            return self._model(*values, training=training)
        given = [mask for mask in masks if mask is not None]
        return call_with_forward(self._model, lambda this, *inputs: forward(this, *inputs, *given), values, training)

    # torch.compile makes this call and does not look into it.
    @once_for_all
    def _generate(self, ranks: tuple[int | None, ...]) -> None:
        if ranks not in self._forwards:
            graph = self._graph(ranks)
            self._forwards[ranks] = graph.compile() if graph.used else None

    def _graph(self, ranks: tuple[int | None, ...]) -> _MaskedGraph:
        if ranks not in self._graphs:
            self._graphs[ranks] = _MaskedGraph(self._model, ranks)
        return self._graphs[ranks]

    def draw(self, inputs: Sequence[Any], masks: Sequence[Any]) -> tuple[bool, list[SymbolicTensor | None]]:
        """Whether the model takes the masks of these symbolic inputs, and the masks that its outputs have then."""
        ranks = _ranks(masks)
        if ranks == (None,) * len(masks) and all(mask is None for mask in self._model.output_masks):
            return False, []
        graph = self._graph(ranks)
        return graph.used, graph.masks_for(inputs, masks)


def _ranks(masks: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(None if mask is None else mask.ndim for mask in masks)


class _MaskedGraph:
    """A drawn model as it is when some of its inputs come with masks.

    Args:
        model: the model.
        ranks: for each input the number of axes of its mask, None if it has none.

    Attributes:
        used: whether anything in the model takes one of these masks.
    """

    def __init__(self, model: GraphNetwork, ranks: Sequence[int | None]) -> None:
        self._model = model
        names = model._binding.names
        self._inputs: list[SymbolicTensor] = [
            record("input", name, (), {}, value.spec).outputs for name, value in zip(names, model.inputs, strict=True)
        ]
        self._masks: dict[str, SymbolicTensor] = {}
        for name, value, rank in zip(names, self._inputs, ranks, strict=True):
            if rank is not None:
                value.mask = self._masks[f"{name}_mask"] = _stand_in(f"{name}_mask", value, rank)
        values: dict[SymbolicValue, Any] = dict(zip(model.inputs, self._inputs, strict=True))
        replay([node for node in model.nodes if node.op != "input"], values, infer_again)
        self._outputs = map_structure(lambda leaf: values[leaf], model.output)
        self._stops = [*self._inputs, *self._masks.values()]
        self._output_masks = [values[output].mask for output in model.outputs]
        self._nodes = topological_order([values[output] for output in model.outputs], self._stops)
        taken = {value for node in self._nodes for value in node.inputs}
        self.used = any(mask in taken for mask in self._masks.values())
        self._tensors = model._register_tensors(self._nodes) if self.used else {}

    def compile(self) -> Callable[..., Any]:
        """The forward: a function of the model, its inputs, and the masks of those that have one."""
        model = self._model
        names = {target: name for target, name in model._names.items() if isinstance(target, nn.Module)}
        functions = [node for node in self._nodes if node.op in ("function", "method")]
        inputs = {**dict(zip(model._binding.names, self._inputs, strict=True)), **self._masks}
        names.update(name_nodes(functions, {*names.values(), *inputs}))
        return compile_forward(lower(self._nodes, inputs, self._outputs, names, model._keys, self._tensors))

    def masks_for(self, inputs: Sequence[Any], masks: Sequence[Any]) -> list[SymbolicTensor | None]:
        """The masks of the outputs for symbolic inputs and their masks.

        One that a layer's output is needed for stays within the model: it would have to be computed twice.
        """
        given = [*inputs, *(mask for mask in masks if mask is not None)]
        values: dict[SymbolicValue, Any] = dict(zip(self._stops, given, strict=True))
        found: list[SymbolicTensor | None] = []
        for mask in self._output_masks:
            nodes = [] if mask is None else topological_order([mask], self._stops)
            if mask is None or any(node.op not in ("function", "method") for node in nodes):
                found.append(None)
                continue
            replay(
                [node for node in nodes if not all(value in values for value in node.output_values)],
                values,
                lambda node, args, kwargs: call_again(node.op, node.target, args, kwargs),
            )
            found.append(values[mask])
        return found


def _stand_in(name: str, value: SymbolicTensor, rank: int) -> SymbolicTensor:
    first, second = value.spec.examples
    spec = Spec(value.shape[:rank], torch.bool, (first[:rank], second[:rank]))
    mask: SymbolicTensor = record("input", name, (), {}, spec).outputs
    return mask
