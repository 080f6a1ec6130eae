"""MultiHeadAttention and GroupedQueryAttention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchfunc.layers.attention.base import HeadedAttention
from torchfunc.layers.attention.projection import Projection
from torchfunc.layers.base.argument_types import Config, ConstraintLike, InitializerLike, RegularizerLike
from torchfunc.layers.base.checks import positive
from torchfunc.layers.base.shapes import Shape, differ

__all__ = ["GroupedQueryAttention", "MultiHeadAttention"]


class MultiHeadAttention(HeadedAttention):
    """Each of several heads weighs the values by how well its queries fit its keys.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; gates: Qiu et al. 2025,
    https://arxiv.org/abs/2505.06708.

    Shape: query `(batch, targets, features)`, value and key `(batch, sources, features)`, whose features may differ,
    -> `(batch, targets, output_shape or the query's features)`; with scores a tuple of that and
    `(batch, heads, targets, sources)`. With further axes and `attention_axes`, all inputs have as many, and the
    scores are `(batch, other axes, heads, *targets, *sources)`.

    For call arguments, masks and the projections see `HeadedAttention`.

    Args:
        num_heads: how many heads.
        key_dim: the size of a head's queries and keys.
        value_dim: the size of a head's values; `key_dim` by default.
        dropout: the share of the scores that training drops.
        use_bias: whether the projections have biases.
        output_shape: the size of the output's last axis, or the sizes of several; the query's features by default.
        attention_axes: the axis or axes to attend over; all but batch and features by default.
        sliding_window: if given, no target looks further than this less one, to either side.
        flash_attention: True for torch's flash kernel or an error, False for any other; torch chooses by default.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint,
        bias_constraint: of the projections, see `WeightedLayer`.
        activity_regularizer: a penalty on the output of every projection.
        use_gate: whether the outputs of the heads are scaled by `sigmoid` of one more projection of the query.
        seed: an integer, for reproducible dropout; no fused kernel in training then.
        **kwargs: `name`, `trainable`, `dtype`.

    Raises:
        ValueError: a size is no positive integer, or flash attention is to drop scores.

    >>> query, value = Input((5, 16)), Input((7, 32))
    >>> attention = layers.MultiHeadAttention(num_heads=4, key_dim=8)
    >>> attention(query, value).shape
    (None, 5, 16)
    >>> output, scores = attention(query, value, return_attention_scores=True)
    >>> scores.shape
    (None, 4, 5, 7)
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: int | Sequence[int] | None = None,
        attention_axes: int | Sequence[int] | None = None,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        heads = positive(num_heads, "num_heads", owner)
        size = positive(key_dim, "key_dim", owner)
        value_size = size if value_dim is None else positive(value_dim, "value_dim", owner)
        super().__init__(
            (heads, heads),
            (size, value_size),
            dropout,
            use_bias,
            sliding_window,
            flash_attention,
            {
                "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
                "bias": (bias_initializer, bias_regularizer, bias_constraint),
            },
            activity_regularizer,
            use_gate,
            seed,
            **kwargs,
        )
        self.num_heads, self.key_dim, self.value_dim = heads, size, value_size
        sizes = (output_shape,) if isinstance(output_shape, int) else output_shape
        self._output_shape = None if sizes is None else tuple(positive(one, "output_shape", owner) for one in sizes)
        self.attention_axes = _as_axes(attention_axes, owner)

    def build(self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None) -> None:  # type: ignore[override]
        super().build(query_shape, value_shape, key_shape)
        assert self._axes is not None
        # As in Keras, the config of a built layer names the axes.
        self.attention_axes = self._axes.over

    # Keras' names of the projections.

    @property
    def query_dense(self) -> Projection:
        """`q_proj`."""
        return self.q_proj

    @property
    def key_dense(self) -> Projection:
        """`k_proj`."""
        return self.k_proj

    @property
    def value_dense(self) -> Projection:
        """`v_proj`."""
        return self.v_proj

    @property
    def output_dense(self) -> Projection:
        """`out_proj`."""
        return self.out_proj

    def _output_sizes(self, query_shape: Shape) -> Shape:
        return self._output_shape or (query_shape[-1],)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "output_shape": self._output_shape,
            "attention_axes": self.attention_axes,
        }


class GroupedQueryAttention(HeadedAttention):
    """MultiHeadAttention whose heads share keys and values in groups. Keras exports it as `GroupQueryAttention`.

    Source: Ainslie et al. 2023, https://arxiv.org/abs/2305.13245.

    Shape: query `(batch, targets, features)`, value and key `(batch, sources, features)` -> `(batch, targets,
    features)`; with scores a tuple of that and `(batch, num_query_heads, targets, sources)`.

    For call arguments, masks and the projections see `HeadedAttention`.

    Args:
        head_dim: the size of a head's queries, keys and values.
        num_query_heads: how many heads.
        num_key_value_heads: how many of keys and values: 1 for all queries to share them (multi-query attention),
            or any divisor of `num_query_heads`.
        activity_regularizer: a penalty on the output of every projection, and on that of the layer.
        dropout, use_bias, sliding_window, flash_attention, kernel_initializer, bias_initializer, kernel_regularizer,
        bias_regularizer, kernel_constraint, bias_constraint, use_gate, seed, **kwargs: see `MultiHeadAttention`.

    Raises:
        ValueError: a size is no positive integer, the heads do not divide, or flash attention is to drop scores.

    >>> query, value = Input((5, 16)), Input((7, 16))
    >>> layers.GroupQueryAttention(head_dim=8, num_query_heads=4, num_key_value_heads=2)(query, value).shape
    (None, 5, 16)
    """

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        size = positive(head_dim, "head_dim", owner)
        heads = positive(num_query_heads, "num_query_heads", owner)
        groups = positive(num_key_value_heads, "num_key_value_heads", owner)
        if heads % groups:
            raise ValueError(
                f"{owner} shares keys and values evenly: num_query_heads={heads} must be a multiple of "
                f"num_key_value_heads={groups}."
            )
        super().__init__(
            (heads, groups),
            (size, size),
            dropout,
            use_bias,
            sliding_window,
            flash_attention,
            {
                "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
                "bias": (bias_initializer, bias_regularizer, bias_constraint),
            },
            activity_regularizer,
            use_gate,
            seed,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.head_dim, self.num_query_heads, self.num_key_value_heads = size, heads, groups

    def compute_output_shape(self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None) -> Shape:  # type: ignore[override]
        if len(query_shape) != 3:
            raise ValueError(f"it takes a query (batch, targets, features), got {tuple(query_shape)}")
        if differ(query_shape[-1:], value_shape[-1:]):
            raise ValueError(
                f"query and value must have as many features, got {tuple(query_shape)} and {tuple(value_shape)}"
            )
        return super().compute_output_shape(query_shape, value_shape, key_shape)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "head_dim": self.head_dim,
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
        }


def _as_axes(axes: int | Sequence[int] | None, owner: str) -> tuple[int, ...] | None:
    found = (axes,) if isinstance(axes, int) else axes
    if found is None:
        return None
    if not isinstance(found, (list, tuple)) or not all(isinstance(axis, int) for axis in found):
        raise ValueError(f"{owner} takes an integer or a list of them for attention_axes, got {axes!r}.")
    return tuple(found) or None
