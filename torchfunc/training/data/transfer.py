"""Batches copied to a device while the batch before them is being trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from torchfunc.structures import leaves, map_structure
from torchfunc.training.data.arrays import Data

__all__ = ["prefetched"]


def prefetched(batches: Iterable[Data], device: torch.device) -> Iterator[Data]:
    """Batches on the device. On CUDA each is copied on a stream of its own while the one before it is trained on.

    Copies from pinned memory do not stop the host; others do, but not the kernels that are already queued.
    """

    def move(leaf: Tensor | None) -> Tensor | None:
        return leaf if leaf is None or leaf.device == device else leaf.to(device, non_blocking=True)

    if device.type != "cuda":
        for batch in batches:
            yield map_structure(move, batch)
        return
    side = torch.cuda.Stream(device)
    waiting: tuple[Data, Data, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            copy = map_structure(move, batch)
            done = torch.cuda.Event()
            done.record(side)
        if waiting is not None:
            yield _arrived(*waiting)
        # Refers to the batch on the host until the copy is done, so that its memory is not reused before.
        waiting = batch, copy, done
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(batch: Data, copy: Data, done: torch.cuda.Event) -> Data:
    """The copy, for the current stream to use from now on."""
    current = torch.cuda.current_stream()
    current.wait_event(done)

    for leaf in leaves(copy):
        if leaf is not None:
            # The allocator must not hand this memory out on the side stream while kernels here still read it.
            leaf.record_stream(current)
    return copy
