"""Batches for code that may write to them: what a user's model, step or loss changes is a copy, not the user's data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from torchfunc.graph.torch_internals import change_count
from torchfunc.training.data.array_batches import DeferredBatch

__all__ = ["ProtectedStep"]


class ProtectedStep:
    """A step whose first batch is a copy; all are, if it was seen to change that one.

    Args:
        step: a function of one batch.
        writes: whether it is known to write to its batch; None if nobody knows.
    """

    def __init__(self, step: Callable[[Any], Any], writes: bool | None = None) -> None:
        self._step = step
        self._writes = writes

    def __call__(self, batch: Any) -> Any:
        if self._writes is False:
            return self._step(batch)
        copies: list[Tensor] = []

        def copied(tensor: Tensor) -> Tensor:
            copies.append(tensor.clone())
            return copies[-1]

        # Tensors made in inference mode do not tell whether they were changed.
        with torch.inference_mode(False), torch.no_grad():
            # (A batch that is gathered later is a copy then.)
            given = tree_map_only(Tensor, copied, batch, is_leaf=lambda part: isinstance(part, DeferredBatch))
        counts = list(map(change_count, copies))
        result = self._step(given)
        if self._writes is None:
            self._writes = list(map(change_count, copies)) != counts
        return result
