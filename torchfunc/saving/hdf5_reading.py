"""Reading HDF5 files as Keras writes them: groups, arrays of numbers in one piece, and attributes that are text.

Files are written with h5py, but not read with it, since they come from strangers: of 5,000 files with a few bits
flipped, HDF5 2.0 hung on five and crashed on one. This reads that much of the format only. Every place and size is
checked against the file before it is used, each byte belongs to one thing only, and links are refused that are no plain
members of a group.

Source: HDF5 File Format Specification, version 3.0: superblock 0, object headers 1, groups as B-trees 1.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from torchfunc.saving.hdf5_format import (
    CHECKSUM,
    DATATYPES,
    SIGNATURE,
    UNDEFINED,
    Message,
    checksum,
    checksum_start,
)

__all__ = ["Array", "Group", "ReadableFile", "read_hdf5"]

_MAX_DEPTH = 200
_MAX_NAME = 1024
_MAX_RANK = 32
_CHUNK = 1 << 22
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
# What a file may have beside groups and arrays, and why it is refused.
_REFUSED = {
    Message.EXTERNAL_FILES: "an array that lies in another file",
    Message.LINK: "a group in a newer format than Keras writes",
    Message.LINK_INFO: "a group in a newer format than Keras writes",
    Message.ATTRIBUTE_INFO: "attributes in a newer format than Keras writes",
}


class ReadableFile(Protocol):
    """What is read from: a file that is open, or a part of one."""

    def seek(self, position: int, whence: int = ..., /) -> int: ...

    def read(self, size: int, /) -> bytes: ...


@dataclass
class Group:
    """A group of the file.

    Attributes:
        members: the groups and arrays in it, by name.
        text: the attributes that are text or lists of text, by name.
    """

    members: dict[str, Group | Array] = field(default_factory=dict)
    text: dict[str, str | list[str]] = field(default_factory=dict)

    def find(self, *names: str) -> Group | None:
        """The group at this path; None if there is none, or something else."""
        found: Group | Array | None = self
        for name in names:
            found = found.members.get(name) if isinstance(found, Group) else None
        return found if isinstance(found, Group) else None

    def arrays(self) -> dict[str, Array]:
        """The arrays in this very group."""
        return {name: member for name, member in self.members.items() if isinstance(member, Array)}

    def walk(self) -> Iterator[tuple[str, Array]]:
        """All arrays in the group and below it, with their paths."""
        pending = [("", self)]
        while pending:
            path, group = pending.pop()
            for name, member in group.members.items():
                if isinstance(member, Array):
                    yield path + name, member
                else:
                    pending.append((f"{path}{name}/", member))


@dataclass
class Array:
    """An array of the file, whose values are read when they are asked for.

    Attributes:
        shape, dtype: of the values; bfloat16 is read as uint16, and `is_bfloat16` then.
        text: the attributes that are text.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    text: dict[str, str | list[str]]
    _file: _File = field(repr=False)
    _address: int

    @property
    def is_bfloat16(self) -> bool:
        return self.text.get("dtype") == "bfloat16"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The values.

        Raises:
            ValueError: they are not those that were written.
        """
        values = np.empty(self.shape, self.dtype)
        if values.size:
            self._file.read_into(self._address, values.reshape(-1).view(np.uint8).data)
        if self.text.get(CHECKSUM, "") not in ("", checksum(values)):
            raise self._changed()
        return values if self.dtype.isnative else values.astype(self.dtype.newbyteorder("="))

    def verify(self) -> None:
        """Raise ValueError if the values are not those that were written. They are read, but not kept."""
        written = self.text.get(CHECKSUM)
        if written is not None:
            found = checksum_start(self.shape, self.dtype)
            for chunk in self._file.chunks(self._address, self.nbytes):
                found = zlib.crc32(chunk, found)
            if written != f"{found:08x}":
                raise self._changed()

    def _changed(self) -> ValueError:
        return self._file.error("an array was changed after it was written")


def read_hdf5(file: ReadableFile, label: str) -> Group:
    """The content of an HDF5 file.

    Args:
        file: the file, open for reading, and open still when arrays are read.
        label: what messages call it.

    Raises:
        ValueError: it is no such file, or damaged, or has what Keras does not write.
    """
    return _File(file, label).read_root()


def _first_filter(pipeline: bytes) -> str:
    number = int.from_bytes(pipeline[8:10] if pipeline[:1] == b"\1" else pipeline[2:4], "little")
    return _FILTERS.get(number, f"filter {number}")


class _Header(NamedTuple):
    """The messages of an object, by kind, with their content."""

    messages: list[tuple[int, bytes]]

    def get(self, kind: Message) -> bytes | None:
        return next((content for each, content in self.messages if each == kind), None)


class _File:
    def __init__(self, file: ReadableFile, label: str) -> None:
        self.file = file
        self.label = label
        self.size = file.seek(0, 2)
        # No byte belongs to two things: so what is read in all is no more than there is.
        self.unclaimed = self.size
        self.unread_text = self.size
        self.heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self.headers: set[int] = set()

    def error(self, what: str) -> ValueError:
        return ValueError(f"{self.label} cannot be read: it is damaged, or not written by Keras ({what}).")

    def claim(self, size: int) -> None:
        self.unclaimed -= size
        if self.unclaimed < 0:
            raise self.error("parts of it overlap")

    def read(self, address: int, size: int) -> bytes:
        if address + size > self.size:
            raise self.error("a part of it is missing")
        self.file.seek(address)
        content = self.file.read(size)
        if len(content) != size:
            raise self.error("a part of it is missing")
        return content

    def chunks(self, address: int, size: int) -> Iterator[bytes]:
        self.file.seek(address)
        while size:
            chunk = self.file.read(min(size, _CHUNK))
            if not chunk:
                raise self.error("a part of it is missing")
            size -= len(chunk)
            yield chunk

    def read_into(self, address: int, target: memoryview) -> None:
        done = 0
        for chunk in self.chunks(address, len(target)):
            target[done : done + len(chunk)] = chunk
            done += len(chunk)

    def block(self, address: int, size: int, signature: bytes = b"") -> bytes:
        """A part of the file that nothing else is read from."""
        self.claim(size)
        content = self.read(address, size)
        if not content.startswith(signature):
            raise self.error(f"no {signature.decode()} where one should be")
        return content

    def read_root(self) -> Group:
        if self.size < 96 or self.read(0, 8) != SIGNATURE:
            raise ValueError(f"{self.label} is no HDF5 file, or it is damaged.")
        block = self.block(0, 96)
        version, offsets, lengths = block[8], block[13], block[14]
        if version != 0 or offsets != 8 or lengths != 8:
            raise self.error(f"a file in format {version}, where Keras writes 0")
        base, _, end = struct.unpack_from("<QQQ", block, 24)
        if base != 0 or end > self.size:
            raise self.error("a part of it is missing")
        (address,) = struct.unpack_from("<Q", block, 64)
        root = self.object(address)
        if not isinstance(root, Group):
            raise self.error("no group at its root")
        return root

    def object(self, address: int) -> Group | Array:
        """The group or array at an address, with all that is in it; deep nesting uses no stack of Python's."""
        root, table = self.shell(address)
        pending = [(root, table, 1)]
        while pending:
            parent, table, depth = pending.pop()
            if not isinstance(parent, Group) or table is None:
                continue
            if depth > _MAX_DEPTH:
                raise self.error(f"groups nested more than {_MAX_DEPTH} deep")
            for name, place in self.entries(*table):
                member, inner = self.shell(place)
                parent.members[name] = member
                pending.append((member, inner, depth + 1))
        return root

    def shell(self, address: int) -> tuple[Group | Array, tuple[int, int] | None]:
        """A group without its members, and where those are listed; or an array."""
        header = self.header(address)
        text = dict(self.attributes(header))
        table = header.get(Message.SYMBOL_TABLE)
        if table is not None:
            if len(table) < 16:
                raise self.error("a list of members is cut off")
            tree, heap = struct.unpack_from("<QQ", table)
            return Group(text=text), (tree, heap)
        return self.array(header, text), None

    def header(self, address: int) -> _Header:
        if address in self.headers:
            raise self.error("an object that is in two groups")
        self.headers.add(address)
        prefix = self.block(address, 16)
        version, count, size = prefix[0], *struct.unpack_from("<H", prefix, 2), *struct.unpack_from("<I", prefix, 8)
        if version != 1:
            raise self.error("an object in a newer format than Keras writes")
        messages: list[tuple[int, bytes]] = []
        blocks = [(address + 16, size)]
        while blocks and count:
            block = self.block(*blocks.pop(0))
            place = 0
            while place + 8 <= len(block) and count:
                kind, length, flags = struct.unpack_from("<HHB", block, place)
                content = block[place + 8 : place + 8 + length]
                place += 8 + length
                count -= 1
                if len(content) != length:
                    raise self.error("a message is cut off")
                if kind in _REFUSED:
                    raise self.error(_REFUSED[Message(kind)])
                if kind == Message.FILTERS:
                    raise self.error(f"an array that is filtered by {_first_filter(content)}, as Keras' arrays are not")
                if flags & 2:
                    raise self.error("a message that lies elsewhere")
                if kind == Message.CONTINUATION:
                    if length < 16:
                        raise self.error("a message is cut off")
                    blocks.append(struct.unpack_from("<QQ", content))
                elif kind != Message.NOTHING:
                    messages.append((kind, content))
        return _Header(messages)

    # Groups

    def entries(self, tree: int, heap: int) -> Iterator[tuple[str, int]]:
        """The names and addresses of a group's members."""
        head = self.block(heap, 32, b"HEAP")
        size, _, address = struct.unpack_from("<QQQ", head, 8)
        names = self.block(address, size)
        previous = b""
        for leaf in self.leaves(tree):
            head = self.block(leaf, 8, b"SNOD")
            (count,) = struct.unpack_from("<H", head, 6)
            table = self.block(leaf + 8, 40 * count)
            for index in range(count):
                offset, place, kind = struct.unpack_from("<QQI", table, 40 * index)
                if kind > 1:
                    raise self.error("a link, where a member should be")
                name = self.name(names, offset)
                if name <= previous:
                    raise self.error("members without order")
                previous = name
                yield self.decode(name), place

    def leaves(self, tree: int) -> Iterator[int]:
        """The lists of members that a B-tree leads to, in order."""
        pending: list[tuple[int, int | None]] = [(tree, None)]
        while pending:
            address, expected = pending.pop()
            head = self.block(address, 24, b"TREE")
            kind, level, count = struct.unpack_from("<BBH", head, 4)
            if kind != 0 or (expected is not None and level != expected):
                raise self.error("a B-tree of another kind")
            table = self.block(address + 24, 16 * count)
            children = [struct.unpack_from("<Q", table, 16 * index + 8)[0] for index in range(count)]
            if level == 0:
                yield from children
            else:
                pending.extend((child, level - 1) for child in reversed(children))

    def name(self, names: bytes, offset: int) -> bytes:
        end = names.find(b"\0", offset, offset + _MAX_NAME) if offset < len(names) else -1
        if end <= offset or b"/" in names[offset:end]:
            raise self.error("a member without a proper name")
        return names[offset:end]

    def decode(self, content: bytes) -> str:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("a name or text that is not UTF-8") from None

    # Arrays

    def array(self, header: _Header, text: Mapping[str, str | list[str]]) -> Array:
        space, kind, layout = (header.get(each) for each in (Message.DATASPACE, Message.DATATYPE, Message.LAYOUT))
        if space is None or kind is None or layout is None:
            raise self.error("neither a group nor an array")
        shape, dtype = self.shape(space), self.dtype(kind, text.get("dtype") == "bfloat16")
        if shape is None or dtype is None:
            raise self.error("an array of something else than numbers")
        if max(shape, default=0) > self.size:
            raise self.error("an array that is larger than the file")
        array = Array(shape, dtype, dict(text), self, 0)
        if len(layout) < 18 or layout[0] != 3 or layout[1] != 1:
            raise self.error("an array that is not in one piece")
        address, size = struct.unpack_from("<QQ", layout, 2)
        if size != array.nbytes:
            raise self.error("an array whose size does not fit its shape")
        if size:
            if address == UNDEFINED or address + size > self.size:
                raise self.error("an array whose values are missing")
            self.claim(size)
        array._address = address
        return array

    def shape(self, content: bytes) -> tuple[int, ...] | None:
        """What a dataspace says; None for one without elements."""
        if len(content) < 4:
            raise self.error("a shape is cut off")
        version, rank = content[0], content[1]
        if version == 2 and content[3] == 2:
            return None
        start = {1: 8, 2: 4}.get(version)
        if start is None or rank > _MAX_RANK or len(content) < start + 8 * rank:
            raise self.error("a shape is cut off")
        return struct.unpack_from(f"<{rank}Q", content, start)

    def dtype(self, content: bytes, is_bfloat16: bool) -> np.dtype | None:
        """What a datatype says; None for other than numbers."""
        if len(content) < 8:
            raise self.error("a datatype is cut off")
        if is_bfloat16:
            return np.dtype("<u2") if content[0] & 15 == 5 and content[4:8] == b"\2\0\0\0" else None
        for name, encoded in DATATYPES.items():
            if content.startswith(encoded):
                return np.dtype(name)
        return None

    # Attributes

    def attributes(self, header: _Header) -> Iterator[tuple[str, str | list[str]]]:
        for kind, content in header.messages:
            if kind == Message.ATTRIBUTE:
                name, value = self.attribute(content)
                if value is not None:
                    yield name, value

    def attribute(self, content: bytes) -> tuple[str, str | list[str] | None]:
        if len(content) < 9:
            raise self.error("an attribute is cut off")
        version = content[0]
        sizes = struct.unpack_from("<HHH", content, 2)
        if version not in (1, 2, 3) or (version > 1 and content[1]):
            raise self.error("an attribute in another format")
        place, parts = 9 if version == 3 else 8, []
        for size in sizes:
            parts.append(content[place : place + size])
            place += size if version > 1 else -(-size // 8) * 8
        name, kind, space = parts
        if place > len(content) or len(kind) < 8:
            raise self.error("an attribute is cut off")
        shape = self.shape(space)
        values = None if shape is None else self.text(kind, math.prod(shape), content[place:])
        value = values[0] if values and not shape else values
        return self.decode(name.rstrip(b"\0")), value

    def text(self, kind: bytes, count: int, content: bytes) -> list[str] | None:
        """The elements of an attribute, if they are text."""
        (size,) = struct.unpack_from("<I", kind, 4)
        if kind[0] & 15 == 3:
            width, pieces = size, None
        elif kind[0] & 15 == 9 and kind[1] & 15 == 1 and size == 16:
            width, pieces = 16, self.heap_object
        else:
            return None
        if not width or count * width > len(content):
            raise self.error("an attribute is cut off")
        found = [content[index * width : (index + 1) * width] for index in range(count)]
        if pieces is not None:
            found = [pieces(reference) for reference in found]
        return [self.decode(each.split(b"\0")[0]) for each in found]

    def heap_object(self, reference: bytes) -> bytes:
        """What a text of any length refers to."""
        length, address, index = struct.unpack("<IQI", reference)
        if not length:
            return b""
        if address not in self.heaps:
            self.heaps[address] = dict(self.heap(address))
        offset, size = self.heaps[address].get(index, (0, 0))
        self.unread_text -= length
        if length > size or self.unread_text < 0:
            raise self.error("a text is missing")
        return self.read(offset, length)

    def heap(self, address: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """The objects of a global heap: their numbers, places and sizes."""
        (size,) = struct.unpack_from("<Q", self.block(address, 16, b"GCOL"), 8)
        place, end = address + 16, address + size
        if end > self.size:
            raise self.error("a part of it is missing")
        self.claim(max(size - 16, 0))
        while place + 16 <= end:
            index, _, _, length = struct.unpack("<HHIQ", self.read(place, 16))
            if index == 0:
                return
            if place + 16 + length > end:
                raise self.error("a text is missing")
            yield index, (place + 16, length)
            place += 16 + -(-length // 8) * 8
