"""Masks that the code of a module gives what it returns: layers that it calls set them. A run on fake tensors shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from torchfunc.graph.failures import CALL_ERRORS
from torchfunc.graph.inference import fake_copy, infer
from torchfunc.graph.modules_within import modules_within
from torchfunc.graph.node import Spec
from torchfunc.structures import leaves
from torchfunc.tensor_masks import mask_of, with_masks_of_inputs

__all__ = ["heeds_masks", "returned_masks"]


class _Masks(nn.Module):
    """Returns, for each output of a module on inputs with masks, its mask or None."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, args: Sequence[Any], kwargs: Mapping[str, Any], masks: Sequence[Any] | None) -> list[Any]:
        given, options = (args, kwargs) if masks is None else with_masks_of_inputs((args, kwargs), masks)
        found = [mask_of(leaf) for leaf in leaves(self.module(*given, **options)) if isinstance(leaf, Tensor)]
        return [mask if isinstance(mask, Tensor) else None for mask in found]


def heeds_masks(module: nn.Module) -> bool:
    """Whether there are layers, which do, in a module."""
    return any(hasattr(type(each), "makes_masks") for each in modules_within(module))


def returned_masks(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], masks: Sequence[Any] | None, label: str
) -> list[Spec | None]:
    """For each tensor that a call returns the mask that the module's own code gives it, or None.

    Args:
        module: the module.
        args, kwargs: the symbolic arguments.
        masks: the masks of the tensors among these, in order; None for none.
        label: what to call the module in an error.
    """
    within = [each for each in modules_within(module) if each is not module]
    if masks is None and not any(getattr(each, "makes_masks", False) for each in within):
        return []
    try:
        found = infer(lambda mode: _Masks(fake_copy(module, mode)), (tuple(args), dict(kwargs), masks), {}, label)
    except CALL_ERRORS:
        # Its output's shape may be known by a formula, and its code not run on fake tensors.
        return []
    return list(found)
