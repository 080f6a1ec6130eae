"""NumPy arrays as torch can read them."""

from __future__ import annotations

import numpy as np

__all__ = ["readable"]


def readable(array: np.ndarray) -> np.ndarray:
    """The array itself, or a copy where torch would refuse it or warn.

    That is so for foreign byte orders, negative strides (`x[:, ::-1]`), and arrays that must not be written to (those
    of pandas, of JAX and of `np.broadcast_to`).
    """
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    return array
