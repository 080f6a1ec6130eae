"""The loop over batches and epochs."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from torchfunc import config
from torchfunc.callbacks.callback_list import BatchHooks, CallbackList, plain_logs
from torchfunc.training import run_modes
from torchfunc.training.data.arrays import Data
from torchfunc.training.data.parts import PartBatch, data_of
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.distributed.processes import Processes
from torchfunc.training.distributed.runs import copy_buffers, gathered_columns, shared_logs
from torchfunc.training.failed_steps import explain, explained
from torchfunc.training.first_nan import source_of_nan
from torchfunc.training.payback import Payback
from torchfunc.training.process_settings import ThreadProbe
from torchfunc.training.resume import TrainingRun
from torchfunc.training.run_context import RunContext
from torchfunc.training.settings import TrainingSettings, device_of
from torchfunc.training.step_functions import Step, make_prediction_step, make_step, makes_own_logs
from torchfunc.training.stopping import Stop, stoppable
from torchfunc.training.trainable import Logs, Trainable

__all__ = ["run_epochs", "run_evaluation", "run_prediction", "to_numpy"]


_DOING = {"train": "training", "test": "evaluation"}


def run_epochs(
    model: Trainable,
    run: RunContext,
    data: EpochStream,
    callbacks: CallbackList,
    epochs: range,
    validation: EpochStream | None,
    validation_freq: int | Sequence[int],
    stop: Stop,
) -> None:
    """Train for these epochs.

    Args:
        model: a built model in training mode.
        run: its context.
        data: the training data.
        callbacks: the callbacks, called at every hook.
        epochs: the numbers of the epochs, from 0.
        validation: the validation data, if there are any.
        validation_freq: validate every so many epochs, or after the epochs in this list (counted from 1).
        stop: says when to end.
    """
    settings = run.settings
    at_once = settings.execution.steps
    training_run = TrainingRun(model, data, callbacks, partial(source_of_nan, model, settings, training=True))
    callbacks.set_run(training_run)
    callbacks.on_train_begin()
    remaining = training_run.begin(epochs)
    device = device_of(model)
    probes = config.probes_threads() and device.type == "cpu"
    settings.thread_probe = ThreadProbe() if probes else None
    if settings.execution.weighs(device):
        layers = sum(not list(module.children()) for module in model.modules())
        settings.payback = settings.payback or Payback(layers)
        # What depends on times comes out different each time, and in each process.
        timed = not config.is_reproducible() and settings.processes is None
        unknown = not timed or (probes and settings.execution.jit == "auto")
        settings.payback.expect(None if unknown else data.num_batches and data.num_batches * len(remaining) // at_once)
    logs = training_run.logs
    for epoch in remaining:
        if epoch != remaining[0] and data.is_used_up():
            warnings.warn(
                f"The data ran out before epoch {epoch + 1} of {epochs.stop}, so training ends here. A generator can "
                "be gone through only once: give `steps_per_epoch`, or something that can be started again, such as "
                "a DataLoader.",
                stacklevel=3,
            )
            break
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        run = run_modes.refreshed_context(model, run)
        # A callback may have changed more than weights: a compiled step takes the settings of layers for constants.
        step = make_step(model, run, "train_step", device, at_once)
        done = training_run.enter_epoch(step if at_once == 1 else partial(_alone, step))
        hooks = callbacks.batch_hooks("train")
        logs = _run_batches(model, settings, "train_step", data, step, hooks, callbacks, stop, done, training_run)
        copy_buffers(model, settings.processes)
        if validation is not None and _is_due(epoch, validation_freq):
            with run_modes.evaluating(model, settings) as evaluation:
                validated = run_evaluation(model, evaluation, validation, callbacks)
            logs |= {f"val_{name}": value for name, value in validated.items()}
        callbacks.on_epoch_end(epoch, logs)
        if settings.processes is not None:
            stop.asked = settings.processes.any(stop.asked)
        if stop.asked:
            break
    if model.optimizer is not None and epochs:
        model.optimizer.finalize_variable_values()
    callbacks.on_train_end(logs)


def _alone(step: Step, batch: Data) -> Logs | None:
    """A step that takes several batches, called with one."""
    return step((batch,))


def _is_due(epoch: int, frequency: int | Sequence[int]) -> bool:
    return (epoch + 1) % frequency == 0 if isinstance(frequency, int) else epoch + 1 in frequency


def run_evaluation(model: Trainable, run: RunContext, data: EpochStream, callbacks: CallbackList) -> Logs:
    """Evaluate the model, in an evaluating run, on all the data; returns the logs."""
    settings = run.settings
    step = make_step(model, run, "test_step", device_of(model), settings.execution.steps)
    with stoppable(model, "stop_evaluating") as stop:
        callbacks.on_test_begin()
        model.reset_metrics()
        hooks = callbacks.batch_hooks("test")
        logs = _run_batches(model, settings, "test_step", data, step, hooks, callbacks, stop)
        callbacks.on_test_end(logs)
        return logs


def _run_batches(
    model: Trainable,
    settings: TrainingSettings,
    method: str,
    data: EpochStream,
    step: Step,
    hooks: BatchHooks,
    callbacks: CallbackList,
    stop: Stop,
    done: int = 0,
    training_run: TrainingRun | None = None,
) -> Logs:
    """One pass over the data. The logs are read when a hook asks for them, and at the end.

    If a run is resumed in the middle of an epoch, `done` batches, whose logs are the run's, are skipped.
    """
    own_logs = training_run.logs if training_run is not None and done else None
    processes = settings.processes
    makes_logs = processes is not None and makes_own_logs(model, method)

    def read_logs() -> Logs:
        if processes is not None:
            return shared_logs(processes, model, own_logs, makes_logs)
        return plain_logs(model.get_metrics_result() if own_logs is None else own_logs)

    def read_own_loss() -> Logs:
        return plain_logs({"loss": settings.loss_tracker.result()})

    hooks.agree(processes, read_own_loss)
    count, at_once = done, settings.execution.steps
    if at_once != 1 and settings.graphs:
        data.defer_gathering()
    single = data.epoch()
    # Else tuples of so many batches; the last one holds what is left.
    batches: Iterator[Any] = single if at_once == 1 else iter(lambda: tuple(itertools.islice(single, at_once)), ())
    for batch in batches:
        hooks.begin(count)
        together = (batch,) if at_once == 1 else batch
        if training_run is not None:
            training_run.batches = together
        try:
            own_logs = step(batch)
        except Exception as error:
            explain(error, model, together, f"batch {count} of the {_DOING[hooks.phase]}")
            raise
        count += 1 if at_once == 1 else len(batch)
        hooks.end(count - 1, read_logs)
        if _is_over(stop, hooks, processes):
            break
    if training_run is not None:
        training_run.batches = ()
    callbacks.count_steps(count)
    if own_logs is not None and processes is None:
        # Own logs are usually the results of the model's metrics as of the last batch; then those are the epoch's.
        # (But not if the model's own step computes a loss and tells no tracker.)
        results = model.get_metrics_result()
        tracked = set(results) == set(own_logs) and bool(settings.loss_tracker.count or results["loss"])
        own_logs = results if tracked else own_logs
    return read_logs()


def _is_over(stop: Stop, hooks: BatchHooks, processes: Processes | None) -> bool:
    """Whether the pass ends after this batch. Several processes ask each other if anything may have told one to."""
    if processes is None:
        return stop.asked
    if not hooks.in_use:
        # Only the end of the epoch tells.
        return False
    stop.asked = processes.any(stop.asked)
    return stop.asked


def run_prediction(
    model: Trainable,
    settings: TrainingSettings | None,
    data: EpochStream,
    callbacks: CallbackList,
    processes: Processes | None,
) -> Any:
    """The outputs for all the data, as NumPy arrays in the structure that the model returns."""
    hooks = callbacks.batch_hooks("predict")
    hooks.agree(processes, dict)
    callbacks.on_predict_begin()
    columns: list[list[Any]] = []
    structure: Any = None
    count = 0
    at_once = 1 if settings is None else settings.execution.steps
    device = device_of(model)
    with run_modes.predicting(model, device), stoppable(model, "stop_predicting") as stop:
        step = make_prediction_step(model, settings, device)
        single = data.epoch()
        for batches in iter(lambda: list(itertools.islice(single, at_once)), []):
            hooks.begin(count)
            # A model may return classes that are registered with torch.
            try:
                flat = [tree_flatten(_counted(step(data_of(batch)), batch)) for batch in batches]
            except Exception as error:
                explain(error, model, batches, f"batch {count} of the prediction")
                raise
            structure = flat[0][1]
            columns = columns or [[] for _ in flat[0][0]]
            for leaves, _ in flat:
                for column, leaf in zip(columns, leaves, strict=True):
                    column.append(leaf)
            count += len(flat)
            hooks.end(count - 1, partial(_outputs_of, flat))
            if _is_over(stop, hooks, processes):
                break
    callbacks.count_steps(count)
    callbacks.on_predict_end()
    if processes is not None:
        columns = gathered_columns(processes, columns)
    return tree_unflatten([_joined(column) for column in columns], structure)


def _counted(outputs: Any, batch: Data | PartBatch) -> Any:
    """The outputs for the rows that count: none where there is but a row that does not."""
    if not isinstance(batch, PartBatch) or batch.part.rows:
        return outputs
    return tree_map(lambda leaf: leaf if leaf is None else leaf[:0], outputs)


def run_single_prediction(
    model: Trainable, settings: TrainingSettings | None, batch: Data, device: torch.device
) -> Any:
    """The same for a single batch on the model's device, with nobody looking on."""
    with run_modes.predicting(model, device), explained(model, batch, "prediction"):
        outputs = make_prediction_step(model, settings, device)(batch)
    if isinstance(outputs, Tensor):
        return _to_array(outputs, copies=True)
    return tree_map(partial(_to_array, copies=True), outputs)


def _outputs_of(flat: list[tuple[list[Any], Any]]) -> Logs:
    """The logs for the hooks of some batches: their outputs together."""
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    return {"outputs": tree_unflatten([_joined_tensors(list(column)) for column in columns], flat[0][1])}


def _joined_tensors(parts: list[Any]) -> Any:
    return torch.cat(parts) if len(parts) > 1 and isinstance(parts[0], Tensor) else parts[0]


def _joined(parts: list[Any]) -> Any:
    if not isinstance(parts[0], Tensor):
        return parts[0] if parts[0] is None else np.concatenate(parts)
    return to_numpy(torch.cat(parts))


def to_numpy(structure: Any) -> Any:
    """Tensors as NumPy arrays, in lists, tuples and dicts of them; bfloat16, which NumPy lacks, as float32."""
    return tree_map(_to_array, structure)


def _to_array(leaf: Any, copies: bool = False) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    leaf = leaf.detach()
    if leaf.dtype == torch.bfloat16:
        leaf = leaf.float()
    elif copies and leaf.is_cpu:
        # It may be the memory of the input.
        leaf = leaf.clone()
    return leaf.cpu().numpy()
