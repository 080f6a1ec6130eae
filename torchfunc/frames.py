"""Frames, series and indices of pandas as NumPy arrays. pandas itself is never imported here."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["frame_to_array", "is_frame"]


def is_frame(value: Any) -> bool:
    """Whether this is a frame, series or index of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series, pandas.Index))


def frame_to_array(value: Any, name: str) -> np.ndarray:
    """A series as `(rows,)`, a frame as `(rows, columns)` of the type that holds all its columns.

    Nullable integers and booleans with gaps become floats with NaN in them. Booleans beside numbers are 0 and 1.

    Args:
        value: a frame, series or index.
        name: what to call it in messages.

    Raises:
        ValueError: a column holds no numbers; the message names it and its type.
    """
    if value.ndim == 1:
        return _column_to_array(value, name)
    # Column by column: a whole frame of booleans and numbers becomes an array of objects.
    columns = [
        _column_to_array(value.iloc[:, index], f"{name}[{label!r}]") for index, label in enumerate(value.columns)
    ]
    if not columns:
        return np.empty(value.shape, "float32")
    return np.stack(columns, axis=1, dtype=np.result_type(*columns), casting="unsafe")


def _column_to_array(column: Any, name: str) -> np.ndarray:
    kind = column.dtype
    array = np.asarray(column)
    if array.dtype == object and hasattr(kind, "na_value") and getattr(kind, "kind", "O") in "biuf":
        array = column.to_numpy(dtype="float64", na_value=np.nan)
    if array.dtype.kind in "biufc":
        return array
    advice = (
        "Use its codes (`.cat.codes`) or one-hot columns (`pandas.get_dummies(frame, dtype=float)`)"
        if str(kind) in ("category", "object", "str") or str(kind).startswith("string")
        else "Turn it into numbers"
    )
    raise ValueError(f"{name} is a pandas column of dtype {kind}, which no tensor can hold. {advice}, or drop it.")
