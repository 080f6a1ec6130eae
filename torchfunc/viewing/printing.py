"""Text for a terminal or file of any encoding: what its encoding lacks is written in ASCII."""

from __future__ import annotations

import sys
from typing import TextIO

__all__ = ["print_text", "printable"]

_ASCII = str.maketrans(
    {
        **dict.fromkeys("─━", "-"),
        **dict.fromkeys("│┃", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┡┩┳┻╇", "+"),
        "…": "...",
        "→": "->",
    }
)


def printable(text: str, file: TextIO | None) -> str:
    """The text as `file` can hold it: lines of tables as `-`, `|` and `+`, and `?` for what is no ASCII either."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, errors="replace").decode(encoding)
    return text


def print_text(text: str) -> None:
    """`print`, whatever the encoding of `sys.stdout`."""
    print(printable(text, sys.stdout))
