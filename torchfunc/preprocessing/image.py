"""Images; see `utils`, and the augmentation layers in `layers`."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchfunc.ops.image import resize
from torchfunc.utils import array_to_img, img_to_array, load_img, save_img

__all__ = ["array_to_img", "img_to_array", "load_img", "save_img", "smart_resize"]


def smart_resize(
    x: Any, size: tuple[int, int], interpolation: str = "bilinear", data_format: str = "channels_last"
) -> Any:
    """Images of another size, cut around their middle to its proportions first; see `ops.image.resize`.

    Returns:
        an array for an array, else a tensor.

    >>> preprocessing.image.smart_resize(np.zeros((10, 20, 3)), (5, 5)).shape
    (5, 5, 3)
    """
    result = resize(x, size, interpolation, crop_to_aspect_ratio=True, data_format=data_format)
    return result.numpy() if isinstance(x, np.ndarray) else result
