"""Sequences of different lengths in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["pad_sequences"]

_ENDS = ("pre", "post")


def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """Sequences cut and padded to one length: `(samples, maxlen, ...)`.

    Args:
        sequences: one sequence a sample, of numbers, or of arrays of one shape.
        maxlen: the length; that of the longest by default.
        dtype: of the result; `object` for text.
        padding: whether the padding comes before ("pre") or after ("post") a short sequence.
        truncating: whether the beginning ("pre") or the end ("post") of a long one is cut off.
        value: what to pad with.

    Raises:
        ValueError: something is no sequence, samples have different shapes, or an argument is none of these.

    >>> utils.pad_sequences([[1], [2, 3, 4]], maxlen=2)
    array([[0, 1],
           [3, 4]], dtype=int32)
    >>> utils.pad_sequences([[1], [2, 3]], padding="post")
    array([[1, 0],
           [2, 3]], dtype=int32)
    """
    for name, end in (("padding", padding), ("truncating", truncating)):
        if end not in _ENDS:
            raise ValueError(f"`{name}` is 'pre' or 'post', got {end!r}.")
    if not hasattr(sequences, "__len__"):
        raise ValueError(f"`sequences` is a list of sequences, got {type(sequences).__name__}.")
    single = next((sequence for sequence in sequences if not hasattr(sequence, "__len__")), None)
    if single is not None:
        raise ValueError(f"`sequences` is a list of sequences, but holds {single!r}.")
    is_text = np.issubdtype(dtype, np.str_) or np.issubdtype(dtype, np.bytes_) or np.dtype(dtype) == object
    if isinstance(value, str) and not is_text:
        raise ValueError(f"`value` is {value!r}, which dtype {dtype!r} cannot hold. For text use dtype=object.")

    length = max(map(len, sequences), default=0) if maxlen is None else maxlen
    inner = next((np.asarray(sequence).shape[1:] for sequence in sequences if len(sequence)), ())
    padded = np.full((len(sequences), length, *inner), value, dtype=dtype)
    for row, sequence in enumerate(sequences):
        if not len(sequence) or not length:
            continue
        cut = np.asarray(sequence[-length:] if truncating == "pre" else sequence[:length], dtype=dtype)
        if cut.shape[1:] != inner:
            raise ValueError(f"Sequence {row} holds values of shape {cut.shape[1:]}, the first one of shape {inner}.")
        place = slice(None, len(cut)) if padding == "post" else slice(-len(cut), None)
        padded[row, place] = cut
    return padded
