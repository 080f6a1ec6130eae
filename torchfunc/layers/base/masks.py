"""Masks in the calls of layers: found on the inputs, checked against them, and set on the outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from torchfunc.graph import SymbolicTensor, located, once_for_all, pass_over, symbolic_leaves
from torchfunc.layers.base.call_arguments import parameters_by_position, parameters_of
from torchfunc.layers.base.shapes import differ
from torchfunc.structures import leaves, map_structure
from torchfunc.tensor_masks import MASK, mask_of, with_mask

__all__ = [
    "Masks",
    "any_masked",
    "check_mask",
    "mask_parameters",
    "masks_of",
    "masks_of_tensors",
    "masks_to_pass",
    "positional_parameters",
    "set_masks",
    "with_masks",
]

# A mask, symbolic or a tensor, or None; or nested lists, tuples and dicts of them, as the tensors they belong to.
Masks: TypeAlias = Any


def masks_of(structure: object) -> Masks:
    """The masks in place of the tensors, real or symbolic, that they belong to; None if there are none."""
    if isinstance(structure, (Tensor, SymbolicTensor)):
        return mask_of(structure)
    if all(_mask_of(leaf) is None for leaf in leaves(structure)):
        return None
    return map_structure(_mask_of, structure)


@pass_over
def _mask_of(leaf: object) -> Any:
    return mask_of(leaf) if isinstance(leaf, (Tensor, SymbolicTensor)) else None


@pass_over
def any_masked(values: Iterable[Any]) -> bool:
    """Whether any of these tensors, or of those in lists, tuples and dicts of them, has a mask."""
    for value in values:
        if isinstance(value, (list, tuple)):
            if any_masked(value):
                return True
        elif isinstance(value, dict):
            if any_masked(value.values()):
                return True
        elif _mask_of(value) is not None:
            return True
    return False


# torch.compile cannot look at signatures.
@once_for_all
def mask_parameters(kind: type) -> tuple[str, ...]:
    """The parameters of the `forward` of a class that are for masks: `mask`, or `<argument>_mask`."""
    return _mask_parameters(kind)


@functools.cache
def _mask_parameters(kind: type) -> tuple[str, ...]:
    return tuple(name for name in parameters_of(kind.forward) if name == "mask" or name.endswith("_mask"))  # type: ignore[attr-defined]


@once_for_all
def positional_parameters(kind: type) -> tuple[str, ...]:
    """The names of the arguments that the `forward` of a class may be given by position."""
    return _positional_parameters(kind)


@functools.cache
def _positional_parameters(kind: type) -> tuple[str, ...]:
    return parameters_by_position(kind.forward)[1:]  # type: ignore[attr-defined]


def masks_to_pass(wanted: Sequence[str], arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Masks]:
    """The masks of the arguments of a call, for those parameters that take them.

    As in Keras: `call(self, inputs, mask=None)` gets that of the first argument, and `call(self, query, value,
    query_mask=None, value_mask=None)` that of each. A mask that was given stays.

    Args:
        wanted: the parameters for masks.
        arguments: the arguments by name, in order.
        kwargs: those that were given by keyword.
    """
    found: dict[str, Masks] = {}
    if not wanted:
        return found
    first = next(iter(arguments), "")
    for name, value in arguments.items():
        for parameter in (f"{name}_mask", "mask") if name == first else (f"{name}_mask",):
            is_free = parameter not in arguments or (parameter in kwargs and kwargs[parameter] is None)
            masks = masks_of(value) if is_free and parameter in wanted else None
            if masks is not None:
                found[parameter] = masks
    return found


def masks_of_tensors(arguments: Any) -> list[Masks] | None:
    """The masks of the tensors, real or symbolic, among the arguments of a call, in order; None if there are none."""
    masks = [mask_of(leaf) for leaf in leaves(arguments) if isinstance(leaf, (Tensor, SymbolicTensor))]
    return None if all(mask is None for mask in masks) else masks


def set_masks(outputs: object, masks: Masks) -> None:
    """Give each symbolic tensor of `outputs` its mask; those without one are left as they are."""
    for output, mask in zip(symbolic_leaves(outputs), leaves(masks), strict=False):
        if isinstance(output, SymbolicTensor):
            output.mask = mask


def with_masks(outputs: Any, masks: Masks, inputs: object) -> Any:
    """What a call on real tensors returned, with a mask for each tensor that has none yet.

    Args:
        outputs: what it returned.
        masks: the masks, in order; None for no mask.
        inputs: the arguments of the call. Those that it returned as they are get no mask; a view of them does.
    """
    if masks is None:
        return outputs
    if isinstance(outputs, Tensor):
        return _with_mask(outputs, masks if isinstance(masks, Tensor) else next(iter(leaves(masks)), None), inputs)
    following = iter(leaves(masks))
    return map_structure(
        lambda leaf: _with_mask(leaf, next(following, None), inputs) if isinstance(leaf, Tensor) else leaf, outputs
    )


def _with_mask(output: Tensor, mask: Any, inputs: object) -> Tensor:
    if mask is None or mask_of(output) is not None:
        return output
    if any(output is leaf for leaf in leaves(inputs)):
        return with_mask(output, mask)
    setattr(output, MASK, mask)
    return output


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
