"""MNIST: handwritten digits."""

from __future__ import annotations

from torchfunc.datasets.files import Split, fetch, read_arrays

__all__ = ["load_data"]


def load_data(path: str = "mnist.npz") -> Split:
    """`(x_train, y_train), (x_test, y_test)`: x (60000 or 10000, 28, 28) from 0 to 255, y the digits, all uint8.

    Args:
        path: the file's name in the cache.

    >>> (x_train, y_train), (x_test, y_test) = datasets.mnist.load_data()  # doctest: +SKIP
    >>> x_train.shape, y_train.shape  # doctest: +SKIP
    ((60000, 28, 28), (60000,))
    """
    arrays = read_arrays(fetch("mnist", path))
    return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
