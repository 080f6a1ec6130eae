"""Updates of whole lists of tensors, with a number or a tensor of shape () as the scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchfunc.schedules import Scalar

__all__ = ["Tensors", "add_ratio_", "add_scaled_", "bias_correction", "contiguous", "fused_kernel_fits"]

Tensors = list[Tensor] | tuple[Tensor, ...]


def fused_kernel_fits(params: list[Tensor], learning_rate: Scalar, devices: tuple[str, ...]) -> bool:
    """Fused kernels take a number as the rate, and contiguous weights of one dtype on one device.

    In a graph the rate is a tensor: the compiler fuses the formula itself.
    """
    dtype, device = params[0].dtype, params[0].device
    if isinstance(learning_rate, Tensor) or device.type not in devices or not dtype.is_floating_point:
        return False
    if hasattr(params[0], "full_tensor"):
        # Sharded over several processes, of which not all kernels know.
        return False
    for param in params:
        if param.dtype is not dtype or param.device != device or not param.is_contiguous():
            return False
    return True


def contiguous(gradients: list[Tensor]) -> list[Tensor]:
    """The gradients as fused kernels need them, which go through the memory of weights and gradients side by side.

    The gradients of a convolution of channels_last images are laid out as those, unlike its weights.
    """
    return list(map(Tensor.contiguous, gradients))


def add_scaled_(tensors: Tensors, others: Tensors, scale: Scalar) -> None:
    """`tensor += scale * other`, for a number or a tensor."""
    if isinstance(scale, Tensor):
        torch._foreach_add_(tensors, torch._foreach_mul(others, scale))
    else:
        torch._foreach_add_(tensors, others, alpha=scale)


def add_ratio_(tensors: Tensors, numerators: Tensors, denominators: Tensors, scale: Scalar) -> None:
    """`tensor += scale * numerator / denominator`, for a number or a tensor; the denominators are used up."""
    if isinstance(scale, Tensor):
        torch._foreach_div_(denominators, scale)
        torch._foreach_addcdiv_(tensors, numerators, denominators)
    else:
        torch._foreach_addcdiv_(tensors, numerators, denominators, scale)


def bias_correction(beta: float, step: Scalar) -> Scalar:
    """`1 - beta**step`, for a number or a tensor; of a float32 tensor, without the cancellation of that difference."""
    if isinstance(step, Tensor) and beta > 0:
        return -torch.expm1(step * math.log(beta))
    return 1 - beta**step
