"""Where in the user's own code something happened: the first frame outside torch and this package."""

from __future__ import annotations

import linecache
import os
import sys
from types import FrameType

import torch

__all__ = ["Source", "format_source", "is_of_library", "located", "user_source"]

Source = tuple[str, int]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LIBRARIES = (_PACKAGE + os.sep, os.path.dirname(os.path.abspath(torch.__file__)) + os.sep)


def user_source() -> Source | None:
    """The file and line of the innermost frame that belongs to neither torch nor this package."""
    frame = sys._getframe(1)
    # (`is_of_library`, without a call for each frame: each layer that is drawn asks this.)
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def is_of_library(frame: FrameType | None) -> bool:
    """Whether the code of a frame is torch's or this package's, and not somebody else's."""
    return frame is None or frame.f_code.co_filename.startswith(_LIBRARIES)


def format_source(source: Source | None) -> str:
    """`model.py:12: x = Dense(3)(y)`, or an empty string where nothing is known."""
    if source is None:
        return ""
    path, line = source
    return f"{os.path.basename(path)}:{line}: {linecache.getline(path, line).strip()}".rstrip(": ")


def located(message: str) -> str:
    """`message` with the line of the user's code that led to it."""
    where = format_source(user_source())
    return f"{message}\n  at {where}" if where else message
