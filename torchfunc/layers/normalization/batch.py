"""BatchNormalization on torch's batch-norm kernel, with Keras' arguments and moving averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from torchfunc import initializers
from torchfunc.batch_parts import has_no_rows, sum_over_processes
from torchfunc.config import epsilon as fuzz
from torchfunc.dtypes import DTypeLike
from torchfunc.layers.base.argument_types import Config, ConstraintLike, InitializerLike, RegularizerLike
from torchfunc.layers.base.checks import known_size
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.masks import check_mask
from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.normalization.affine import AffineLayer

__all__ = ["BatchNormalization"]


class BatchNormalization(AffineLayer):
    """`gamma * (inputs - mean) / sqrt(variance + epsilon) + beta`, for each index of one axis.

    In training mean and variance are those of the batch, over all other axes; in inference, and in training of a
    layer that is not `trainable`, they are moving averages, `average = momentum * average + (1 - momentum) * batch`.
    `momentum` is the weight of the old average (torch's is that of the new value), and the variance is divided by the
    number of values, as in Keras (torch's running variance by one less). A batch with one value for each index is
    allowed.

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167; `renorm`: Ioffe 2017,
    https://arxiv.org/abs/1702.03275.

    Shape: `(batch, ...)`, unchanged. Inputs that are not floats are converted.
    Parameters: `weight` (gamma) and `bias` (beta); buffers `running_mean`, `running_var`, and with `renorm`
    `running_std`, `renorm_mean`, `renorm_std`; all (size of the axis,).
    Call arguments: `mask`, of the input's shape without the last axis; masked positions do not count in the
    statistics of a batch.

    Args:
        axis: the axis with a mean and a variance for each index: the channels or features, whose size must be known.
        momentum: the weight of the old moving average at each step.
        epsilon: added to the variance.
        center, scale: whether there is a beta, a gamma.
        beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint:
            of the weights, see `WeightedLayer`.
        moving_mean_initializer, moving_variance_initializer: name, config or callable.
        renorm: whether training, too, normalizes by moving averages, of `renorm_momentum`. The gradient is that of
            the batch's statistics.
        renorm_clipping: a dict that may have `rmin` and `rmax`, the bounds of the ratio of the batch's standard
            deviation to the average, and `dmax`, of the distance of the means in standard deviations.
        renorm_momentum: the weight of the old average at each step.
        synchronized: whether the processes of `torch.distributed` normalize their batches as one. (Keras has this on
            TensorFlow alone.) Without several processes it has no effect.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `renorm_clipping` has other keys, or its bounds contradict each other.

    >>> layers.BatchNormalization()(Input((28, 28, 32))).shape
    (None, 28, 28, 32)
    >>> layer = layers.BatchNormalization()
    >>> layer(torch.tensor([[10.0], [30.0]]), training=True).round(decimals=2).tolist()  # the batch's own mean
    [[-1.0], [1.0]]
    """

    axis: int
    running_mean: Tensor
    running_var: Tensor
    running_std: Tensor
    renorm_mean: Tensor
    renorm_std: Tensor

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        moving_mean_initializer: InitializerLike = "zeros",
        moving_variance_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        beta_constraint: ConstraintLike = None,
        gamma_constraint: ConstraintLike = None,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        weights = {
            "beta": (beta_initializer, beta_regularizer, beta_constraint),
            "gamma": (gamma_initializer, gamma_regularizer, gamma_constraint),
        }
        super().__init__(center, scale, weights, **kwargs)
        self.axis = int(axis)
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.synchronized = bool(synchronized)
        self.renorm = bool(renorm)
        self.renorm_clipping = _checked_clipping(renorm_clipping) if renorm else renorm_clipping
        self.renorm_momentum = renorm_momentum
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        shape = tuple(input_shape)
        self._check_axis(shape)
        size = known_size(shape, self.axis, self)
        axis, rank = self.axis % len(shape), len(shape)
        self.input_spec = InputSpec(ndim=rank, axes={axis: size})
        # The kernel needs the axis at position 1: the permutation, and its inverse.
        others = [index for index in range(rank) if index != axis]
        to_view = [others[0], axis, *others[1:]] if others else [axis]
        self._to_view = None if axis == 1 else tuple(to_view)
        self._from_view = tuple(to_view.index(index) for index in range(rank))
        self._broadcast = tuple(size if index == axis else 1 for index in range(rank))
        self._reduced = tuple(others)
        self._make_affine((size,), self.center, self.scale)
        self._add_average("running_mean", "moving_mean", self.moving_mean_initializer, size)
        self._add_average("running_var", "moving_variance", self.moving_variance_initializer, size)
        if self.renorm:
            self._add_average("running_std", "moving_stddev", self._initial_deviation, size)
            self._add_average("renorm_mean", "renorm_mean", self.moving_mean_initializer, size)
            self._add_average("renorm_std", "renorm_stddev", self._initial_deviation, size)

    def _add_average(self, name: str, keras_name: str, initializer: InitializerLike, size: int) -> None:
        self.add_weight((size,), initializer, trainable=False, names=(name,), keras_name=keras_name)

    def _initial_deviation(self, shape: Sequence[int], dtype: DTypeLike | None = None) -> Tensor:
        return self.moving_variance_initializer(shape, dtype=dtype).sqrt()

    def _check_axis(self, shape: Shape) -> None:
        if len(shape) < 2 or not -len(shape) <= self.axis < len(shape):
            raise ValueError(f"{self.describe()} cannot normalize axis {self.axis} of an input of shape {shape}.")

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        if not inputs.is_floating_point():
            inputs = inputs.to(self.dtype)
        elif inputs.dtype is torch.float64 and self.running_mean.dtype is not torch.float64:
            return self.call(inputs.to(self.running_mean.dtype), training, mask).to(torch.float64)
        if mask is not None:
            self._check_mask(inputs, mask)
        if not (training and self._trainable):
            return self._on_view(inputs, self.running_mean, self.running_var, False)
        count = inputs.numel() // self.running_mean.numel()
        if mask is not None or count == 1 or self.renorm or self._is_distributed():
            return self._with_moments(inputs, mask)
        # The kernel averages variances divided by `count - 1`. With the average multiplied by this factor before
        # and divided by it after, it is that of variances divided by `count`. In a new tensor, since the kernel's
        # backward pass raises if the tensor it saved is changed.
        factor = count / (count - 1)
        variance = self.running_var * factor
        output = self._on_view(inputs, self.running_mean, variance, True)
        self.running_var.copy_(variance / factor)
        return output

    def _check_mask(self, inputs: Any, mask: Any) -> None:
        check_mask(mask, inputs.shape[:-1], "(of the input's axes but the last)", self.describe)

    def _on_view(self, inputs: Tensor, mean: Tensor, variance: Tensor, training: bool) -> Tensor:
        """Normalize with the kernel, which finds the memory layout from the strides."""
        view = inputs if self._to_view is None else inputs.permute(self._to_view)
        sizes = view.shape[2:]
        # The strides of an axis of size 1 say nothing, and the kernel (up to torch 2.13) takes a gradient laid out
        # otherwise than the image for one that is not. With three axes there is but one layout.
        ambiguous = torch.is_grad_enabled() and len(sizes) > 0 and (view.shape[0] == 1 or 1 in sizes)
        if ambiguous:
            view = view.flatten(2)
        elif len(sizes) == 1:
            # As an image of height 1 (as its strides say), a channels-last sequence is recognized as such.
            view = view.unsqueeze(2)
        output = F.batch_norm(view, mean, variance, self.weight, self.bias, training, 1 - self.momentum, self.epsilon)
        output = output.unflatten(2, sizes) if ambiguous else output.squeeze(2) if len(sizes) == 1 else output
        return output if self._to_view is None else output.permute(self._from_view)

    def _with_moments(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """Normalize by moments computed here, where the kernel cannot; a single value has the variance 0."""
        # Half precision is too small for sums.
        values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        counted = None if mask is None else mask.to(torch.bool).unsqueeze(-1).expand_as(values)
        ones = torch.ones_like(values) if counted is None else counted.to(values.dtype)
        total = self._total(ones) if counted is None else self._total(ones) + fuzz()
        mean = self._total(values if counted is None else torch.where(counted, values, 0)) / total
        centered = values - mean.view(self._broadcast)
        deviation = centered if counted is None else torch.where(counted, centered, 0)
        variance = self._total(deviation.square()) / total
        weight: Tensor | None = self.weight
        bias: Tensor | None = self.bias
        if self.renorm:
            weight, bias = self._renormalize(mean.detach(), variance.detach())
        else:
            self._update("running_mean", mean, self.momentum)
            self._update("running_var", variance, self.momentum)
        output = centered * torch.rsqrt(variance + self.epsilon).view(self._broadcast)
        if weight is not None:
            output = output * weight.view(self._broadcast)
        if bias is not None:
            output = output + bias.view(self._broadcast)
        return output.to(inputs.dtype)

    def _total(self, values: Tensor) -> Tensor:
        """The sum for each index of the axis, over all processes if they are synchronized."""
        summed = values.sum(self._reduced)
        if not self._is_distributed():
            return summed
        return sum_over_processes(summed * 0 if has_no_rows() else summed)

    def _is_distributed(self) -> bool:
        there = self.synchronized and distributed.is_available() and distributed.is_initialized()
        return there and distributed.get_world_size() > 1

    def _update(self, name: str, value: Tensor, momentum: float) -> None:
        average: Tensor = getattr(self, name)
        # The kernel of another call in this step may have saved the mean, which its backward pass does not need: by
        # way of `data`, autograd does not notice that it changes.
        target = average.data if name == "running_mean" else average
        with torch.no_grad():
            target.lerp_(value.to(average.dtype), 1 - momentum)

    def _renormalize(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and the shift that lead from the batch's statistics to the moving ones; and move those."""
        std = (variance + self.epsilon).sqrt()
        moving_std = self.renorm_std.clamp_min(self.epsilon**0.5)
        ratio, distance = std / moving_std, (mean - self.renorm_mean) / moving_std
        clipping = self.renorm_clipping or {}
        lowest, highest, limit = (clipping.get(key) for key in ("rmin", "rmax", "dmax"))
        ratio = ratio if lowest is None else ratio.clamp_min(lowest)
        ratio = ratio if highest is None else ratio.clamp_max(highest)
        distance = distance if limit is None else distance.clamp(-limit, limit)
        self._update("renorm_mean", mean, self.renorm_momentum)
        self._update("renorm_std", std, self.renorm_momentum)
        self._update("running_mean", mean, self.momentum)
        self._update("running_std", std, self.momentum)
        with torch.no_grad():
            self.running_var.copy_((self.running_std.square() - self.epsilon).relu())
        if self.weight is not None:
            ratio, distance = ratio * self.weight, distance * self.weight
        return ratio, distance if self.bias is None else distance + self.bias

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torch's own batch norm counts its batches, which nothing here needs.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._check_axis(tuple(input_shape))
        return tuple(input_shape)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(input_dtypes[0], self.dtype) if input_dtypes else self.dtype

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            **self._affine_config(),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "synchronized": self.synchronized,
            "renorm": self.renorm,
            "renorm_clipping": self.renorm_clipping,
            "renorm_momentum": self.renorm_momentum,
        }


def _checked_clipping(clipping: Mapping[str, float] | None) -> dict[str, float]:
    bounds = dict(clipping or {})
    if set(bounds) - {"rmin", "rmax", "dmax"}:
        raise ValueError(f"BatchNormalization takes rmin, rmax and dmax in renorm_clipping, got {clipping!r}.")
    lowest, highest, limit = (bounds.get(key) for key in ("rmin", "rmax", "dmax"))
    if lowest is not None and highest is not None and highest < lowest:
        raise ValueError(f"BatchNormalization needs rmin <= rmax in renorm_clipping, got {clipping!r}.")
    if limit is not None and limit < 0:
        raise ValueError(f"BatchNormalization needs dmax >= 0 in renorm_clipping, got {clipping!r}.")
    return bounds
