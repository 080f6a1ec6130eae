"""Train and eval mode, put back after what needed another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

__all__ = ["kept_modes"]


@contextlib.contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Put every module back in the mode, train or eval, that it was found in."""
    found = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in found:
            module.training = mode
