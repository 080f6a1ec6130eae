"""Nested states in safetensors files: tensors, arrays, numbers and text in dicts, lists and tuples."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.saving.files import PathLike
from torchfunc.saving.json_text import parse_json, write_json
from torchfunc.saving.tensor_files import read_tensors, write_tensors

__all__ = ["join_state", "read_state", "split_state", "write_split_state", "write_state"]

# How things that JSON does not know are written: as an object with this one key.
_TENSOR, _ARRAY, _DICT = "$tensor", "$array", "$dict"
_METADATA_KEY = "state"


def write_state(path: PathLike, state: Any) -> None:
    """Write tensors, NumPy arrays, numbers, text and None, nested in dicts, lists and tuples, atomically.

    The file is a safetensors file of the tensors, whose metadata say in JSON what lies where.

    Raises:
        TypeError: the state holds something else; the message says where.
    """
    write_split_state(path, *split_state(state))


def write_split_state(path: PathLike, plan: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a state that `split_state` has split, as `write_state` does."""
    write_tensors(path, tensors, {_METADATA_KEY: plan})


def read_state(path: PathLike) -> Any:
    """What `write_state` wrote, with tensors on the CPU.

    Raises:
        ValueError: the file was not written by `write_state`, or is damaged.
        OSError: it cannot be read.
    """
    tensors, metadata = read_tensors(path, require_checksum=True)
    if _METADATA_KEY not in metadata:
        raise ValueError(f"{os.fspath(path)} holds tensors, but no state.")
    try:
        return join_state(metadata[_METADATA_KEY], tensors)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is damaged: {error}.") from error


def split_state(state: Any) -> tuple[str, dict[str, Tensor]]:
    """A state as a JSON text and the tensors that it refers to, by name.

    Raises:
        TypeError: the state holds something that can be neither; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    return write_json(_to_json(state, "state", tensors)), tensors


def join_state(plan: str, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `split_state` split.

    Raises:
        ValueError: the text is damaged, or refers to a tensor that is not there.
    """
    try:
        return _from_json(parse_json(plan), tensors)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"what it says of the state does not fit its tensors ({error!r})") from error


def _to_json(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        tensors[where] = value
        return {_TENSOR: where}
    if isinstance(value, (np.ndarray, np.generic)):
        tensors[where] = torch.from_numpy(np.array(value))
        return {_ARRAY: where}
    if isinstance(value, (list, tuple)):
        items = [_to_json(item, f"{where}.{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping):
        pairs = [(key, _to_json(item, f"{where}.{key}", tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(pairs)
        if all(isinstance(key, (str, int)) for key in value):
            return {_DICT: [list(pair) for pair in pairs]}
    raise TypeError(f"{where} is {value!r} ({type(value).__name__}), which cannot be written to a file.")


def _from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_from_json(item, tensors) for item in value]
    if isinstance(value, tuple):
        return tuple(_from_json(item, tensors) for item in value)
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "")
    content: Any = value.get(kind)
    if kind == _TENSOR:
        return tensors[content]
    if kind == _ARRAY:
        array = tensors[content].numpy()
        return array if array.ndim else array[()]
    if kind == _DICT:
        return {key: _from_json(item, tensors) for key, item in content}
    return {key: _from_json(item, tensors) for key, item in value.items()}
