"""Recursion without Python's stack: functions that go down through nested models, written as generators."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias

__all__ = ["Steps", "unrolled"]

Steps: TypeAlias = Generator[Any, Any, Any]
"""A function that yields the `Steps` of each call it makes of its like, and is sent what that call returns."""


def unrolled(steps: Steps) -> Any:
    """What a function written as `Steps` returns; an error goes through all that wait, as through any callers."""
    stack, value, error = [steps], None, None
    while True:
        current = stack[-1]
        try:
            following = current.send(value) if error is None else current.throw(error)
        except StopIteration as finished:
            value, error = finished.value, None
            stack.pop()
        except Exception as raised:
            stack.pop()
            if not stack:
                raise
            error = raised
        else:
            stack.append(following)
            value, error = None, None
        if not stack:
            return value
