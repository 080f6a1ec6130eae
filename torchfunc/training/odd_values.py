"""Where in a batch the values stand that nothing can be done with, for messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.layers import Embedding
from torchfunc.structures import leaves, named_leaves
from torchfunc.training.data.arrays import Batch
from torchfunc.training.trainable import Trainable

__all__ = ["list_values", "listed_outside", "named_inputs", "named_targets", "not_finite"]

# So many values are listed; the others are counted.
_MOST = 3


def list_values(tensor: Tensor, chosen: Tensor) -> str:
    """`10 at [1, 1], 12 at [3, 0] and 5 more`: the values that a mask chooses, the row of the batch first."""
    places = chosen.nonzero()[:_MOST].tolist()
    count = int(chosen.sum())
    listed = ", ".join(f"{tensor[tuple(place)].item()} at {place}" for place in places)
    return f"{listed} and {count - _MOST} more" if count > _MOST else listed


def not_finite(tensor: Any) -> Tensor | None:
    """Where a tensor is NaN or infinite; None if it is nowhere."""
    if not isinstance(tensor, Tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
        return None
    odd = ~torch.isfinite(tensor)
    return odd if bool(odd.any()) else None


def named_inputs(model: Trainable, x: Any) -> list[tuple[str, Tensor]]:
    """The inputs of a batch as messages call them."""
    names, prepared = model.input_names, leaves(model.prepare_inputs(x))
    if names is not None and len(names) == len(prepared):
        pairs = [(f"Input {name!r}", value) for name, value in zip(names, prepared, strict=True)]
    else:
        pairs = list(named_leaves(x, "x"))
    return [(name, value) for name, value in pairs if isinstance(value, Tensor)]


def named_targets(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """The targets and sample weights of a batch as messages call them."""
    for name, value in (*named_leaves(batch.y, "y"), *named_leaves(batch.sample_weight, "sample_weight")):
        if isinstance(value, Tensor):
            yield name, value


def listed_outside(module: nn.Module, indices: Tensor, inputs: list[tuple[str, Tensor]]) -> str | None:
    """What is said of indices that a table of vectors lacks, and of the input they are; None if all is well."""
    size = module.input_dim if isinstance(module, Embedding) else getattr(module, "num_embeddings", None)
    if size is None:
        return None
    indices = indices.long()
    outside = (indices < 0) | (indices >= size)
    if not bool(outside.any()):
        return None
    same = (name for name, value in inputs if value.shape == indices.shape and bool((value.long() == indices).all()))
    name = next(same, "What it was given")
    return (
        f"{name} holds {list_values(indices, outside)}, but its vectors are numbered 0 to {size - 1}. Make more of "
        "them, or map such values to one of these."
    )
