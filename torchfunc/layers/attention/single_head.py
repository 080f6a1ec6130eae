"""Attention and AdditiveAttention: without weights, or nearly so, and without heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.layers.attention.dot_product import attend, causal_mask, penalty
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import check_output_shape, known_size
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.masks import Masks
from torchfunc.layers.base.output_specs import promote_to_float
from torchfunc.layers.base.shapes import Shape, Shapes, differ, is_shape
from torchfunc.layers.regularization import Dropout

__all__ = ["AdditiveAttention", "Attention"]


class Attention(Layer):
    """Weighs values by how well a query fits their keys: `softmax(query @ key.mT) @ value`.

    Source: Luong et al. 2015, https://arxiv.org/abs/1508.04025.

    Shape: a list `[query, value]` or `[query, value, key]`; query `(batch, targets, size)`, value
    `(batch, sources, value size)`, key `(batch, sources, size)`, the value by default -> `(batch, targets, value
    size)`; with scores a tuple of that and `(batch, targets, sources)`.
    Parameters: `scale` and `concat_score_weight`, scalars, or None.

    Call arguments, all but the first optional:
        inputs: the list.
        mask: a list `[query mask, value mask]` of bools `(batch, targets)` and `(batch, sources)`, either may be
            None: masked targets give zeros, masked sources do not count. Masks of a graph are passed automatically.
        training: whether to drop scores; the layer's mode by default.
        return_attention_scores: whether to return the scores after the softmax (and the dropout) as well. No fused
            kernel computes those.
        use_causal_mask: whether no target may look at later sources.

    The output's mask is the query's.

    Args:
        use_scale: whether there is a `scale` for the scores, or in "concat" for the argument of tanh.
        score_mode: "dot", or "concat" for `concat_score_weight * sum(tanh(query + key))`, which no fused kernel
            computes.
        dropout: the share of the scores that training drops.
        seed: an integer, for reproducible dropout; no fused kernel in training then.
        **kwargs: of `Layer`.

    Raises:
        ValueError: `score_mode` is neither.

    >>> query, value = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> layers.Attention()([query, value])  # of a query that fits all alike: the mean
    tensor([[[2., 3.]]])
    """

    supports_masking = True
    scale: nn.Parameter | None
    concat_score_weight: nn.Parameter | None

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if score_mode not in ("dot", "concat"):
            raise ValueError(f"{type(self).__name__} takes 'dot' or 'concat' for score_mode, got {score_mode!r}.")
        self.use_scale = bool(use_scale)
        self.score_mode = score_mode
        self.dropout = dropout
        self._dropout = Dropout(dropout, seed=seed) if dropout else None
        self.seed = seed

    def build(self, input_shape: Sequence[Shape]) -> None:
        check_output_shape(self, input_shape)
        self._add_scalar("scale", self.use_scale)
        self._add_scalar("concat_score_weight", self.score_mode == "concat")

    def _add_scalar(self, name: str, used: bool) -> None:
        if used:
            self.add_weight((), "ones", names=(name,))
        else:
            self.register_parameter(name, None)

    def call(
        self,
        inputs: Sequence[Tensor],
        mask: Sequence[Tensor | None] | None = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        query, value, key = [
            each if each.is_floating_point() else each.to(self.dtype) for each in (*inputs, inputs[1])[:3]
        ]
        query_mask, value_mask = (None, None) if mask is None else self._checked_masks([query.shape, value.shape], mask)
        seeded = training and self.dropout and self.seed is not None
        if self._is_dot_product() and not return_attention_scores and not seeded:
            # The kernel takes a mask or the causal flag, not both.
            bias = None if value_mask is None else _bias(query, value, value_mask, use_causal_mask)
            dropped = self.dropout if training else 0.0
            output = self._attend(query, key, value, bias, causal=use_causal_mask and bias is None, dropout=dropped)
        else:
            scores = self._calculate_scores(query, key)
            if value_mask is not None or use_causal_mask:
                scores = scores + _bias(query, value, value_mask, use_causal_mask)
            scores = scores.softmax(-1)
            if self._dropout is not None:
                scores = self._dropout.call(scores, training=training)
            output = scores @ value
        if query_mask is not None:
            output = output.masked_fill(~query_mask.to(torch.bool).unsqueeze(-1), 0.0)
        return (output, scores) if return_attention_scores else output

    def _is_dot_product(self) -> bool:
        return self.score_mode == "dot"

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
        query = query if self.scale is None else query * self.scale
        if query.ndim > 3:
            return attend(query, key, value, bias, scale=1.0, **options)
        # The fast kernels need an axis of heads.
        query, key, value = (tensor.unsqueeze(1) for tensor in (query, key, value))
        bias = None if bias is None else bias.unsqueeze(1)
        return attend(query, key, value, bias, scale=1.0, **options).squeeze(1)

    def _calculate_scores(self, query: Tensor, key: Tensor) -> Tensor:
        """`(batch, targets, sources)`, before the softmax."""
        if self._is_dot_product():
            scores = query @ key.transpose(-2, -1)
            return scores if self.scale is None else scores * self.scale
        summed = query.unsqueeze(-2) + key.unsqueeze(-3)
        summed = summed if self.scale is None else summed * self.scale
        assert self.concat_score_weight is not None
        return summed.tanh().sum(-1) * self.concat_score_weight

    # Masks and shapes

    def _checked_masks(self, shapes: Sequence[Any], mask: Masks) -> Sequence[Masks]:
        """The masks of query and value, tensors or symbolic ones, for inputs of these shapes."""
        if not isinstance(mask, (list, tuple)) or len(mask) not in (2, 3):
            raise ValueError(f"{self.describe()} takes a list [query mask, value mask] for mask, got {mask!r}.")
        for name, own, shape in zip(("query", "value"), mask, shapes, strict=False):
            if own is not None and differ(own.shape, shape[:-1]):
                raise ValueError(
                    f"{self.describe()} takes a mask of shape {tuple(shape[:-1])} for the {name}, got "
                    f"{tuple(own.shape)}."
                )
        return mask[:2]

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        return None if mask is None else mask[0]

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        shapes = None if is_shape(input_shape) else [tuple(shape) for shape in input_shape]
        if shapes is None or len(shapes) not in (2, 3):
            raise ValueError("it is called on a list [query, value] or [query, value, key]")
        query, value, key = (*shapes, shapes[1])[:3]
        if len(query) < 3 or not len(query) == len(value) == len(key):
            raise ValueError("query, value and key are (batch, steps, size), or have further axes behind the batch")
        if differ(query[:-2], value[:-2]) or differ(value[:-1], key[:-1]):
            raise ValueError("the batch of query, value and key, and the steps of value and key, must be the same")
        if differ(query[-1:], key[-1:]):
            raise ValueError(f"query and key must have the same last size, got {query[-1]} and {key[-1]}")
        return (*query[:-1], value[-1])

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return promote_to_float(super().compute_output_dtype(*input_dtypes), self.dtype)

    def _shapes_with_scores(self, input_shape: Sequence[Shape]) -> Shapes:
        return self.compute_output_shape(input_shape), (*input_shape[0][:-1], input_shape[1][-2])

    def _shape_formula(self, arguments: Mapping[str, Any]) -> Callable[..., Any]:
        formula = self._shapes_with_scores if arguments.get("return_attention_scores") else self.compute_output_shape

        def checked(input_shape: Sequence[Shape]) -> Shapes:
            shapes = formula(input_shape)
            if arguments.get("mask") is not None:
                self._checked_masks(input_shape, arguments["mask"])
            return shapes

        return checked

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "use_scale": self.use_scale,
            "score_mode": self.score_mode,
            "dropout": self.dropout,
            "seed": self.seed,
        }


class AdditiveAttention(Attention):
    """Weighs values by `softmax(sum(scale * tanh(query + key)))`. No fused kernel computes that.

    Source: Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473.

    Shapes and call arguments: as of `Attention`.
    Parameter: `scale` (size,), or None.

    Args:
        use_scale: whether there is a `scale`.
        dropout: the share of the scores that training drops.
        **kwargs: `seed`, as of `Attention`, and those of `Layer`.

    >>> layers.AdditiveAttention()([Input((5, 16)), Input((7, 16))]).shape
    (None, 5, 16)
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(use_scale=use_scale, dropout=dropout, **kwargs)

    def build(self, input_shape: Sequence[Shape]) -> None:
        check_output_shape(self, input_shape)
        if self.use_scale:
            self.add_weight((known_size(input_shape[0], -1, self),), "glorot_uniform", names=("scale",))
        else:
            self.register_parameter("scale", None)

    def _is_dot_product(self) -> bool:
        return False

    def _calculate_scores(self, query: Tensor, key: Tensor) -> Tensor:
        fit = (query.unsqueeze(-2) + key.unsqueeze(-3)).tanh()
        return fit.sum(-1) if self.scale is None else fit @ self.scale

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        shape = super().compute_output_shape(input_shape)
        if self.built and self.scale is not None and differ(input_shape[0][-1:], self.scale.shape):
            raise ValueError(f"its scale was built for queries of size {len(self.scale)}, got {input_shape[0][-1]}")
        return shape

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("score_mode")
        return config


def _bias(query: Tensor, value: Tensor, value_mask: Tensor | None, causal: bool) -> Tensor:
    """What to add to the scores, `(batch, targets, sources)` or what broadcasts to it."""
    allowed = None if value_mask is None else value_mask.to(torch.bool).unsqueeze(-2)
    if causal or allowed is None:
        order = causal_mask(query.shape[-2], value.shape[-2], query.device)
        allowed = order if allowed is None else allowed & order
    # As in Keras; half precision ends at 65504.
    return penalty(allowed, 65504.0 if query.dtype == torch.float16 else 1e9, query.dtype)
