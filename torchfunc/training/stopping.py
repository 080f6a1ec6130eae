"""`stop_training` and its like: asked of the run that the thread is in, or of all runs by a thread that is in none."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

__all__ = ["Stop", "StopFlag", "stoppable"]


@dataclass
class Stop:
    """Whether a run is to end after the current batch."""

    kind: str
    asked: bool = False
    thread: int = field(default_factory=threading.get_ident)


_runs: weakref.WeakKeyDictionary[nn.Module, list[Stop]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _concerned(model: nn.Module, kind: str) -> list[Stop]:
    """The innermost run of this kind on this thread; on a thread without one, those of all threads."""
    running = [stop for stop in _runs.get(model, ()) if stop.kind == kind]
    own = [stop for stop in running if stop.thread == threading.get_ident()]
    return own[-1:] or running


class StopFlag:
    """The attribute of a model, "stop_training" for one, that is set to end a run. After the run it says how it ended.

    Args:
        kind: its name.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __get__(self, model: nn.Module | None, owner: type | None = None) -> Any:
        if model is None:
            return self
        running = _concerned(model, self._kind)
        return running[-1].asked if running else model.__dict__.get(self._kind, False)

    def __set__(self, model: nn.Module, value: Any) -> None:
        asked = bool(value)
        model.__dict__[self._kind] = asked
        for stop in _concerned(model, self._kind):
            stop.asked = asked


@contextlib.contextmanager
def stoppable(model: nn.Module, kind: str) -> Iterator[Stop]:
    """A run that the attribute `kind` of the model can end."""
    stop = Stop(kind)
    with _lock:
        # (A new list, since other threads read without the lock.)
        _runs[model] = [*_runs.get(model, ()), stop]
    try:
        yield stop
    finally:
        with _lock:
            _runs[model] = [other for other in _runs[model] if other is not stop]
        model.__dict__[kind] = stop.asked
