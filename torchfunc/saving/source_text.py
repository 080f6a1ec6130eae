"""Python text of values and calls, broken into lines as a formatter would."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["assignment", "call", "literal"]

WIDTH = 120


def literal(value: Any) -> str:
    """A constant as Python writes it.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "float('nan')" if math.isnan(value) else f"{'-' if value < 0 else ''}torch.inf"
    if isinstance(value, str):
        text = repr(value)
        return text if "'" in value or '"' in value or "\\" in text else f'"{value}"'
    if value is Ellipsis:
        return "..."
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if value is None or isinstance(value, (bool, int, float, complex, torch.dtype, torch.memory_format, torch.layout)):
        return repr(value)
    raise ValueError(f"{value!r} ({type(value).__name__}) cannot be written as Python code.")


def call(function: str, args: Sequence[str], kwargs: Mapping[str, str]) -> str:
    """`function(arg, name=value)`, on one line."""
    return f"{function}({', '.join([*args, *(f'{name}={value}' for name, value in kwargs.items())])})"


def assignment(target: str, value: str, indent: int = 8) -> str:
    """`target = value` (or `return value`, for a target "return"), broken at the outermost brackets if it is long."""
    head = "return " if target == "return" else f"{target} = "
    return "\n".join(_broken(head, value, indent))


def _broken(head: str, value: str, indent: int, tail: str = "") -> list[str]:
    space = " " * indent
    whole = f"{space}{head}{value}{tail}"
    if len(whole) <= WIDTH:
        return [whole]
    parts = _split(value)
    if parts is None:
        return [whole]
    opening, items, closing = parts
    one_line = " " * (indent + 4) + ", ".join(items)
    can_join = opening[-1] == "(" and len(opening) > 1
    if len(one_line) <= WIDTH and can_join:
        body = [one_line]
    else:
        body = []
        for item in items:
            name, found, rest = item.partition("=")
            named = bool(found) and name.isidentifier() and not rest.startswith("=")
            label, found, entry = item.partition(": ")
            keyed = bool(found) and label.startswith('"') and label.count('"') == 2
            prefix, text = (f"{name}=", rest) if named else (f"{label}: ", entry) if keyed else ("", item)
            body += _broken(prefix, text, indent + 4, ",")
    return [f"{space}{head}{opening}", *body, f"{space}{closing}{tail}"]


def _split(value: str) -> tuple[str, list[str], str] | None:
    """The text up to the last outermost bracket, what stands in it, and its end; None where there is none."""
    depth, quote, opened, last = 0, "", -1, 0
    items: list[str] = []
    for index, char in enumerate(value):
        if quote:
            quote = "" if char == quote and value[index - 1] != "\\" else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            if depth == 0:
                opened, items, last = index, [], index + 1
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                items.append(value[last:index].strip())
        elif char == "," and depth == 1:
            items.append(value[last:index].strip())
            last = index + 1
    items = [item for item in items if item]
    if opened < 0 or not items or value[-1] not in ")]}":
        return None
    return value[: opened + 1], items, value[-1]
