"""The loop over batches and epochs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from torchfunc.callbacks.callback_list import BatchHooks, CallbackList, plain_logs
from torchfunc.training import run_modes
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.execution import Step, make_step
from torchfunc.training.resume import TrainingRun
from torchfunc.training.state import device_of
from torchfunc.training.trainable import Trainable

__all__ = ["run_epochs", "run_evaluation", "run_prediction", "to_numpy"]


def run_epochs(
    model: Trainable,
    data: EpochStream,
    callbacks: CallbackList,
    epochs: range,
    validation: EpochStream | None,
    validation_freq: int | Sequence[int],
) -> None:
    """Train for these epochs.

    Args:
        model: a compiled and built model, in a training session.
        data: the training data.
        callbacks: told of everything.
        epochs: the numbers of the epochs, from 0.
        validation: the validation data, if there are any.
        validation_freq: validate every so many epochs, or after the epochs in this list (counted from 1).
    """
    compiled = model.compiled_state("fit")
    at_once = compiled.execution.steps
    model.stop_training = False
    run = TrainingRun(model, data, callbacks)
    callbacks.set_run(run)
    callbacks.on_train_begin()
    remaining = run.begin(epochs)
    compiled.expect(model, data.num_batches and data.num_batches * len(remaining))
    logs = run.logs
    for epoch in remaining:
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        run_modes.look_again(model)
        # A callback may have changed more than that, and a compiled step has settled the numbers of the layers.
        step = make_step(model, "train_step", device_of(model), at_once)
        done = run.enter_epoch(step if at_once == 1 else partial(_alone, step))
        hooks = callbacks.batch_hooks("train")
        logs = _run_batches(model, data, step, at_once, hooks, callbacks, lambda: model.stop_training, done, run.logs)
        if validation is not None and _is_due(epoch, validation_freq):
            logs |= {f"val_{name}": value for name, value in run_evaluation(model, validation, callbacks).items()}
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    if model.optimizer is not None and epochs:
        model.optimizer.finalize_variable_values()
    callbacks.on_train_end(logs)


def _alone(step: Step, batch: Any) -> Any:
    """A step that takes several batches, run on one."""
    return step((batch,))


def _is_due(epoch: int, frequency: int | Sequence[int]) -> bool:
    return (epoch + 1) % frequency == 0 if isinstance(frequency, int) else epoch + 1 in frequency


def run_evaluation(model: Trainable, data: EpochStream, callbacks: CallbackList) -> dict[str, Any]:
    """Go through the data once without training; returns the logs."""
    with run_modes.evaluating(model):
        at_once = model.compiled_state("evaluate").execution.steps
        step = make_step(model, "test_step", device_of(model), at_once)
        model.stop_evaluating = False
        callbacks.on_test_begin()
        model.reset_metrics()
        hooks = callbacks.batch_hooks("test")
        logs = _run_batches(model, data, step, at_once, hooks, callbacks, lambda: model.stop_evaluating)
        callbacks.on_test_end(logs)
        return logs


def _run_batches(
    model: Trainable,
    data: EpochStream,
    step: Step,
    at_once: int,
    hooks: BatchHooks,
    callbacks: CallbackList,
    stopped: Callable[[], bool],
    done: int = 0,
    logs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One pass over the data. The logs are read when a hook asks for them, and at the end.

    `done` batches of it, whose logs were `logs`, lie behind a run that was taken up.
    """
    own_logs = logs if done else None

    def read_logs() -> dict[str, Any]:
        return plain_logs(model.get_metrics_result() if own_logs is None else own_logs)

    count = done
    if at_once != 1 and model.compiled_state("fit").graphs:
        data.defer_gathering()
    for batch in data.epoch() if at_once == 1 else _tuples(data.epoch(), at_once):
        hooks.begin(count)
        own_logs = step(batch)
        count += 1 if at_once == 1 else len(batch)
        hooks.end(count - 1, read_logs)
        if stopped():
            break
    callbacks.count_steps(count)
    if own_logs is not None:
        # Own logs are usually the results of the model's metrics as of the last batch; then those are the epoch's.
        results = model.get_metrics_result()
        own_logs = results if set(results) == set(own_logs) else own_logs
    return read_logs()


def _tuples(batches: Iterator[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """The batches in tuples of `size`; the last one holds what is left."""
    while taken := tuple(itertools.islice(batches, size)):
        yield taken


def run_prediction(model: Trainable, data: EpochStream, callbacks: CallbackList) -> Any:
    """The outputs for all the data, as NumPy arrays in the structure that the model returns."""
    hooks = callbacks.batch_hooks("predict")
    model.stop_predicting = False
    callbacks.on_predict_begin()
    columns: list[list[Any]] = []
    structure: Any = None
    count = 0
    with run_modes.predicting(model):
        step = make_step(model, "predict_step", device_of(model))
        for batch in data.epoch():
            hooks.begin(count)
            outputs = step(batch)
            hooks.end(count, lambda outputs=outputs: {"outputs": outputs})  # type: ignore[misc]
            leaves, structure = tree_flatten(outputs)
            columns = columns or [[] for _ in leaves]
            for column, leaf in zip(columns, leaves, strict=True):
                column.append(leaf)
            count += 1
            if model.stop_predicting:
                break
    callbacks.count_steps(count)
    callbacks.on_predict_end()
    return tree_unflatten([_joined(column) for column in columns], structure)


def _joined(parts: list[Any]) -> Any:
    if not isinstance(parts[0], Tensor):
        return parts[0] if parts[0] is None else np.concatenate(parts)
    return to_numpy(torch.cat(parts))


def to_numpy(structure: Any) -> Any:
    """Tensors as NumPy arrays, in lists, tuples and dicts of them; bfloat16, which NumPy lacks, as float32."""

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        leaf = leaf.detach().cpu()
        return (leaf.float() if leaf.dtype == torch.bfloat16 else leaf).numpy()

    return tree_map(convert, structure)
