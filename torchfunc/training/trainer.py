"""Trainer: `compile`, `fit`, `evaluate` and `predict` for a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.callbacks import History
from torchfunc.callbacks.callback_list import plain_logs
from torchfunc.metrics import Metric
from torchfunc.metrics.attributes import held_metrics
from torchfunc.optimizers import LossScaleOptimizer, Optimizer, TorchOptimizer
from torchfunc.optimizers import get as get_optimizer
from torchfunc.training import run_modes
from torchfunc.training.checks import check_class_weight, check_data
from torchfunc.training.data.stream import make_batches
from torchfunc.training.execution import make_step
from torchfunc.training.loop import run_epochs, run_evaluation, run_prediction, to_numpy
from torchfunc.training.preparing import (
    build_for,
    callback_list,
    check_fit,
    checked_verbose,
    columns_by_name,
    one_batch,
    returned,
    split_off,
    validation_batches,
)
from torchfunc.training.settings import Execution
from torchfunc.training.state import Compiled, device_of, trainable_weights, wanted_device
from torchfunc.training.step import evaluate_batch, predict_batch, train_batch
from torchfunc.training.step_functions import StepFunctions

__all__ = ["Trainer"]


class Trainer(StepFunctions):
    """Gives a model `compile`, `fit`, `evaluate`, `predict` and their relatives, under Keras' names and semantics.

    Attributes:
        compiled: whether `compile` was called.
        optimizer: the optimizer, None before `compile`.
        history: the `History` of the last `fit`.
        stop_training, stop_evaluating, stop_predicting: set to True (by a callback, say), the run ends after the
            current batch.
    """

    compiled = False
    optimizer: Optimizer | None = None
    history: History | None = None
    stop_training = False
    stop_evaluating = False
    stop_predicting = False
    _compiled: Compiled | None = None

    # Settings ------------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        precision: str | int | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        """Say how the model is to be trained. (For torch's own compiler use `torch.compile(model)`.)

        Losses, weights and metrics may be given once, as a list in the order of the outputs, or as a dict by their
        names.

        Args:
            optimizer: a name, an optimizer of `torchfunc.optimizers` or `torch.optim`, or a class,
                `functools.partial` or function that makes a torch optimizer from the weights.
            loss: a name, a loss of `torchfunc.losses`, a torch loss module, or any `f(y_true, y_pred)`. None for an
                output that is not trained.
            loss_weights: numbers that the losses are multiplied by in the total.
            metrics: names, metrics of `torchfunc.metrics`, functions; they ignore sample weights.
            weighted_metrics: the like, weighted by sample and class weights.
            run_eagerly: the same as `jit_compile=False`.
            steps_per_execution: so many steps are executed at once; hooks for batches are called once for all of them.
            jit_compile: whether whole steps are compiled by torch.compile, one graph for each shape of batches. True;
                False; "auto": on CUDA, unless a step cannot be compiled, which is said once; "payback": as soon as
                enough steps are to come that compiling them saves time.
            auto_scale_loss: whether, under "16-mixed", the loss is scaled so that small gradients are not lost.
            precision: "32" (what None means), "bf16-mixed" or "16-mixed": what `torch.autocast` computes in.
            device: where to train; "auto" is the accelerator if there is one and the model is still on the CPU.

        Raises:
            ValueError: a name is unknown, something belongs to no output, a setting is not available, or a torch
                optimizer holds none of the model's weights.
        """
        execution = Execution.make(run_eagerly, steps_per_execution, jit_compile, precision)
        settings = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
            "precision": precision,
            "device": device,
        }
        made = get_optimizer(optimizer)
        scales = execution.precision.needs_loss_scale and auto_scale_loss
        if scales and made is not None and not isinstance(made, LossScaleOptimizer):
            made = LossScaleOptimizer(made)
        compiled = Compiled(settings, made, execution, wanted_device(self, device))
        compiled.loss_takes_training = "training" in inspect.signature(self.compute_loss).parameters
        names = self.output_names
        if names is not None:
            compiled.make_plan(list(names), len(names))
        if compiled.device is not None:
            self.to(compiled.device)
        weights = trainable_weights(self)
        if isinstance(compiled.optimizer, TorchOptimizer) and weights:
            compiled.optimizer.build(weights)
        # Nothing of an earlier `compile` is touched before all of this one is known to be right.
        self._compiled = compiled
        self.optimizer = compiled.optimizer
        self.compiled = True
        self.stop_training = False
        self.forget_functions()

    def compiled_state(self, method: str) -> Compiled:
        """What `compile` made. Raises ValueError if it was not called."""
        if self._compiled is None:
            raise ValueError(f"Call `compile()` first: `{method}` needs to know the loss, the optimizer and metrics.")
        return self._compiled

    def overrides(self, method: str) -> bool:
        """Whether the model redefines a method of `Trainer`."""
        return getattr(type(self), method) is not getattr(Trainer, method) or method in self.__dict__

    # Metrics -------------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[Metric]:
        """All metrics: the loss, the outputs' losses, those of `compile`, and those the model holds as attributes.

        Which metrics "accuracy" stands for, and the outputs of a subclassed model, are known after the first batch.
        """
        found = [] if self._compiled is None else self._compiled.metrics
        return found + [metric for metric in self._held_metrics() if metric not in found]

    def _held_metrics(self) -> list[Metric]:
        session = None if self._compiled is None else self._compiled.session
        return held_metrics(self) if session is None else session.metrics

    @property
    def metrics_names(self) -> list[str]:
        """The names of the numbers that `evaluate` returns as a list."""
        compiled = self.compiled_state("metrics_names")
        return compiled.in_order({**compiled.results(), **{metric.name: metric for metric in self._held_metrics()}})

    def reset_metrics(self) -> None:
        """Let all metrics start anew."""
        for metric in self.metrics:
            metric.reset_state()

    def get_metrics_result(self) -> dict[str, Any]:
        """The current results by log name, as tensors on the model's device."""
        found = {} if self._compiled is None else self._compiled.results()
        return {**found, **{metric.name: metric.result() for metric in self._held_metrics()}}

    # One batch: the methods to override ----------------------------------------------------------------------------

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train on one batch; override it for a step of your own.

        Args:
            data: `x`, `(x, y)` or `(x, y, sample_weight)`, tensors on the model's device.

        Returns:
            logs: numbers or scalar tensors by name.
        """
        logs = self.compiled_state("train_step").take_late(train_batch(self, data))
        return self.get_metrics_result() if logs is None else logs

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluate one batch; arguments and result as for `train_step`."""
        logs = self.compiled_state("test_step").take_late(evaluate_batch(self, data))
        return self.get_metrics_result() if logs is None else logs

    def predict_step(self, data: Any) -> Any:
        """The outputs for one batch; `data` as for `train_step`."""
        return predict_batch(self, data)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """The total loss of one batch: the outputs' weighted losses, penalties on weights, and what `add_loss` added.

        Args:
            x: what went into the model.
            y: the targets.
            y_pred: what came out.
            sample_weight: weights of the samples.
            training: whether this is for training or evaluation.

        Returns:
            a scalar.

        Raises:
            ValueError: there is no loss at all, or targets do not fit the outputs.
        """
        compiled = self.compiled_state("compute_loss")
        total = compiled.plan_for(y_pred).total_loss(y, y_pred, sample_weight, compiled.extras_of(y_pred))
        for extra in self.losses if compiled.session is None else compiled.session.extra_losses():
            extra = extra.sum() if extra.ndim else extra
            total = extra if total is None else total + extra
        if total is None:
            raise ValueError("There is no loss to compute: give `compile` a `loss`, or call `add_loss` in a layer.")
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Let the metrics take in one batch; returns the results of all of them. Arguments as for `compute_loss`."""
        compiled = self.compiled_state("compute_metrics")
        plan = compiled.plan_for(y_pred)
        plan.update_late(plan.update_metrics(y, y_pred, sample_weight, compiled.extras_of(y_pred)))
        return self.get_metrics_result()

    # Whole data sets -----------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Train the model.

        Args:
            x: inputs `(rows, ...)`: arrays, tensors, lists or dicts of them; or a `DataLoader`, a `Dataset`, or an
                iterable of batches `(x, y)` or `(x, y, sample_weight)`.
            y: targets, likewise; not beside a DataLoader or iterable.
            batch_size: rows a step, 32 by default.
            epochs: the epoch to stop before, counted from 0.
            verbose: 0 for silence, 1 for a progress line (what "auto" means), 2 for one plain line an epoch.
            callbacks: a callback or a list of them.
            validation_split: the last share of the rows, before shuffling, is not trained on but evaluated.
            validation_data: `(x, y)`, `(x, y, sample_weight)`, or what gives such batches. Comes before the split.
            shuffle: whether rows come in a new order each epoch (by `torch.manual_seed`'s generator).
            class_weight: weights of samples by the class index of their target.
            sample_weight: weights `(rows,)` or of each value; like y for several outputs, or one array for all.
            initial_epoch: the epoch to begin with.
            steps_per_epoch: batches an epoch; by default all there are.
            validation_steps: batches of a validation; by default all there are.
            validation_batch_size: rows a validation step; by default `batch_size`.
            validation_freq: validate every so many epochs, or after the epochs in this list (counted from 1).

        Returns:
            the logs of all epochs.

        Raises:
            ValueError: the data do not fit each other or the model, or the model was not compiled.
        """
        compiled = self.compiled_state("fit")
        device = device_of(self, compiled.device)
        verbose = checked_verbose(verbose)
        check_fit(
            epochs,
            initial_epoch,
            validation_freq,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
        )
        check_class_weight(class_weight, self)
        x, y = columns_by_name(self, x, y)
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split_off(x, y, sample_weight, validation_split)
        data = make_batches(
            x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight, goes_on=True, device=device
        )
        validation = validation_batches(
            self, validation_data, validation_batch_size or batch_size, validation_steps, device
        )
        told = callback_list(self, callbacks, verbose, epochs, data.num_batches, add_history=True)
        build_for(self, data, device)
        for part in (data, validation):
            check_data(self, part)
        try:
            with run_modes.training(self, device), run_modes.undone_without_a_step(self):
                run_epochs(self, data, told, range(initial_epoch, epochs), validation, validation_freq)
        finally:
            told.close()
        assert told.history is not None
        return told.history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and metrics over all the data; arguments as for `fit`.

        Returns:
            with `return_dict` the numbers by name; else the loss, or a list with the loss first (`metrics_names`).

        Raises:
            ValueError: the data do not fit each other or the model, or the model was not compiled.
        """
        device = device_of(self, self.compiled_state("evaluate").device)
        x, y = columns_by_name(self, x, y)
        data = make_batches(x, y, sample_weight, batch_size=batch_size, steps=steps, device=device)
        told = callback_list(self, callbacks, checked_verbose(verbose), 1, data.num_batches)
        build_for(self, data, device)
        check_data(self, data)
        try:
            return returned(self, run_evaluation(self, data, told), return_dict)
        finally:
            told.close()

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for all the data, computed batch by batch; arguments as for `fit`. Needs no `compile`.

        Returns:
            NumPy arrays `(rows, ...)` in the structure that the model returns.
        """
        device = device_of(self, None if self._compiled is None else self._compiled.device)
        x, _ = columns_by_name(self, x)
        data = make_batches(x, batch_size=batch_size, steps=steps, device=device)
        told = callback_list(self, callbacks, checked_verbose(verbose), 1, data.num_batches)
        build_for(self, data, device)
        try:
            return run_prediction(self, data, told)
        finally:
            told.close()

    # Single batches ------------------------------------------------------------------------------------------------

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One training step on one batch of arrays; returns its loss and metrics as `evaluate` does."""
        device = device_of(self, self.compiled_state("train_on_batch").device)
        data = one_batch(self, x, y, sample_weight, class_weight, device)
        with run_modes.training(self, device):
            self.reset_metrics()
            logs = make_step(self, "train_step", device)(data)
            logs = plain_logs(self.get_metrics_result() if logs is None else logs)
        return returned(self, logs, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and metrics of one batch of arrays, as `evaluate` returns them."""
        device = device_of(self, self.compiled_state("test_on_batch").device)
        data = one_batch(self, x, y, sample_weight, None, device)
        with run_modes.evaluating(self):
            self.reset_metrics()
            logs = make_step(self, "test_step", device)(data)
            logs = plain_logs(self.get_metrics_result() if logs is None else logs)
        return returned(self, logs, return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch of arrays, as NumPy arrays."""
        device = device_of(self)
        data = one_batch(self, x, None, None, None, device)
        with run_modes.predicting(self):
            return to_numpy(make_step(self, "predict_step", device)(data))
