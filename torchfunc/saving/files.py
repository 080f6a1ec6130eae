"""Files that are never half written."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["PathLike", "remove", "replace_folder", "replacing"]

PathLike = str | os.PathLike[str]

# What opening a file without a name fails with where the system or the file system has none.
_NO_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """A new file, open to write and read, in the folder of `path`; when the block ends, it takes the place of `path`.

    A crash at any time leaves the old file or the new one, whole. If the block raises, the old one stays. Where the
    file system can do it, the new file has no name until it is whole, so that a process that is killed leaves nothing
    behind. A link stays one, and the file that it points to is replaced; its permissions stay. Several threads may
    write to one path.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with _naming_errors(target, temporary):
        _check_target(target)
        # What a process of the same number, killed long ago, has left.
        temporary.unlink(missing_ok=True)
        file = _open_nameless(target.parent)
        nameless = file is not None
        try:
            with file or open(temporary, "x+b") as file:
                yield file
                file.flush()
                if target.exists() and os.name == "posix":
                    os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
                os.fsync(file.fileno())
                if nameless:
                    _give_name(file, temporary)
                    os.replace(temporary, target)
            if not nameless:
                os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_names(target.parent)


def replace_folder(new: Path, path: Path, previous: Path) -> None:
    """Let a folder that is whole take the place of `path`, which becomes `previous`.

    A crash at any time leaves one of these two, whole.

    Raises:
        OSError: the folders cannot be moved.
    """
    _flush_names(new)
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(path, previous)
    os.replace(new, path)
    _flush_names(path.parent)


def remove(path: PathLike) -> None:
    """Delete what `replacing` or `replace_folder` wrote, and what processes that were killed have left beside it."""
    written = Path(os.path.realpath(path))
    left = (each for end in (".tmp", ".*.tmp") for each in written.parent.glob(f".{glob.escape(written.name)}{end}"))
    for each in (Path(path), *left):
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming_errors(target: Path, temporary: Path) -> Iterator[None]:
    """Let an OSError that names no file, or one that nobody has heard of, say which file cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary), str(target.parent)):
            raise
        # (OSError makes the subclass that belongs to the number.)
        raise OSError(error.errno, f"{target} cannot be written: {error.strerror}") from error


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target} cannot be written: there is no folder {target.parent}.")
    if target.is_dir():
        raise IsADirectoryError(f"{target} cannot be written: it is a folder.")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"{target} cannot be written: it is there, and may only be read.")


def _open_nameless(folder: Path) -> IO[bytes] | None:
    """A file without a name in a folder; None where that cannot be had (it can on Linux, on most file systems)."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.fdopen(os.open(folder, flag | os.O_RDWR, 0o666), "w+b")
    except OSError as error:
        if error.errno in _NO_NAMELESS_FILES:
            return None
        raise


def _give_name(file: IO[bytes], name: Path) -> None:
    number = file.fileno()
    try:
        # (Without a `src_dir_fd`, which an absolute path has no use for, Python does not follow the link.)
        os.link(f"/proc/self/fd/{number}", name, src_dir_fd=number, follow_symlinks=True)
    except OSError:
        file.seek(0)
        with open(name, "xb") as named:
            shutil.copyfileobj(file, named)
            named.flush()
            os.fsync(named.fileno())


def _flush_names(folder: Path) -> None:
    """Flush the names in a folder to the disk, where there is such a thing."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
