"""Runs that several processes share: how they begin and end, and what their logs are."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchfunc.callbacks.callback_list import plain_logs
from torchfunc.metrics import Metric, TorchMetric
from torchfunc.optimizers import Optimizer, TorchOptimizer
from torchfunc.optimizers.gradient_sum import GradientSum
from torchfunc.saving.sharded import is_sharded
from torchfunc.snapshots import snapshot
from torchfunc.training.current_run import current_settings
from torchfunc.training.distributed.processes import Processes, find_processes, note_failure
from torchfunc.training.distributed.sharding import shard
from torchfunc.training.settings import Execution, TrainingSettings, device_of
from torchfunc.training.trainable import Logs, Trainable

__all__ = ["copy_buffers", "gathered_columns", "joined", "prepare", "shared_logs", "shared_training"]

# How gloo and nccl say that the other end is gone.
_GONE = ("Connection closed", "Connection reset", "Broken pipe", "Socket closed", "remote process exited", "NCCL")


@contextlib.contextmanager
def joined(settings: TrainingSettings | None, device: torch.device) -> Iterator[Processes | None]:
    """Join the processes that share a run; None if there is but this one.

    Raises:
        RuntimeError: another process has ended in the middle of it.
    """
    processes = find_processes("auto" if settings is None else settings.execution.strategy, device)
    if processes is None:
        yield None
        return
    outer = None if settings is None else settings.processes
    try:
        if settings is not None:
            settings.processes = processes
        yield processes
    except BaseException as error:
        note_failure()
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _GONE):
            raise RuntimeError(
                f"Process {processes.number} cannot go on: another process of this job has ended. Its own error says "
                "why."
            ) from error
        raise
    finally:
        if settings is not None:
            settings.processes = outer


@contextlib.contextmanager
def shared_training(model: Trainable, processes: Processes | None, copies: bool = True) -> Iterator[None]:
    """Training steps whose gradients are those of all processes.

    All begin with the weights, and the state of the optimizer, of the first one.

    Args:
        model: a built model; its optimizer is built, too.
        processes: those that share it.
        copies: whether weights and state are copied.
    """
    if processes is None:
        yield
        return
    if model.optimizer is not None and model.optimizer.offloads and device_of(model).type != "cpu":
        raise ValueError(
            "offload_optimizer=True is for one process. Of several, strategy='fsdp' shards the optimizer's state."
        )
    # (Sharded weights are no copies of each other, and torch reduces their gradients.)
    sharded = is_sharded(model)
    optimizers = [] if sharded else _optimizers(model)
    if copies and optimizers:
        processes.copy_from_first([*model.parameters(), *model.buffers()])
        ours = [optimizer for optimizer in optimizers if not isinstance(optimizer, TorchOptimizer)]
        processes.copy_from_first(variable for optimizer in ours if optimizer.built for variable in optimizer.variables)
    _check_metrics(model)
    # (A run within a run has its sums already.)
    optimizers = [optimizer for optimizer in optimizers if optimizer.gradient_sum is None]
    try:
        for optimizer in optimizers:
            optimizer.gradient_sum = GradientSum()
        with warnings.catch_warnings() if sharded else contextlib.nullcontext():
            if sharded:
                # Layers may return views; nothing here writes to them.
                warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
            yield
    finally:
        for optimizer in optimizers:
            optimizer.gradient_sum = None


def prepare(model: Trainable, processes: Processes | None, execution: Execution) -> None:
    """Shard the weights of a built model, those of the first process, if it is to be trained so.

    Raises:
        ValueError: as `shard`; or they are sharded, and each process is to work for itself.
    """
    if processes is None and is_sharded(model):
        raise ValueError(
            f"The weights of the model {model.name!r} are sharded over several processes, and strategy=None lets each "
            "work for itself. Compile it with strategy='auto', or make the model anew, from a file say."
        )
    if processes is not None and execution.shards and not is_sharded(model):
        processes.copy_from_first([*model.parameters(), *model.buffers()])
        shard(model, processes, execution)


def _optimizers(model: Trainable) -> list[Optimizer]:
    """The model's optimizer, and others that a training step of its own may use."""
    found = [model.optimizer, *vars(model).values()]
    return list({id(each): each for each in found if isinstance(each, Optimizer)}.values())


def _check_metrics(model: Trainable) -> None:
    for metric in model.metrics:
        if isinstance(metric, TorchMetric) and not hasattr(metric.metric, "sync_on_compute"):
            warnings.warn(
                f"The metric {metric.name!r} ({type(metric.metric).__name__}) does not say how the counts of several "
                "processes become one: the logs show what it has counted in the first process.",
                stacklevel=4,
            )


def copy_buffers(model: Trainable, processes: Processes | None) -> None:
    """Give all processes the moving averages of the first one, as DistributedDataParallel does."""
    if processes is not None:
        with torch.no_grad():
            processes.copy_from_first(model.buffers())


def shared_logs(processes: Processes, model: Trainable, own_logs: Logs | None, makes_logs: bool) -> Logs:
    """The logs of all processes together, the same in each.

    Args:
        processes: all of them; each calls this.
        model: a model in a run.
        own_logs: what a step of the user's own has returned for the last batch, if it did.
        makes_logs: whether there is such a step.
    """
    with _summed(processes, model.metrics):
        results = plain_logs(model.get_metrics_result())
        settings = current_settings(model)
        tracked = settings is not None and bool(settings.loss_tracker.count)
    if makes_logs:
        found = [logs for logs in processes.gather_parts(None if own_logs is None else plain_logs(own_logs)) if logs]
        if found and not (tracked and set(found[0]) == set(results)):
            results = {name: _mean([logs[name] for logs in found]) for name in found[0]}
    logs: Logs = processes.send(results)
    return logs


def gathered_columns(processes: Processes, columns: list[list[Any]]) -> list[list[Any]]:
    """The predictions of all processes in the order of the rows, the same in each.

    Args:
        processes: all of them; each calls this.
        columns: for each output of the model a list of arrays, one for each batch: the predictions for this process'
            part of it.
    """
    sizes = processes.gather_parts([[0 if part is None else len(part) for part in column] for column in columns])
    return [_gathered(processes, column, [each[index] for each in sizes]) for index, column in enumerate(columns)]


def _gathered(processes: Processes, column: list[Any], sizes: list[list[int]]) -> list[Any]:
    if isinstance(column[0], Tensor):
        rows = torch.cat(column).detach().cpu()
        found = processes.gather_rows(rows.float() if rows.dtype is torch.bfloat16 else rows, list(map(sum, sizes)))
        parts = [list(rows.split(each)) for rows, each in zip(found, sizes, strict=True)]
    else:
        parts = processes.gather_parts(column)
    return [part for batch in zip(*parts, strict=True) for part in batch]


def _mean(values: list[Any]) -> Any:
    return sum(values) / len(values) if all(isinstance(value, (int, float)) for value in values) else values[0]


@contextlib.contextmanager
def _summed(processes: Processes, metrics: list[Metric]) -> Iterator[None]:
    """Let metrics hold what all processes have counted, for a block."""
    found = {id(variable): variable for metric in metrics for variable in metric.variables}
    variables: list[Tensor] = list(found.values())
    with torch.inference_mode(False):
        restore = snapshot(variables)
    # Those of torchmetrics gather what others have counted by themselves; of processes with the same rows, one counts.
    others = [each.metric for each in metrics if isinstance(each, TorchMetric) and processes.share_rows]
    own = [each for each in others if getattr(each, "process_group", False) is None]
    try:
        for each in own:
            each.process_group = processes.rows_group
        processes.sum(variables)
        yield
    finally:
        for each in own:
            each.process_group = None
        restore()
