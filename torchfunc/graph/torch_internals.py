"""Private names of torch, each with what it is for and the versions it was read in."""

from __future__ import annotations

import torch

__all__ = ["storage_use_count"]


def storage_use_count(storage: torch.UntypedStorage) -> int:
    """How many tensors share this memory. Read in torch 2.11 to 2.13; torch's own CUDA graph trees ask like this."""
    return torch._C._storage_Use_Count(storage._cdata)
