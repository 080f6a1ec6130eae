"""Several callbacks called as one, and only those that want to be called."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol

import torch
from torch import Tensor

from torchfunc.callbacks.base import Callback, Logs
from torchfunc.callbacks.basic import ProgbarLogger
from torchfunc.callbacks.history import History
from torchfunc.structures import leaves

__all__ = ["BatchHooks", "CallbackList", "DeferredLogs", "plain_logs"]

# The old hooks are called by the new ones, so overriding either counts.
_OLD_HOOKS = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


def _overrides(callback: Any, hook: str) -> bool:
    function = getattr(getattr(callback, hook), "__func__", None)
    # Callbacks written for Keras know nothing of idle hooks, intervals and deferred logs.
    return function is not getattr(Callback, hook) and function not in getattr(callback, "idle_hooks", ())


def plain_logs(logs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Logs as plain numbers, sorted by name; what is no single number stays as it is.

    The values on an accelerator are fetched together, so it is waited for once.
    """
    flat: dict[str, Any] = {}
    for name, value in (logs or {}).items():
        flat.update(value if isinstance(value, Mapping) else {name: value})
    far = [name for name, value in flat.items() if isinstance(value, Tensor) and value.ndim == 0 and not value.is_cpu]
    if far:
        values = torch.stack([flat[name].detach().to(torch.float32) for name in far]).tolist()
        flat.update(zip(far, values, strict=True))
    return {name: _plain(flat[name]) for name in sorted(flat)}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 else value.detach().cpu().numpy()
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


class Agreeing(Protocol):
    """Several processes that train one model."""

    rank: int

    def gather(self, value: Any) -> list[Any]:
        """What each of them gives."""


class DeferredLogs(MutableMapping[str, Any]):
    """Logs that are read, once, when they are looked at."""

    def __init__(self, read_logs: Callable[[], dict[str, Any]]) -> None:
        self._read_logs = read_logs
        self._logs: dict[str, Any] | None = None

    def read(self) -> dict[str, Any]:
        """The logs as a dict."""
        if self._logs is None:
            self._logs = self._read_logs()
        return self._logs

    def __getitem__(self, name: str) -> Any:
        return self.read()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.read()[name] = value

    def __delitem__(self, name: str) -> None:
        del self.read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.read())

    def __len__(self) -> int:
        return len(self.read())


class BatchHooks:
    """The hooks of one phase that a callback overrides, and the clock for those that need not see every batch.

    Attributes:
        phase: "train", "test" or "predict".
    """

    def __init__(self, callbacks: Iterable[Callback], phase: str) -> None:
        self.phase = phase
        begin, end = f"on_{phase}_batch_begin", f"on_{phase}_batch_end"
        self._begin = [callback for callback in callbacks if self._wanted(callback, begin)]
        self._end = [callback for callback in callbacks if self._wanted(callback, end)]
        self._names = begin, end
        self._intervals = [getattr(callback, "batch_interval", 0.0) for callback in self._end]
        self._defer = [getattr(callback, "defers_logs", False) for callback in self._end]
        self._last_call = [-math.inf] * len(self._end)
        seeing = [callback for callback, interval in zip(self._end, self._intervals, strict=True) if not interval]
        self._kinds = [type(callback).__name__ for callback in (*self._begin, *seeing)]
        # All but those that come by the clock, which several processes do not see at the same time.
        self.in_use = bool(self._kinds)
        self._reads = False
        self._read_at_times: Callable[[], dict[str, Any]] | None = None

    @staticmethod
    def _wanted(callback: Callback, hook: str) -> bool:
        return _overrides(callback, hook) or (hook in _OLD_HOOKS and _overrides(callback, _OLD_HOOKS[hook]))

    def agree(self, processes: Agreeing | None, read_at_times: Callable[[], dict[str, Any]]) -> None:
        """Let several processes, if there are any, read logs, which are those of all, at the same batches.

        They do so when a callback looks at them, if all have the same callbacks. Else all read them at each batch, if
        one does.

        Args:
            processes: all of them.
            read_at_times: gives the logs for callbacks that come by the clock, of which other processes know nothing.
        """
        if processes is None:
            return
        self._read_at_times = read_at_times
        plain = any(not interval and not defers for interval, defers in zip(self._intervals, self._defer, strict=True))
        found = processes.gather((self._kinds, plain, self.in_use))
        alike = all(kinds == found[0][0] for kinds, *_ in found)
        self._reads = any(plain or (in_use and not alike) for _, plain, in_use in found)
        self.in_use = any(in_use for *_, in_use in found)

    def begin(self, batch: int) -> None:
        """A batch begins."""
        for callback in self._begin:
            getattr(callback, self._names[0])(batch, logs={})

    def end(self, batch: int, read_logs: Callable[[], dict[str, Any]]) -> None:
        """A batch is done. `read_logs`, which waits for the device, is called only if a callback wants the logs now."""
        if not self._end and not self._reads:
            return
        logs = DeferredLogs(read_logs)
        if self._reads:
            logs.read()
        at_times = logs if self._read_at_times is None else DeferredLogs(self._read_at_times)
        now = time.perf_counter()
        for index, callback in enumerate(self._end):
            if now - self._last_call[index] < self._intervals[index]:
                continue
            self._last_call[index] = now
            given = at_times if self._intervals[index] else logs
            getattr(callback, self._names[1])(batch, logs=given if self._defer[index] else given.read())


class CallbackList(Callback):
    """Several callbacks called as one; logs are turned into plain numbers on the way, sorted by name as in Keras.

    Args:
        callbacks: callbacks, in any nesting of lists.
        add_history: whether to add a `History` if there is none.
        add_progbar: whether to add a `ProgbarLogger` if there is none.
        model: given to each callback.
        is_first_process: whether this is the first, or the only one, of the processes that train the model.
        **params: given to each callback.

    Raises:
        TypeError: something that is no callback; the message names it.

    >>> said = []
    >>> both = callbacks.CallbackList([callbacks.LambdaCallback(on_train_begin=lambda logs: said.append("begin"))])
    >>> both.on_train_begin()
    >>> said
    ['begin']
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        is_first_process: bool = True,
        **params: Any,
    ) -> None:
        super().__init__()
        self.callbacks: list[Any] = [] if callbacks is None else leaves(callbacks)
        for callback in self.callbacks:
            if isinstance(callback, type) or not hasattr(callback, "on_epoch_end"):
                raise TypeError(
                    f"`callbacks` takes Callback objects, got {callback!r}"
                    + (": make an instance of the class." if isinstance(callback, type) else ".")
                )
        self.set_first_process(is_first_process)
        self.history = self._find_or_add(History, add_history)
        self._progress = self._find_or_add(ProgbarLogger, add_progbar)
        self._sort()
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def _find_or_add(self, cls: type[Callback], add: bool) -> Any:
        found = next((callback for callback in self.callbacks if isinstance(callback, cls)), None)
        if found is None and add:
            found = cls()
            self.callbacks.append(found)
        return found

    def set_first_process(self, is_first: bool) -> None:
        """Tell the callbacks whether this is the first process; if not, leave out those that have no work there."""
        if not is_first:
            self.callbacks = [each for each in self.callbacks if not getattr(each, "first_process_only", False)]
        for callback in self._ours():
            callback.is_first_process = is_first

    def _sort(self) -> None:
        self.callbacks.sort(key=lambda callback: getattr(callback, "runs_last", False))

    def ensure_history(self, model: Any) -> None:
        """Add a `History` if there is none."""
        if self.history is None:
            self.history = self._find_or_add(History, True)
            self._sort()
            self.history.set_params(self.params)
            self.set_model(model)

    def append(self, callback: Callback) -> None:
        """Add a callback."""
        self.callbacks.append(callback)
        self._sort()

    def set_params(self, params: dict[str, Any]) -> None:
        """Give all callbacks one dict of parameters."""
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Give all callbacks the model, and the model its history."""
        super().set_model(model)
        if self.history is not None:
            model.history = self.history
        for callback in self.callbacks:
            callback.set_model(model)

    def set_run(self, run: Any) -> None:
        """Give all callbacks the run of `fit`."""
        for callback in self._ours():
            callback.set_run(run)

    def states(self) -> list[tuple[str, dict[str, Any]]]:
        """The state of each callback that has one, with the name of its class."""
        states = [(type(callback).__name__, callback.state_dict()) for callback in self._ours()]
        return [(name, state) for name, state in states if state]

    def set_states(self, states: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Restore what `states` found: the first of a class gets the first state of that class, and so on."""
        left = list(states)
        for callback in self._ours():
            index = next((i for i, (name, _) in enumerate(left) if name == type(callback).__name__), None)
            if index is not None:
                callback.load_state_dict(left.pop(index)[1])

    def _ours(self) -> list[Any]:
        """The callbacks that were not written for Keras, whose base class knows less."""
        return [callback for callback in self.callbacks if isinstance(callback, Callback)]

    def batch_hooks(self, phase: str) -> BatchHooks:
        """The hooks for the batches of "train", "test" or "predict" that are in use."""
        return BatchHooks(self.callbacks, phase)

    def count_steps(self, count: int) -> None:
        """A pass over the data took `count` steps; this becomes `params["steps"]` if that was not known before."""
        if self.params.get("steps") is None:
            self.params["steps"] = count

    def close(self) -> None:
        """Called however a run ended: whatever line is being drawn, or file being written, is finished."""
        if self._progress is not None:
            self._progress.close()
        for callback in self._ours():
            callback.after_run()

    def _call(self, hook: str, *args: Any) -> None:
        *first, logs = args
        logs = plain_logs(logs)
        for callback in self.callbacks:
            getattr(callback, hook)(*first, logs)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_train_begin", logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_train_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_test_begin", logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_test_end", logs)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_test_batch_end", batch, logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_predict_begin", logs)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_predict_end", logs)

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Call all callbacks."""
        self._call("on_predict_batch_begin", batch, logs)

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Call all callbacks; the outputs are passed on as they are."""
        for callback in self.callbacks:
            callback.on_predict_batch_end(batch, logs)
