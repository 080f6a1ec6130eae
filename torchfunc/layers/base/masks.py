"""Masks of tensors: read from the inputs of a symbolic call, checked against them, and set on its outputs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from torchfunc.graph import SymbolicTensor, located, symbolic_leaves, symbolic_tensors
from torchfunc.layers.base.shapes import differ
from torchfunc.structures import leaves, map_structure

__all__ = ["Masks", "check_mask", "hands_masks_on", "masks_of", "no_masks_handed_on", "set_masks"]

# A mask, symbolic or a tensor, or None; or nested lists, tuples and dicts of them, as the tensors they belong to.
Masks: TypeAlias = Any


class _Drawing(threading.local):
    """Of each thread: whether the calls it draws hand masks on."""

    hands_on = True


_drawing = _Drawing()


@contextlib.contextmanager
def no_masks_handed_on() -> Iterator[None]:
    """Within this block, layers that are called on symbolic tensors give their outputs no masks, as on real ones.

    For drawing the code of a written layer or module, in which layers are called on real tensors otherwise.
    """
    before, _drawing.hands_on = _drawing.hands_on, False
    try:
        yield
    finally:
        _drawing.hands_on = before


def hands_masks_on() -> bool:
    """Whether layers give the symbolic outputs of their calls masks."""
    return _drawing.hands_on


def masks_of(structure: object) -> Masks:
    """The masks in place of the tensors they belong to; None if there are none."""
    if isinstance(structure, SymbolicTensor):
        return structure.mask
    if all(tensor.mask is None for tensor in symbolic_tensors(structure)):
        return None
    return map_structure(_mask_of, structure)


def _mask_of(leaf: object) -> Any:
    return leaf.mask if isinstance(leaf, SymbolicTensor) else None


def set_masks(outputs: object, masks: Masks) -> None:
    """Give each symbolic tensor of `outputs` its mask; those without one are left as they are."""
    for output, mask in zip(symbolic_leaves(outputs), leaves(masks), strict=False):
        if isinstance(output, SymbolicTensor):
            output.mask = mask


def check_mask(mask: Any, expected: Sequence[int | None], axes: str, describe: Callable[[], str]) -> None:
    """Check a mask against the sizes of the input that it belongs to; sizes that are unknown fit.

    Args:
        mask: a tensor or a symbolic one.
        expected: the shape it should have.
        axes: the names of its axes, for an error.
        describe: returns a description of the layer, for an error.

    Raises:
        ValueError: it has another shape.
    """
    if differ(mask.shape, expected):
        raise ValueError(
            located(
                f"{describe()} takes a mask {axes} of shape {tuple(expected)} for this input, got one of shape "
                f"{tuple(mask.shape)}."
            )
        )
