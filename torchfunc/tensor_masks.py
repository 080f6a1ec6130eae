"""Masks of tensors: the attribute of a tensor, real or symbolic, that says which of its steps count.

It has Keras' name. A layer that is called sets it on what it returns, and the next one finds it there; so a mask lives
as long as its tensor, belongs to one thread if its tensor does, and torch.compile and torch.export trace it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from torchfunc.structures import map_structure

__all__ = ["MASK", "MASKS_OF_INPUTS", "mask_of", "with_mask", "with_masks_of_inputs"]

MASK = "_keras_mask"
"""The name of the attribute. Tensors without a mask need not have it."""

MASKS_OF_INPUTS = "masks_of_inputs"
"""In a graph, the argument that has the masks of the tensors among the others, for a layer of one's own.

Its code finds them on these, whatever arguments it has. The argument does not reach it.
"""


def mask_of(value: Any) -> Any:
    """The mask of a tensor, real or symbolic; None if it has none."""
    return getattr(value, MASK, None)


def with_mask(tensor: Tensor, mask: Any) -> Tensor:
    """A view of a real tensor that has this mask; the tensor itself stays as it is."""
    view = tensor.view_as(tensor)
    setattr(view, MASK, mask)
    return view


def with_masks_of_inputs(arguments: Any, masks: Sequence[Any]) -> Any:
    """Arguments with views of the real tensors among them that have these masks."""
    following = iter(masks)

    def marked(leaf: Any) -> Any:
        mask = next(following, None) if isinstance(leaf, Tensor) else None
        return leaf if mask is None or mask_of(leaf) is mask else with_mask(leaf, mask)

    return map_structure(marked, arguments)
