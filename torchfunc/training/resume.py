"""`TrainingRun`: the state of one `fit`, to be saved and resumed in another process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torchfunc.callbacks.callback_list import CallbackList
from torchfunc.metrics import Metric, TorchMetric
from torchfunc.optimizers import Optimizer, TorchOptimizer
from torchfunc.saving.sharded import is_sharded
from torchfunc.saving.states import split_state
from torchfunc.shards import fill, is_shard, sharded_like
from torchfunc.training.current_run import current_settings
from torchfunc.training.data.arrays import Data
from torchfunc.training.data.random_states import random_states, set_random_states
from torchfunc.training.data.stream import EpochStream
from torchfunc.training.distributed.states import own_state
from torchfunc.training.trainable import Logs, Trainable

__all__ = ["TrainingRun", "optimizer_state", "set_optimizer_state", "weights_of"]

TrainingState: TypeAlias = Mapping[str, Any]
"""Tensors, numbers and text, in dicts, lists and tuples, by what they are the state of."""

_PARTS = {
    *("epoch", "batches", "steps", "logs", "stop_training", "place", "generators", "weights", "optimizer"),
    *("metrics", "callbacks"),
}


class TrainingRun:
    """One `fit`, for a callback that saves it or resumes one that was saved (`BackupAndRestore`).

    What one process must know of its own, several write into one state, and as many or others can resume it.

    On the CPU, a resumed run ends with the very bits of one that was never interrupted, if it is given the same data.
    Data that draw from torch's global generator while batches are made (a Dataset's own augmentation in the main
    process) are the exception: what they drew between the steps cannot be drawn again without the steps.

    Attributes:
        logs: the logs that the run begins with: those of the run that it resumes, else none.
        batches: those of the latest step.
        processes: those that share it; None for one.
    """

    def __init__(
        self,
        model: Trainable,
        data: EpochStream,
        callbacks: CallbackList,
        find_nan: Callable[[Sequence[Any]], str],
    ) -> None:
        self.logs: Logs = {}
        self.batches: Sequence[Any] = ()
        self._find_nan = find_nan
        self._model = model
        self._data = data
        self._callbacks = callbacks
        settings = current_settings(model)
        self.processes = None if settings is None else settings.processes
        self._resumed: TrainingState | None = None

    def state(self, epoch: int, batches: int, logs: Mapping[str, Any] | None = None) -> TrainingState:
        """All that decides how the run continues: tensors, numbers and text, in dicts, lists and tuples.

        The tensors are the model's own, and sharded if they are.

        Args:
            epoch: the epoch that comes next, or that the run is in.
            batches: how many batches of it are done.
            logs: the logs as of now.
        """
        own = {
            "place": self._data.place(batches),
            "generators": random_states(),
            # An epoch begins with metrics that are reset.
            "metrics": [_metric_state(metric) for metric in self._model.metrics] if batches else [],
            "sums": self._sums(),
        }
        if self.processes is not None:
            own["processes"] = self.processes.gather_parts(dict(own))
        return {
            **own,
            "epoch": epoch,
            "batches": batches,
            "steps": self._data.num_batches,
            "logs": dict(logs or {}),
            "stop_training": self._model.stop_training,
            "weights": weights_of(self._model),
            "optimizer": optimizer_state(self._model.optimizer),
            "callbacks": self._callbacks.states(),
        }

    def shards(self) -> dict[str, Tensor]:
        """What is sharded here of a state, by the names of `split_state`; weights also as the places of their state."""
        model = self._model
        if not is_sharded(model):
            return {}
        whole = {"weights": weights_of(model), "optimizer": optimizer_state(model.optimizer)}
        found = split_state(whole)[1]
        if isinstance(model.optimizer, TorchOptimizer):
            weights = _weights_in_order(model.optimizer)
            found |= {f"state.optimizer.state_dict.state.{index}": weight for index, weight in enumerate(weights)}
        return {name: tensor for name, tensor in found.items() if is_shard(tensor)}

    def resume(self, state: TrainingState) -> None:
        """Resume the run that `state` was saved from. Call it in `on_train_begin`; it happens after all have begun.

        Raises:
            ValueError: it is the state of something else, or the model's weights, its optimizer or the batches of an
                epoch are others than that run's. Then nothing is changed.
        """
        if not isinstance(state, Mapping) or not state.keys() >= _PARTS:
            raise ValueError("What was saved is not the state of a training.")
        found, wanted = _shapes(weights_of(self._model)), _shapes(state["weights"])
        if found != wanted:
            differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise ValueError(
                f"The saved training is that of another model: {', '.join(differing[:5])} "
                f"{'differs' if len(differing) == 1 else 'differ'} in name or shape."
            )
        if state["batches"] and state["steps"] != self._data.num_batches:
            raise ValueError(
                f"The saved training stopped after {state['batches']} of {state['steps']} batches in an epoch, but "
                f"there are {self._data.num_batches} now, so its place in the data cannot be found."
            )
        _check_optimizer_state(self._model.optimizer, state["optimizer"])
        self._resumed = own_state(state, self.processes, is_sharded(self._model))

    def begin(self, epochs: range) -> range:
        """Restore the state that `resume` was given, if it was called. Returns the epochs that are to be run."""
        state = self._resumed
        if state is None:
            return epochs
        self.logs = dict(state["logs"])
        self._restore(state)
        self._model.stop_training = state["stop_training"]
        if not state["batches"] and state["place"] is not None:
            self._data.resume(state["place"])
            set_random_states(state["generators"])
        return range(state["epoch"], state["epoch"] if state["stop_training"] else epochs.stop)

    def source_of_nan(self) -> str:
        """Where the first value that is no finite number in the latest step comes from, as far as it can be told."""
        return self._find_nan(self.batches)

    def enter_epoch(self, step: Callable[[Data], object]) -> int:
        """Go to the batch that the epoch continues with, if a run is resumed in its middle. Returns its number."""
        state, self._resumed = self._resumed, None
        if state is None or not state["batches"]:
            return 0
        first = self._data.resume(state["place"], state["batches"])
        if len(self._model.metrics) != len(state["metrics"]):
            # Some metrics are only made when a batch is seen. All else that this step changes is restored.
            step(first)
        metrics = self._model.metrics
        if len(metrics) != len(state["metrics"]):
            raise ValueError(
                f"The saved training had {len(state['metrics'])} metrics, but there are {len(metrics)} now: "
                f"{', '.join(metric.name for metric in metrics)}."
            )
        with torch.no_grad():
            for metric, values in zip(metrics, state["metrics"], strict=True):
                _set_metric_state(metric, values)
        self._restore(state)
        return state["batches"]

    def _sums(self) -> list[Tensor]:
        """Sums of gradients that other processes have others of. (Those of sharded weights are the same in all.)"""
        optimizer = self._model.optimizer
        return [] if optimizer is None or is_sharded(self._model) else optimizer.accumulated

    def _restore_sums(self, sums: Sequence[Tensor]) -> None:
        optimizer, processes = self._model.optimizer, self.processes
        accumulated = [] if optimizer is None else optimizer.accumulated
        for total, value in zip(accumulated, sums, strict=False):
            fill(total, value)
        if not (sums or processes is None or processes.is_first or is_sharded(self._model)):
            # Sharded weights had the sums of all, which the first process has now.
            for total in accumulated:
                total.zero_()

    def _restore(self, state: TrainingState) -> None:
        with torch.no_grad():
            _fill(weights_of(self._model), state["weights"])
            # Torch optimizers and callbacks keep what they are given, and this may be called twice.
            set_optimizer_state(self._model.optimizer, copy.deepcopy(state["optimizer"]))
            self._restore_sums(state.get("sums", ()))
        self._callbacks.set_states(copy.deepcopy(state["callbacks"]))
        set_random_states(state["generators"])


def weights_of(model: Trainable) -> dict[str, Tensor]:
    """Parameters and buffers; also those that no state_dict holds, such as the counters of seeded dropout."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _fill(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        fill(tensor, values[name])


def optimizer_state(optimizer: Optimizer | None) -> Any:
    if optimizer is None:
        return None
    if isinstance(optimizer, TorchOptimizer):
        return {"iterations": optimizer.iterations, "state_dict": optimizer.torch_optimizer.state_dict()}
    return optimizer.variables


def _check_optimizer_state(optimizer: Optimizer | None, state: Any) -> None:
    """Raise ValueError if this is the state of an optimizer with other variables, or other groups of weights."""
    found, saved = _state_shapes(optimizer_state(optimizer)), _state_shapes(state)
    if found != saved:
        raise ValueError(
            f"The saved training used another optimizer, or other settings of it, than this {type(optimizer).__name__}."
        )


def _state_shapes(state: Any) -> Any:
    if isinstance(state, Mapping):
        # (A torch optimizer makes its state in its first step.)
        return [[len(group["params"]) for group in state["state_dict"]["param_groups"]]]
    return None if state is None else [tuple(value.shape) for value in state]


def set_optimizer_state(optimizer: Optimizer | None, state: Any) -> None:
    if optimizer is None:
        return
    if isinstance(optimizer, TorchOptimizer):
        optimizer.iterations.copy_(state["iterations"])
        saved = state["state_dict"]
        for index, weight in enumerate(_weights_in_order(optimizer)):
            own = saved["state"].get(index, {})
            for name, value in own.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    own[name] = sharded_like(value, weight)
        optimizer.torch_optimizer.load_state_dict(saved)
        return
    for variable, value in zip(optimizer.variables, state, strict=True):
        fill(variable, value)


def _weights_in_order(optimizer: TorchOptimizer) -> list[Tensor]:
    """The weights of a torch optimizer, by the numbers that its state_dict gives them."""
    return [weight for group in optimizer.torch_optimizer.param_groups for weight in group["params"]]


def _metric_state(metric: Metric) -> Any:
    if isinstance(metric, TorchMetric):
        metric.metric.persistent(True)
        return metric.metric.state_dict()
    return metric.variables


def _set_metric_state(metric: Metric, state: Any) -> None:
    if isinstance(metric, TorchMetric):
        metric.metric.persistent(True)
        metric.metric.load_state_dict(state)
        return
    for variable, value in zip(metric.variables, state, strict=True):
        variable.copy_(value)
