"""Frames and series of pandas as arrays, without importing pandas."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from torchfunc.registry import did_you_mean

__all__ = ["columns_or_frame", "frame_to_array", "is_frame"]


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


def columns_or_frame(value: Any, argument: str, wanted: Sequence[str] | None) -> Any:
    """A frame as a dict of columns if a model's several inputs or outputs are named like columns; else as it is.

    Args:
        value: what the user gave.
        argument: "x" or "y", for messages.
        wanted: the names of the model's inputs or outputs, None if they are not known.

    Raises:
        ValueError: there are several inputs or outputs and some are no columns; the message names them.
    """
    if not is_frame(value) or value.ndim == 1 or wanted is None or len(wanted) < 2:
        return value
    missing = [name for name in wanted if name not in value.columns]
    if not missing:
        return {name: value[name] for name in wanted}
    hint = did_you_mean(missing[0], [str(label) for label in value.columns])
    raise ValueError(
        f"`{argument}` is a frame with the columns {list(value.columns)}, but the model has "
        f"{', '.join(map(repr, wanted))}: there is no column {', '.join(map(repr, missing))}.{hint} Name the columns "
        "so, or give a dict or list of arrays."
    )
