"""Writing HDF5 files that h5py and Keras read: groups, arrays in one piece, and attributes that are text.

The file is written from its beginning to its end, so it can be a member of an archive too, and one array at a time is
in memory. The same content gives the same bytes.

Source: HDF5 File Format Specification, version 3.0: superblock 0, object headers 1, groups as B-trees 1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from torchfunc.saving.hdf5_format import CHECKSUM, DATATYPES, SIGNATURE, UNDEFINED, Message, checksum

__all__ = ["NewArray", "NewGroup", "write_hdf5"]

# How many members a leaf of a B-tree has at most, and how many children a node; the library's own values.
_LEAF, _NODE = 8, 32
_LEAF_SIZE, _NODE_SIZE = 8 + 40 * _LEAF, 24 + 16 * _NODE + 8
# An index in a global heap has 16 bits.
_HEAP_OBJECTS = 60_000


@dataclass
class NewArray:
    """An array to be written.

    Attributes:
        shape, dtype: of the values; bfloat16 is given as uint16.
        read: gives the values when they are written.
        is_bfloat16: whether they are bfloat16, which is written as Keras does.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    is_bfloat16: bool = False
    address: int = UNDEFINED
    checksum: str = "0" * 8

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass
class NewGroup:
    """A group to be written.

    Attributes:
        members: the groups and arrays in it, by name.
        text: attributes.
    """

    members: dict[str, NewGroup | NewArray] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)

    def group(self, *names: str) -> NewGroup:
        """The group at this path, made if it is not there."""
        found = self
        for name in names:
            member = found.members.setdefault(name, NewGroup())
            assert isinstance(member, NewGroup)
            found = member
        return found


def write_hdf5(file: IO[bytes], root: NewGroup) -> None:
    """Write a file with this content."""
    objects = list(_inside_out(root))
    arrays = [each for each in objects if isinstance(each, NewArray)]
    end_of_arrays = _place_arrays(arrays)
    # With sums that are not computed yet everything has its size and so its place already.
    _, place_of_root, size = _describe(objects, end_of_arrays)
    file.write(_superblock(place_of_root, end_of_arrays + size))
    position = 96
    for array in arrays:
        position += _write_array(file, array, position)
    described, _, _ = _describe(objects, end_of_arrays)
    file.write(b"\0" * (end_of_arrays - position))
    file.write(described)


def _inside_out(root: NewGroup) -> Iterator[NewGroup | NewArray]:
    """All groups and arrays, each behind what is in it."""
    pending: list[tuple[NewGroup | NewArray, bool]] = [(root, False)]
    while pending:
        each, is_done = pending.pop()
        if isinstance(each, NewArray) or is_done:
            yield each
        else:
            pending.append((each, True))
            pending.extend((member, False) for member in each.members.values())


def _place_arrays(arrays: Sequence[NewArray]) -> int:
    """Give each array its place, behind the superblock; returns where the last one ends."""
    position = 96
    for array in arrays:
        if array.nbytes:
            array.address = position
            position += _padded(array.nbytes)
    return position


def _write_array(file: IO[bytes], array: NewArray, position: int) -> int:
    """Write the values, and fill up to where the next array begins; returns how many bytes that were."""
    values = np.asarray(array.read(), order="C")
    assert (values.shape, values.dtype) == (array.shape, array.dtype)
    array.checksum = checksum(values)
    if not array.nbytes:
        return 0
    assert array.address == position
    file.write(values.reshape(-1).view(np.uint8).data)
    padding = _padded(array.nbytes) - array.nbytes
    file.write(b"\0" * padding)
    return array.nbytes + padding


def _superblock(place_of_root: int, end: int) -> bytes:
    head = SIGNATURE + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", _LEAF // 2, _NODE // 2, 0)
    places = struct.pack("<QQQQ", 0, UNDEFINED, end, UNDEFINED)
    return head + places + struct.pack("<QQIIQQ", 0, place_of_root, 0, 0, 0, 0)


def _describe(objects: Sequence[NewGroup | NewArray], start: int) -> tuple[bytes, int, int]:
    """Everything but the arrays' values, as it is written from `start` on; where the last object is; and the size."""
    writer = _Writer(start)
    writer.write_texts(objects)
    address = UNDEFINED
    for each in objects:
        address = writer.write_array(each) if isinstance(each, NewArray) else writer.write_group(each)
    content = b"".join(writer.parts)
    return content, address, len(content)


class _Writer:
    def __init__(self, start: int) -> None:
        self.position = start
        self.parts: list[bytes] = []
        self.texts: dict[str, bytes] = {}
        self.addresses: dict[int, int] = {}

    def put(self, content: bytes) -> int:
        """Append a part; returns where it is."""
        address = self.position
        content = _fill(content)
        self.parts.append(content)
        self.position += len(content)
        return address

    def write_texts(self, objects: Sequence[NewGroup | NewArray]) -> None:
        """Write the texts of all attributes, each once, and note where they are."""
        texts: dict[str, None] = {}
        for each in objects:
            if isinstance(each, NewGroup):
                texts.update(dict.fromkeys(each.text.values()))
            elif each.is_bfloat16:
                texts["bfloat16"] = None
        waiting = list(texts)
        while waiting:
            chunk, waiting = waiting[:_HEAP_OBJECTS], waiting[_HEAP_OBJECTS:]
            encoded = [text.encode() for text in chunk]
            objects_in_heap = [
                struct.pack("<HHIQ", index, 1, 0, len(content)) + _fill(content)
                for index, content in enumerate(encoded, 1)
            ]
            content = b"".join(objects_in_heap)
            # A heap is at least so large; what is left of it is object 0.
            size = max(4096, len(content) + 32)
            rest = size - len(content) - 16
            free = struct.pack("<HHIQ", 0, 0, 0, rest) + b"\0" * (rest - 16)
            address = self.put(b"GCOL\1\0\0\0" + struct.pack("<Q", size) + content + free)
            for index, (text, each_encoded) in enumerate(zip(chunk, encoded, strict=True), 1):
                self.texts[text] = struct.pack("<IQI", len(each_encoded), address, index)

    def write_array(self, array: NewArray) -> int:
        rank = len(array.shape)
        space = bytes([1, rank, 0, 0, 0, 0, 0, 0]) + struct.pack(f"<{rank}Q", *array.shape)
        kind = b"\x15\0\0\0\2\0\0\0" if array.is_bfloat16 else DATATYPES[_spelling(array.dtype)]
        layout = struct.pack("<BBQQ", 3, 1, array.address if array.nbytes else UNDEFINED, array.nbytes)
        messages = [
            (Message.DATASPACE, space),
            (Message.DATATYPE, kind),
            (Message.FILL_VALUE, b"\2\2\2\1\0\0\0\0"),
            (Message.LAYOUT, layout),
            (Message.ATTRIBUTE, _attribute(CHECKSUM, b"\x13\0\0\0\x08\0\0\0", array.checksum.encode())),
        ]
        if array.is_bfloat16:
            messages.append((Message.ATTRIBUTE, self.text_attribute("dtype", "bfloat16")))
        return self.remember(array, self.put(_header(messages)))

    def write_group(self, group: NewGroup) -> int:
        names = sorted((name.encode(), name) for name in group.members)
        heap, offsets = b"\0" * 8, []
        for encoded, _ in names:
            offsets.append(len(heap))
            heap += _fill(encoded + b"\0")
        place_of_names = self.put(heap)
        place_of_heap = self.put(b"HEAP\0\0\0\0" + struct.pack("<QQQ", len(heap), 1, place_of_names))
        entries = [
            struct.pack("<QQIIQQ", offset, self.addresses[id(group.members[name])], 0, 0, 0, 0)
            for offset, (_, name) in zip(offsets, names, strict=True)
        ]
        tree = self.write_tree(entries, offsets)
        messages = [(Message.SYMBOL_TABLE, struct.pack("<QQ", tree, place_of_heap))]
        messages += [(Message.ATTRIBUTE, self.text_attribute(name, text)) for name, text in group.text.items()]
        return self.remember(group, self.put(_header(messages)))

    def write_tree(self, entries: Sequence[bytes], offsets: Sequence[int]) -> int:
        """The members of a group as a B-tree; returns where its root is."""
        # Each child with the name of its last member.
        children: list[tuple[int, int]] = []
        for start in range(0, len(entries), _LEAF):
            chunk = entries[start : start + _LEAF]
            leaf = b"SNOD\1\0" + struct.pack("<H", len(chunk)) + b"".join(chunk)
            children.append((self.put(leaf.ljust(_LEAF_SIZE, b"\0")), offsets[start + len(chunk) - 1]))
        level = 0
        while True:
            count = max(1, -(-len(children) // _NODE))
            first, nodes, key = self.position, [], 0
            for index in range(count):
                chunk_of_children = children[index * _NODE : (index + 1) * _NODE]
                left = first + (index - 1) * _NODE_SIZE if index else UNDEFINED
                right = first + (index + 1) * _NODE_SIZE if index + 1 < count else UNDEFINED
                node = b"TREE" + struct.pack("<BBHQQQ", 0, level, len(chunk_of_children), left, right, key)
                for address, last in chunk_of_children:
                    node += struct.pack("<QQ", address, last)
                    key = last
                nodes.append((self.put(node.ljust(_NODE_SIZE, b"\0")), key))
            if count == 1:
                return nodes[0][0]
            children, level = nodes, level + 1

    def text_attribute(self, name: str, text: str) -> bytes:
        kind = b"\x19\1\1\0\x10\0\0\0" + b"\x10\0\0\0\1\0\0\0\0\0\x08\0"
        return _attribute(name, kind, self.texts[text])

    def remember(self, written: NewGroup | NewArray, address: int) -> int:
        self.addresses[id(written)] = address
        return address


def _header(messages: Sequence[tuple[Message, bytes]]) -> bytes:
    content = b"".join(struct.pack("<HHI", kind, _padded(len(each)), 0) + _fill(each) for kind, each in messages)
    return struct.pack("<BBHII", 1, 0, len(messages), 1, len(content)) + b"\0" * 4 + content


def _attribute(name: str, kind: bytes, value: bytes) -> bytes:
    """A scalar attribute."""
    encoded, space = name.encode() + b"\0", b"\1" + b"\0" * 7
    sizes = struct.pack("<BBHHH", 1, 0, len(encoded), len(kind), len(space))
    return sizes + _fill(encoded) + _fill(kind) + space + value


def _spelling(dtype: np.dtype) -> str:
    return "bool" if dtype == np.bool_ else dtype.str.replace("|", "<")


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _fill(content: bytes) -> bytes:
    return content.ljust(_padded(len(content)), b"\0")
