"""What the two data sets of house prices share."""

from __future__ import annotations

import numpy as np

from torchfunc.datasets.files import Arrays, Split

__all__ = ["check_split", "split"]


def check_split(test_split: float) -> None:
    if not 0 <= test_split < 1:
        raise ValueError(f"load_data() takes a number from 0 to below 1 for test_split, got {test_split!r}.")


def split(arrays: Arrays, test_split: float, seed: int | None) -> Split:
    """The rows in random order, the last of them for testing."""
    x, y = arrays["x"], arrays["y"]
    order = np.arange(len(x))
    np.random.RandomState(seed).shuffle(order)
    kept = int(len(x) * (1 - test_split))
    return (x[order[:kept]], y[order[:kept]]), (x[order[kept:]], y[order[kept:]])
