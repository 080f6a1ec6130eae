"""CIFAR-100: small colour pictures in 100 classes, or in 20 coarse ones."""

from __future__ import annotations

from torchfunc.datasets.cifar import part, unpacked
from torchfunc.datasets.files import Split

__all__ = ["load_data"]


def load_data(label_mode: str = "fine") -> Split:
    """`(x_train, y_train), (x_test, y_test)`: x (50000 or 10000, 32, 32, 3), uint8, y (..., 1), int64.

    The images are (3, 32, 32) if `config.image_data_format()` is "channels_first".

    Args:
        label_mode: "fine" for 100 classes, "coarse" for 20.

    Raises:
        ValueError: `label_mode` is something else.

    >>> (x_train, y_train), (x_test, y_test) = datasets.cifar100.load_data(label_mode="coarse")  # doctest: +SKIP
    >>> x_train.shape, y_train.shape  # doctest: +SKIP
    ((50000, 32, 32, 3), (50000, 1))
    """
    if label_mode not in ("fine", "coarse"):
        raise ValueError(f"load_data() takes 'fine' or 'coarse' for label_mode, got {label_mode!r}.")
    folder = unpacked("cifar100", "cifar-100-python")
    return part(folder, ["train"], f"{label_mode}_labels"), part(folder, ["test"], f"{label_mode}_labels")
