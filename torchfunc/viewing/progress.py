"""The progress line of `fit`, `evaluate` and `predict`: Keras' wording, tqdm's handling of terminals and notebooks."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np
from tqdm import TqdmWarning

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm draws text, which needs no warning.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

from torchfunc.viewing.printing import printable

__all__ = ["ProgressLine", "format_progress", "print_message"]

_BAR_WIDTH = 20
# In a notebook with ipywidgets tqdm draws the bar itself.
_HAS_WIDGETS = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


def format_progress(
    current: int,
    target: int | None,
    seconds: float,
    logs: Mapping[str, Any] | None = None,
    bar: str | None = "━",
    finished: bool = False,
    per_step: float | None = None,
) -> str:
    """One line such as `750/750 ━━━━━━━━━━━━━━━━━━━━ 1s 863us/step - accuracy: 0.8425 - loss: 0.5733`.

    Args:
        current: steps done.
        target: steps in all, None if that is not known.
        seconds: time since the first step began.
        logs: what to show after it: numbers by name.
        bar: the character that bars are made of; None if something else draws the bar; an empty one leaves it out and
            separates by " - ".
        finished: whether to show the time taken; else the time still needed is shown, where it is known.
        per_step: seconds a step; the mean of all by default.
    """
    if per_step is None:
        per_step = seconds / max(current, 1)
    if target:
        count = f"{current:>{len(str(target))}d}/{target}"
    else:
        count = f"{current:>7d}/Unknown"
    if bar == "":
        text = f"{count} - {seconds:.0f}s - {_step_time(per_step)}"
    else:
        filled = _BAR_WIDTH * current // target if target else 0
        drawn = f" {bar * filled}{' ' * (_BAR_WIDTH - filled)}" if target and bar else ""
        shown = f"{seconds:.0f}s" if finished or not target else _time_left(per_step * (target - current))
        text = f"{count}{drawn} {shown} {_step_time(per_step)}"
    for name, value in (logs or {}).items():
        text += f" - {name}: {_number(value)}"
    return text


def print_message(text: str) -> None:
    """Print a line above the progress line, if one is being drawn."""
    if sys.stdout is not None:
        _Line.write(printable(text, sys.stdout), file=sys.stdout)
        sys.stdout.flush()


def _time_left(seconds: float) -> str:
    whole = int(seconds)
    if seconds > 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    if seconds > 60:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole}s"


def _step_time(seconds: float) -> str:
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.0f}s/step"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.0f}ms/step"
    return f"{seconds * 1e6:.0f}us/step"


def _number(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = float(value.mean())
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.4f}" if abs(value) > 1e-3 else f"{value:.4e}"


class _Line(tqdm):
    # A thread that watches over a slow bar has nothing to do here: every redraw is asked for.
    monitor_interval = 0


class ProgressLine:
    """One line that is redrawn in a terminal or notebook; elsewhere only its last state is printed.

    Args:
        target: steps in all, None if that is not known.
        draws_bar: whether there is a bar, redrawn as steps are done; else only the last state is printed, without one.
        file: where to; `sys.stdout` by default.
    """

    def __init__(self, target: int | None, draws_bar: bool = True, file: TextIO | None = None) -> None:
        self.target = target
        self._file = sys.stdout if file is None else file
        self.redraws = draws_bar and _is_live(self._file)
        """Whether `update` shows anything."""
        self._bar: str | None = _bar_character(self._file) if draws_bar else ""
        if self.redraws and _HAS_WIDGETS:
            self._bar = None
        self._start = time.perf_counter()
        self._first_update: tuple[int, float] | None = None
        self._line: _Line | None = None

    def update(self, current: int, logs: Mapping[str, Any] | None = None) -> None:
        """Redraw the line: `current` steps are done. The logs are only looked at if something is drawn."""
        if self.redraws:
            self._draw(current, self._text(current, logs))
        if self._first_update is None:
            self._first_update = current, time.perf_counter()

    def finish(self, current: int, logs: Mapping[str, Any] | None = None) -> None:
        """Show the last state and end the line."""
        text = self._text(current, logs, finished=True)
        if self.redraws:
            # Closing draws once more.
            self._draw(current, text, refresh=False)
            self.close()
        elif self._file is not None:
            print(text, file=self._file, flush=True)

    def close(self) -> None:
        """End the line as it stands, so that what is printed next starts on a new one."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _text(self, current: int, logs: Mapping[str, Any] | None, finished: bool = False) -> str:
        now = time.perf_counter()
        per_step = None
        if self._first_update is not None and current > self._first_update[0]:
            # The first step, which may have had to compile or to allocate, tells little of the others.
            first, then = self._first_update
            per_step = (now - then) / (current - first)
        text = format_progress(current, self.target, now - self._start, logs, self._bar, finished, per_step)
        return printable(text, self._file)

    def _draw(self, current: int, text: str, refresh: bool = True) -> None:
        if self._line is None:
            self._line = _Line(total=self.target, bar_format="{desc}", file=self._file, dynamic_ncols=True, leave=True)
        self._line.total = self.target
        self._line.n = current
        self._line.set_description_str(text, refresh=refresh)


def _is_live(file: TextIO | None) -> bool:
    """Whether a line can be drawn over: in a terminal or a notebook."""
    return file is not None and (file.isatty() or type(file).__module__.startswith("ipykernel"))


def _bar_character(file: TextIO | None) -> str:
    try:
        "━".encode(getattr(file, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "="
    return "━"
