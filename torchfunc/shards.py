"""Tensors that are sharded over several processes, torch's `DTensor`s, and the classes of modules that have such."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

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
    if not is_shard(tensor):
        return tensor
    sharded: Any = tensor
    found: Tensor = _gathered(sharded) if _in_two_ways(sharded) else sharded.full_tensor()
    return found


def _in_two_ways(sharded: Any) -> bool:
    """Whether parts along an inner axis were sharded along an outer one: torch 2.11 does not gather all of these."""
    return any(hasattr(placement, "split_factor") for placement in sharded.placements)


def _parts(sharded: Any) -> dict[int, list[int]]:
    """By the axes of the mesh that shard a tensor, innermost first as it was done: the sizes of the parts along it."""
    mesh, shape = sharded.device_mesh, list(sharded.shape)
    sizes: dict[int, list[int]] = {}
    for axis in reversed(range(mesh.ndim)):
        placement = sharded.placements[axis]
        if not placement.is_replicate():
            most = -(-shape[placement.dim] // mesh.size(axis))
            sizes[axis] = [max(min(most, shape[placement.dim] - start * most), 0) for start in range(mesh.size(axis))]
            shape[placement.dim] = sizes[axis][mesh.get_local_rank(axis)]
    return sizes


def _gathered(sharded: Any) -> Tensor:
    mesh, part = sharded.device_mesh, sharded.to_local().detach()
    for axis, sizes in reversed(_parts(sharded).items()):
        dim = sharded.placements[axis].dim
        padded = part.new_zeros((*part.shape[:dim], max(sizes), *part.shape[dim + 1 :]))
        padded.narrow(dim, 0, part.shape[dim]).copy_(part)
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded, group=mesh.get_group(axis))
        part = torch.cat([each.narrow(dim, 0, size) for each, size in zip(parts, sizes, strict=True)], dim)
    return part


def sharded_like(value: Tensor, tensor: Tensor) -> Tensor:
    """A whole value, which all processes have, sharded as a tensor of its shape is; itself if that is not."""
    if not is_shard(tensor) or is_shard(value):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor  # not needed otherwise

    sharded: Any = tensor
    mesh, placements = sharded.device_mesh, sharded.placements
    part = value.to(sharded.device)
    if not _in_two_ways(sharded):
        return distribute_tensor(part, mesh, placements)
    # What is split along the inner axis was then sharded along the outer one, which torch knows for even sizes only.
    for axis, sizes in _parts(sharded).items():
        rank = mesh.get_local_rank(axis)
        part = part.narrow(placements[axis].dim, sum(sizes[:rank]), sizes[rank])
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=sharded.shape, stride=sharded.stride())


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor; of a whole one, which all processes have, its shard into a sharded tensor."""
    tensor.copy_(sharded_like(value, tensor))
