"""Which run of a model a thread is in.

The first run has the model's own settings: its metrics, and its compiled steps. Runs that other threads begin while it
goes on count in copies of the metrics, and are not compiled.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator

import torch

from torchfunc.training.run_context import RunContext
from torchfunc.training.settings import TrainingSettings
from torchfunc.training.trainable import Trainable

__all__ = ["current_run", "current_settings", "entered_run", "renewed_run", "single_call"]


class _Thread(threading.local):
    """The runs of this thread that are not the first run of their model, by the model's id."""

    def __init__(self) -> None:
        self.runs: dict[int, RunContext] = {}


_thread = _Thread()
_entering = threading.RLock()


def current_run(model: Trainable) -> RunContext | None:
    """The innermost run of the model that this thread is in."""
    # Compiled steps are those of a first run.
    if not torch.compiler.is_compiling():
        own = _thread.runs.get(id(model))
        if own is not None:
            return own
        first = model._run_context
        return first if first is not None and first.thread == threading.get_ident() else None
    return model._run_context


def current_settings(model: Trainable) -> TrainingSettings | None:
    """What `compile` made, with the metrics that this thread's run counts in."""
    if not torch.compiler.is_compiling():
        own = _thread.runs.get(id(model))
        if own is not None:
            return own.settings
    return model._training_settings


@contextlib.contextmanager
def entered_run(
    model: Trainable, settings: TrainingSettings, new_context: Callable[[Trainable, TrainingSettings], RunContext]
) -> Iterator[RunContext]:
    """Make this thread's run of the model, for a block."""
    with _entering:
        own, first = _thread.runs.get(id(model)), model._run_context
        is_first = own is None and (first is None or first.thread == threading.get_ident())
        run = new_context(model, settings if is_first else settings.apart())
        if is_first:
            model._run_context = run
    try:
        if is_first:
            yield run
            return
        if run.metrics and own is None:
            warnings.warn(
                f"Several threads train or evaluate the model {model.name!r} at once. What `compile` was given is "
                "counted for each alone, but the metrics that are attributes of the model count for all together.",
                stacklevel=6,
            )
        with _in_thread(model, run):
            yield run
    finally:
        if is_first:
            model._run_context = first


@contextlib.contextmanager
def _in_thread(model: Trainable, run: RunContext) -> Iterator[None]:
    outer = _thread.runs.get(id(model))
    _thread.runs[id(model)] = run
    try:
        yield
    finally:
        if outer is None:
            del _thread.runs[id(model)]
        else:
            _thread.runs[id(model)] = outer


def renewed_run(model: Trainable, run: RunContext) -> None:
    """Put another context in the place of that of this thread's run."""
    if id(model) in _thread.runs:
        _thread.runs[id(model)] = run
    else:
        model._run_context = run


def single_call(model: Trainable, run: RunContext) -> contextlib.AbstractContextManager[None]:
    """A context for one call outside of all runs, in a loop of the user's: it counts in the model's own metrics."""
    return _in_thread(model, run)
