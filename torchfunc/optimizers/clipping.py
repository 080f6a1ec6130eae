"""Gradient clipping by value, by norm and by the norm of all gradients together, as Keras defines it."""

from __future__ import annotations

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
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        # `norm - norm` is 0, but NaN for an infinite norm: such a step must not pass for a small one.
        scale = global_clipnorm / norm.clamp_min(global_clipnorm) + (norm - norm)
        return list(torch._foreach_mul(gradients, scale))
    if clipvalue:
        return list(torch._foreach_clamp_max(torch._foreach_clamp_min(gradients, -clipvalue), clipvalue))
    return gradients
