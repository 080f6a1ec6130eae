"""Batches on their way to a device: copied while the batch before them is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from torchfunc.training.data.arrays import map_leaves

__all__ = ["moved", "prefetched"]


def moved(structure: Any, device: torch.device) -> Any:
    """The structure with its tensors on the device; those that are there stay the same objects."""

    def move(leaf: Tensor) -> Tensor:
        return leaf if leaf.device == device else leaf.to(device, non_blocking=True)

    return map_leaves(move, structure)


def prefetched(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Batches on the device. On CUDA the next one is copied on a stream of its own while the last is worked on.

    Copies from pinned memory do not stop the host; others do, but not the kernels that are already queued.
    """
    if device.type != "cuda":
        for batch in batches:
            yield moved(batch, device)
        return
    side = torch.cuda.Stream(device)
    waiting: tuple[Any, Any, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            copy = moved(batch, device)
            done = torch.cuda.Event()
            done.record(side)
        if waiting is not None:
            yield _arrived(*waiting)
        # The batch on the host is held until its copy is there, so that nobody fills its memory anew before.
        waiting = batch, copy, done
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(batch: Any, copy: Any, done: torch.cuda.Event) -> Any:
    """The copy, for the current stream to use from now on."""
    current = torch.cuda.current_stream()
    current.wait_event(done)

    def claim(leaf: Tensor) -> Tensor:
        # The allocator must not hand this memory out on the side stream while kernels here still read it.
        leaf.record_stream(current)
        return leaf

    return map_leaves(claim, copy)
