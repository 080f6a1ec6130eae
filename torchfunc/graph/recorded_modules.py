"""Calls of torch modules on symbolic tensors, recorded with what they have to do with masks."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from torchfunc.graph.inference import infer_module
from torchfunc.graph.node import Args, Kwargs, Outputs, Specs
from torchfunc.graph.returned_masks import heeds_masks, returned_masks
from torchfunc.graph.symbolic import SymbolicTensor, record, record_function, symbolic_tensors, with_constants
from torchfunc.structures import leaves, map_structure
from torchfunc.tensor_masks import mask_of, with_mask

__all__ = ["record_module"]


def record_module(module: nn.Module, args: Args, kwargs: Kwargs) -> Outputs:
    """Record a call of a module and return its symbolic outputs.

    A module takes part in masks if it says so as a layer does. With `supports_masking = True` it passes its input's
    mask on, and gets it if its `forward` has an argument `mask`; `compute_mask(inputs, mask)` gives the output another.
    """
    label = f"{type(module).__name__}({module.extra_repr()})" if not list(module.children()) else type(module).__name__
    args, kwargs = with_constants(args, kwargs)
    first = args[0] if args else None
    mask = first.mask if isinstance(first, SymbolicTensor) and getattr(module, "supports_masking", False) else None
    if mask is not None and len(args) == 1 and "mask" not in kwargs and _takes_mask(module):
        kwargs = {**kwargs, "mask": mask}
    specs = infer_module(module, args, kwargs, label)
    compute_mask = getattr(module, "compute_mask", None)
    if not callable(compute_mask) and not getattr(module, "supports_masking", False) and heeds_masks(module):
        return _record_handing_on(module, args, kwargs, specs, label)
    outputs = record("module", module, args, kwargs, specs).outputs
    if callable(compute_mask):
        mask = compute_mask(first, mask)
    if isinstance(outputs, SymbolicTensor):
        outputs.mask = mask
    return outputs


def _record_handing_on(module: nn.Module, args: Args, kwargs: Kwargs, specs: Specs, label: str) -> Outputs:
    """Record a call of a module whose code calls layers: these find masks on its tensors, and set masks."""
    tensors = symbolic_tensors((args, kwargs))
    masks = [value.mask for value in tensors]
    marked: dict[Any, Any] = {}
    for value, mask in zip(tensors, masks, strict=True):
        if mask is not None and value not in marked:
            marked[value] = record_function(with_mask, (value, mask), {})
            marked[value].mask = mask
    given = None if not marked else [mask_of(leaf) for leaf in leaves((args, kwargs)) if _is_tensor(leaf)]
    found = returned_masks(module, args, kwargs, given, label)
    args, kwargs = map_structure(
        lambda leaf: marked.get(leaf, leaf) if isinstance(leaf, SymbolicTensor) else leaf, (args, kwargs)
    )
    outputs = record("module", module, args, kwargs, specs).outputs
    for value, spec in zip(symbolic_tensors(outputs), found, strict=False):
        if spec is not None:
            value.mask = record("function", mask_of, (value,), {}, spec).outputs
    return outputs


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, (torch.Tensor, SymbolicTensor))


def _takes_mask(module: nn.Module) -> bool:
    return "mask" in inspect.signature(module.forward).parameters
