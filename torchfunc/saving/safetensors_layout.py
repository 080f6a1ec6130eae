"""Where the tensors of a safetensors file lie: its header, checked before anything is allocated or read.

The format is that of https://github.com/huggingface/safetensors: the length of the header in 8 bytes, the header as
JSON, the tensors' data. Ours hold two checksums among the header's metadata, one of the rest of the header and one of
the data (unless it is in another file that has one of all).
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from torchfunc.saving.json_text import parse_json

__all__ = ["LENGTH_BYTES", "Layout", "Place"]

LENGTH_BYTES = 8
_MAX_HEADER = 100_000_000
_METADATA = "__metadata__"
_HEADER_CHECKSUM, _DATA_CHECKSUM = "header_crc32", "data_crc32"
_UNKNOWN = "0" * 8

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Place(NamedTuple):
    """One tensor of a file; `start` and `stop` are bytes of the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    def fits(self, tensor: Tensor) -> bool:
        """Whether a weight can be filled with this: of the same shape and kind, floats of whatever precision."""
        floats = tensor.is_floating_point() and self.dtype.is_floating_point
        return (floats or tensor.dtype == self.dtype) and tuple(tensor.shape) == self.shape


@dataclass(frozen=True)
class Layout:
    """The header of a safetensors file.

    Attributes:
        places: where each tensor lies, in the order of the data.
        metadata: texts by name, without the checksums.
        data_checksum: the CRC-32 of the data; None where the header does not hold it.
    """

    places: Mapping[str, Place]
    metadata: Mapping[str, str]
    data_checksum: int | None = None

    @property
    def data_size(self) -> int:
        """How many bytes the data have."""
        return max((place.stop for place in self.places.values()), default=0)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Layout:
        """The layout that these tensors get: the widest types first, so that each is aligned.

        Raises:
            ValueError: a tensor is of a kind that the format does not know; the message names it.
        """
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise ValueError(f"{name!r} cannot be written: it is no tensor, but a {type(tensor).__name__}.")
            if tensor.dtype not in _NAMES or tensor.layout is not torch.strided or tensor.is_meta:
                kind = "a tensor without values (meta)" if tensor.is_meta else f"{tensor.layout} of {tensor.dtype}"
                raise ValueError(f"The tensor {name!r} cannot be written: it is {kind}.")
        places, start = {}, 0
        for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
            stop = start + tensor.numel() * tensor.element_size()
            places[name] = Place(tensor.dtype, tuple(tensor.shape), start, stop)
            start = stop
        return cls(places, dict(metadata or {}))

    def encode(self) -> bytes:
        """The length of the header and the header. Its length does not depend on the checksum."""
        header: dict[str, Any] = {name: _entry(place) for name, place in self.places.items()}
        metadata = {**self.metadata, _HEADER_CHECKSUM: _UNKNOWN}
        if self.data_checksum is not None:
            metadata[_DATA_CHECKSUM] = f"{self.data_checksum:08x}"
        metadata[_HEADER_CHECKSUM] = f"{_checksum(header, metadata):08x}"
        text = json.dumps({_METADATA: metadata, **header}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % LENGTH_BYTES)
        return len(text).to_bytes(LENGTH_BYTES, "little") + text

    @staticmethod
    def header_length(first: bytes, size: int) -> int:
        """The length of the header, from the first bytes of a file of that size.

        Raises:
            ValueError: it cannot be right.
        """
        length = int.from_bytes(first, "little")
        if len(first) < LENGTH_BYTES or length > min(_MAX_HEADER, size - LENGTH_BYTES):
            raise ValueError("it is cut off, or no safetensors file")
        return length

    @classmethod
    def decode(cls, text: bytes, data_size: int, require_checksum: bool = False) -> Layout:
        """The layout that a header describes.

        Args:
            text: the header.
            data_size: how many bytes follow it.
            require_checksum: whether a header without checksums is one that is damaged.

        Raises:
            ValueError: the header is damaged, or does not fit the size.
        """
        header = parse_json(text)
        if not isinstance(header, dict):
            raise ValueError("its header is damaged")
        metadata = header.pop(_METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its header is damaged")
        checksum = metadata.get(_HEADER_CHECKSUM)
        if checksum is None and (require_checksum or _DATA_CHECKSUM in metadata):
            raise ValueError("its header is damaged (it has no checksum)")
        found = _checksum(header, {**metadata, _HEADER_CHECKSUM: _UNKNOWN})
        if checksum is not None and checksum != f"{found:08x}":
            raise ValueError("its header is damaged (the checksum differs)")
        places = {name: _place(name, entry) for name, entry in header.items()}
        _check_order(places.values(), data_size)
        written = metadata.pop(_DATA_CHECKSUM, None)
        metadata.pop(_HEADER_CHECKSUM, None)
        return cls(places, metadata, None if written is None else _read_checksum(written))


def _entry(place: Place) -> dict[str, Any]:
    offsets = [place.start, place.stop]
    return {"dtype": _NAMES[place.dtype], "shape": list(place.shape), "data_offsets": offsets}


def _place(name: str, entry: Any) -> Place:
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = _DTYPES.get(str(fields.get("dtype"))), fields.get("shape"), fields.get("data_offsets")
    if dtype is None or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"what its header says of {name!r} is damaged")
    if len(shape) > 64 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"what its header says of {name!r} is damaged: the size does not fit the shape")
    return Place(dtype, tuple(shape), *offsets)


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values)


def _check_order(places: Iterable[Place], data_size: int) -> None:
    """Raise ValueError unless the tensors lie side by side and fill the data."""
    end = 0
    for place in sorted(places, key=lambda place: (place.start, place.stop)):
        if place.start != end:
            raise ValueError("its tensors overlap, or there are gaps between them")
        end = place.stop
    if end != data_size:
        raise ValueError(f"its tensors take {end} bytes, but there are {data_size}")


def _checksum(header: Mapping[str, Any], metadata: Mapping[str, str]) -> int:
    return zlib.crc32(json.dumps([header, metadata], sort_keys=True).encode())


def _read_checksum(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise ValueError("its checksum is damaged") from None
