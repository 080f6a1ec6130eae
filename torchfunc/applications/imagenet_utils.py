"""What all networks for ImageNet share: what goes in, and what comes out in words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfunc.config import floatx, standardize_data_format
from torchfunc.dtypes import as_dtype
from torchfunc.utils import get_file

__all__ = ["decode_predictions", "preprocess_caffe", "preprocess_input", "preprocess_tf"]

# By mode: what pixels are divided by, the order of channels, their means and their deviations over ImageNet.
_MODES = {
    "caffe": (1.0, (2, 1, 0), (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "torch": (255.0, (0, 1, 2), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
_INDEX = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
_INDEX_HASH = "c2c37ea517e94d9795004a39431a14cb"


def preprocess_input(x: Any, data_format: str | None = None, mode: str = "caffe") -> Any:
    """Images with values from 0 to 255 as a network was trained on them. They are not written to, unlike in Keras.

    Args:
        x: an image or a batch of images, in RGB: an array, a tensor or a symbolic tensor.
        data_format: "channels_last" or "channels_first"; as configured by default.
        mode: "caffe": in BGR, less the mean of each channel; "tf": from -1 to 1; "torch": from 0 to 1, then less the
            mean and divided by the standard deviation of each channel.

    Raises:
        ValueError: there is no such mode or format.

    >>> applications.imagenet_utils.preprocess_input(np.full((1, 1, 3), 255), mode="tf")
    array([[[1., 1., 1.]]], dtype=float32)
    """
    if mode not in (*_MODES, "tf"):
        raise ValueError(f"preprocess_input() takes 'caffe', 'tf' or 'torch' for mode, got {mode!r}.")
    axis = -1 if standardize_data_format(data_format) == "channels_last" else -3
    values = torch.as_tensor(x) if isinstance(x, np.ndarray) else x
    values = values if values.dtype.is_floating_point else values.to(as_dtype(floatx()))
    if mode == "tf":
        result = values / 127.5 - 1
    else:
        scale, order, means, deviations = _MODES[mode]
        channels = [values.select(axis, index) / scale for index in order]
        result = torch.stack(
            [(channel - mean) / each for channel, mean, each in zip(channels, means, deviations, strict=True)], axis
        )
    return result.numpy() if isinstance(x, np.ndarray) else result


def preprocess_caffe(x: Any, data_format: str | None = None) -> Any:
    """`imagenet_utils.preprocess_input` in the mode "caffe": in BGR, less the mean of each channel.

    >>> applications.resnet50.preprocess_input(np.full((1, 1, 3), 255)).round(1)
    array([[[151.1, 138.2, 131.3]]], dtype=float32)
    """
    return preprocess_input(x, data_format, "caffe")


def preprocess_tf(x: Any, data_format: str | None = None) -> Any:
    """`imagenet_utils.preprocess_input` in the mode "tf": from -1 to 1.

    >>> applications.mobilenet_v2.preprocess_input(np.full((1, 1, 3), 255))
    array([[[1., 1., 1.]]], dtype=float32)
    """
    return preprocess_input(x, data_format, "tf")


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """The classes with the highest scores for each image, as `(WordNet id, name, score)`, best first.

    Args:
        preds: scores `(images, 1000)`, an array or a tensor.
        top: how many classes.

    Raises:
        ValueError: the scores have another shape.
        OSError: Keras' list of the classes cannot be downloaded.

    >>> scores = applications.ResNet50()(images)  # doctest: +SKIP
    >>> applications.imagenet_utils.decode_predictions(scores, top=1)[0][0][:2]  # doctest: +SKIP
    ('n02123045', 'tabby')
    """
    scores = preds.detach().cpu().numpy() if isinstance(preds, Tensor) else np.asarray(preds)
    if scores.ndim != 2 or scores.shape[1] != 1000:
        raise ValueError(f"decode_predictions() takes scores of shape (images, 1000), got {scores.shape}.")
    path = get_file("imagenet_class_index.json", _INDEX, cache_subdir="models", file_hash=_INDEX_HASH)
    with open(path, encoding="utf-8") as file:
        index = json.load(file)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [[(*index[str(each)], row[each]) for each in order] for row, order in zip(scores, best, strict=True)]
