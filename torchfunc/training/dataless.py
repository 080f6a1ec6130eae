"""Objects as bytes without the data of their tensors: what another process needs to compile, and not to compute."""

from __future__ import annotations

import io
import pickle
import sys
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeAlias

import torch
from torch.storage import TypedStorage

from torchfunc.graph.torch_internals import as_pickled, memory_of
from torchfunc.graph_keys import is_known_code

__all__ = ["dump_dataless", "load_dataless"]

Key: TypeAlias = tuple[int, int, torch.dtype]
"""The number of a piece of memory, its size in bytes, and the dtype of what lies in it."""


def dump_dataless(value: Any) -> bytes:
    """Pickle an object without the data of its tensors, which are on the CPU.

    Raises:
        pickle.PicklingError, TypeError, AttributeError: it cannot be pickled, or not without code of the user's own,
            which another process would have to import.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def load_dataless(data: bytes) -> Any:
    """What was pickled by `dump_dataless`. Its tensors share memory as those of the original do; all are zero."""
    return _Unpickler(io.BytesIO(data)).load()


def _is_importable(value: type | FunctionType | BuiltinFunctionType) -> bool:
    """Whether another process gets this without running code of the user's. What it holds is pickled by itself."""
    return is_known_code(value) or value.__module__.partition(".")[0] in sys.stdlib_module_names


class _Pickler(pickle.Pickler):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # By address. The memory is kept, so that no other can have the same one.
        self._met: dict[int, tuple[int, torch.UntypedStorage]] = {}

    def persistent_id(self, value: Any) -> Key | None:
        if not isinstance(value, TypedStorage):
            return None
        memory = memory_of(value)
        if memory.device.type != "cpu":
            raise pickle.PicklingError(f"There is a tensor on {memory.device}.")
        # What is empty has no address.
        number, _ = self._met.setdefault(memory.data_ptr() or -1 - len(self._met), (len(self._met), memory))
        return number, memory.nbytes(), value.dtype

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (type, FunctionType, BuiltinFunctionType)) and not _is_importable(value):
            raise pickle.PicklingError(f"{value.__qualname__} of {value.__module__} is not torchfunc's or torch's.")
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._memories: dict[int, torch.UntypedStorage] = {}

    def persistent_load(self, key: Key) -> TypedStorage:
        number, size, dtype = key
        if number not in self._memories:
            # (The system gives memory of zeros as it is written to.)
            self._memories[number] = torch.zeros(size, dtype=torch.uint8).untyped_storage()
        return as_pickled(self._memories[number], dtype)
