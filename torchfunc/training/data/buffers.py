"""`BufferRing`: memory that batches are gathered into again and again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfunc.graph.torch_internals import storage_use_count

__all__ = ["BufferRing"]


class BufferRing:
    """Memory that is gathered into again and again: in fresh memory a large batch costs several times its copy.

    Memory that something else still refers to (a callback, a metric that collects, outputs that alias inputs) is not
    reused. There are two buffers in turn, since a loop still refers to one batch while it asks for the next.

    Args:
        shape: of each buffer.
        dtype: of each buffer.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self._shape, self._dtype = tuple(shape), dtype
        self._ring = [self._new(), self._new()]

    def next(self) -> Tensor:
        """A buffer that nothing else refers to. Hand on nothing but detached views of it."""
        buffer, storage, alone = self._ring.pop(0)
        if storage_use_count(storage) != alone:
            buffer, storage, alone = self._new()
        self._ring.append((buffer, storage, alone))
        return buffer

    def _new(self) -> tuple[Tensor, torch.UntypedStorage, int]:
        with torch.inference_mode(False):
            buffer = torch.empty(self._shape, dtype=self._dtype)
        storage = buffer.untyped_storage()
        return buffer, storage, storage_use_count(storage)
