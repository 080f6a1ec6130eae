"""Attention with Keras' masks, axes and gates, on `F.scaled_dot_product_attention`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchfunc.layers.attention.axes import AttentionAxes
from torchfunc.layers.attention.dot_product import attend, attend_with_scores, causal_mask, penalty, window_mask
from torchfunc.modules.plain.dropout import BroadcastDropout

__all__ = ["Attention", "MultiHeadAttention"]


class MultiHeadAttention(nn.Module):
    """Each of several heads weighs the values by how well its queries fit its keys.

    Args:
        features: the sizes of queries, keys and values.
        out_features: the sizes of the output's last axes.
        num_heads, num_groups: how many heads the queries have, and how many keys and values have.
        head_dim, value_dim: the sizes of a head's queries and keys, and of its values.
        over: the axes to attend over.
        rank: how many axes the inputs have.
        bias: whether the projections have biases.
        gate: whether the outputs of the heads are scaled by the sigmoid of one more projection of the query.
        dropout: the share of the scores that training drops.
        sliding_window: no target looks further than this less one.
        flash: True for torch's flash kernel, False for any other; torch chooses by default.
        seed: an integer for reproducible dropout.
    """

    def __init__(
        self,
        features: tuple[int, int, int],
        out_features: tuple[int, ...],
        num_heads: int,
        num_groups: int,
        head_dim: int,
        value_dim: int,
        over: tuple[int, ...] = (1,),
        rank: int = 3,
        bias: bool = True,
        gate: bool = False,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        flash: bool | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.features, self.out_features, self.num_heads, self.num_groups = (
            features,
            out_features,
            num_heads,
            num_groups,
        )
        self.head_dim, self.value_dim, self.over, self.rank = head_dim, value_dim, over, rank
        self.bias, self.gate, self.dropout, self.seed = bias, gate, dropout, seed
        self.sliding_window, self.flash = sliding_window, flash
        query, key, value = features
        self.q_proj = nn.Linear(query, num_heads * head_dim, bias)
        self.k_proj = nn.Linear(key, num_groups * head_dim, bias)
        if gate:
            self.gate_proj = nn.Linear(query, num_heads * value_dim, bias)
        self.v_proj = nn.Linear(value, num_groups * value_dim, bias)
        self.out_proj = nn.Linear(num_heads * value_dim, math.prod(out_features), bias)
        self.drop = BroadcastDropout(dropout, seed=seed)

    def merge_masks(
        self, axes: AttentionAxes, query: Tensor, value: Tensor, masks: Sequence[Tensor | None], causal: bool
    ) -> Tensor | None:
        """The mask for the kernels; None for no mask, and for a causal mask that they apply themselves."""
        *step_masks, attention_mask = masks
        targets, sources = axes.steps(query.shape), axes.steps(value.shape)
        places = zip(step_masks, (-1, -2, -2), strict=True)
        parts = [axes.step_mask(mask.to(torch.bool), place) for mask, place in places if mask is not None]
        if attention_mask is not None:
            parts.append(axes.pair_mask(attention_mask.to(torch.bool), query.shape, value.shape))
        if self.sliding_window is not None:
            parts.append(window_mask(targets, sources, self.sliding_window, query.device))
        if causal and parts:
            parts.append(causal_mask(targets, sources, query.device))
        return axes.fold(functools.reduce(torch.logical_and, parts), query.shape) if parts else None

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(batch, targets, features) and (batch, sources, features) -> (batch, targets, out_features)."""
        key = value if key is None else key
        axes = AttentionAxes(self.rank, self.over)
        mask = self.merge_masks(axes, query, value, (query_mask, value_mask, key_mask, attention_mask), use_causal_mask)
        q = axes.split(self.q_proj(query).unflatten(-1, (self.num_heads, self.head_dim)))
        k = axes.split(self.k_proj(key).unflatten(-1, (self.num_groups, self.head_dim)))
        v = axes.split(self.v_proj(value).unflatten(-1, (self.num_groups, self.value_dim)))
        scale, scores = 1 / math.sqrt(self.head_dim), q
        if return_attention_scores or (self.training and self.dropout and self.seed is not None):
            if use_causal_mask and mask is None:
                mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
            output, scores = attend_with_scores(q, k, v, mask, scale=scale, dropout=self.drop)
        else:
            if mask is not None and not self.dropout and self.rank == 3:
                mask = penalty(mask, 0.7 * torch.finfo(q.dtype).max, q.dtype)
            causal, dropped = use_causal_mask and mask is None, self.dropout if self.training else 0.0
            output = attend(q, k, v, mask, scale=scale, causal=causal, dropout=dropped, flash=self.flash)
        output = axes.join(output, query.shape)
        if self.gate:
            output = output * torch.sigmoid(self.gate_proj(query)).unflatten(-1, (self.num_heads, self.value_dim))
        output = self.out_proj(output.flatten(-2))
        output = output if len(self.out_features) == 1 else output.unflatten(-1, self.out_features)
        return (output, axes.join_scores(scores, query.shape, value.shape)) if return_attention_scores else output


class Attention(nn.Module):
    """Weighs values by how well a query fits their keys, without heads.

    Args:
        scores: "dot" for `query @ key.mT`, "concat" for `concat_score_weight * sum(tanh(query + key))`, "additive" for
            `sum(scale * tanh(query + key))`.
        scale_shape: of the parameter `scale`, () for a number; None for none.
        dropout: the share of the scores that training drops.
        seed: an integer for reproducible dropout.
    """

    def __init__(
        self,
        scores: str = "dot",
        scale_shape: tuple[int, ...] | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.scores, self.scale_shape, self.dropout, self.seed = scores, scale_shape, dropout, seed
        self.scale = None if scale_shape is None else nn.Parameter(torch.ones(scale_shape))
        if scores == "concat":
            self.concat_score_weight = nn.Parameter(torch.ones(()))
        self.drop = BroadcastDropout(dropout, seed=seed)

    def calculate(self, query: Tensor, key: Tensor) -> Tensor:
        """(batch, targets, sources), before the softmax."""
        if self.scores == "dot":
            fit = query @ key.transpose(-2, -1)
            return fit if self.scale is None else fit * self.scale
        summed = query.unsqueeze(-2) + key.unsqueeze(-3)
        if self.scores == "additive":
            return summed.tanh().sum(-1) if self.scale is None else summed.tanh() @ self.scale
        summed = summed if self.scale is None else summed * self.scale
        return summed.tanh().sum(-1) * self.concat_score_weight

    def forward(
        self,
        inputs: Sequence[Tensor],
        mask: Sequence[Tensor | None] | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Query (batch, targets, size), value and key (batch, sources, size) -> (batch, targets, value size)."""
        query, value, key = (*inputs, inputs[1])[:3]
        query_mask, value_mask = (None, None) if mask is None else mask[:2]
        scores = self.calculate(query, key)
        allowed = None if value_mask is None else value_mask.to(torch.bool).unsqueeze(-2)
        if use_causal_mask:
            order = causal_mask(query.shape[-2], value.shape[-2], query.device)
            allowed = order if allowed is None else allowed & order
        if allowed is not None:
            scores = scores + penalty(allowed, 65504.0 if query.dtype == torch.float16 else 1e9, query.dtype)
        scores = self.drop(scores.softmax(-1))
        output = scores @ value
        if query_mask is not None:
            output = output.masked_fill(~query_mask.to(torch.bool).unsqueeze(-1), 0.0)
        return (output, scores) if return_attention_scores else output
