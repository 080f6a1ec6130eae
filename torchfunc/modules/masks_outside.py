"""Masks of real tensors where these go into a drawn model and come out of it.

Within its graph masks are edges; code around it, of a layer of one's own say, has them on its tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchfunc.graph import contains_symbolic
from torchfunc.layers.base.masks import Masks, any_masked, with_masks
from torchfunc.modules.binding import InputBinding
from torchfunc.structures import leaves, map_structure
from torchfunc.tensor_masks import mask_of

__all__ = ["call_handing_on", "call_with_masks", "masks_of_inputs", "with_own_masks"]


def masks_of_inputs(binding: InputBinding, args: Sequence[Any], kwargs: Mapping[str, Any], given: Masks) -> Masks:
    """The argument `mask` of a call of a model: what was given, else what the inputs have; None for no masks."""
    masked = any_masked(args) or any_masked(kwargs.values())
    if not masked or "mask" in binding.names or contains_symbolic(args, kwargs):
        return given
    own = [mask_of(value) for value in binding.arrange(args, kwargs)]
    explicit = [None] * len(own) if given is None else binding.arrange((given,), {})
    masks = [b if a is None else a for a, b in zip(explicit, own, strict=True)]
    return masks[0] if len(masks) == 1 else masks


def call_handing_on(
    model: Any, args: Sequence[Any], training: bool | None, mask: Masks, kwargs: Mapping[str, Any]
) -> Any:
    """A call of a drawn model on real tensors, which sets the masks of its outputs on these."""
    has_masks = model.gives_masks or mask is not None
    if model.graph_was_changed or not has_masks:
        return model._entry(model, *args, training=training, mask=mask, **kwargs)
    outputs, found = model._entry(model, *args, training=training, mask=mask, return_masks=True, **kwargs)
    if model.makes_masks:
        binding = model.drawn.binding
        values = binding.arrange(args, kwargs)
        masks = list(map(mask_of, values)) if mask is None else binding.arrange((mask,), {})
        found = with_own_masks(model, values, masks, found)
    return with_masks(outputs, found, (args, kwargs))


def with_own_masks(model: Any, values: Sequence[Any], masks: Sequence[Masks], found: Sequence[Masks]) -> list[Masks]:
    """The masks of a model's outputs, where its `compute_mask` makes those that, as in Keras, its layers do not make.

    Args:
        model: the model.
        values: its inputs, in order.
        masks: the masks of these, or None.
        found: for each output the mask that the layers make, or None.
    """
    if not model.makes_masks or all(mask is not None for mask in found):
        return list(found)
    drawn = model.drawn
    nested = [
        map_structure(dict(zip(drawn.input_tensors, each, strict=True)).__getitem__, drawn.inputs)
        for each in (values, masks)
    ]
    own = leaves(model.compute_mask(*nested))
    return [mask if mask is not None else other for mask, other in zip(found, own, strict=False)]


def call_with_masks(model: Any, values: Sequence[Any], mask: Masks, training: bool | None, return_masks: bool) -> Any:
    """A call with masks for its inputs, or that returns a list of the masks of the outputs beside these."""
    drawn = model._known_graph()
    masks = [None] * len(values) if mask is None else drawn.binding.arrange((mask,), {})
    if contains_symbolic(values, {}):
        outputs = model.call_as_layer(values, training, mask=masks)
        return (outputs, [output.mask for output in leaves(outputs)]) if return_masks else outputs
    code = None if model.graph_was_changed else model.masked_forwards.get(masks, return_masks)
    if model.graph_was_changed and not torch.compiler.is_compiling():
        warnings.warn(
            f"The graph of {model._label} was changed since it was drawn, and nothing is known of it but its code: "
            "masks do not reach its layers, and none comes out of it. Draw the model anew, or `rewire` it.",
            stacklevel=2,
        )
    if code is None:
        outputs = model.call_as_layer(values, training)
        return (outputs, [None] * len(drawn.output_tensors)) if return_masks else outputs
    further = [mask for mask in masks if mask is not None]
    if not return_masks:
        return model.run_code(code, values, *further, training=training)
    outputs, beside = model.run_for_more(code, values, *further, training=training)
    return outputs, beside[0] if beside else [None] * len(drawn.output_tensors)
