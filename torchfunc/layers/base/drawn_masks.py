"""Masks that the code of a layer of one's own gives its outputs, as a run on fake tensors shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from torchfunc.graph import CALL_ERRORS, Node, ReturnedMask, Spec, fake_copy, infer, modules_within
from torchfunc.layers.base.masked_calls import MaskedCalls
from torchfunc.layers.base.masks import Masks, with_masks_of_inputs
from torchfunc.structures import leaves
from torchfunc.tensor_masks import MASKS_OF_INPUTS, mask_of

__all__ = ["find_returned_masks", "may_return_masks"]


class _Masks(nn.Module):
    """Returns, for each output of a layer on inputs with masks, its mask or None."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, masks_of_inputs: Sequence[Masks] | None = None, **kwargs: Any) -> list[Tensor | None]:
        if masks_of_inputs is not None:
            args, kwargs = with_masks_of_inputs((args, kwargs), masks_of_inputs)
        return list(map(mask_of, leaves(self.layer(*args, **kwargs))))


def may_return_masks(layer: MaskedCalls, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call with these arguments may give its outputs masks that `compute_mask` does not know."""
    if not layer.is_written:
        return False
    within = [each for each in modules_within(layer) if each is not layer]
    return MASKS_OF_INPUTS in kwargs or any(isinstance(each, MaskedCalls) and each.makes_masks for each in within)


def find_returned_masks(layer: Any, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Note at a recorded call which masks the layer's code gives its outputs."""
    try:
        found = infer(lambda mode: _Masks(fake_copy(layer, mode)), args, kwargs, layer.describe())
    except CALL_ERRORS:
        # It has a formula for its output's shape, and cannot be run on fake tensors.
        return
    paths, _ = tree_flatten_with_path(node.specs)
    for index, ((path, leaf), mask) in enumerate(zip(paths, found, strict=False)):
        if isinstance(leaf, Spec) and isinstance(mask, Spec):
            node.masks[path] = ReturnedMask(index, mask)
            layer.has_masks_in_graphs = True
