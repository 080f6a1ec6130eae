"""TypedByWeights: in which float dtype a model takes its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.config import floatx
from torchfunc.dtypes import as_dtype
from torchfunc.layers import Layer
from torchfunc.modules.drawn_graph import DrawnGraph

__all__ = ["TypedByWeights"]


class TypedByWeights(Layer):
    """A layer that is drawn or not, and knows what floats it takes: those it declares, or those its weights became."""

    _drawn: DrawnGraph | None = None
    # The weights' float dtype when the model was drawn first.
    _drawn_in: torch.dtype | None = None

    def float_dtype(self) -> torch.dtype | None:
        """The dtype of the first weight of a float type."""
        weight = self._first_weight()
        return None if weight is None else weight.dtype

    def data_dtype(self) -> torch.dtype:
        """What NumPy's floats become: `config.floatx()`, or float64 for a model that takes it."""
        dtypes: Sequence[Any] = [self.float_dtype()] if self._drawn is None else self._drawn.binding.dtypes
        return torch.float64 if torch.float64 in dtypes else as_dtype(floatx())

    def follow_weights(self) -> None:
        """Take floats as the weights are, where these were moved to another dtype than they were drawn in."""
        if self._drawn is not None:
            now = self.float_dtype()
            self.__dict__.setdefault("_drawn_in", now)
            self._drawn.binding.follow(self._drawn_in, None if now is self._drawn_in else now)

    def _first_weight(self) -> Tensor | None:
        """The first parameter or buffer of a float type."""
        # (Torch's generators, one within another, take longer the deeper models are nested.)
        seen: set[nn.Module] = set()
        pending: list[nn.Module] = [self]
        first_buffer: Tensor | None = None
        while pending:
            module = pending.pop()
            if module in seen:
                continue
            seen.add(module)
            for _, parameter in module._parameters.items():
                if parameter is not None and parameter.is_floating_point():
                    return parameter
            for _, buffer in module._buffers.items():
                if first_buffer is None and buffer is not None and buffer.is_floating_point():
                    first_buffer = buffer
            for _, child in reversed([*module._modules.items()]):
                if child is not None:
                    pending.append(child)
        return first_buffer

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        # What `.to()`, `.double()` and their like call.
        applied = super()._apply(*args, **kwargs)
        self.follow_weights()
        return applied
