"""The function that a loop calls with each batch: a step, eager or compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from torchfunc.optimizers import TorchOptimizer
from torchfunc.training.compiled_step import MAX_GRAPHS, CompiledStep, fingerprint, only_known_code
from torchfunc.training.data.array_batches import gathered
from torchfunc.training.state import Compiled, Outcome
from torchfunc.training.step import evaluate_batch, predict_batch, train_batch
from torchfunc.training.trainable import Trainable

__all__ = ["Step", "make_step"]

Step = Callable[[Any], Any]
"""A function of one batch: `predict` gets the outputs, training and evaluation the logs that the model makes itself."""

_DEFAULTS: dict[str, Callable[[Any, Any], Any]] = {
    "train_step": train_batch,
    "test_step": evaluate_batch,
    "predict_step": predict_batch,
}
_CALLED = {"train_step": "training step", "test_step": "evaluation step", "predict_step": "prediction step"}


def make_step(model: Trainable, method: str, device: torch.device, at_once: int = 1) -> Step:
    """The function that the loop calls with each batch.

    It is a function of the model's own (`train_function`), its own `train_step`, `test_step` or `predict_step`, or the
    default one. The public form of the default returns the current results, which takes time that nobody may need;
    here it does not.

    Args:
        model: a model in a run.
        method: "train_step", "test_step" or "predict_step".
        device: where the model is.
        at_once: if it is not 1, the function takes a tuple of up to so many batches.
    """
    compiled = model._compiled
    function = model.own_function(method)
    eager = _eager_step(model, method, function)
    step = eager if at_once == 1 else _several(eager)
    if compiled is None:
        return step
    if function is None and compiled.execution.compiles(method, device):
        step = _compiled_step(model, compiled, method, step, at_once)
    elif method == "train_step" and compiled.thread_probe is not None:
        step = partial(compiled.thread_probe.run, step)
    if method == "predict_step":
        return step
    return lambda data: compiled.take_late(step(data))


def _eager_step(model: Trainable, method: str, function: Step | None) -> Step:
    own, default = function or (getattr(model, method) if model.overrides(method) else None), _DEFAULTS[method]
    if method == "predict_step":
        return own or (lambda data: default(model, data))

    def step(data: Any) -> Any:
        model.compiled_state(method).clear_added()
        return default(model, data) if own is None else Outcome(own(data), [])

    return step


def _several(step: Step) -> Step:
    """A step on several batches, one after the other. Batches that are not gathered yet are gathered here."""

    def steps(batches: tuple[Any, ...]) -> Outcome:
        outcomes = [step(gathered(batch)) for batch in batches]
        return Outcome(outcomes[-1].logs, [late for outcome in outcomes for late in outcome.late])

    return steps


def _compiled_step(model: Trainable, compiled: Compiled, method: str, step: Step, at_once: int) -> Step:
    """The compiled form of a step, kept from one run to the next."""
    optimizer = compiled.optimizer
    # The numbers in a torch optimizer's parameter groups may change at any time, so they are checked at each step.
    of_torch = isinstance(getattr(optimizer, "inner_optimizer", optimizer), TorchOptimizer)
    settled = () if optimizer is None or of_torch or method != "train_step" else optimizer.hyperparameters()
    key = method, at_once, fingerprint(model), settled
    if key not in compiled.graphs:
        if sum(known[0] == method for known in compiled.graphs) == MAX_GRAPHS:
            warnings.warn(
                f"The {_CALLED[method]} of this model was compiled for {MAX_GRAPHS} different settings of its layers "
                "and optimizer; with others it runs eagerly.",
                stacklevel=4,
            )
            return step
        what = f"The {_CALLED[method]} of model {getattr(model, 'name', type(model).__name__)!r}"
        parts = [*model.modules(), optimizer, *compiled.metrics, *compiled.losses]
        guarded = of_torch or not only_known_code(parts)
        prepare = partial(_prepare, compiled, method)
        compiled.graphs[key] = CompiledStep(step, what, compiled.execution.jit is True, guarded, prepare)
    graph, payback = compiled.graphs[key], compiled.payback

    def run(data: Any) -> Any:
        if at_once != 1 and len(data) < at_once:
            # What is left at an epoch's end is not worth a graph of its own.
            return step(data)
        return graph(data) if payback is None else payback.run(step, graph, data)

    return run if at_once != 1 or payback is not None else graph


def _prepare(compiled: Compiled, method: str) -> None:
    """Let all that a step changes be ready for a graph. Raises ValueError if something cannot be."""
    changed = [variable for metric in compiled.metrics for variable in metric.variables]
    if method == "train_step" and compiled.optimizer is not None:
        compiled.optimizer.prepare_capture()
        changed += compiled.optimizer.variables
    for variable in changed:
        if variable.is_cuda:
            # Else a CUDA graph would work on a copy of it, or not be made at all.
            torch._dynamo.mark_static_address(variable)
    for metric in compiled.metrics:
        scalars = [variable for variable in metric.variables if variable.ndim == 0 and variable.is_cpu]
        if any(each.dtype is torch.float64 for each in scalars) and not only_known_code([metric]):
            raise ValueError(
                f"The metric {metric.name!r} has a state of shape () and dtype float64 on the CPU, changes of which "
                'torch.compile loses. Give it dtype="float32", or a state of shape (1,).'
            )
