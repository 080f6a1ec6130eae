"""CategoryEncoding and Discretization: integers and numbers as categories."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.dtypes import DTypeLike, dtype_name
from torchfunc.layers.base.argument_types import Config
from torchfunc.layers.base.checks import check_output_shape, one_of, positive
from torchfunc.layers.base.layer import Layer
from torchfunc.layers.base.shapes import Shape
from torchfunc.layers.preprocessing.adapting import batches

__all__ = ["CategoryEncoding", "Discretization"]

_MODES = ("one_hot", "multi_hot", "count")


class _Encoder(Layer):
    """The base of layers that encode integers as one_hot, multi_hot or count vectors."""

    output_mode: str

    def _encode(self, indices: Tensor, depth: int, weights: Tensor | None = None) -> Tensor:
        if (self.output_mode == "one_hot" and (indices.ndim < 2 or indices.shape[-1] != 1)) or indices.ndim == 0:
            indices = indices.unsqueeze(-1)
        indices = indices.to(torch.int64)
        vectors = torch.zeros((*indices.shape[:-1], depth), dtype=self.dtype, device=indices.device)
        values = torch.ones_like(indices, dtype=self.dtype) if weights is None else weights.to(self.dtype)
        try:
            if self.output_mode == "count":
                return vectors.scatter_add(-1, indices, values)
            return vectors.scatter(-1, indices, values)
        except RuntimeError as error:
            raise ValueError(f"{self.describe()} takes integers from 0 to {depth - 1}: {error}") from error

    def _encoded_shape(self, shape: Shape, depth: int) -> Shape:
        if self.output_mode == "one_hot" and (len(shape) < 2 or shape[-1] != 1):
            return (*shape, depth)
        return (*shape[:-1], depth)


class CategoryEncoding(_Encoder):
    """Integers as vectors of `num_tokens` numbers.

    Shape: integers `(..., n)` -> `(..., num_tokens)`; for "one_hot" `(..., n, num_tokens)` unless n is 1.

    Args:
        num_tokens: how many different integers there are; they go from 0 to `num_tokens - 1`.
        output_mode: "multi_hot" (1 at each integer of the last axis), "one_hot" (each integer separately), or "count"
            (how often each integer is there).
        sparse: must be False.
        **kwargs: of `Layer`.

    Call arguments:
        inputs: the integers, which may be floats. Others are an error (on a GPU, torch's asynchronous one).
        count_weights: with "count", what each integer counts for, in the shape of the inputs.

    Raises:
        ValueError: an argument is something else.

    >>> layers.CategoryEncoding(num_tokens=4, output_mode="count")(torch.tensor([[0, 1, 1]]))
    tensor([[1., 2., 0., 0.]])
    """

    def __init__(
        self, num_tokens: int | None = None, output_mode: str = "multi_hot", sparse: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _refuse_sparse(sparse, "CategoryEncoding")
        self.num_tokens = positive(num_tokens, "num_tokens", "CategoryEncoding")  # type: ignore[arg-type]
        mode = "multi_hot" if output_mode == "binary" else output_mode
        self.output_mode = one_of(mode, _MODES, "output_mode", "CategoryEncoding")

    def build(self, inputs_shape: Shape, count_weights_shape: Shape | None = None) -> None:
        check_output_shape(self, inputs_shape, *(() if count_weights_shape is None else (count_weights_shape,)))

    def call(self, inputs: Tensor, count_weights: Tensor | None = None) -> Tensor:
        return self._encode(inputs, self.num_tokens, count_weights)

    def compute_output_shape(self, inputs_shape: Shape, count_weights_shape: Shape | None = None) -> Shape:
        if count_weights_shape is not None:
            if self.output_mode != "count":
                raise ValueError(f"count_weights go with output_mode='count', not with {self.output_mode!r}")
            pairs = itertools.zip_longest(inputs_shape, count_weights_shape, fillvalue=0)
            if any(None not in pair and pair[0] != pair[1] for pair in pairs):
                raise ValueError(
                    f"count_weights of shape {tuple(count_weights_shape)} are not one for each input, "
                    f"{tuple(inputs_shape)}"
                )
        return self._encoded_shape(inputs_shape, self.num_tokens)

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return self.dtype

    def get_config(self) -> Config:
        return {**super().get_config(), "num_tokens": self.num_tokens, "output_mode": self.output_mode}


class Discretization(_Encoder):
    """Numbers as the bins that contain them: bin i holds what is at least boundary i - 1 and below boundary i.

    Shape: any, unchanged, in int32; for another `output_mode` vectors as of `CategoryEncoding`, with an entry per bin.
    The boundaries belong to the config, and not to the weights.

    Args:
        bin_boundaries: the boundaries, in increasing order.
        num_bins: how many bins `adapt(data)` is to find boundaries for, with about as many numbers in each.
        epsilon: how exact `adapt` is, as a share of the data; about `1 / epsilon` numbers are in memory.
        output_mode: "int" (the bin's index), "one_hot", "multi_hot" or "count".
        sparse: must be False.
        dtype: of the numbers compared, and of vectors.
        name: the layer's name.

    Raises:
        ValueError: both or neither of `bin_boundaries` and `num_bins` are given, or an argument is out of range.

    >>> layers.Discretization(bin_boundaries=[0.0, 10.0])(torch.tensor([[-5.0, 0.0, 12.0]]))
    tensor([[0, 1, 2]], dtype=torch.int32)
    """

    _boundaries: Tensor | None

    def __init__(
        self,
        bin_boundaries: Sequence[float] | None = None,
        num_bins: int | None = None,
        epsilon: float = 0.01,
        output_mode: str = "int",
        sparse: bool = False,
        dtype: DTypeLike | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        _refuse_sparse(sparse, "Discretization")
        if (bin_boundaries is None) == (num_bins is None):
            raise ValueError(
                f"Discretization takes either bin_boundaries or num_bins, got bin_boundaries={bin_boundaries} and "
                f"num_bins={num_bins}."
            )
        if not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
            raise ValueError(f"Discretization takes a number between 0 and 1 for epsilon, got {epsilon!r}.")
        self.num_bins = None if num_bins is None else positive(num_bins, "num_bins", "Discretization")
        self.epsilon = epsilon
        self.output_mode = one_of(output_mode, ("int", *_MODES), "output_mode", "Discretization")
        self._set_boundaries(bin_boundaries)

    def _set_boundaries(self, boundaries: Sequence[float] | np.ndarray | None) -> None:
        values = None if boundaries is None else np.asarray(boundaries, dtype=np.float64)
        if values is not None and (values.ndim != 1 or (np.diff(values) < 0).any()):
            raise ValueError(f"Discretization takes increasing numbers for bin_boundaries, got {boundaries!r}.")
        self.bin_boundaries = None if values is None else values.tolist()
        tensor = None if values is None else torch.from_numpy(values).to(self.dtype)
        if "_boundaries" in self._buffers and tensor is not None and self._boundaries is not None:
            tensor = tensor.to(self._boundaries.device)
        self.register_buffer("_boundaries", tensor, persistent=False)

    def adapt(self, data: np.ndarray | Tensor | Iterable[Any], steps: int | None = None) -> None:
        """Find boundaries between which there are about as many numbers of the data, again at each call.

        Args:
            data: an array or tensor, or a DataLoader or another iterable of batches.
            steps: how many batches to read; all by default.

        Raises:
            TypeError: `data` is something else.
            ValueError: the layer was given its boundaries, or there is no data.
        """
        if self.num_bins is None:
            raise ValueError(f"{self.describe()} has the bin_boundaries it was given; give num_bins to adapt instead.")
        summary = np.zeros((2, 0), dtype=np.float32)
        for batch in itertools.islice(batches(data, "Discretization"), steps):
            merged = np.concatenate([_summarize(batch.numpy().astype(np.float32), self.epsilon), summary], axis=1)
            summary = _compress(merged[:, np.argsort(merged[0], kind="stable")], self.epsilon)
        if summary.shape[1] == 0:
            raise ValueError(f"{self.describe()} cannot adapt to data without any number.")
        self._set_boundaries(_compress(summary, 1 / self.num_bins)[0, :-1])

    def call(self, inputs: Tensor) -> Tensor:
        if self._boundaries is None:
            raise ValueError(f"{self.describe()} has no boundaries yet: call adapt(data) first.")
        indices = torch.bucketize(inputs.to(self.dtype), self._boundaries, right=True)
        return indices.to(torch.int32) if self.output_mode == "int" else self._encode(indices, self._depth())

    def _depth(self) -> int:
        if self.bin_boundaries is not None:
            return len(self.bin_boundaries) + 1
        assert self.num_bins is not None
        return self.num_bins

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape) if self.output_mode == "int" else self._encoded_shape(input_shape, self._depth())

    def compute_output_dtype(self, *input_dtypes: torch.dtype) -> torch.dtype:
        return torch.int32 if self.output_mode == "int" else self.dtype

    def get_config(self) -> Config:
        return {
            "bin_boundaries": self.bin_boundaries,
            "num_bins": self.num_bins,
            "epsilon": self.epsilon,
            "output_mode": self.output_mode,
            "sparse": False,
            "name": self.name,
            "dtype": dtype_name(self.dtype),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Discretization:
        found = config.get("bin_boundaries")
        if found is None or config.get("num_bins") is None:
            return cls(**config)
        # The boundaries that `adapt` has found are set afterwards.
        layer = cls(**{**config, "bin_boundaries": None})
        layer._set_boundaries(found)
        return layer


def _summarize(values: np.ndarray, epsilon: float) -> np.ndarray:
    """About `1 / epsilon` of the values, in order, above the number of values that each represents.

    The summaries, and so the boundaries, are those of keras/src/layers/preprocessing/discretization.py.
    """
    ordered = np.sort(values, axis=None)
    step = max(ordered.size * epsilon, 1)
    chosen = ordered[int(step - 1) :: int(step)]
    return np.stack([chosen, np.full_like(chosen, step)])


def _compress(summary: np.ndarray, epsilon: float) -> np.ndarray:
    """A summary at the quantiles `epsilon, 2 * epsilon ...`, by linear interpolation; a short one as it is."""
    values, weights = summary
    if len(values) * epsilon < 1:
        return summary
    totals = weights.cumsum()
    quantiles = epsilon * np.arange(1, math.ceil(1 / epsilon) + 1)
    shares = totals / totals[-1]
    new_totals = np.interp(quantiles, shares, totals)
    return np.stack([np.interp(quantiles, shares, values), np.diff(new_totals, prepend=0)]).astype(np.float32)


def _refuse_sparse(sparse: bool, owner: str) -> None:
    if sparse:
        raise ValueError(f"{owner}(sparse=True) is not supported: its output is dense. Leave sparse False.")
