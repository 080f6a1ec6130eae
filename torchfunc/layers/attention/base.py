"""HeadedAttention: what MultiHeadAttention and GroupedQueryAttention share, on `F.scaled_dot_product_attention`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc import regularizers
from torchfunc.layers.attention.axes import AttentionAxes
from torchfunc.layers.attention.dot_product import attend, attend_with_scores, causal_mask, penalty, window_mask
from torchfunc.layers.attention.projection import Projection
from torchfunc.layers.base.argument_types import Config, RegularizerLike, RoleArguments
from torchfunc.layers.base.checks import check_output_shape, known_size, positive
from torchfunc.layers.base.shapes import Shape, Shapes, differ
from torchfunc.layers.base.weighted_layer import WeightedLayer
from torchfunc.layers.regularization import Dropout

__all__ = ["HeadedAttention"]


class HeadedAttention(WeightedLayer):
    """The base of both: projections, masks, and the choice of the kernel.

    Call arguments, all but the first two optional:
        query: `(batch, targets, features)`.
        value: `(batch, sources, features)`.
        key: like `value`, and `value` itself by default.
        query_mask, value_mask, key_mask: `(batch, targets)`, `(batch, sources)` and `(batch, sources)`, False at
            steps that do not count. Masks of a graph are passed automatically.
        attention_mask: `(batch, targets, sources)`, or with an axis for the heads behind the batch axis: False where
            a target must not look.
        return_attention_scores: whether to return the scores after the softmax as well, as the second of a tuple. No
            fused kernel computes those.
        training: whether to drop scores; the layer's mode by default.
        use_causal_mask: whether no target may look at later sources.

    The output's mask is the query's. A target that may look nowhere gets, as in Keras, the mean of all values, or
    zeros if there is dropout, if the scores are returned, or if the inputs have more than 3 axes.

    Attributes:
        q_proj, k_proj, v_proj, gate_proj, out_proj: the projections, each with a `weight` and a `bias` as in
            `torch.nn.Linear`.
    """

    supports_masking = True
    attention_axes: tuple[int, ...] | None = None
    q_proj: Projection
    k_proj: Projection
    v_proj: Projection
    gate_proj: Projection
    out_proj: Projection

    def __init__(
        self,
        heads: tuple[int, int],
        sizes: tuple[int, int],
        dropout: float,
        use_bias: bool,
        sliding_window: int | None,
        flash_attention: bool | None,
        weights: Mapping[str, RoleArguments],
        projection_regularizer: RegularizerLike,
        use_gate: bool,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(weights, **kwargs)
        owner = type(self).__name__
        self._heads = heads
        self._sizes = sizes
        self.dropout = dropout
        self._dropout = Dropout(dropout, seed=seed) if dropout else None
        self.use_bias = bool(use_bias)
        self.use_gate = bool(use_gate)
        self.sliding_window = None if sliding_window is None else positive(sliding_window, "sliding_window", owner)
        if flash_attention and dropout:
            raise ValueError(f"{owner}(flash_attention=True) takes no dropout, got dropout={dropout!r}.")
        self.flash_attention = flash_attention
        self._projection_regularizer = regularizers.get(projection_regularizer)
        self.seed = seed
        # What the weights are built for.
        self._axes: AttentionAxes | None = None
        self._features: dict[str, int] = {}

    # Weights

    def build(self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None) -> None:  # type: ignore[override]
        key_shape = value_shape if key_shape is None else key_shape
        check_output_shape(self, query_shape, value_shape, key_shape)
        query, value, key = (known_size(shape, -1, self) for shape in (query_shape, value_shape, key_shape))
        (heads, groups), (size, value_size) = self._heads, self._sizes
        # In Keras' order.
        self.q_proj = self._projection("query", (query,), (heads, size))
        self.k_proj = self._projection("key", (key,), (groups, size))
        if self.use_gate:
            self.gate_proj = self._projection("gate", (query,), (heads, value_size), torch.sigmoid)
        self.v_proj = self._projection("value", (value,), (groups, value_size))
        self.out_proj = self._projection("attention_output", (heads, value_size), self._output_sizes(query_shape))
        self._axes = AttentionAxes.of(len(query_shape), self.attention_axes)
        self._features = {"query": query, "value": value, "key": key}
        if self._dropout is not None:
            # Which is not called where a kernel drops the scores.
            self._dropout.built = True

    def _projection(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[Any],
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> Projection:
        kinds = ("initializer", "regularizer", "constraint")
        weights: Any = {role: tuple(getattr(self, f"{role}_{kind}") for kind in kinds) for role in self._roles}
        return Projection(
            inputs,
            outputs,
            self.use_bias,
            weights,
            activation,
            activity_regularizer=self._projection_regularizer,
            trainable=self.trainable,
            dtype=self.dtype,
            name=name,
        )

    # Running

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        key = value if key is None else key
        axes = self._axes
        assert axes is not None
        masks = (query_mask, value_mask, key_mask, attention_mask)
        if return_attention_scores or use_causal_mask or any(mask is not None for mask in masks):
            self._check_call(query.shape, value.shape, masks, return_attention_scores, use_causal_mask)
        mask = self._merge_masks(axes, query, value, masks, use_causal_mask)
        q, k, v = (axes.split(p(x)) for p, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value)))
        scale = 1 / math.sqrt(self._sizes[0])
        if return_attention_scores or (training and self.dropout and self.seed is not None):
            if use_causal_mask and mask is None:
                mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
            drop = functools.partial(self._drop, training=bool(training))
            output, scores = attend_with_scores(q, k, v, mask, scale=scale, dropout=drop)
        else:
            if mask is not None and not self.dropout and axes.rank == 3:
                mask = penalty(mask, 0.7 * torch.finfo(q.dtype).max, q.dtype)
            causal, dropped = use_causal_mask and mask is None, self.dropout if training else 0.0
            output = attend(q, k, v, mask, scale=scale, causal=causal, dropout=dropped, flash=self.flash_attention)
        output = axes.join(output, query.shape)
        if self.use_gate:
            output = output * self.gate_proj(query)
        output = self.out_proj(output.flatten(-2))
        return (output, axes.join_scores(scores, query.shape, value.shape)) if return_attention_scores else output

    def _drop(self, scores: Tensor, training: bool) -> Tensor:
        return scores if self._dropout is None else self._dropout.call(scores, training=training)

    def _merge_masks(
        self, axes: AttentionAxes, query: Tensor, value: Tensor, masks: Sequence[Tensor | None], causal: bool
    ) -> Tensor | None:
        """The mask for the kernels; None for no mask, and for a causal mask that they apply themselves."""
        *step_masks, attention_mask = masks
        targets, sources = axes.steps(query.shape), axes.steps(value.shape)
        parts = [
            axes.step_mask(mask.to(torch.bool), place)
            for mask, place in zip(step_masks, (-1, -2, -2), strict=True)
            if mask is not None
        ]
        if attention_mask is not None:
            parts.append(axes.pair_mask(attention_mask.to(torch.bool), query.shape, value.shape))
        if self.sliding_window is not None:
            parts.append(window_mask(targets, sources, self.sliding_window, query.device))
        if causal and parts:
            parts.append(causal_mask(targets, sources, query.device))
        return axes.fold(functools.reduce(torch.logical_and, parts), query.shape) if parts else None

    # Shapes

    def _output_sizes(self, query_shape: Shape) -> Shape:
        """The output's axes that are not the query's."""
        return (query_shape[-1],)

    def compute_output_shape(self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None) -> Shape:  # type: ignore[override]
        key_shape = value_shape if key_shape is None else key_shape
        shapes = {"query": tuple(query_shape), "value": tuple(value_shape), "key": tuple(key_shape)}
        rank = len(query_shape)
        axes = AttentionAxes.of(rank, self.attention_axes)
        if any(len(shape) != rank for shape in shapes.values()):
            raise ValueError(f"query, value and key must have as many axes, got {_listing(shapes)}")
        if self._axes is not None and self._axes != axes:
            raise ValueError(f"its weights were built for inputs of {self._axes.rank} axes, got {_listing(shapes)}")
        if differ(value_shape[:-1], key_shape[:-1]):
            raise ValueError(f"value and key must be equal in all axes but the last, got {_listing(shapes)}")
        if any(differ([query_shape[axis]], [value_shape[axis]]) for axis in (0, *axes.others)):
            raise ValueError(
                f"query and value must be equal in all axes but {axes.over} and the last, got {_listing(shapes)}"
            )
        for name, features in self._features.items():
            if differ([features], [shapes[name][-1]]):
                raise ValueError(f"its weights were built for {features} features of {name}, got {_listing(shapes)}")
        if self.sliding_window is not None and len(axes.over) > 1:
            raise ValueError(f"sliding_window needs one axis to attend over, got attention_axes={axes.over}")
        return (*query_shape[:-1], *self._output_sizes(tuple(query_shape)))

    def _shapes_with_scores(self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None) -> Shapes:
        output = self.compute_output_shape(query_shape, value_shape, key_shape)
        axes = AttentionAxes.of(len(query_shape), self.attention_axes)
        return output, axes.scores_shape(query_shape, value_shape, self._heads[0])

    def _shape_formula(self, arguments: Mapping[str, Any]) -> Callable[..., Any]:
        scored = bool(arguments.get("return_attention_scores"))
        formula = self._shapes_with_scores if scored else self.compute_output_shape
        masks = [arguments.get(name) for name in _MASKS]

        def checked(query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None) -> Shapes:
            shapes = formula(query_shape, value_shape, key_shape)
            self._check_call(query_shape, value_shape, masks, scored, bool(arguments.get("use_causal_mask")))
            return shapes

        return checked

    def _check_call(
        self, query_shape: Sequence[Any], value_shape: Sequence[Any], masks: Sequence[Any], scored: bool, causal: bool
    ) -> None:
        """Raise a ValueError if these wishes, or these masks, tensors or symbolic ones, do not fit the inputs."""
        axes = self._axes
        assert axes is not None
        if scored and self.flash_attention:
            raise ValueError(f"{self.describe()} uses flash attention, which gives no scores to return.")
        if causal and len(axes.over) > 1:
            raise ValueError(f"{self.describe()} attends over axes {axes.over}; use_causal_mask needs a single one.")
        *step_masks, attention_mask = masks
        for name, mask, shape in zip(_MASKS[:-1], step_masks, (query_shape, value_shape, value_shape), strict=True):
            steps = tuple(shape[axis] for axis in axes.over)
            if mask is not None and not any(_fits(mask.shape, fit) for fit in (shape[:-1], (shape[0], *steps))):
                raise ValueError(
                    f"{self.describe()} takes a {name} of shape {(shape[0], *steps)}, got {tuple(mask.shape)}."
                )
        scores = axes.scores_shape(tuple(query_shape), tuple(value_shape), self._heads[0])
        pairs = 2 * len(axes.over)
        if attention_mask is not None:
            missing = len(scores) - attention_mask.ndim
            expected = (*scores[: len(scores) - pairs - missing], *scores[-pairs:])
            if missing < 0 or not _fits(attention_mask.shape, expected):
                raise ValueError(
                    f"{self.describe()} takes an attention_mask of shape {(scores[0], *scores[-pairs:])} or {scores}, "
                    f"got {tuple(attention_mask.shape)}."
                )

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.dtype

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "use_gate": self.use_gate,
            "sliding_window": self.sliding_window,
            **self._weights_config(),
            "activity_regularizer": regularizers.serialize(self._projection_regularizer),
            "seed": self.seed,
        }


_MASKS = ("query_mask", "value_mask", "key_mask", "attention_mask")


def _fits(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    """Whether a mask of this shape broadcasts to the expected shape."""
    return len(shape) == len(expected) and all(
        a == b or a == 1 or a is None or b is None for a, b in zip(shape, expected, strict=True)
    )


def _listing(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
