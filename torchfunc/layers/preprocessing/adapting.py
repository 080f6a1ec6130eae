"""The data of `adapt`: the batches of arrays, tensors, DataLoaders and other iterables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.readable_arrays import readable

__all__ = ["batches"]


def batches(data: object, owner: str) -> Iterator[Tensor]:
    """The batches of `data`, in float64 on the CPU.

    Args:
        data: an array, tensor or pandas frame, which is one batch, or an iterable of batches: a DataLoader, a list of
            arrays, a generator. Of a batch that is a pair, `(inputs, targets)`, the inputs are taken.
        owner: the layer's class, for messages.

    Raises:
        TypeError: `data` is none of these, or a batch is no array.
        ValueError: there is no batch.
    """
    if hasattr(data, "__array__"):
        data = [data]
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, dict)):
        raise TypeError(
            f"{owner}.adapt() takes an array, a tensor, a DataLoader or another iterable of batches, got "
            f"{type(data).__name__}. A Dataset of single samples goes into a DataLoader first."
        )
    found = False
    for batch in data:
        inputs = batch[0] if isinstance(batch, tuple) or _is_pair(batch) else batch
        if not isinstance(inputs, list) and not hasattr(inputs, "__array__"):
            raise TypeError(f"{owner}.adapt() takes batches that are arrays or tensors, got {type(inputs).__name__}.")
        yield (inputs if isinstance(inputs, Tensor) else _numbers(inputs, owner)).detach().to("cpu", torch.float64)
        found = True
    if not found:
        raise ValueError(f"{owner}.adapt() was given no batch at all. A generator can be read only once.")


def _numbers(inputs: Any, owner: str) -> Tensor:
    array = np.asarray(inputs)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{owner}.adapt() takes numbers, but {type(inputs).__name__} holds {array.dtype} values. Encode them first."
        )
    return torch.from_numpy(readable(array))


def _is_pair(batch: object) -> bool:
    """Whether it is the list of tensors that a DataLoader makes of samples that are tuples."""
    return isinstance(batch, list) and len(batch) > 0 and isinstance(batch[0], Tensor)
