"""Zip files whose members are stored as they are: which members there are is checked before any is read."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, NamedTuple

__all__ = ["Member", "MemberFile", "WritingBehind", "add_member", "check_members"]

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1
# Smaller pieces are not worth another thread.
_SMALL = 1 << 16
# As the oldest date that the format knows: files of equal models are equal.
_DATE = (1980, 1, 1, 0, 0, 0)


class Member(NamedTuple):
    """Where the bytes of a member lie in a file, and their CRC-32."""

    start: int
    size: int
    checksum: int

    def read(self, file: IO[bytes]) -> bytes:
        """All of its bytes.

        Raises:
            ValueError: they are damaged.
        """
        file.seek(self.start)
        data = file.read(self.size)
        if len(data) != self.size or zlib.crc32(data) != self.checksum:
            raise ValueError("the checksum of a part differs")
        return data

    def verify(self, file: IO[bytes]) -> None:
        """Raise ValueError if its bytes are damaged. They are not kept."""
        file.seek(self.start)
        left, checksum = self.size, 0
        while left and (chunk := file.read(min(left, 1 << 22))):
            left, checksum = left - len(chunk), zlib.crc32(chunk, checksum)
        if left or checksum != self.checksum:
            raise ValueError("the checksum of a part differs")


class MemberFile:
    """A member as a file of its own, to read from."""

    def __init__(self, file: IO[bytes], member: Member) -> None:
        self._file = file
        self._member = member
        self._position = 0

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        self._position = position + (self._member.size if whence == os.SEEK_END else 0)
        return self._position

    def read(self, size: int) -> bytes:
        self._file.seek(self._member.start + self._position)
        content = self._file.read(max(0, min(size, self._member.size - self._position)))
        self._position += len(content)
        return content


def check_members(
    file: IO[bytes], allowed: Collection[str], required: Collection[str], folder: str | None = None
) -> dict[str, Member]:
    """The members of a zip file by name. Nothing is read but the directory.

    Args:
        file: the file, open to be read.
        allowed: the names that may be there.
        required: those that have to be.
        folder: a name that ends in "/": all that is in this folder may be there, too.

    Raises:
        ValueError: it is no zip file, or has other members; a member is there twice, compressed or encrypted, or lies
            outside of the file.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    # Whatever else its code raises for bytes that are no directory.
    except (zipfile.BadZipFile, NotImplementedError, OSError, OverflowError, struct.error, ValueError) as error:
        raise ValueError(f"it is no zip file, or it is cut off ({error})") from error
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise ValueError("it has a part twice")
    strange = sorted(name for name in names if name not in allowed and not _is_within(folder, name))
    missing = sorted(set(required) - set(names))
    if strange or missing:
        raise ValueError(f"it has parts that it should not have ({strange})" if strange else f"it lacks {missing}")
    size = os.fstat(file.fileno()).st_size
    return {info.filename: _find(file, info, size) for info in infos}


def _is_within(folder: str | None, name: str) -> bool:
    """Whether a name is that of something in a folder, and leads nowhere else on any system."""
    if folder is None or not name.startswith(folder) or any(sign in name for sign in "\\:\0"):
        return False
    return name == folder or not {"", ".", ".."} & set(name.removeprefix(folder).removesuffix("/").split("/"))


def _find(file: IO[bytes], info: zipfile.ZipInfo, size: int) -> Member:
    stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
    if not stored or info.flag_bits & _ENCRYPTED:
        raise ValueError(f"its part {info.filename!r} is compressed or encrypted")
    # (A directory that begins elsewhere than it says moves the members, to below 0 even.)
    if not 0 <= info.header_offset <= size - _LOCAL_HEADER.size:
        raise ValueError(f"its part {info.filename!r} lies outside of the file")
    file.seek(info.header_offset)
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    name = file.read(name_length)
    start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if magic != _LOCAL_MAGIC or name != info.filename.encode() or start + info.file_size > size:
        raise ValueError(f"its part {info.filename!r} is not where its directory says")
    return Member(start, info.file_size, info.CRC)


class WritingBehind:
    """A file that is written to in another thread, while the next piece is prepared.

    An error of the file is raised by the next call, at the latest by `wait`.

    Args:
        file: the file, open to be written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[int] | None = None

    def __enter__(self) -> WritingBehind:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True)

    def wait(self) -> None:
        """Return when everything is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def write(self, data: Any) -> int:
        self.wait()
        size = len(data)
        if size < _SMALL:
            return self._file.write(data)
        self._pending = self._pool.submit(self._file.write, data)
        return size

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.wait()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        self.wait()
        return self._file.tell()

    def flush(self) -> None:
        self.wait()
        self._file.flush()

    def close(self) -> None:
        """Wait; the file itself stays open."""
        self.wait()


def add_member(
    archive: zipfile.ZipFile, name: str, size: int, write_to: Callable[[Callable[[Any], object]], Any]
) -> None:
    """Add a member of a known size, whose bytes `write_to` gives to the function that it is called with."""
    info = zipfile.ZipInfo(name, _DATE)
    info.file_size = size
    with archive.open(info, "w") as member:
        write_to(member.write)
