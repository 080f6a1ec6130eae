"""SpectralNormalization: a wrapper that scales a kernel to a largest singular value of 1."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from torchfunc import initializers
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import positive
from torchfunc.layers.base.shapes import Shapes
from torchfunc.layers.base.weighted_layer import WeightedLayer, has_kernel, kernel_of
from torchfunc.layers.base.weights import Weight
from torchfunc.layers.wrappers import Wrapper

__all__ = ["SpectralNormalization"]


class _KernelOfLayer(Weight):
    """The kernel of the wrapped layer, which Keras counts among the wrapper's own weights, as the first."""

    def tensors(self, owner: nn.Module) -> list[Tensor]:
        assert isinstance(owner, Wrapper)
        return super().tensors(owner.layer)

    def is_stored(self, owner: nn.Module) -> bool:
        assert isinstance(owner, Wrapper)
        return super().is_stored(owner.layer)


class SpectralNormalization(Wrapper):
    """Divides the kernel of a layer by its largest singular value, as power iterations find it, at each training call.

    Source: Miyato et al. 2018, https://arxiv.org/abs/1802.05957. As in Keras the layer's kernel itself is changed, no
    gradient goes through the singular value, and a kernel of zeros is not changed.

    Shape: the layer's. As in Keras, a mask is not passed on.
    Buffer: `vector_u` (1, size of the kernel's last axis), the singular vector.

    Args:
        layer: a layer with a kernel (`Dense`, a convolution ...) or an `Embedding`.
        power_iterations: how many iterations in each training call.
        **kwargs: `activity_regularizer`, `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `power_iterations` is not a positive integer, or the layer has no kernel.

    >>> layers.SpectralNormalization(layers.Dense(8))(Input((4,))).shape
    (None, 8)
    """

    vector_u: Tensor

    def __init__(self, layer: nn.Module, power_iterations: int = 1, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.power_iterations = positive(power_iterations, "power_iterations", type(self).__name__)
        if not has_kernel(layer):
            raise ValueError(
                f"SpectralNormalization goes around a layer with a kernel or embeddings, got {type(layer).__name__}. "
                "For a torch.nn.Module there is torch.nn.utils.parametrizations.spectral_norm."
            )

    def build(self, input_shape: Shapes | None = None) -> None:
        super().build(input_shape)
        assert isinstance(self.layer, WeightedLayer)
        self.declare_input(self.layer.input_spec)
        self._weights.append(_KernelOfLayer(**vars(self._kernel)))
        kernel = self._kernel.get(self.layer)
        self.add_weight(
            (1, kernel.shape[-1]),
            initializers.TruncatedNormal(stddev=0.02),
            dtype=kernel.dtype,
            trainable=False,
            names=("vector_u",),
        )

    @property
    def _kernel(self) -> Weight:
        assert isinstance(self.layer, WeightedLayer)
        return kernel_of(self.layer)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training:
            return self.layer(inputs)
        (name,) = self._kernel.names
        kernel: Tensor = getattr(self.layer, name)
        with torch.no_grad():
            vector_u, sigma = self._power_iteration()
            normalized = kernel / sigma
        # A new tensor, so that another call before the backward pass may change the kernel again. Its gradient is
        # that of the kernel.
        used = kernel + (normalized - kernel).detach()
        with torch.no_grad():
            kernel.copy_(normalized)
            self.vector_u.copy_(vector_u)
        return functional_call(self.layer, {name: used}, (inputs,))

    def _power_iteration(self) -> tuple[Tensor, Tensor]:
        """The singular vector after some more iterations, and the singular value; the old one and 1 for zeros."""
        weights = self._kernel.get(self.layer)
        weights = weights.reshape(-1, weights.shape[-1])
        vector_u = self.vector_u
        for _ in range(self.power_iterations):
            vector_v = F.normalize(vector_u @ weights.t(), eps=1e-7)
            vector_u = F.normalize(vector_v @ weights, eps=1e-7)
        empty = (weights == 0).all()
        sigma = torch.where(empty, 1.0, vector_v @ weights @ vector_u.t())
        return torch.where(empty, self.vector_u, vector_u), sigma.squeeze()

    def compute_output_shape(self, input_shape: Shapes) -> Shapes:
        assert isinstance(self.layer, WeightedLayer)
        return self.layer.compute_output_shape(input_shape)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        assert isinstance(self.layer, WeightedLayer)
        return self.layer.compute_output_dtype(*input_dtypes)

    def get_config(self) -> Config:
        return {**super().get_config(), "power_iterations": self.power_iterations}
