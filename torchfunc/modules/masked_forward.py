"""Masks that come into a model from outside, and those that come out of it: as in Keras, its layers hand them on.

`model.graph` stays as it was drawn, without masks for its inputs. A call with masks runs a variant of it, with the same
layers, in which the masks are inputs as well. In the graph around, it is still one call of the model, with `mask=`. A
mask of an output that its layers make on the way is returned by the same call, where something around needs it.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from torchfunc.graph import (
    Node,
    ReturnedMask,
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
from torchfunc.modules.fx_module import GeneratedCode, generate, unchanged
from torchfunc.modules.lowering import lower
from torchfunc.modules.naming import name_nodes
from torchfunc.modules.replaying import call_again, infer_again, reinferring
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
        form: makes of generated code what is run.
    """

    def __init__(
        self,
        drawn: DrawnGraph,
        register: Callable[[Sequence[RecordedTensor]], None],
        form: Callable[[GeneratedCode], GeneratedCode] = unchanged,
    ) -> None:
        self._drawn = drawn
        self._form = form
        # The model refers to this object.
        self._register = weakref.WeakMethod(register)
        self._variants: dict[Ranks, DrawnGraph] = {}
        self._forwards: dict[tuple[Ranks, bool], GeneratedCode | None] = {}

    def get(self, masks: Sequence[Any], returns_masks: bool) -> GeneratedCode | None:
        """A function of the model, its inputs and those masks that are not None; None if no layer takes any of them.

        Args:
            masks: for each input its mask, or None.
            returns_masks: whether the function returns the outputs and a list of their masks.
        """
        ranks = _ranks(masks)
        self._generate(ranks, returns_masks)
        return self._forwards[ranks, returns_masks]

    def drawn(self, masks: Sequence[Any]) -> DrawnGraph:
        """The graph in which the masks of these symbolic values, those that are not None, are inputs as well."""
        variant: DrawnGraph = unrolled(self._variant(_ranks(masks)))
        return variant

    # torch.compile makes this call and does not look into it.
    @once_for_all
    def _generate(self, ranks: Ranks, returns_masks: bool) -> None:
        if (ranks, returns_masks) in self._forwards:
            return
        variant: DrawnGraph = unrolled(self._variant(ranks))
        code = None
        if returns_masks or self._are_taken(variant, variant.nodes):
            register = self._register()
            assert register is not None
            register(variant.tensors[len(self._drawn.tensors) :])
            wanted = (variant.outputs, list(variant.masks)) if returns_masks else None
            code = self._form(generate(lower(variant, wanted)))
        self._forwards[ranks, returns_masks] = code

    def _variant(self, ranks: Ranks) -> Steps:
        if all(rank is None for rank in ranks):
            return self._drawn
        if ranks not in self._variants:
            self._variants[ranks] = yield _draw_variant(self._drawn, ranks)
        return self._variants[ranks]

    def _are_taken(self, variant: DrawnGraph, nodes: Iterable[Node]) -> bool:
        """Whether one of these calls takes a mask of an input."""
        masks = variant.input_tensors[len(self._drawn.input_tensors) :]
        taken = {value for node in nodes for value in node.inputs} if masks else set()
        return not taken.isdisjoint(masks)

    def drawing(self, inputs: Sequence[Any], masks: Sequence[Any]) -> Steps:
        """What the model returns for these symbolic inputs and their masks; for `unrolled`.

        Returns:
            The outputs as specs; for each its mask: a value, what the call itself returns, or None; and whether the
            model takes the masks.
        """
        variant = yield self._variant(_ranks(masks))
        given = [*inputs, *(mask for mask in masks if mask is not None)]
        specs, mask_specs = yield reinferring(variant, given)
        found = _masks_outside(variant, given, mask_specs)
        returned = any(isinstance(mask, ReturnedMask) for mask in found)
        return specs, found, self._are_taken(variant, [*variant.nodes, *(variant.mask_nodes if returned else ())])


def _ranks(masks: Sequence[Any]) -> Ranks:
    return tuple(None if mask is None else mask.ndim for mask in masks)


def _masks_outside(
    variant: DrawnGraph, given: Sequence[Any], specs: Sequence[Spec | None]
) -> list[SymbolicValue | ReturnedMask | None]:
    """The masks of the outputs for these inputs, as the graph around has them.

    What functions make of the inputs and their masks alone they make there; all else the call of the model returns.
    """
    values: dict[SymbolicValue, Any] = dict(zip(variant.input_tensors, given, strict=True))
    returned: dict[SymbolicValue, ReturnedMask] = {}
    found: list[SymbolicValue | ReturnedMask | None] = []
    for index, (mask, spec) in enumerate(zip(variant.masks, specs, strict=True)):
        nodes = [] if mask is None else topological_order([mask], variant.input_tensors)
        if mask is None:
            found.append(None)
        elif any(node.op not in ("function", "method") for node in nodes):
            assert spec is not None
            found.append(returned.setdefault(mask, ReturnedMask(index, spec)))
        else:
            replay(
                [node for node in nodes if not all(value in values for value in node.output_values)],
                values,
                lambda node, args, kwargs: call_again(node.op, node.target, args, kwargs),
            )
            found.append(values[mask])
    return found


def _draw_variant(drawn: DrawnGraph, ranks: Ranks) -> Steps:
    """The graph as it is when its inputs have masks of so many axes, None standing for no mask.

    The masks are inputs behind its own. Layers and tensors are called as in `drawn`.
    """
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
    inputs.update(masks)
    outputs = [values[output] for output in drawn.output_tensors]
    output_masks = [output.mask for output in outputs]
    nodes = topological_order(outputs, inputs.values())
    known = set(nodes)
    mask_nodes = topological_order([mask for mask in output_masks if mask is not None], inputs.values())
    names: dict[Any, str] = {target: name for target, name in drawn.names.items() if isinstance(target, nn.Module)}
    functions = [node for node in (*nodes, *mask_nodes) if node.op in ("function", "method")]
    names.update(name_nodes(list(dict.fromkeys(functions)), {*names.values(), *inputs}))
    return dataclasses.replace(
        drawn.record_more([*nodes, *mask_nodes]),
        inputs=inputs,
        outputs=map_structure(values.__getitem__, drawn.outputs),
        nodes=nodes,
        masks=output_masks,
        mask_nodes=[node for node in mask_nodes if node not in known],
        names=names,
        binding=InputBinding(inputs, list(inputs), drawn.binding.owner),
    )


def _stand_in(name: str, value: SymbolicTensor, rank: int) -> SymbolicTensor:
    first, second = value.spec.examples
    spec = Spec(value.shape[:rank], torch.bool, (first[:rank], second[:rank]))
    mask: SymbolicTensor = record("input", name, (), {}, spec).outputs
    return mask
