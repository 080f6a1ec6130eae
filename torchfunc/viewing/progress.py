"""The progress line of `fit`, `evaluate` and `predict`: Keras' wording, tqdm's handling of the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

__all__ = ["ProgressLine", "format_progress"]

_BAR_WIDTH = 20


def format_progress(
    current: int,
    target: int | None,
    seconds: float,
    logs: Mapping[str, Any] | None = None,
    bar: str = "━",
    finished: bool = False,
) -> str:
    """One line such as `750/750 ━━━━━━━━━━━━━━━━━━━━ 1s 863us/step - accuracy: 0.8425 - loss: 0.5733`.

    Args:
        current: steps done.
        target: steps in all, None if that is not known.
        seconds: time since the first step began.
        logs: what to show after it: numbers by name.
        bar: the character that bars are made of; an empty one leaves the bar out and separates by " - ".
        finished: whether `seconds` is the time taken; else the time still needed is shown, where it can be told.
    """
    per_step = seconds / max(current, 1)
    if target:
        count = f"{current:>{len(str(target))}d}/{target}"
    else:
        count = f"{current:>7d}/Unknown"
    if bar:
        filled = _BAR_WIDTH * current // target if target else 0
        drawn = f" {bar * filled}{' ' * (_BAR_WIDTH - filled)}" if target else ""
        shown = seconds if finished or not target else per_step * (target - current)
        text = f"{count}{drawn} {_duration(shown)} {_step_time(per_step)}"
    else:
        text = f"{count} - {_duration(seconds)} - {_step_time(per_step)}"
    for name, value in (logs or {}).items():
        text += f" - {name}: {_number(value)}"
    return text


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole > 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    if whole > 60:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole}s"


def _step_time(seconds: float) -> str:
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.0f}s/step"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.0f}ms/step"
    return f"{seconds * 1e6:.0f}us/step"


def _number(value: Any) -> str:
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
        self._bar = _bar_character(self._file) if draws_bar else ""
        self._start = time.perf_counter()
        self._line: _Line | None = None
        self.redraws = draws_bar and _is_live(self._file)
        """Whether `update` shows anything."""

    def update(self, current: int, logs: Mapping[str, Any] | None = None) -> None:
        """Redraw the line: `current` steps are done."""
        if self.redraws:
            self._draw(format_progress(current, self.target, self._seconds(), logs, self._bar))

    def finish(self, current: int, logs: Mapping[str, Any] | None = None) -> None:
        """Show the last state and end the line."""
        text = format_progress(current, self.target, self._seconds(), logs, self._bar, finished=True)
        if self.redraws:
            # Closing draws once more.
            self._draw(text, refresh=False)
            self.close()
        elif self._file is not None:
            print(text, file=self._file, flush=True)

    def close(self) -> None:
        """End the line as it stands, so that what is printed next starts on a new one."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _draw(self, text: str, refresh: bool = True) -> None:
        if self._line is None:
            self._line = _Line(total=0, bar_format="{desc}", file=self._file, dynamic_ncols=True, leave=True)
        self._line.set_description_str(text, refresh=refresh)

    def _seconds(self) -> float:
        return time.perf_counter() - self._start


def _is_live(file: TextIO | None) -> bool:
    """Whether a line can be drawn over: in a terminal or a notebook."""
    return file is not None and (file.isatty() or type(file).__module__.startswith("ipykernel"))


def _bar_character(file: TextIO | None) -> str:
    try:
        "━".encode(getattr(file, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "="
    return "━"
