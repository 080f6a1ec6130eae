"""Normalizations with Keras' moving averages, and of weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "BatchRenorm", "SpectralNorm", "batch_norm", "batch_renorm"]


@torch.fx.wrap
def batch_norm(
    inputs: Tensor,
    averages: tuple[Tensor, Tensor, Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Batch normalization of (batch, channels, *positions) whose moving variance is divided by the number of values.

    (torch divides it by one less.) Positions that are False in the mask (batch, *positions) do not count.
    """
    mean, variance, batches = averages
    if not training:
        return F.batch_norm(inputs, mean, variance, weight, bias, False, 0.0, eps)
    batches.add_(1)
    share = 1 / batches.item() if momentum is None else momentum
    count = inputs.numel() // mean.numel()
    if mask is None and count > 1:
        factor = count / (count - 1)
        moving = variance * factor
        output = F.batch_norm(inputs, mean, moving, weight, bias, True, share, eps)
        variance.copy_(moving / factor)
        return output
    batch_mean, batch_variance, centered = moments(inputs, mask)
    with torch.no_grad():
        # (Another call in this step may have saved the mean, which its backward pass does not need.)
        mean.data.lerp_(batch_mean, share)
        variance.lerp_(batch_variance, share)
    return scaled(centered, batch_variance, eps, weight, bias)


def moments(inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The mean and the variance of each channel over what counts, and the inputs less their mean."""
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    counted = torch.ones_like(inputs, dtype=torch.bool) if mask is None else mask.bool().unsqueeze(1).expand_as(inputs)
    total = counted.sum(axes).to(inputs.dtype) + (0.0 if mask is None else 1e-7)
    mean = torch.where(counted, inputs, 0).sum(axes) / total
    centered = inputs - by_channel(mean, inputs)
    return mean, torch.where(counted, centered, 0).square().sum(axes) / total, centered


def by_channel(values: Tensor, like: Tensor) -> Tensor:
    """One value for each channel, shaped to go with (batch, channels, *positions)."""
    return values.view(-1, *[1] * (like.ndim - 2))


def scaled(centered: Tensor, variance: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """What is left of a normalization when the mean has been subtracted."""
    output = centered * by_channel(torch.rsqrt(variance + eps), centered)
    output = output if weight is None else output * by_channel(weight, output)
    return output if bias is None else output + by_channel(bias, output)


class BatchAverages:
    """What the batch norms here have before torch's: Keras' moving variance, and a state_dict without a counter.

    Args:
        num_features: the number of channels.
        eps: added to the variance.
        momentum: the share of the new value in the moving averages.
        weight, bias: whether there is a scale, a shift.
        frozen: whether training, too, normalizes by the moving averages.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-3,
        momentum: float | None = 0.01,
        weight: bool = True,
        bias: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum)  # type: ignore[call-arg]
        self.frozen = frozen
        for name, there in (("weight", weight), ("bias", bias)):
            if not there:
                setattr(self, name, None)
        self.register_buffer("num_batches_tracked", torch.tensor(0), persistent=False)  # type: ignore[attr-defined]

    def _load_from_state_dict(self: Any, *args: Any) -> None:
        # (torch's own would look for the counter.)
        nn.Module._load_from_state_dict(self, *args)

    def forward(self: Any, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, channels, *positions), unchanged in shape."""
        averages = self.running_mean, self.running_var, self.num_batches_tracked
        training = self.training and not self.frozen
        return batch_norm(inputs, averages, self.weight, self.bias, training, self.momentum, self.eps, mask)


class BatchNorm1d(BatchAverages, nn.BatchNorm1d):
    """`nn.BatchNorm1d` with the moving variance of Keras, divided by the number of values."""


class BatchNorm2d(BatchAverages, nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the moving variance of Keras, divided by the number of values."""


class BatchNorm3d(BatchAverages, nn.BatchNorm3d):
    """`nn.BatchNorm3d` with the moving variance of Keras, divided by the number of values."""


@torch.fx.wrap
def batch_renorm(
    inputs: Tensor,
    averages: tuple[Tensor, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    momenta: tuple[float, float],
    eps: float,
    bounds: tuple[float | None, float | None, float | None],
    mask: Tensor | None = None,
) -> Tensor:
    """Batch renormalization in training; the averages are the mean, variance, deviation, and those of `renorm`."""
    moving_mean, moving_variance, moving_std, renorm_mean, renorm_std = averages
    mean, variance, centered = moments(inputs, mask)
    std, old_std = (variance.detach() + eps).sqrt(), renorm_std.clamp_min(eps**0.5)
    ratio, distance = std / old_std, (mean.detach() - renorm_mean) / old_std
    lowest, highest, limit = bounds
    ratio = ratio if lowest is None and highest is None else ratio.clamp(lowest, highest)
    distance = distance if limit is None else distance.clamp(-limit, limit)
    with torch.no_grad():
        renorm_mean.lerp_(mean, momenta[1])
        renorm_std.lerp_(std, momenta[1])
        moving_mean.lerp_(mean, momenta[0])
        moving_std.lerp_(std, momenta[0])
        moving_variance.copy_((moving_std.square() - eps).relu())
    if weight is not None:
        ratio, distance = ratio * weight, distance * weight
    return scaled(centered, variance, eps, ratio, distance if bias is None else distance + bias)


class BatchRenorm(nn.Module):
    """Batch renormalization (Ioffe 2017) of (batch, channels, *positions).

    Args:
        num_features: the number of channels.
        eps: added to the variance.
        momentum, renorm_momentum: the share of the new value in the moving averages, and in those of `renorm`.
        bounds: the least and the largest ratio of the deviations, and the largest distance of the means.
        weight, bias: whether there is a scale, a shift.
        frozen: whether training, too, normalizes by the moving averages.
    """

    running_mean: Tensor
    running_var: Tensor
    running_std: Tensor
    renorm_mean: Tensor
    renorm_std: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float,
        renorm_momentum: float,
        bounds: tuple[float | None, float | None, float | None] = (None, None, None),
        weight: bool = True,
        bias: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum, self.bounds = num_features, eps, momentum, bounds
        self.renorm_momentum, self.frozen = renorm_momentum, frozen
        self.weight = nn.Parameter(torch.ones(num_features)) if weight else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if bias else None
        for name in ("running_mean", "running_var", "running_std", "renorm_mean", "renorm_std"):
            self.register_buffer(name, torch.zeros(num_features) if "mean" in name else torch.ones(num_features))

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, channels, *positions), unchanged in shape."""
        averages = (self.running_mean, self.running_var, self.running_std, self.renorm_mean, self.renorm_std)
        if not self.training or self.frozen:
            return F.batch_norm(inputs, *averages[:2], self.weight, self.bias, False, 0.0, self.eps)
        momenta = (self.momentum, self.renorm_momentum)
        return batch_renorm(inputs, averages, self.weight, self.bias, momenta, self.eps, self.bounds, mask)


class SpectralNorm(nn.Module):
    """Divides the kernel of `layer` by its largest singular value at each training call, in place, as Keras does.

    Source: Miyato et al. 2018, https://arxiv.org/abs/1802.05957. No gradient goes through the singular value.

    Args:
        layer: the module with the kernel.
        kernel: the name of its parameter.
        units: the axis of the kernel that is the last one in Keras.
        size: the length of that axis.
        iterations: how many power iterations there are in a training call.
    """

    vector_u: Tensor
    layer: nn.Module

    def __init__(self, layer: nn.Module, kernel: str, units: int, size: int, iterations: int = 1) -> None:
        super().__init__()
        self.layer, self.kernel, self.units, self.size, self.iterations = layer, kernel, units, size, iterations
        self.register_buffer("vector_u", nn.init.trunc_normal_(torch.empty(1, size), std=0.02))

    def forward(self, inputs: Tensor) -> Tensor:
        """What the layer makes of the inputs."""
        if not self.training:
            return torch.func.functional_call(self.layer, {}, (inputs,))
        kernel = getattr(self.layer, self.kernel)
        with torch.no_grad():
            rows = kernel.movedim(self.units, -1).reshape(-1, self.size)
            vector_u = self.vector_u
            for _ in range(self.iterations):
                vector_v = F.normalize(vector_u @ rows.t(), eps=1e-7)
                vector_u = F.normalize(vector_v @ rows, eps=1e-7)
            empty = (rows == 0).all()
            normalized = kernel / torch.where(empty, 1.0, vector_v @ rows @ vector_u.t()).squeeze()
            vector_u = torch.where(empty, self.vector_u, vector_u)
        # A new tensor, so that another call before the backward pass may change the kernel again.
        used = kernel + (normalized - kernel).detach()
        with torch.no_grad():
            kernel.copy_(normalized)
            self.vector_u.copy_(vector_u)
        return torch.func.functional_call(self.layer, {self.kernel: used}, (inputs,))
