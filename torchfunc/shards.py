"""Tensors that are sharded over several processes: torch's `DTensor`s, which are known by what they can do."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["fill", "is_shard", "sharded_like", "whole"]


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is sharded over several processes, of which this one has a part."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, in each of the processes that have a part; all of them call this."""
    found: Tensor = tensor.full_tensor() if is_shard(tensor) else tensor  # type: ignore[attr-defined]
    return found


def sharded_like(value: Tensor, tensor: Tensor) -> Tensor:
    """A whole value, which all processes have, sharded as a tensor of its shape is; itself if that is not."""
    if not is_shard(tensor) or is_shard(value):
        return value
    from torch.distributed.tensor import distribute_tensor  # not needed otherwise

    sharded: Any = tensor
    return distribute_tensor(value.to(sharded.device), sharded.device_mesh, sharded.placements)


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor; of a whole one, which all processes have, its shard into a sharded tensor."""
    tensor.copy_(sharded_like(value, tensor))
