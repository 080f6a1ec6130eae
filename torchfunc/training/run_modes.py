"""The modes of a run: what is set while a model trains, is evaluated or predicts, and restored afterwards."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from torchfunc.graph import CallMode, modules_within, train_mode
from torchfunc.layers.base.losses import LossHolder
from torchfunc.meta_weights import require_values
from torchfunc.metrics.attributes import metrics_in_attributes
from torchfunc.metrics.snapshots import kept_metrics
from torchfunc.saving.sharded import holds_shards, is_sharded
from torchfunc.snapshots import snapshot
from torchfunc.training.current_run import current_run, entered_run, renewed_run
from torchfunc.training.process_settings import retained_memory, training_process
from torchfunc.training.remat import rematerialized
from torchfunc.training.run_context import RunContext
from torchfunc.training.settings import TrainingSettings, device_of, parameters_of
from torchfunc.training.trainable import Trainable
from torchfunc.training.waiting import Preparation

__all__ = ["evaluating", "new_context", "predicting", "refreshed_context", "training", "undone_without_a_step"]


def new_context(model: Trainable, settings: TrainingSettings) -> RunContext:
    """Look up what the steps of a run need of a built model."""
    modules = modules_within(model)
    parameters = parameters_of(modules)
    if any(parameter.is_meta for parameter in parameters):
        require_values(model)
    return RunContext(
        settings,
        [parameter for parameter in parameters if parameter.requires_grad],
        model.weight_constraints(),
        model.weight_penalties(),
        [module for module in modules if isinstance(module, LossHolder)],
        metrics_in_attributes(modules),
        model.overrides("compute_loss"),
        model.overrides("compute_metrics"),
        sharded=holds_shards(modules),
    )


@contextlib.contextmanager
def _context(model: Trainable, settings: TrainingSettings, device: torch.device) -> Iterator[RunContext]:
    """Give the model a context for a run. A run within a run (a callback's) has its own."""
    # (A run within a run counts in the same metrics.)
    kept = contextlib.nullcontext() if current_run(model) is None else kept_metrics(lambda: model.metrics)
    with kept, entered_run(model, settings, new_context) as run:
        run.settings.to(device)
        for metric in run.metrics:
            metric.to(device)
        try:
            yield run
        finally:
            run.clear_call_losses()


def refreshed_context(model: Trainable, run: RunContext) -> RunContext:
    """The context for the next epoch: a new one if a callback has frozen or freed weights.

    Raises:
        ValueError: the optimizer has no state for a weight.
    """
    fresh = new_context(model, run.settings)
    if list(map(id, run.weights)) == list(map(id, fresh.weights)):
        return run
    if run.settings.optimizer is not None and fresh.weights and not model.has_own_training():
        run.settings.optimizer.build(fresh.weights)
    renewed_run(model, fresh)
    return fresh


@contextlib.contextmanager
def training(model: Trainable, settings: TrainingSettings, device: torch.device) -> Iterator[RunContext]:
    """The mode of training steps."""
    with (
        training_process(device),
        _with_gradients(),
        train_mode(model),
        rematerialized(model, settings),
        _context(model, settings, device if settings.device is None else device_of(model)) as run,
    ):
        if settings.optimizer is not None and not model.has_own_training():
            settings.optimizer.name_weights(model.named_parameters())
            if run.weights:
                settings.optimizer.build(run.weights)
            else:
                warnings.warn(
                    "The model has no weights to train: all are frozen, or there are none. Training changes "
                    "nothing but moving averages and their like.",
                    stacklevel=4,
                )
        try:
            yield run
        except BaseException:
            # Such as Ctrl-C, which does not reach the process that compiles.
            Preparation.stop()
            raise
        finally:
            # A step of the user's own may have left gradients behind.
            if model.has_own_training():
                model.zero_grad(set_to_none=True)


def _with_gradients() -> contextlib.AbstractContextManager[Any]:
    """A block in which gradients are recorded."""
    if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
        return contextlib.nullcontext()
    stack = contextlib.ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    return stack


@contextlib.contextmanager
def undone_without_a_step(model: Trainable, settings: TrainingSettings) -> Iterator[None]:
    """Restore buffers if the run fails before its first step is done: a batch norm's forward pass changes them.

    For data that only turn out not to fit when the loss meets them.
    """
    optimizer = settings.optimizer
    if optimizer is None or model.has_own_training():
        yield
        return
    before = int(optimizer.iterations)
    restore = snapshot(model.buffers())
    try:
        yield
    except BaseException:
        if int(optimizer.iterations) == before:
            restore()
        raise


def _without_gradients(sharded: bool) -> contextlib.AbstractContextManager[Any]:
    """A block in which none are recorded. Sharded weights are gathered in it, for training too."""
    return torch.no_grad() if sharded else torch.inference_mode()


@contextlib.contextmanager
def predicting(model: Trainable, device: torch.device) -> Iterator[None]:
    """The mode of prediction steps, which need no `compile`."""
    with CallMode(model, False, waits=False), retained_memory(device), _without_gradients(is_sharded(model)):
        yield


@contextlib.contextmanager
def evaluating(model: Trainable, settings: TrainingSettings) -> Iterator[RunContext]:
    """The mode of evaluation steps."""
    device = device_of(model)
    with (
        CallMode(model, False, waits=False),
        retained_memory(device),
        _context(model, settings, device) as run,
        _without_gradients(run.sharded),
    ):
        yield run
