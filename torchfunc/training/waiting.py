"""What a compiled step waits for: another process that prepares its graph, and the import of the compiler."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from torchfunc import config
from torchfunc.graph.torch_internals import load_compiler
from torchfunc.training.compiler_process import CompilerProcess, Request
from torchfunc.training.dataless import dump_dataless
from torchfunc.training.trainable import Trainable

__all__ = ["Preparation"]

# Trainings of a few batches are over before anything could be compiled.
_FIRST_STEPS = 3


class Preparation:
    """Prepares the graph of a step for one kind of batches in another process; called with each batch meanwhile.

    The graph is made at once, as it is wherever none of this is possible, if the model holds code of the user's own,
    and if the numbers are to be the same in each run (`config.is_reproducible`): when the other process is ready
    depends on what else the machine does, and a compiled step rounds in other places.

    Args:
        model: the model that the step is of.
        method: "train_step", "test_step" or "predict_step".
        at_once: how many steps there are in the graph.
        niceness: by how much the process stands back behind others.
    """

    _running: weakref.ref[CompilerProcess] | None = None
    """The one of this process. One at a time: each takes a core, and some 500 MB."""

    def __init__(self, model: weakref.ref[Trainable], method: str, at_once: int, niceness: int) -> None:
        self._model = model
        self._wanted = method, at_once, niceness
        self._steps = 0
        self._process: CompilerProcess | None = None
        self._imports: Iterator[None] | None = None
        self._is_over = config.is_reproducible() or not CompilerProcess.is_possible()

    def __call__(self, data: Any) -> bool:
        """Whether the graph is to be made now."""
        self._steps += 1
        if not self._is_over and self._steps > _FIRST_STEPS:
            self._is_over = self._is_prepared(data)
        return self._is_over

    @classmethod
    def stop(cls) -> None:
        """End the process that runs, if there is one. What it was for begins another one with its next batch."""
        running = cls._running_now()
        if running is not None:
            running.stop()

    @classmethod
    def _running_now(cls) -> CompilerProcess | None:
        process = None if cls._running is None else cls._running()
        return process if process is not None and process.is_running else None

    def _is_prepared(self, data: Any) -> bool:
        if self._process is None or self._process.was_stopped:
            return self._running_now() is None and not self._begin(data)
        if self._process.is_running:
            return False
        if not self._process.has_succeeded:
            # What is wrong is told when the graph is made here.
            return True
        # Importing takes seconds, so it is done last, in parts, and not at all in runs that end before.
        self._imports = self._imports or load_compiler()
        return next(self._imports, self) is self

    def _begin(self, data: Any) -> bool:
        method, at_once, niceness = self._wanted
        try:
            # Inference mode makes no difference to pickling, but tensors would be made in it.
            with torch.inference_mode(False):
                dump = dump_dataless((self._model(), data))
            self._process = CompilerProcess(Request.make(dump, method, at_once, niceness))
        except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, OSError, Warning):
            return False
        Preparation._running = weakref.ref(self._process)
        return True
