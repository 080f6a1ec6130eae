"""Flatten, Reshape, Permute and RepeatVector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from torchfunc.config import standardize_data_format
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import check_output_shape, positive
from torchfunc.layers.base.input_spec import InputSpec
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.shapes import Shape

__all__ = ["Flatten", "Permute", "RepeatVector", "Reshape"]


class Flatten(Layer):
    """All axes but the batch in one. Shape: `(batch, ...)` -> `(batch, features)`.

    Args:
        data_format: with "channels_first", the channels (axis 1) are moved to the end first, so that the features come
            in the same order as with "channels_last"; `config.image_data_format()` by default.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> layers.Flatten()(Input((4, 5))).shape
    (None, 20)
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = InputSpec(min_ndim=1)

    def call(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 1:
            return inputs.unsqueeze(1)
        if self.data_format == "channels_first" and inputs.ndim > 2:
            inputs = inputs.movedim(1, -1)
        return inputs.flatten(1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        known = [size for size in input_shape[1:] if size is not None]
        return (input_shape[0], math.prod(known) if len(known) == len(input_shape) - 1 else None)

    def get_config(self) -> Config:
        return {**super().get_config(), "data_format": self.data_format}


class Reshape(Layer):
    """The same values with other sizes. Shape: `(batch, ...)` -> `(batch, *target_shape)`.

    Args:
        target_shape: the new sizes without the batch axis. One may be -1: it is inferred.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `target_shape` is not a shape, or does not hold as many values as the input.

    >>> layers.Reshape((2, -1))(Input((6,))).shape
    (None, 2, 3)
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sizes = tuple(target_shape) if isinstance(target_shape, Sequence) else (target_shape,)
        if any(isinstance(size, bool) or not isinstance(size, int) or size < -1 for size in sizes):
            raise ValueError(
                f"Reshape takes a tuple of sizes without the batch axis for target_shape, where -1 stands for what is "
                f"left over, got {target_shape!r}."
            )
        if sizes.count(-1) > 1:
            raise ValueError(f"Reshape can work out one size only, but target_shape={sizes} has -1 more than once.")
        self.target_shape = sizes

    def build(self, input_shape: Shape) -> None:
        check_output_shape(self, input_shape)

    def _left_over(self, sizes: Sequence[int]) -> int:
        """The size that -1 stands for, for an input of these sizes (without the batch axis)."""
        total, known = math.prod(sizes), math.prod([size for size in self.target_shape if size != -1])
        if -1 not in self.target_shape and total != known:
            raise ValueError(
                f"the {total} values of {tuple(sizes)} cannot be put into target_shape={self.target_shape}, "
                f"which holds {known}."
            )
        if -1 in self.target_shape and (known == 0 or total % known):
            raise ValueError(
                f"the {total} values of {tuple(sizes)} cannot be put into target_shape={self.target_shape}, "
                f"since {known} does not divide {total}."
            )
        return total // known if known else 0

    def call(self, inputs: Tensor) -> Tensor:
        # The size for -1 is computed here: torch cannot do it for an empty batch.
        left_over = self._left_over(inputs.shape[1:]) if -1 in self.target_shape else -1
        return inputs.reshape(inputs.shape[0], *(left_over if size == -1 else size for size in self.target_shape))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        known = [size for size in input_shape[1:] if size is not None]
        left_over = self._left_over(known) if len(known) == len(input_shape) - 1 else None
        return (input_shape[0], *(left_over if size == -1 else size for size in self.target_shape))

    def get_config(self) -> Config:
        return {**super().get_config(), "target_shape": self.target_shape}


class Permute(Layer):
    """The axes in another order. Shape: `(batch, ...)` -> `(batch, *the sizes of axes dims)`.

    Args:
        dims: the axes in their new order, counted from 1 (the batch axis, 0, stays first).
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    Raises:
        ValueError: `dims` does not hold each of 1, 2, ... once.

    >>> layers.Permute((2, 1))(Input((4, 5))).shape
    (None, 5, 4)
    """

    def __init__(self, dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(f"Permute takes each of the axes 1, 2, ... once for dims, got {dims!r}.")
        self.input_spec = InputSpec(ndim=len(self.dims) + 1)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs.permute(0, *self.dims)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *(input_shape[axis] for axis in self.dims))

    def get_config(self) -> Config:
        return {**super().get_config(), "dims": self.dims}


class RepeatVector(Layer):
    """The input `n` times as steps. Shape: `(batch, features)` -> `(batch, n, features)`.

    Args:
        n: how many steps.
        **kwargs: `name`, `trainable`, `dtype`, `input_shape`.

    >>> layers.RepeatVector(3)(Input((5,))).shape
    (None, 3, 5)
    """

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = positive(n, "n", "RepeatVector")
        self.input_spec = InputSpec(ndim=2)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs.unsqueeze(1).repeat(1, self.n, 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.n, input_shape[1])

    def get_config(self) -> Config:
        return {**super().get_config(), "n": self.n}
