"""Text for a terminal or file of any encoding: what its encoding lacks is written in ASCII."""

from __future__ import annotations

import sys
from typing import Any, TextIO

__all__ = ["in_notebook", "print_text", "printable", "show_in_notebook"]

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


def in_notebook() -> bool:
    """Whether a notebook's kernel is running this, which shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def show_in_notebook(value: Any) -> None:
    """Show an object as a notebook shows the last value of a cell."""
    from IPython.display import display

    display(value)
