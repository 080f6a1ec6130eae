"""Masks that come into a model from outside: its layers see them, and they come out of it, as in Keras.

`model.graph` stays as it was drawn, without masks for its inputs. A call with masks runs a variant of it, with the same
layers, in which the masks are inputs as well. In the graph around, it is still one call of the model, with `mask=`.
"""

from __future__ import annotations

import dataclasses
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from torchfunc.graph import (
    Spec,
    SymbolicTensor,
    SymbolicValue,
    once_for_all,
    record,
    replay,
    replaying,
    topological_order,
)
from torchfunc.modules.binding import InputBinding
from torchfunc.modules.drawn_graph import DrawnGraph, RecordedTensor
from torchfunc.modules.fx_module import GeneratedCode, generate
from torchfunc.modules.lowering import lower
from torchfunc.modules.naming import name_nodes
from torchfunc.modules.replaying import call_again, infer_again
from torchfunc.recursion import Steps, unrolled
from torchfunc.structures import map_structure

__all__ = ["MaskedForwards"]

Ranks: TypeAlias = "tuple[int | None, ...]"
"""For each input the number of axes of its mask, None where it has none."""


class MaskedForwards:
    """The variants of a drawn graph for masks of its inputs.

    Args:
        drawn: what was drawn.
        register: a method of the model by which it gets tensors that only a variant needs.
    """

    def __init__(self, drawn: DrawnGraph, register: Callable[[Sequence[RecordedTensor]], None]) -> None:
        self._drawn = drawn
        # The model refers to this object.
        self._register = weakref.WeakMethod(register)
        self._variants: dict[Ranks, _MaskedVariant] = {}
        self._forwards: dict[Ranks, GeneratedCode | None] = {}

    def get(self, masks: Sequence[Any]) -> GeneratedCode | None:
        """A function of the model, its inputs and those masks that are not None; None if no layer takes any of them.

        Args:
            masks: for each input its mask, or None.
        """
        ranks = _ranks(masks)
        self._generate(ranks)
        return self._forwards[ranks]

    def drawn(self, masks: Sequence[Any]) -> DrawnGraph:
        """The graph in which the masks of these symbolic values, those that are not None, are inputs as well."""
        variant: _MaskedVariant = unrolled(self._variant(_ranks(masks)))
        return variant.lowered_with(self._drawn)

    # torch.compile makes this call and does not look into it.
    @once_for_all
    def _generate(self, ranks: Ranks) -> None:
        if ranks in self._forwards:
            return
        variant: _MaskedVariant = unrolled(self._variant(ranks))
        if not variant.used:
            self._forwards[ranks] = None
            return
        drawn = variant.lowered_with(self._drawn)
        register = self._register()
        assert register is not None
        register(drawn.tensors[len(self._drawn.tensors) :])
        self._forwards[ranks] = generate(lower(drawn))

    def _variant(self, ranks: Ranks) -> Steps:
        if ranks not in self._variants:
            self._variants[ranks] = yield _draw_variant(self._drawn, ranks)
        return self._variants[ranks]

    def drawing(self, inputs: Sequence[Any], masks: Sequence[Any]) -> Steps:
        """Whether the model takes the masks of these symbolic inputs, and the masks of its outputs; for `unrolled`."""
        ranks = _ranks(masks)
        if ranks == (None,) * len(masks) and all(mask is None for mask in self._drawn.masks):
            return False, []
        variant = yield self._variant(ranks)
        return variant.used, variant.masks_for(inputs, masks)


def _ranks(masks: Sequence[Any]) -> Ranks:
    return tuple(None if mask is None else mask.ndim for mask in masks)


class _MaskedVariant:
    """A drawn graph as it is when some of its inputs come with masks.

    Args:
        drawn: what was drawn.
        inputs: new inputs in place of its own, by name, and behind them the masks of those that have one.
        values: what stands for each value of the graph.

    Attributes:
        used: whether anything in the graph takes one of these masks.
    """

    def __init__(
        self, drawn: DrawnGraph, inputs: Mapping[str, SymbolicTensor], values: Mapping[SymbolicValue, Any]
    ) -> None:
        self._inputs = inputs
        self._outputs = map_structure(lambda leaf: values[leaf], drawn.outputs)
        outputs = [values[output] for output in drawn.output_tensors]
        self._output_masks = [output.mask for output in outputs]
        self._nodes = topological_order(outputs, self._inputs.values())
        taken = {value for node in self._nodes for value in node.inputs}
        masks = list(inputs.values())[len(drawn.input_tensors) :]
        self.used = any(mask in taken for mask in masks)

    def lowered_with(self, drawn: DrawnGraph) -> DrawnGraph:
        """The variant as a graph of its own, whose layers and tensors are called as in `drawn`."""
        names: dict[Any, str] = {target: name for target, name in drawn.names.items() if isinstance(target, nn.Module)}
        functions = [node for node in self._nodes if node.op in ("function", "method")]
        names.update(name_nodes(functions, {*names.values(), *self._inputs}))
        return dataclasses.replace(
            drawn.record_more(self._nodes),
            inputs=self._inputs,
            outputs=self._outputs,
            nodes=self._nodes,
            masks=self._output_masks,
            mask_nodes=(),
            names=names,
            binding=InputBinding(self._inputs, list(self._inputs), drawn.binding.owner),
        )

    def masks_for(self, inputs: Sequence[Any], masks: Sequence[Any]) -> list[SymbolicTensor | None]:
        """The masks of the outputs for symbolic inputs and their masks.

        One that a layer's output is needed for stays within the model: it would have to be computed twice.
        """
        given = [*inputs, *(mask for mask in masks if mask is not None)]
        values: dict[SymbolicValue, Any] = dict(zip(self._inputs.values(), given, strict=True))
        found: list[SymbolicTensor | None] = []
        for mask in self._output_masks:
            nodes = [] if mask is None else topological_order([mask], self._inputs.values())
            if any(node.op not in ("function", "method") for node in nodes):
                warnings.warn(
                    "A model within a model has an output whose mask is computed from what its layers return. "
                    "The mask stays within it (it would be computed twice), unlike in Keras: layers behind it see "
                    "none. Mask behind the model instead, or give them mask= by hand.",
                    stacklevel=2,
                )
                mask = None
            if mask is None:
                found.append(None)
                continue
            replay(
                [node for node in nodes if not all(value in values for value in node.output_values)],
                values,
                lambda node, args, kwargs: call_again(node.op, node.target, args, kwargs),
            )
            found.append(values[mask])
        return found


def _draw_variant(drawn: DrawnGraph, ranks: Ranks) -> Steps:
    """The variant for masks of so many axes, None standing for no mask."""
    inputs: dict[str, SymbolicTensor] = {
        name: record("input", name, (), {}, value.spec).outputs
        for name, value in zip(drawn.binding.names, drawn.input_tensors, strict=True)
    }
    masks: dict[str, SymbolicTensor] = {}
    for (name, value), rank in zip(inputs.items(), ranks, strict=True):
        if rank is not None:
            value.mask = masks[f"{name}_mask"] = _stand_in(f"{name}_mask", value, rank)
    values: dict[SymbolicValue, Any] = dict(zip(drawn.input_tensors, inputs.values(), strict=True))
    yield from replaying([node for node in drawn.nodes if node.op != "input"], values, infer_again)
    return _MaskedVariant(drawn, {**inputs, **masks}, values)


def _stand_in(name: str, value: SymbolicTensor, rank: int) -> SymbolicTensor:
    first, second = value.spec.examples
    spec = Spec(value.shape[:rank], torch.bool, (first[:rank], second[:rank]))
    mask: SymbolicTensor = record("input", name, (), {}, spec).outputs
    return mask
