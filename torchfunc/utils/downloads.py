"""get_file: files from the network, in the cache that Keras uses as well."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import IO

from tqdm import tqdm

from torchfunc.saving.files import PathLike, replacing
from torchfunc.utils.archives import unpack

__all__ = ["get_file"]

_CHUNK = 1 << 16
# Seconds without any data after which a download has failed.
_PATIENCE = 60
_ALGORITHMS = ("auto", "sha256", "md5")
_FORMATS = ("tar", "zip")


def get_file(
    fname: PathLike | None = None,
    origin: str | None = None,
    untar: bool = False,
    md5_hash: str | None = None,
    file_hash: str | None = None,
    cache_subdir: str = "datasets",
    hash_algorithm: str = "auto",
    extract: bool = False,
    archive_format: str | Sequence[str] | None = "auto",
    cache_dir: PathLike | None = None,
    force_download: bool = False,
) -> str:
    """The path of a file that is downloaded unless it is in the cache, which Keras shares.

    A download that fails, breaks off or has another hash leaves nothing behind. Archives are unpacked with care: a
    member outside of the folder, or a link that leads out, is an error.

    Args:
        fname: the file's name in the cache; that at the end of `origin` by default. With `extract`, a name without a
            dot is that of the folder, and of "a.zip" the folder is "a_extracted".
        origin: the URL.
        untar: `extract` for a tar archive (deprecated in Keras).
        md5_hash: `file_hash`, by md5 (deprecated in Keras).
        file_hash: the hash that the file must have, in hexadecimal digits.
        cache_subdir: the folder within the cache; an absolute path stands for itself.
        hash_algorithm: "sha256", "md5", or "auto": sha256 for a hash of 64 digits.
        extract: whether to unpack the file; the folder is returned then.
        archive_format: "tar" (compressed ones too), "zip", or a list of those to try; "auto" for both.
        cache_dir: the cache; `$KERAS_HOME` by default, or `~/.keras`.
        force_download: whether to download the file though it is there.

    Raises:
        ValueError: no `origin` is given, an argument is something else, the download has another hash, or the file
            is no archive or one that is not safe.
        OSError: the file cannot be downloaded, or not be written; set `cache_dir` to a folder that can be.

    >>> import pathlib
    >>> pathlib.Path("numbers.txt").write_text("1 2 3")
    5
    >>> origin = pathlib.Path("numbers.txt").absolute().as_uri()
    >>> path = utils.get_file("copy.txt", origin, cache_dir="cache")
    >>> pathlib.Path(path).read_text()
    '1 2 3'
    """
    if origin is None:
        raise ValueError("get_file() needs origin, the URL of the file.")
    if md5_hash is not None and file_hash is None:
        file_hash, hash_algorithm = md5_hash, "md5"
    if hash_algorithm not in _ALGORITHMS:
        raise ValueError(f"get_file() takes one of {_ALGORITHMS} for hash_algorithm, got {hash_algorithm!r}.")
    unpacks = extract or untar
    formats = _formats("tar" if untar else archive_format)
    folder = os.path.join(_cache(cache_dir), cache_subdir)
    name = _name(fname, origin)
    target, unpacked = _places(os.path.join(folder, name), fname is not None and "." in name)
    if not unpacks:
        target = os.path.join(folder, name)
    fresh = force_download or not os.path.exists(target)
    if (
        not fresh
        and file_hash is not None
        and _hash_of(target, _hasher(hash_algorithm, file_hash)) != file_hash.lower()
    ):
        print(f"{target} is there, but its hash is not {file_hash}: it is downloaded again.")
        fresh = True
    if fresh:
        os.makedirs(folder, exist_ok=True)
        _download(origin, target, file_hash, hash_algorithm)
    if not unpacks:
        return target
    unpack(target, unpacked, formats, overwrite=fresh)
    return unpacked


def _cache(cache_dir: PathLike | None) -> str:
    if cache_dir is None:
        cache_dir = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return os.path.expanduser(os.fspath(cache_dir))


def _formats(archive_format: str | Sequence[str] | None) -> Sequence[str]:
    if archive_format is None or archive_format == "auto":
        return _FORMATS if archive_format else ()
    formats = [archive_format] if isinstance(archive_format, str) else archive_format
    if not set(formats) <= set(_FORMATS):
        raise ValueError(f"get_file() takes 'auto', 'tar' and 'zip' for archive_format, got {archive_format!r}.")
    return formats


def _name(fname: PathLike | None, origin: str) -> str:
    """The name of the file in the cache."""
    name = os.fspath(fname) if fname else os.path.basename(urllib.parse.urlsplit(origin).path)
    if not name:
        raise ValueError(f"get_file() finds no file name at the end of {origin!r}: give it fname.")
    if os.path.basename(name) != name or name in (os.curdir, os.pardir):
        raise ValueError(f"get_file() takes a file's name for fname, without a folder, got {name!r}. Set cache_subdir.")
    return name


def _places(path: str, has_suffix: bool) -> tuple[str, str]:
    """Where an archive and what is in it go, for the path of the file."""
    if has_suffix:
        folder, name = os.path.split(path)
        return path, os.path.join(folder, f"{name[: name.find('.')]}_extracted")
    return f"{path}_archive", path


class _Hasher:
    """The hash of what it is fed, if there is one to compare with."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._hash = None if name is None else hashlib.new(name, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        if self._hash is not None:
            self._hash.update(chunk)

    def hexdigest(self) -> str:
        return "" if self._hash is None else self._hash.hexdigest()


def _hasher(algorithm: str, file_hash: str | None) -> _Hasher:
    if file_hash is None:
        return _Hasher(None)
    if algorithm == "auto":
        algorithm = "sha256" if len(file_hash) == 64 else "md5"
    return _Hasher(algorithm)


def _hash_of(path: str, hasher: _Hasher) -> str:
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            hasher.update(chunk)
    return hasher.hexdigest()


def _download(origin: str, target: str, file_hash: str | None, algorithm: str) -> None:
    """Download a file; it is there when all of it has come, and with the right hash."""
    hasher = _hasher(algorithm, file_hash)
    request = urllib.request.Request(origin, headers={"User-Agent": "torchfunc"})
    try:
        response = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        # (It is an open file as well.)
        with error:
            raise OSError(f"get_file() cannot download {origin}: {error.code} {error.reason}.") from error
    except OSError as error:
        raise OSError(f"get_file() cannot download {origin}: {error}.") from error
    with response, replacing(target) as file:
        length = response.headers.get("Content-Length")
        expected = int(length) if length else None
        with tqdm(total=expected, unit="B", unit_scale=True, desc=os.path.basename(target)) as bar:
            received = _copy(response, file, hasher, bar, origin)
        # torch.hub and http.client take a connection that was closed early for the end of the file.
        if expected is not None and received != expected:
            raise OSError(f"get_file() has received {received} of the {expected} bytes of {origin}. Try again.")
        if file_hash is not None and hasher.hexdigest() != file_hash.lower():
            raise ValueError(
                f"The {hasher.name} of {origin} is {hasher.hexdigest()}, not {file_hash}. It is not kept: it may be "
                "damaged, or another file."
            )


def _copy(response: IO[bytes], file: IO[bytes], hasher: _Hasher, bar: tqdm, origin: str) -> int:
    received = 0
    try:
        for chunk in iter(lambda: response.read(_CHUNK), b""):
            file.write(chunk)
            hasher.update(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    except (TimeoutError, ConnectionError, HTTPException) as error:
        raise OSError(f"get_file() cannot download {origin}: {error!r} after {received} bytes.") from error
    return received
