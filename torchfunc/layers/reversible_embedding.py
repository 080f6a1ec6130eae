"""ReversibleEmbedding: vectors for integers, and scores of all integers for vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torchfunc.dtypes import DTypeLike, as_dtype, dtype_name
from torchfunc.layers.base.argument_types import Config, ConstraintLike, InitializerLike, RegularizerLike
from torchfunc.layers.base.masks import Masks
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.core import Embedding

__all__ = ["ReversibleEmbedding"]


class ReversibleEmbedding(Embedding):
    """An `Embedding` that also works backwards, as language models do with their vocabulary (Press & Wolf, 2016).

    Shape: integers `(batch, ...)` -> `(batch, ..., output_dim)`; with `reverse=True` in the call, `(..., output_dim)`
    -> scores `(..., input_dim)`. Parameters: `weight` (input_dim, output_dim); `reverse_embeddings` (output_dim,
    input_dim) if it is not the same both ways.

    Args:
        input_dim, output_dim: as for `Embedding`.
        tie_weights: whether the vectors are the same both ways.
        embeddings_initializer, embeddings_regularizer, embeddings_constraint: of the vectors.
        mask_zero: whether 0 is padding.
        reverse_dtype: what scores are computed in, and come in; the layer's by default.
        logit_soft_cap: scores are kept between minus this and this, by `cap * tanh(score / cap)`.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> tokens = layers.ReversibleEmbedding(1000, 16)
    >>> tokens(tokens(Input((7,), dtype="int64")), reverse=True).shape
    (None, 7, 1000)
    """

    reverse_embeddings: nn.Parameter

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        tie_weights: bool = True,
        embeddings_initializer: InitializerLike = "uniform",
        embeddings_regularizer: RegularizerLike = None,
        embeddings_constraint: ConstraintLike = None,
        mask_zero: bool = False,
        reverse_dtype: DTypeLike | None = None,
        logit_soft_cap: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_dim,
            output_dim,
            embeddings_initializer,
            embeddings_regularizer,
            embeddings_constraint,
            mask_zero,
            **kwargs,
        )
        self.tie_weights = tie_weights
        self.reverse_dtype = None if reverse_dtype is None else as_dtype(reverse_dtype)
        self.logit_soft_cap = logit_soft_cap
        self._initializer = embeddings_initializer

    def build(self, input_shape: Shape | None = None) -> None:
        super().build(input_shape)
        if not self.tie_weights and "reverse_embeddings" not in self._parameters:
            name, shape = "reverse_embeddings", (self.output_dim, self.input_dim)
            self.add_weight(shape, self._initializer, names=(name,), keras_name=name)

    def call(self, inputs: Tensor, reverse: bool = False) -> Tensor:
        if not reverse:
            return super().call(inputs)
        kernel = self.weight if self.tie_weights else self.reverse_embeddings.t()
        if self.reverse_dtype is not None:
            inputs, kernel = inputs.to(self.reverse_dtype), kernel.to(self.reverse_dtype)
        scores = F.linear(inputs, kernel)
        cap = self.logit_soft_cap
        return scores if cap is None else (scores / cap).tanh() * cap

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        # Backwards the inputs are floats.
        return None if inputs.dtype.is_floating_point else super().compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape: Shape, reverse: bool = False) -> Shape:
        return (*input_shape[:-1], self.input_dim) if reverse else super().compute_output_shape(input_shape)

    def _has_shape_formula(self) -> bool:
        # (The formula knows nothing of a dtype for one direction.)
        return self.reverse_dtype is None

    def _shape_formula(self, arguments: Mapping[str, Any]) -> Callable[..., Any]:
        reverse = bool(arguments.get("reverse"))
        return lambda inputs_shape: self.compute_output_shape(inputs_shape, reverse)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "tie_weights": self.tie_weights,
            "reverse_dtype": None if self.reverse_dtype is None else dtype_name(self.reverse_dtype),
            "logit_soft_cap": self.logit_soft_cap,
        }
