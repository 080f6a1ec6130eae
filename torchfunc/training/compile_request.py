"""What the other process of `compiler_process.py` does: make one graph, and end."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from torchfunc.training import run_modes
from torchfunc.training.compiler_process import Request
from torchfunc.training.dataless import load_dataless
from torchfunc.training.run_context import RunContext
from torchfunc.training.step_functions import make_prediction_step, make_step

__all__ = ["compile_request", "main"]


def main() -> None:
    """Compile what standard input asks for."""
    request = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_input, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(request.niceness)
    compile_request(request)


def _end_with_input() -> None:
    """End with the process that waits for this one, however it ends."""
    # (Past Python's own buffer, whose lock a thread must not hold when Python ends.)
    while os.read(0, 1):
        pass
    if os.name == "posix":
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGTERM)


def compile_request(request: Request) -> None:
    """Make the graph of a request."""
    request.set_up()
    model, data = load_dataless(request.model)
    method, device = request.method, torch.device("cpu")
    settings = model.require_settings(method)
    # Whether compiling pays was decided where the request comes from.
    settings.execution = dataclasses.replace(settings.execution, jit=True)
    with _MODES[method](model, settings, device) as run:
        if run is None:
            make_prediction_step(model, settings, device)
        else:
            make_step(model, run, method, device, request.at_once)
        settings.only_graph(method).make(data)


_MODES: dict[str, Callable[..., AbstractContextManager[RunContext | None]]] = {
    "train_step": run_modes.training,
    "test_step": lambda model, settings, device: run_modes.evaluating(model, settings),
    "predict_step": lambda model, settings, device: run_modes.predicting(model, device),
}
