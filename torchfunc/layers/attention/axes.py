"""AttentionAxes: inputs, masks and results of attention over some axes, in the layout of the kernels and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from torchfunc.layers.base.shapes import Shape

__all__ = ["AttentionAxes"]


@dataclass(frozen=True)
class AttentionAxes:
    """The axes of `(batch, ..., features)` that attention is over. The other axes are part of the batch.

    The kernels take `(batch, heads, steps, size)`: there `steps` counts through all axes of attention, and `batch`
    through the batch and all other axes.

    Attributes:
        rank: how many axes the inputs have.
        over: the axes that attention is over, none of them negative.
    """

    rank: int
    over: tuple[int, ...]

    @classmethod
    def of(cls, rank: int, axes: Sequence[int] | None) -> AttentionAxes:
        """The axes of inputs of `rank` axes; all but batch and features for None.

        Raises:
            ValueError: an axis is the batch, the features, named twice, or not there.
        """
        if rank < 3:
            raise ValueError(f"attention needs inputs (batch, steps, features) of at least 3 axes, got {rank}")
        over = tuple(range(1, rank - 1)) if axes is None else tuple(axis if axis >= 0 else rank + axis for axis in axes)
        if not over or len(set(over)) < len(over) or not all(0 < axis < rank - 1 for axis in over):
            raise ValueError(
                f"attention_axes={axes} must name axes between the batch (0) and the features ({rank - 1}), each once"
            )
        return cls(rank, over)

    @property
    def others(self) -> tuple[int, ...]:
        """The axes between batch and features that attention is not over."""
        return tuple(axis for axis in range(1, self.rank - 1) if axis not in self.over)

    def steps(self, shape: Sequence[int]) -> int:
        """The number of steps in inputs of this shape."""
        return math.prod([shape[axis] for axis in self.over])

    def split(self, projected: Tensor) -> Tensor:
        """`(batch, ..., heads, size)` -> `(batch, heads, steps, size)`."""
        heads, others = self.rank - 1, self.others
        projected = projected.permute(0, *others, heads, *self.over, heads + 1)
        return projected.flatten(len(others) + 2, -2).flatten(0, len(others))

    def join(self, output: Tensor, shape: Sequence[int]) -> Tensor:
        """`(batch, heads, steps, size)` -> `(batch, ..., heads, size)`, for a query of this shape."""
        heads, others = self.rank - 1, self.others
        output = self._spread(output, shape, {2: [shape[axis] for axis in self.over]})
        order = (0, *others, heads, *self.over, heads + 1)
        return output.permute(*(order.index(axis) for axis in range(self.rank + 1)))

    def join_scores(self, scores: Tensor, query_shape: Sequence[int], key_shape: Sequence[int]) -> Tensor:
        """`(batch, heads, targets, sources)` -> `(batch, others, heads, *targets, *sources)`."""
        sizes = {2: [query_shape[axis] for axis in self.over], 3: [key_shape[axis] for axis in self.over]}
        return self._spread(scores, query_shape, sizes)

    def scores_shape(self, query_shape: Shape, key_shape: Shape, heads: int) -> Shape:
        """The shape of the result of `join_scores`."""
        targets, sources = ([shape[axis] for axis in self.over] for shape in (query_shape, key_shape))
        return (query_shape[0], *(query_shape[axis] for axis in self.others), heads, *targets, *sources)

    def _spread(self, tensor: Tensor, shape: Sequence[int], sizes: dict[int, list[int]]) -> Tensor:
        for axis in sorted(sizes, reverse=True):
            tensor = tensor.unflatten(axis, sizes[axis]) if len(self.over) > 1 else tensor
        return tensor.unflatten(0, [shape[axis] for axis in (0, *self.others)]) if self.others else tensor

    # Masks: each in the form (batch, others, heads, targets, sources), with 1 where it is the same for all.

    def step_mask(self, mask: Tensor, at: int) -> Tensor:
        """A mask `(batch, ...)` of steps, over all axes or those of attention, put at axis `at` (-1 or -2) of two."""
        others = self.others
        if mask.ndim == self.rank - 1:
            mask = mask.permute(0, *others, *self.over)
        else:
            mask = mask[(slice(None), *[None] * len(others))]
        return mask.flatten(len(others) + 1).unsqueeze(len(others) + 1).unsqueeze(at)

    def pair_mask(self, mask: Tensor, query_shape: Sequence[int], key_shape: Sequence[int]) -> Tensor:
        """A mask `(batch, others, heads, *targets, *sources)`, of whose first axes the last may be missing."""
        count = len(self.over)
        if count > 1:
            sizes = [shape[axis] for shape in (query_shape, key_shape) for axis in self.over]
            mask = mask.expand(*mask.shape[: -2 * count], *sizes).flatten(-count).flatten(-count - 1, -2)
        while mask.ndim < len(self.others) + 4:
            mask = mask.unsqueeze(-3)
        return mask

    def fold(self, mask: Tensor, shape: Sequence[int]) -> Tensor:
        """A mask of that form in the layout of the kernels, for a query of this shape."""
        others = self.others
        if not others or mask.ndim < 4:
            return mask
        sizes = [shape[axis] for axis in (0, *others)]
        return mask.expand(*sizes, *mask.shape[-3:]).flatten(0, len(others))
