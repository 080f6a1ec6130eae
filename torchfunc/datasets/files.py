"""The files that the data sets come from, with the hashes they have, and how they are read."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

from torchfunc.utils.downloads import get_file

__all__ = ["FILES", "Arrays", "File", "Split", "fetch", "read_arrays", "read_index", "read_pickle"]

Split = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Arrays = dict[str, np.ndarray]

_STORAGE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_TORONTO = "https://www.cs.toronto.edu/~kriz/"


class File(NamedTuple):
    """Where a file is, and its sha256 or md5; None if Keras knows none."""

    origin: str
    hash: str | None


FILES = {
    "boston_housing": File(
        f"{_STORAGE}boston_housing.npz", "f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5"
    ),
    "california_housing": File(
        f"{_STORAGE}california_housing.npz", "1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f"
    ),
    "cifar10": File(
        f"{_TORONTO}cifar-10-python.tar.gz", "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
    ),
    "cifar100": File(
        f"{_TORONTO}cifar-100-python.tar.gz", "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
    ),
    "imdb": File(f"{_STORAGE}imdb.npz", "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"),
    "imdb_word_index": File(f"{_STORAGE}imdb_word_index.json", "bfafd718b763782e994055a2d397834f"),
    "mnist": File(f"{_STORAGE}mnist.npz", "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"),
    "reuters": File(f"{_STORAGE}reuters.npz", "d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916"),
    "reuters_word_index": File(f"{_STORAGE}reuters_word_index.json", "4d44cc38712099c9e383dc6e5f11a921"),
    **{
        name: File(f"{_STORAGE}{name}.gz", None)
        for name in (
            "train-labels-idx1-ubyte",
            "train-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
        )
    },
}


def fetch(key: str, path: str, **kwargs: Any) -> str:
    """The path of a file of the table, which is downloaded if need be; `kwargs` are those of `get_file`."""
    return get_file(path, FILES[key].origin, file_hash=FILES[key].hash, **kwargs)


def read_arrays(path: str) -> Arrays:
    """The arrays of an `.npz` file. Arrays of lists are pickles; nothing but arrays is made of them.

    Raises:
        ValueError: a pickle is to make something else.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        return {name.removesuffix(".npy"): _read_array(archive.read(name), f"{path}: {name}") for name in names}


def _read_array(data: bytes, place: str) -> np.ndarray:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if not dtype.hasobject:
        stream.seek(0)
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    found = _ArrayUnpickler(stream, place).load()
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{place} is no array, but {type(found).__name__}.")
    return found.reshape(shape)


def read_pickle(path: str) -> dict[bytes, Any]:
    """A dict of arrays and lists that Python 2 has pickled.

    Raises:
        ValueError: the pickle is to make something else.
    """
    with open(path, "rb") as file:
        found = _ArrayUnpickler(file, path).load()
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no dict, but {type(found).__name__}.")
    return found


def read_index(path: str) -> dict[str, int]:
    """The number of each word."""
    with open(path, encoding="utf-8") as file:
        index: dict[str, int] = json.load(file)
    return index


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays, and what pickles hold without naming any class: lists, dicts, numbers, strings."""

    _ALLOWED = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }

    def __init__(self, file: Any, place: str) -> None:
        super().__init__(file, encoding="bytes")
        self._place = place

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise ValueError(f"{self._place} is damaged or dangerous: it asks for {module}.{name}. Delete the file.")
        return super().find_class(module, name)
