"""Tensors that are sharded over several processes, torch's `DTensor`s, and the classes of modules that have such."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["fill", "is_shard", "own_class", "sharded_like", "whole"]


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is sharded over several processes, of which this one has a part."""
    return hasattr(tensor, "full_tensor")


def own_class(cls: type) -> type:
    """The class that a module had before torch made another of it, `FSDPDense`, which shards its weights."""
    first, *others = cls.__bases__
    return others[0] if first.__name__ == "FSDPModule" else cls


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, in each of the processes that have a part; all of them call this."""
    found: Tensor = tensor.full_tensor() if is_shard(tensor) else tensor  # type: ignore[attr-defined]
    return found


def sharded_like(value: Tensor, tensor: Tensor) -> Tensor:
    """A whole value, which all processes have, sharded as a tensor of its shape is; itself if that is not."""
    if not is_shard(tensor) or is_shard(value):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor  # not needed otherwise

    sharded: Any = tensor
    mesh, placements = sharded.device_mesh, sharded.placements
    part = value.to(sharded.device)
    if not any(hasattr(placement, "split_factor") for placement in placements):
        return distribute_tensor(part, mesh, placements)
    # What is split along the inner axis was then sharded along the outer one, which torch knows for even sizes only.
    for axis in reversed(range(mesh.ndim)):
        if not placements[axis].is_replicate():
            parts = part.chunk(mesh.size(axis), placements[axis].dim)
            rank = mesh.get_local_rank(axis)
            part = parts[rank] if rank < len(parts) else part.narrow(placements[axis].dim, 0, 0)
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=sharded.shape, stride=sharded.stride())


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor; of a whole one, which all processes have, its shard into a sharded tensor."""
    tensor.copy_(sharded_like(value, tensor))
