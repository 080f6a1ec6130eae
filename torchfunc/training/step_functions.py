"""The function that the loop calls with each batch: one of the user's own, the default step, or its compiled form."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torchfunc.batch_parts import without_rows
from torchfunc.graph import really_set, setting_compiled_parts, writes_to_arguments
from torchfunc.graph_keys import graph_key_of
from torchfunc.metrics.snapshots import kept_metrics
from torchfunc.saving.sharded import is_sharded
from torchfunc.training.compiled_step import MAX_GRAPHS, BatchFunction, CompiledStep, weights_key
from torchfunc.training.data.array_batches import DeferredBatch, gathered
from torchfunc.training.data.arrays import Data
from torchfunc.training.data.parts import PartBatch
from torchfunc.training.first_nan import CheckedStep
from torchfunc.training.protected_batches import ProtectedStep
from torchfunc.training.run_context import RunContext
from torchfunc.training.settings import TrainingSettings, device_of
from torchfunc.training.step import Outcome, evaluate_batch, predict_batch, train_batch
from torchfunc.training.trainable import Logs, StepFunction, Trainable
from torchfunc.training.waiting import Preparation

__all__ = ["StepFunctions", "make_prediction_step", "make_step", "makes_own_logs"]

Step: TypeAlias = Callable[[Any], Logs | None]
"""Takes a batch, or a tuple of batches if several steps are executed at once; returns the logs that the model makes."""

_CALLED = {"train_step": "training step", "test_step": "evaluation step", "predict_step": "prediction step"}


class StepFunctions(Trainable):
    """Gives a model functions that run in place of its steps, as the attributes or the methods of these names.

    Such a function takes one batch (`x`, `(x, y)` or `(x, y, sample_weight)`) and returns what the step of its
    kind returns; it is called as it is, so what is to be compiled in it has to be compiled there. There are two ways to
    put one in place: define or set `train_function`, or override `make_train_function` and wrap what `super()` returns.
    `compile` removes functions that were set. Where there is none, `fit` runs `train_step`.

    Attributes:
        train_function, test_function, predict_function: the user's functions, else None.
    """

    train_function: StepFunction | None = None
    test_function: StepFunction | None = None
    predict_function: StepFunction | None = None

    def make_train_function(self, force: bool = False) -> StepFunction:
        """The function for each batch of a training: `train_function` if there is one, else `train_step`.

        Args:
            force: return `train_step` even so.
        """
        return self.train_step if force or self.train_function is None else self.train_function

    def make_test_function(self, force: bool = False) -> StepFunction:
        """The function for each batch of an evaluation; see `make_train_function`."""
        return self.test_step if force or self.test_function is None else self.test_function

    def make_predict_function(self, force: bool = False) -> StepFunction:
        """The function for each batch of a prediction; see `make_train_function`."""
        return self.predict_step if force or self.predict_function is None else self.predict_function

    def own_function(self, method: str) -> StepFunction | None:
        """The function that is to run in place of a step ("train_step" ...); None if there is none.

        Raises:
            TypeError: it is not a function.
        """
        function_name = f"{method.removesuffix('_step')}_function"
        maker = f"make_{function_name}"
        made = getattr(self, maker)() if self.overrides(maker) else None
        function = getattr(self, function_name) if made is None else made
        if function is None or callable(function):
            return function
        raise TypeError(f"{function_name} is a function of one batch, got {function!r} ({type(function).__name__}).")

    def has_own_training(self) -> bool:
        """Whether a batch is trained on by code of the model's own, which may leave gradients on the weights."""
        own_maker = self.overrides("make_train_function")
        return own_maker or self.train_function is not None or self.overrides("train_step")

    def forget_functions(self) -> None:
        """Remove the functions that were set on this model."""
        for name in ("train_function", "test_function", "predict_function"):
            self.__dict__.pop(name, None)


def makes_own_logs(model: Trainable, method: str) -> bool:
    """Whether a step of this kind may return logs other than the metrics' results."""
    return model.overrides("compute_metrics") or model.overrides(method) or model.own_function(method) is not None


def make_step(model: Trainable, run: RunContext, method: str, device: torch.device, at_once: int = 1) -> Step:
    """The function that the loop calls with each batch of a training or an evaluation.

    It is a function of the model's own (`train_function`), its own `train_step` or `test_step`, or the default one. The
    public form of the default returns the current results, which takes time that nobody may need; here it does not.

    Args:
        model: a model.
        run: the run that it is in.
        method: "train_step" or "test_step".
        device: where the model is.
        at_once: if it is not 1, the function takes a tuple of up to so many batches.
    """
    settings = run.settings
    function = model.own_function(method)
    is_first = model._run_context is run
    in_parts = settings.processes is not None
    eager = _eager_step(model, method, function, None if is_first else run, in_parts)
    checks = settings.execution.check_nan
    grouped = 1 if checks else at_once
    step: Callable[[Any], Outcome] = eager if grouped == 1 else _several(eager)
    # (Several processes would not find at the same step that it pays.)
    weighs = in_parts and settings.execution.weighs(device)
    if function is None and not (run.sharded or weighs) and _compiles(settings, method, device):
        step = _compiled_step(model, settings, method, step, grouped, device)
    elif method == "train_step" and settings.thread_probe is not None:
        step = partial(settings.thread_probe.run, step)
    step = setting_compiled_parts(step, model, None if method == "train_step" else False)

    if not _keeps_batches(model, settings, method, function):
        step = ProtectedStep(step, writes_to_arguments(model) or None)
    if checks:
        step = CheckedStep(step, model, settings, trains=method == "train_step")
        step = step if at_once == 1 else _several(step)

    def run_step(batch: Any) -> Logs | None:
        logs, deferred = step(batch)
        for metric, target, prediction in deferred:
            metric.update_state(target, prediction)
        return logs

    return run_step


def _compiles(settings: TrainingSettings, method: str, device: torch.device) -> bool:
    if not settings.execution.compiles(method, device):
        return False
    return not settings.execution.weighs(device) or (settings.payback is not None and settings.payback.is_open)


def make_prediction_step(model: Trainable, settings: TrainingSettings | None, device: torch.device) -> StepFunction:
    """The function that the loop calls with each batch of a prediction; see `make_step`."""
    function = model.own_function("predict_step")
    overridden = model.overrides("predict_step")
    reference = weakref.ref(model)

    def predict(data: Data) -> Any:
        model = reference()
        assert model is not None
        own = model.predict_step if overridden and function is None else function
        return predict_batch(model, data) if own is None else own(data)

    step: StepFunction = setting_compiled_parts(predict, model, False)
    if not _keeps_batches(model, None, "predict_step", function):
        step = ProtectedStep(step, writes_to_arguments(model) or None)
    if settings is None or function is not None or not settings.execution.compiles("predict_step", device):
        return step
    if is_sharded(model):
        return step
    return _compiled_step(model, settings, "predict_step", step, 1, device)


def _keeps_batches(
    model: Trainable, settings: TrainingSettings | None, method: str, function: StepFunction | None
) -> bool:
    """Whether a step surely leaves its batches as they are: no code of the user's own gets hold of them."""
    own_step = function is not None or any(map(model.overrides, (method, "compute_loss", "compute_metrics")))
    return model.keeps_inputs() and not own_step and (settings is None or settings.is_known)


def _eager_step(
    model: Trainable, method: str, function: StepFunction | None, given: RunContext | None, in_parts: bool
) -> Callable[[Any], Outcome]:
    """The step of a run that is given, or else of the model's first run at the time.

    With `in_parts` it takes a `PartBatch`. Where that has no rows, nothing is counted.
    """
    overridden = model.overrides(method)
    default = train_batch if method == "train_step" else evaluate_batch
    # A compiled step is kept by the model's settings, and outlives the run that it was made in.
    reference = weakref.ref(model)

    def step(data: Data) -> Outcome:
        model = reference()
        assert model is not None
        run = model._run_context if given is None else given
        assert run is not None
        run.clear_call_losses()
        own = getattr(model, method) if overridden and function is None else function
        return default(model, run, data) if own is None else (own(data), [])

    def step_on_part(batch: PartBatch) -> Outcome:
        model = reference()
        assert model is not None
        run = model._run_context if given is None else given
        assert run is not None
        data, run.part = batch
        optimizer = run.settings.optimizer
        if optimizer is not None and optimizer.gradient_sum is not None:
            # The default step takes the share of the loss; one of the user's own knows nothing of it.
            optimizer.gradient_sum.share = run.part.share if overridden or function is not None else 1.0
        if run.part.rows:
            return step(data)
        with kept_metrics(lambda: model.metrics), without_rows():
            return step(data)[0], []

    return step_on_part if in_parts else step


def _several(step: Callable[[Any], Outcome]) -> Callable[[tuple[Data | DeferredBatch | PartBatch, ...]], Outcome]:
    """A step on several batches, one after the other. Batches that are not gathered yet are gathered here."""

    def steps(batches: tuple[Data | DeferredBatch | PartBatch, ...]) -> Outcome:
        outcomes = [step(gathered(batch)) for batch in batches]
        return outcomes[-1][0], [update for _, deferred in outcomes for update in deferred]

    return steps


def _compiled_step(
    model: Trainable, settings: TrainingSettings, method: str, step: BatchFunction, at_once: int, device: torch.device
) -> BatchFunction:
    """The compiled form of a step, reused by later runs."""
    graph_keys = list(_graph_keys(model, settings, method))
    processes = settings.processes
    key = at_once, processes and processes.size, weights_key(model), *graph_keys
    graphs = settings.graphs.setdefault(method, {})
    if key not in graphs:
        if len(graphs) == MAX_GRAPHS:
            warnings.warn(
                f"The {_CALLED[method]} of this model was compiled for {MAX_GRAPHS} different settings of its layers "
                "and optimizer; with others it runs eagerly.",
                stacklevel=4,
            )
            return step
        what = f"The {_CALLED[method]} of model {model.name!r}"
        mode = None if method == "train_step" else False
        # The settings, which are the model's, keep the graph.
        prepare = partial(_prepare, weakref.ref(model), weakref.ref(settings), method)
        in_mode = partial(_in_mode, weakref.ref(model), mode)
        guarded, required = None in graph_keys, settings.execution.jit is True
        # Processes that share the work make their graphs at the same step.
        beside = not guarded and device.type == "cpu" and processes is None
        wait = partial(Preparation, weakref.ref(model), method, at_once, 0 if required else 10) if beside else None
        graphs[key] = CompiledStep(step, what, required, guarded, prepare, in_mode, wait)
    graph, payback = graphs[key], settings.payback if settings.execution.weighs(device) else None

    def run(data: Any) -> Any:
        if at_once != 1 and len(data) < at_once:
            # What is left at an epoch's end is not worth a graph of its own.
            return step(data)
        if processes is not None and _lacks_rows(data if at_once != 1 else (data,)):
            return step(data)
        return graph(data) if payback is None else payback.run(step, graph, data)

    return run if at_once != 1 or payback is not None or processes is not None else graph


def _lacks_rows(batches: tuple[Any, ...]) -> bool:
    return any(isinstance(batch, PartBatch) and not batch.part.rows for batch in batches)


def _graph_keys(model: Trainable, settings: TrainingSettings, method: str) -> Iterator[Hashable | None]:
    """The settings that a graph takes for constants; None stands for code that needs torch.compile's guards."""
    for module in model.modules():
        yield graph_key_of(module)
    if settings.optimizer is not None:
        key = settings.optimizer.graph_key()
        # Other steps do not depend on its numbers.
        yield key if key is None or method == "train_step" else ()
    for objective in settings.parsed.losses_and_metrics():
        yield objective.graph_key()


def _in_mode(reference: weakref.ref[Trainable], training: bool | None) -> AbstractContextManager[None]:
    model = reference()
    assert model is not None
    return really_set([model], training)


def _prepare(model: weakref.ref[Trainable], reference: weakref.ref[TrainingSettings], method: str) -> None:
    """Prepare all state that a step changes for a graph. Raises ValueError if some cannot be part of one."""
    settings, trained = reference(), model()
    assert settings is not None
    assert trained is not None
    sparse = [name for name, each in trained.named_modules() if getattr(each, "sparse_gradient", False)]
    if sparse and method == "train_step":
        raise ValueError(f"layer {sparse[0]!r} has sparse_gradient=True, and no graph holds a sparse gradient.")
    optimizer = settings.optimizer
    if method == "train_step" and optimizer is not None and optimizer.offloads and device_of(trained).type != "cpu":
        raise ValueError(
            "the optimizer's state is on the host (offload_optimizer=True), and a graph is for one device."
        )
    summed = None if optimizer is None else optimizer.gradient_sum
    if method == "train_step" and summed is not None and summed.varies:
        raise ValueError("some weights have no gradient in some of the processes, which ask each other for them.")
    changed: list[Tensor] = [variable for metric in settings.metrics for variable in metric.variables]
    # An optimizer that is not ready is one that a step of the user's own does not use.
    if method == "train_step" and settings.optimizer is not None and settings.optimizer.prepare_capture():
        changed += settings.optimizer.variables
    for variable in changed:
        if variable.is_cuda:
            # Else a CUDA graph would work on a copy of it, or not be made at all.
            torch._dynamo.mark_static_address(variable)
    for metric in settings.metrics:
        scalars = [variable for variable in metric.variables if variable.ndim == 0 and variable.is_cpu]
        if any(each.dtype is torch.float64 for each in scalars) and metric.graph_key() is None:
            raise ValueError(
                f"The metric {metric.name!r} has a state of shape () and dtype float64 on the CPU, changes of which "
                'torch.compile loses. Give it dtype="float32", or a state of shape (1,).'
            )
