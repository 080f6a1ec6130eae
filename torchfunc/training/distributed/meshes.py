"""The axes of a `DeviceMesh`: "data", over which rows are shared out, and "model", over which layers are split."""

from __future__ import annotations

from torch import distributed
from torch.distributed.device_mesh import DeviceMesh

__all__ = ["AXES", "check_mesh", "two_axes"]

AXES = ("data", "model")
"""What a mesh may have, in this order: torch shards over the outer axis what it has split over the inner one."""


def check_mesh(mesh: DeviceMesh) -> None:
    """Raise ValueError if a mesh has other axes than `AXES`, or is not one of all processes."""
    names = mesh.mesh_dim_names
    if names is None or names not in (AXES, AXES[:1], AXES[1:]):
        raise ValueError(
            f"A mesh for `strategy` has the axes 'data' and 'model', in this order, or one of them, got {names}: "
            'init_device_mesh("cuda", (data, model), mesh_dim_names=("data", "model")).'
        )
    if mesh.size() != distributed.get_world_size():
        raise ValueError(
            f"The mesh for `strategy` has {mesh.size()} processes, {_sizes(mesh)}, but {distributed.get_world_size()} "
            "train together. Give one of all of them, and no part of it."
        )


def _sizes(mesh: DeviceMesh) -> str:
    return " x ".join(f"{name}={size}" for name, size in zip(mesh.mesh_dim_names or (), mesh.shape, strict=True))


def two_axes(mesh: DeviceMesh) -> DeviceMesh:
    """The mesh with both axes, one of them of size 1 if there was but the other. All processes call this."""
    if mesh.mesh_dim_names == AXES:
        return mesh
    shape = (-1, 1) if mesh.mesh_dim_names == AXES[:1] else (1, -1)
    return DeviceMesh(mesh.device_type, mesh.mesh.view(shape), mesh_dim_names=AXES)
