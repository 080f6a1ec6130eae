"""Archives unpacked into a folder: nothing is written outside of it, and no links are made."""

from __future__ import annotations

import functools
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

from torchfunc.saving.files import replacing

__all__ = ["unpack"]

# What the readers of archives raise for one that is cut off or damaged.
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


class _Member(NamedTuple):
    """A file in an archive: how many bytes it has, and how to open it."""

    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: str, folder: str, formats: Sequence[str], overwrite: bool) -> None:
    """Unpack an archive into `folder`, which is made if it is not there.

    Each file appears whole or not at all. A link to another file of the archive becomes a copy of that.

    Args:
        archive: the file.
        folder: where to.
        formats: of "tar" (compressed ones too) and "zip" those to try.
        overwrite: whether to write files again that are there in the right size.

    Raises:
        ValueError: the file is no such archive, or has a member that does not belong into the folder: an absolute
            path, one with "..", a link that leads out, a device. Then nothing is unpacked.
    """
    try:
        if "tar" in formats and tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                _write(_tar_members(tar, archive), folder, overwrite)
        elif "zip" in formats and zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _write(_zip_members(packed, archive), folder, overwrite)
        else:
            raise ValueError(f"{archive} cannot be unpacked: it is no archive of the formats {list(formats)}.")
    except _DAMAGED as error:
        raise ValueError(f"{archive} cannot be unpacked, it is damaged: {error!r}. Delete it.") from error


def _tar_members(tar: tarfile.TarFile, archive: str) -> dict[str, _Member]:
    infos = {_inside(info.name, archive): info for info in tar.getmembers()}
    found = {}
    for name, info in infos.items():
        if info.isdir():
            continue
        source = _linked(info, infos, archive)
        found[name] = _Member(source.size, functools.partial(tar.extractfile, source))
    return found


def _linked(info: tarfile.TarInfo, infos: dict[str, tarfile.TarInfo], archive: str) -> tarfile.TarInfo:
    """The file of the archive that a member is, or that it leads to as a link."""
    first = info
    for _ in infos:
        if info.isfile():
            return info
        if not (info.issym() or info.islnk()):
            break
        # A symbolic link starts from its own folder, a hard one from the archive's root.
        target = os.path.join(os.path.dirname(info.name), info.linkname) if info.issym() else info.linkname
        following = infos.get(_inside(target, archive))
        if following is None:
            break
        info = following
    raise ValueError(
        f"{archive} cannot be unpacked: its member {first.name!r} is a link to no file of the archive, or a device."
    )


def _zip_members(packed: zipfile.ZipFile, archive: str) -> dict[str, _Member]:
    return {
        _inside(info.filename, archive): _Member(info.file_size, functools.partial(packed.open, info))
        for info in packed.infolist()
        if not info.is_dir()
    }


def _inside(name: str, archive: str) -> str:
    """The name of a member in its short form.

    Raises:
        ValueError: it leads out of the folder that the archive is unpacked into.
    """
    short = os.path.normpath(name)
    if os.path.isabs(short) or os.path.splitdrive(short)[0] or short.split(os.sep)[0] == os.pardir or "\0" in name:
        raise ValueError(f"{archive} cannot be unpacked: its member {name!r} would be outside of the folder.")
    return short


def _write(members: dict[str, _Member], folder: str, overwrite: bool) -> None:
    root = os.path.realpath(folder)
    os.makedirs(root, exist_ok=True)
    for name, member in members.items():
        path = os.path.join(root, name)
        # Links that were in the folder before.
        if os.path.commonpath([os.path.realpath(path), root]) != root:
            raise ValueError(f"{name!r} cannot be unpacked into {folder}: a link in that folder leads out of it.")
        if not overwrite and os.path.isfile(path) and os.path.getsize(path) == member.size:
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        source = member.open()
        assert source is not None
        with source, replacing(path) as file:
            shutil.copyfileobj(source, file)
