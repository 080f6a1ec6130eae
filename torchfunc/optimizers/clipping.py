"""Gradient clipping by value, by norm and by the norm of all gradients together, as Keras defines it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["clip_gradients"]


def clip_gradients(
    gradients: list[Tensor], clipnorm: float | None, clipvalue: float | None, global_clipnorm: float | None
) -> list[Tensor]:
    """Return clipped gradients; the given ones are not changed. At most one of the three limits is set."""
    if clipnorm:
        norms = torch._foreach_norm(gradients)
        return [g * (clipnorm / norm.clamp_min(clipnorm)) for g, norm in zip(gradients, norms, strict=True)]
    if global_clipnorm:
        norm = _total(list(torch._foreach_norm(gradients)))
        # `norm - norm` is 0, but NaN for an infinite norm: such a step must not pass for a small one.
        scale = global_clipnorm / norm.clamp_min(global_clipnorm) + (norm - norm)
        return list(torch._foreach_mul(gradients, scale))
    if clipvalue:
        return list(torch._foreach_clamp_max(torch._foreach_clamp_min(gradients, -clipvalue), clipvalue))
    return gradients


def _total(norms: list[Tensor]) -> Tensor:
    """The norm of all together; of weights that are sharded in several ways, those of one kind first."""
    if not hasattr(norms[0], "device_mesh"):
        return torch.linalg.vector_norm(torch.stack(norms))
    kinds: dict[Any, list[Tensor]] = {}
    for norm in norms:
        sharded: Any = norm
        kinds.setdefault((sharded.device_mesh, sharded.placements), []).append(norm)
    totals = [torch.linalg.vector_norm(torch.stack(each)) for each in kinds.values()]
    if len(totals) == 1:
        return totals[0]
    return torch.linalg.vector_norm(torch.stack([each.full_tensor() for each in totals]))
