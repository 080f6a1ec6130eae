"""Images as files, as Pillow's images and as arrays. Needs Pillow: the extra `image`."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchfunc.config import floatx, standardize_data_format

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["array_to_img", "img_to_array", "load_img", "save_img"]

_COLOR_MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Images need Pillow: pip install 'torchfunc[image]'") from error
    return Image


def load_img(
    path: str | bytes | os.PathLike[str] | io.BytesIO,
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> Image:
    """The image in a file, as Pillow's.

    Args:
        path: the file, or its content in a `BytesIO`.
        color_mode: "rgb", "rgba" or "grayscale" (more than 8 bits for a pixel are kept).
        target_size: (height, width); as it is by default.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        keep_aspect_ratio: whether the image is cut around its middle to the proportions of `target_size` first.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: there is no such color mode or interpolation.

    >>> utils.save_img("image.png", np.zeros((4, 6, 3)))
    >>> utils.load_img("image.png", target_size=(2, 2)).size
    (2, 2)
    """
    if color_mode not in _COLOR_MODES or interpolation not in _INTERPOLATIONS:
        raise ValueError(
            f"load_img() takes {list(_COLOR_MODES)} for color_mode and {list(_INTERPOLATIONS)} for interpolation, got "
            f"{color_mode!r} and {interpolation!r}."
        )
    content = path if isinstance(path, io.BytesIO) else io.BytesIO(Path(os.fsdecode(path)).read_bytes())
    image: Image = _pillow().open(content)
    if not (color_mode == "grayscale" and image.mode in ("I;16", "I")):
        image = image.convert(_COLOR_MODES[color_mode])
    if target_size is None or image.size == target_size[::-1]:
        return image
    height, width = target_size
    box = None
    if keep_aspect_ratio:
        cut_width = min(image.width, image.height * width // height)
        cut_height = min(image.height, image.width * height // width)
        left, top = (image.width - cut_width) // 2, (image.height - cut_height) // 2
        box = (left, top, left + cut_width, top + cut_height)
    return image.resize((width, height), _pillow().Resampling[interpolation.upper()], box)


def img_to_array(img: Any, data_format: str | None = None, dtype: str | None = None) -> np.ndarray:
    """Pillow's image as an array `(height, width, channels)`, or `(channels, height, width)` with "channels_first".

    Args:
        img: the image.
        data_format: as configured by default.
        dtype: of the array; `config.floatx()` by default.

    Raises:
        ValueError: what is given has neither two nor three axes.

    >>> utils.img_to_array(utils.array_to_img(np.ones((4, 6, 1)))).shape
    (4, 6, 1)
    """
    first = standardize_data_format(data_format) == "channels_first"
    array = np.asarray(img, dtype=dtype or floatx())
    if array.ndim not in (2, 3):
        raise ValueError(f"img_to_array() takes an image with two or three axes, got the shape {array.shape}.")
    array = array[..., None] if array.ndim == 2 else array
    return array.transpose(2, 0, 1) if first else array


def array_to_img(x: Any, data_format: str | None = None, scale: bool = True, dtype: str | None = None) -> Image:
    """An array as Pillow's image.

    Args:
        x: `(height, width, channels)`, or `(channels, height, width)` with "channels_first"; of 1 channel (gray), 3
            (RGB) or 4 (RGBA). An array, a tensor or a list.
        data_format: as configured by default.
        scale: whether its smallest value becomes 0 and its largest 255. Else they are as they are.
        dtype: what to compute in; `config.floatx()` by default.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: the array has another shape.

    >>> utils.array_to_img(np.zeros((4, 6, 3))).size
    (6, 4)
    """
    first = standardize_data_format(data_format) == "channels_first"
    array = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=dtype or floatx())
    if array.ndim == 3 and first:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"array_to_img() takes one image of 1, 3 or 4 channels, got the shape {np.shape(x)}.")
    if scale:
        array = array - array.min()
        array = array / (array.max() or 1) * 255
    if array.shape[-1] == 1:
        # (More than 8 bits for a pixel.)
        return _pillow().fromarray(array[..., 0].astype("int32" if array.max() > 255 else "uint8"))
    return _pillow().fromarray(array.astype("uint8"))


def save_img(
    path: Any,
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Write an array to a file, as an image.

    Args:
        path: the file's name, or an open file.
        x, data_format, scale: see `array_to_img`.
        file_format: "png", "jpeg" ...; by the ending of `path` by default.
        **kwargs: of `PIL.Image.save`.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: the array has another shape than an image, or there is no such format.

    >>> utils.save_img("image.png", np.zeros((4, 6, 3)))
    """
    if file_format is None and isinstance(path, (str, Path)):
        file_format = Path(path).suffix[1:]
    if file_format is not None and file_format.lower() == "jpg":
        file_format = "jpeg"
    image = array_to_img(x, data_format, scale)
    if image.mode == "RGBA" and file_format is not None and file_format.lower() == "jpeg":
        warnings.warn("JPEG images have no transparency: the fourth channel is left out.", stacklevel=2)
        image = image.convert("RGB")
    image.save(path, format=file_format, **kwargs)
