"""What is true while a model trains or is evaluated, and is put back afterwards, however that ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from torchfunc.layers.base.modes import kept_modes
from torchfunc.training.process_settings import kept_heap
from torchfunc.training.state import Session, device_of
from torchfunc.training.threads import restored_threads
from torchfunc.training.trainable import Trainable

__all__ = [
    "evaluating",
    "flushed_denormals",
    "look_again",
    "predicting",
    "session",
    "training",
    "undone_without_a_step",
]


@contextlib.contextmanager
def flushed_denormals(device: torch.device) -> Iterator[None]:
    """Treat numbers below 1e-38 as 0 on the CPU, where they take many times longer than others (XLA does so too)."""
    if device.type != "cpu" or _flushes_denormals():
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _flushes_denormals() -> bool:
    """torch does not tell, so see what becomes of the smallest float."""
    smallest = torch.tensor(1, dtype=torch.int32).view(torch.float32)
    return not (smallest * 1.0).view(torch.int32).item()


@contextlib.contextmanager
def session(model: Trainable) -> Iterator[Session]:
    """Look up what every step needs, and forget it afterwards. A run within a run (a callback's) has its own."""
    compiled = model.compiled_state("run")
    outer, opened = compiled.session, Session.of(model)
    device = device_of(model)
    compiled.to(device)
    for metric in opened.metrics:
        metric.to(device)
    compiled.session = opened
    try:
        yield opened
    finally:
        opened.clear_added()
        compiled.session = outer


def look_again(model: Trainable) -> None:
    """See whether other weights train than when the session was opened, since a callback has frozen or freed some.

    If so, what steps need is looked up anew. Raises ValueError if the optimizer has no state for a weight.
    """
    compiled = model.compiled_state("train")
    opened, fresh = compiled.session, Session.of(model)
    assert opened is not None
    if list(map(id, opened.weights)) == list(map(id, fresh.weights)):
        return
    if compiled.optimizer is not None and not model.trains_itself():
        compiled.optimizer.build(fresh.weights)
    compiled.session = fresh


@contextlib.contextmanager
def training(model: Trainable, device: torch.device) -> Iterator[Session]:
    """The setting of training steps."""
    with (
        kept_modes(model),
        flushed_denormals(device),
        kept_heap(device),
        restored_threads(),
        torch.inference_mode(False),
        torch.enable_grad(),
        session(model) as opened,
    ):
        optimizer = model.compiled_state("train").optimizer
        if optimizer is not None and not model.trains_itself():
            optimizer.name_weights(model.named_parameters())
            optimizer.build(opened.weights)
        try:
            model.train()
            yield opened
        finally:
            # A step of the user's own may have left gradients behind.
            if model.trains_itself():
                model.zero_grad(set_to_none=True)


@contextlib.contextmanager
def undone_without_a_step(model: Trainable) -> Iterator[None]:
    """Put buffers back if the run fails before its first step is done: a batch norm's forward pass changes them.

    For data that only turn out not to fit when the loss meets them.
    """
    optimizer = model.compiled_state("train").optimizer
    if optimizer is None or model.trains_itself():
        yield
        return
    before = int(optimizer.iterations)
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    except BaseException:
        if int(optimizer.iterations) == before:
            with torch.no_grad():
                for buffer, value in kept:
                    buffer.copy_(value)
        raise


@contextlib.contextmanager
def predicting(model: Trainable) -> Iterator[None]:
    """The setting of prediction steps, which need no `compile`."""
    with kept_modes(model), kept_heap(device_of(model)), torch.inference_mode():
        model.eval()
        yield


@contextlib.contextmanager
def evaluating(model: Trainable) -> Iterator[Session]:
    """The setting of evaluation steps."""
    with kept_modes(model), kept_heap(device_of(model)), session(model) as opened:
        model.eval()
        with torch.inference_mode():
            yield opened
