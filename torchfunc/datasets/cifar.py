"""What CIFAR-10 and CIFAR-100 share."""

from __future__ import annotations

import os

import numpy as np

from torchfunc.config import image_data_format
from torchfunc.datasets.files import fetch, read_pickle

__all__ = ["part", "unpacked"]


def unpacked(key: str, folder: str) -> str:
    """The folder with the files, of the archive of a name in the table."""
    return os.path.join(fetch(key, f"{folder}-target", extract=True), folder)


def part(folder: str, files: list[str], labels: str) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of some files, one after the other."""
    batches = [read_pickle(os.path.join(folder, name)) for name in files]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    classes = np.concatenate([batch[labels.encode()] for batch in batches]).reshape(-1, 1)
    return (images.transpose(0, 2, 3, 1) if image_data_format() == "channels_last" else images), classes
