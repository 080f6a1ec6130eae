"""The axes of processes: "data", over which rows are shared out, and "model", over which layers are split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

__all__ = ["AxisSizes", "Mesh", "Strategy", "parse_mesh", "two_axes"]

# In this order: torch shards over the outer axis what it has split over the inner one.
_AXES = ("data", "model")


class AxisSizes(NamedTuple):
    """How many processes there are along each axis."""

    data: int = 1
    model: int = 1


Mesh: TypeAlias = DeviceMesh | AxisSizes
"""Both axes, or one of them: a mesh that the user has made, or the sizes of one to make."""

Strategy: TypeAlias = str | DeviceMesh | Mapping[str, int] | None
"""What `compile(strategy=...)` takes."""


def parse_mesh(given: DeviceMesh | Mapping[str, int]) -> Mesh:
    """A mesh as the user gives it. Raises ValueError if it has other axes, or is not one of all processes."""
    if isinstance(given, DeviceMesh):
        names = given.mesh_dim_names
        if names not in (_AXES, _AXES[:1], _AXES[1:]):
            raise ValueError(
                f"A mesh for `strategy` has the axes 'data' and 'model', in this order, or one of them, got {names}: "
                'init_device_mesh("cuda", (data, model), mesh_dim_names=("data", "model")).'
            )
        _check_size(dict(zip(names or (), given.shape, strict=True)))
        return given
    sizes = dict(given)
    if (
        not sizes
        or not sizes.keys() <= set(_AXES)
        or not all(type(each) is int and each > 0 for each in sizes.values())
    ):
        raise ValueError(
            "`strategy` takes the numbers of processes along 'data' and 'model', {'data': 4, 'model': 2}, or along one "
            f"of them, got {given!r}."
        )
    found = AxisSizes(**sizes)
    if distributed.is_available() and distributed.is_initialized():
        _check_size(found._asdict())
    return found


def _check_size(sizes: Mapping[str, int]) -> None:
    count = 1
    for size in sizes.values():
        count *= size
    if count != distributed.get_world_size():
        listed = " x ".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(
            f"The mesh for `strategy` has {count} processes, {listed}, but {distributed.get_world_size()} train "
            "together. Give one of all of them, and no part of it."
        )


def two_axes(mesh: Mesh, device_type: str) -> DeviceMesh:
    """The mesh with both axes, one of them of size 1 if there was but the other. All processes call this.

    Raises:
        ValueError: the sizes are not those of all processes.
    """
    if isinstance(mesh, AxisSizes):
        _check_size(mesh._asdict())
        return init_device_mesh(device_type, tuple(mesh), mesh_dim_names=_AXES)
    if mesh.mesh_dim_names == _AXES:
        return mesh
    shape = (-1, 1) if mesh.mesh_dim_names == _AXES[:1] else (1, -1)
    return DeviceMesh(mesh.device_type, mesh.mesh.view(shape), mesh_dim_names=_AXES)
