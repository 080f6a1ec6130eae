"""Tensors that get their values back: buffers that a trial run changes, say, or all that a step has changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

__all__ = ["restored", "snapshot"]


def snapshot(tensors: Iterable[Tensor]) -> Callable[[], None]:
    """Copy the values of tensors; what is returned puts them back, in place and without gradient."""
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)

    return restore


@contextlib.contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Give tensors the values back, at the end of a block, that they had at its beginning."""
    restore = snapshot(tensors)
    try:
        yield
    finally:
        restore()
