"""Models whose weights are about to be read from a file: large ones are made without values, and no more than it holds.

A config can ask for weights of any size. While a model is made for a file, what it asks for is counted.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["WeightBudget", "unfilled_weights", "weight_budget", "without_random_values"]

# Smaller weights get their initial values, as layers may look at them.
_LARGE = 1 << 14

_RANDOM_FILLS = {Tensor.uniform_, Tensor.normal_}


class WeightBudget:
    """How many numbers the weights of a model may have.

    Args:
        numbers: the count of them in the file.
    """

    def __init__(self, numbers: int) -> None:
        self._left = self._given = numbers

    def charge(self, numbers: int) -> None:
        """Count so many more numbers.

        Raises:
            ValueError: these are more than there are in the file.
        """
        self._left -= numbers
        if self._left < 0:
            raise ValueError(
                f"The config asks for weights of more numbers than the {self._given:,} that are in the file."
            )

    def has_large(self, shape: Sequence[int]) -> bool:
        """Count a weight of this shape; whether it is so large that it is made without initial values."""
        numbers = math.prod(shape)
        self.charge(numbers)
        return numbers >= _LARGE


_budget: contextvars.ContextVar[WeightBudget | None] = contextvars.ContextVar("weight_budget", default=None)


def weight_budget() -> WeightBudget | None:
    """What may still be made, within `unfilled_weights`; else None."""
    return _budget.get()


@contextlib.contextmanager
def unfilled_weights(numbers: int) -> Iterator[None]:
    """Within this block, layers make large weights without values, for a file that holds so many numbers.

    Every weight has to be filled afterwards.
    """
    token = _budget.set(WeightBudget(numbers))
    try:
        yield
    finally:
        _budget.reset(token)


class without_random_values(TorchFunctionMode):
    """Within this block, `tensor.uniform_()` and `tensor.normal_()` leave large tensors as they are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _RANDOM_FILLS and args[0].numel() >= _LARGE:
            return args[0]
        return func(*args, **(kwargs or {}))
