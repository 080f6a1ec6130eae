"""The numbers of the HDF5 format that the reader needs, and the checksum that arrays are written with."""

from __future__ import annotations

import enum
import zlib

import numpy as np

__all__ = ["CHECKSUM", "DATATYPES", "SIGNATURE", "UNDEFINED", "Message", "checksum", "checksum_start"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = (1 << 64) - 1


class Message(enum.IntEnum):
    """The kinds of messages in the header of an object."""

    NOTHING = 0x00
    DATASPACE = 0x01
    LINK_INFO = 0x02
    DATATYPE = 0x03
    LINK = 0x06
    EXTERNAL_FILES = 0x07
    LAYOUT = 0x08
    FILTERS = 0x0B
    ATTRIBUTE = 0x0C
    CONTINUATION = 0x10
    SYMBOL_TABLE = 0x11
    ATTRIBUTE_INFO = 0x15


def _integer(name: str) -> bytes:
    dtype = np.dtype(name)
    flags = (dtype.kind == "i") << 3 | (dtype.byteorder == ">")
    size = dtype.itemsize
    return bytes([0x10, flags, 0, 0]) + size.to_bytes(4, "little") + b"\0\0" + (8 * size).to_bytes(2, "little")


def _float(name: str) -> bytes:
    dtype, info = np.dtype(name), np.finfo(name)
    bits = 8 * dtype.itemsize
    head = bytes([0x11, 0x20 | (dtype.byteorder == ">"), bits - 1, 0]) + dtype.itemsize.to_bytes(4, "little")
    fields = bytes([info.nmant, info.iexp, 0, info.nmant]) + (2 ** (info.iexp - 1) - 1).to_bytes(4, "little")
    return head + b"\0\0" + bits.to_bytes(2, "little") + fields


_INTEGERS = [f"{order}{kind}{size}" for order in "<>" for kind in "iu" for size in (1, 2, 4, 8)]
_FLOATS = [f"{order}f{size}" for order in "<>" for size in (2, 4, 8)]
_BOOLEAN = bytes([0x18, 2, 0, 0, 1, 0, 0, 0]) + _integer("<i1") + b"FALSE\0\0\0TRUE\0\0\0\0\0\1"
# The dtypes of arrays as the format spells them; a boolean is an enumeration, as h5py has it.
DATATYPES = {
    **{name: _integer(name) for name in _INTEGERS if name[1:] not in ("i1", "u1") or name[0] == "<"},
    **{name: _float(name) for name in _FLOATS},
    "bool": _BOOLEAN,
}

# The attribute of an array that torchfunc writes beside what Keras does, which ignores it.
CHECKSUM = "torchfunc_crc32"


def checksum_start(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The checksum of an array of which no value has been seen."""
    return zlib.crc32(f"{dtype.str}{shape}".encode())


def checksum(values: np.ndarray) -> str:
    """A checksum of an array's values, shape and dtype."""
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    return f"{zlib.crc32(content, checksum_start(values.shape, values.dtype)):08x}"
