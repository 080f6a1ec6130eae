"""BatchNormalization on torch's batch-norm kernel, with Keras' arguments and moving averages."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc import constraints, initializers, regularizers
from torchfunc.config import epsilon as fuzz
from torchfunc.layers.input_spec import InputSpec
from torchfunc.layers.kernel import known_size, promote_to_float
from torchfunc.layers.layer import Layer
from torchfunc.layers.shapes import Shape

__all__ = ["BatchNormalization"]


class BatchNormalization(Layer):
    """`gamma * (inputs - mean) / sqrt(variance + epsilon) + beta`, for each index of one axis.

    In training mean and variance are those of the batch, over all other axes; in inference, and in training of a
    layer that is not `trainable`, they are moving averages, `average = momentum * average + (1 - momentum) * batch`.
    `momentum` is what is kept (torch's is what is replaced), and the variance is divided by the number of values, as
    in Keras (torch's running variance by one less). A batch with one value for each index is taken.

    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167.

    Shape: `(batch, ...)`, kept. Inputs that are no floats are converted.
    Parameters: `weight` (gamma) and `bias` (beta); buffers `running_mean`, `running_var`; all (size of the axis,).
    Call arguments: `mask`, of the input's shape without the last axis; masked positions do not count in the
    statistics of a batch.

    Args:
        axis: the axis that is kept: the channels or features, whose size must be known.
        momentum: how much of a moving average stays at each step.
        epsilon: added to the variance.
        center, scale: whether there is a beta, a gamma.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer: name, config or
            callable.
        beta_regularizer, gamma_regularizer: penalties that join the training loss.
        beta_constraint, gamma_constraint: projections applied after every update.
        renorm, synchronized: must be False.
        renorm_clipping, renorm_momentum: kept in the config, without effect.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `renorm` or `synchronized` is set.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        if renorm:
            raise ValueError("BatchNormalization(renorm=True) is not supported; leave it False.")
        if synchronized:
            raise ValueError(
                "BatchNormalization(synchronized=True) is not supported. torch.nn.SyncBatchNorm(channels) does this, "
                "on inputs with their channels at axis 1, and can be called in a graph like any layer."
            )
        super().__init__(**kwargs)
        self.axis = int(axis)
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.center = bool(center)
        self.scale = bool(scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.renorm_clipping = renorm_clipping
        self.renorm_momentum = renorm_momentum
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        shape = tuple(input_shape)
        self._check_axis(shape)
        size = known_size(shape, self.axis, self)
        axis, rank = self.axis % len(shape), len(shape)
        self.input_spec = InputSpec(ndim=rank, axes={axis: size})
        # The kernel wants the axis at place 1: a view with it there, and the way back.
        others = [index for index in range(rank) if index != axis]
        to_view = [others[0], axis, *others[1:]] if others else [axis]
        self._to_view = None if axis == 1 else tuple(to_view)
        self._from_view = tuple(to_view.index(index) for index in range(rank))
        self._broadcast = tuple(size if index == axis else 1 for index in range(rank))
        self._reduced = tuple(others)
        self._add_parameter("weight", self.scale, size, "gamma")
        self._add_parameter("bias", self.center, size, "beta")
        self.add_weight((size,), self.moving_mean_initializer, trainable=False, names=("running_mean",))
        self.add_weight((size,), self.moving_variance_initializer, trainable=False, names=("running_var",))

    def _add_parameter(self, name: str, wanted: bool, size: int, keras_name: str) -> None:
        if not wanted:
            self.register_parameter(name, None)
            return
        self.add_weight(
            (size,),
            getattr(self, f"{keras_name}_initializer"),
            regularizer=getattr(self, f"{keras_name}_regularizer"),
            constraint=getattr(self, f"{keras_name}_constraint"),
            names=(name,),
        )

    def _check_axis(self, shape: Shape) -> None:
        if len(shape) < 2 or not -len(shape) <= self.axis < len(shape):
            raise ValueError(f"{self.describe()} cannot normalize axis {self.axis} of an input of shape {shape}.")

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        if not inputs.is_floating_point():
            inputs = inputs.to(self.dtype)
        if not (training and self._trainable):
            return self._on_view(inputs, self.running_mean, self.running_var, False)
        count = inputs.numel() // self.running_mean.numel()
        if mask is not None or count == 1:
            return self._with_moments(inputs, mask)
        # The kernel lets a variance divided by `count - 1` into the average. Scaled by this factor before and
        # divided by it after, the average gets the one divided by `count`. In a tensor of its own, since the kernel's
        # backward minds if the one it saw is written to.
        factor = count / (count - 1)
        variance = self.running_var * factor
        output = self._on_view(inputs, self.running_mean, variance, True)
        self.running_var.copy_(variance / factor)
        return output

    def _on_view(self, inputs: Tensor, mean: Tensor, variance: Tensor, training: bool) -> Tensor:
        """Normalize through the kernel, which finds out from the strides which layout the memory has."""
        view = inputs if self._to_view is None else inputs.permute(self._to_view)
        # As an image of width 1, a sequence that lies channels-last is seen as such.
        sequence = inputs.ndim == 3
        view = view.unsqueeze(-1) if sequence else view
        output = F.batch_norm(view, mean, variance, self.weight, self.bias, training, 1 - self.momentum, self.epsilon)
        output = output.squeeze(-1) if sequence else output
        return output if self._to_view is None else output.permute(self._from_view)

    def _with_moments(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """Normalize by moments computed here: for masks, and for a single value, whose variance is 0."""
        if mask is not None and mask.ndim != inputs.ndim - 1:
            raise ValueError(
                f"The mask of {self.describe()} must have the input's shape without the last axis, "
                f"but the mask's shape is {tuple(mask.shape)} and the input's {tuple(inputs.shape)}."
            )
        # Half precision is too small for sums.
        values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        counted, total = torch.ones_like(values, dtype=torch.bool), torch.ones_like(self.running_mean)
        if mask is not None:
            counted = mask.to(torch.bool).unsqueeze(-1).expand_as(values)
            total = counted.sum(self._reduced) + fuzz()
        mean = torch.where(counted, values, 0).sum(self._reduced) / total
        centered = values - mean.view(self._broadcast)
        variance = torch.where(counted, centered, 0).square().sum(self._reduced) / total
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), 1 - self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), 1 - self.momentum)
        output = centered * torch.rsqrt(variance + self.epsilon).view(self._broadcast)
        if self.weight is not None:
            output = output * self.weight.view(self._broadcast)
        if self.bias is not None:
            output = output + self.bias.view(self._broadcast)
        return output.to(inputs.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torch's own batch norm counts its batches, which nothing here needs.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._check_axis(tuple(input_shape))
        return tuple(input_shape)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(input_dtypes[0], self.dtype) if input_dtypes else self.dtype

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": constraints.serialize(self.beta_constraint),
            "gamma_constraint": constraints.serialize(self.gamma_constraint),
            "synchronized": False,
            "renorm": False,
            "renorm_clipping": self.renorm_clipping,
            "renorm_momentum": self.renorm_momentum,
        }
