"""Files that are never half written, and safetensors files that hold a nested state. Nothing here uses pickle."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["PathLike", "read_state", "read_tensors", "remove", "replacing", "write_state", "write_tensors"]

PathLike = str | os.PathLike[str]

# How things that JSON does not know are written: as an object with this one key.
_TENSOR, _ARRAY, _TUPLE, _DICT = "$tensor", "$array", "$tuple", "$dict"
_METADATA_KEY = "state"


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path` to write a file to; when the block ends, that file takes the place of `path`.

    A crash at any time leaves the old file or the new one, whole. If the block raises, the old one stays. A link stays
    one, and the file that it points to is replaced. Several threads may write to one path.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        _flush(path.parent)


def remove(path: PathLike) -> None:
    """Delete a file that `replacing` wrote, if it is there, and what processes that were killed have left beside it."""
    written = Path(os.path.realpath(path))
    for each in (Path(path), *written.parent.glob(f".{glob.escape(written.name)}.*.tmp")):
        each.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors by name as a safetensors file, atomically. Tensors that share memory are written one by one."""
    apart: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        apart[name] = tensor
    with replacing(path) as temporary:
        try:
            save_file(apart, temporary, metadata=dict(metadata or {}))
        except safetensors.SafetensorError as error:
            raise OSError(f"{os.fspath(path)} cannot be written: {error}.") from error


def read_tensors(path: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        ValueError: it is no safetensors file, or is damaged.
        OSError: it cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{os.fspath(path)} is no safetensors file, or it is damaged: {error}.") from error


def write_state(path: PathLike, state: Any) -> None:
    """Write tensors, NumPy arrays, numbers, text and None, nested in dicts, lists and tuples, atomically.

    The file is a safetensors file of the tensors, whose metadata say in JSON what lies where.

    Raises:
        TypeError: the state holds something else; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    plan = json.dumps(_to_json(state, "state", tensors))
    write_tensors(path, tensors, {_METADATA_KEY: plan})


def read_state(path: PathLike) -> Any:
    """What `write_state` wrote, with tensors on the CPU.

    Raises:
        ValueError: the file was not written by `write_state`, or is damaged.
        OSError: it cannot be read.
    """
    tensors, metadata = read_tensors(path)
    if _METADATA_KEY not in metadata:
        raise ValueError(f"{os.fspath(path)} holds tensors, but no state.")
    return _from_json(json.loads(metadata[_METADATA_KEY]), tensors)


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
        return items if isinstance(value, list) else {_TUPLE: items}
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
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "")
    content: Any = value.get(kind)
    if kind == _TENSOR:
        return tensors[content]
    if kind == _ARRAY:
        array = tensors[content].numpy()
        return array if array.ndim else array[()]
    if kind == _TUPLE:
        return tuple(_from_json(content, tensors))
    if kind == _DICT:
        return {key: _from_json(item, tensors) for key, item in content}
    return {key: _from_json(item, tensors) for key, item in value.items()}
