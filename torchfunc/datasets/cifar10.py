"""CIFAR-10: small colour pictures in ten classes."""

from __future__ import annotations

import numpy as np

from torchfunc.datasets.cifar import part, unpacked
from torchfunc.datasets.files import Split

__all__ = ["load_data"]


def load_data() -> Split:
    """`(x_train, y_train), (x_test, y_test)`: x (50000 or 10000, 32, 32, 3) from 0 to 255, y (..., 1), all uint8.

    The images are (3, 32, 32) if `config.image_data_format()` is "channels_first".

    >>> (x_train, y_train), (x_test, y_test) = datasets.cifar10.load_data()  # doctest: +SKIP
    >>> x_train.shape, y_train.shape  # doctest: +SKIP
    ((50000, 32, 32, 3), (50000, 1))
    """
    folder = unpacked("cifar10", "cifar-10-batches-py")
    x_train, y_train = part(folder, [f"data_batch_{number}" for number in range(1, 6)], "labels")
    x_test, y_test = part(folder, ["test_batch"], "labels")
    return (x_train, y_train.astype(np.uint8)), (x_test, y_test.astype(np.uint8))
