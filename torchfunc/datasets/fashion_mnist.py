"""Fashion-MNIST: pictures of clothes in ten classes."""

from __future__ import annotations

import gzip
import os

import numpy as np

from torchfunc.datasets.files import Split, fetch

__all__ = ["load_data"]


def load_data() -> Split:
    """`(x_train, y_train), (x_test, y_test)`: x (60000 or 10000, 28, 28) from 0 to 255, y from 0 to 9, all uint8.

    >>> (x_train, y_train), (x_test, y_test) = datasets.fashion_mnist.load_data()  # doctest: +SKIP
    >>> x_train.shape, y_train.shape  # doctest: +SKIP
    ((60000, 28, 28), (60000,))
    """
    return _part("train"), _part("t10k")


def _part(name: str) -> tuple[np.ndarray, np.ndarray]:
    labels = _read(f"{name}-labels-idx1-ubyte", 8)
    return _read(f"{name}-images-idx3-ubyte", 16).reshape(len(labels), 28, 28), labels


def _read(key: str, header: int) -> np.ndarray:
    """The bytes of a file after its header."""
    with gzip.open(fetch(key, f"{key}.gz", cache_subdir=os.path.join("datasets", "fashion-mnist"))) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)
