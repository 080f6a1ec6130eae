"""One step: forward, losses, backward, update and metrics as one function of one batch.

Nothing in a step reads a value back from the device or branches on one, so that a step can be compiled as a whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torchfunc.modules import TrainingOutputs
from torchfunc.snapshots import restored
from torchfunc.structures import first_leaf
from torchfunc.training.data.arrays import Batch, Data, unpack_x_y_sample_weight
from torchfunc.training.distributed.sharding import sharded_gradients, whole_penalty
from torchfunc.training.outputs import DeferredUpdate, OutputBatch
from torchfunc.training.run_context import RunContext
from torchfunc.training.trainable import Logs, Trainable

__all__ = ["Outcome", "evaluate_batch", "predict_batch", "total_loss", "train_batch", "try_batch"]


Outcome: TypeAlias = tuple[Logs | None, list[DeferredUpdate]]
"""What a step returns; all else that it does is changed in place.

The logs, if the model makes its own (else the metrics hold them); and the updates of metrics that cannot be part of a
compiled step.
"""


def train_batch(model: Trainable, run: RunContext, data: Data) -> Outcome:
    """Train on one batch."""
    settings, optimizer = run.settings, run.settings.optimizer
    if optimizer is None:
        raise ValueError("The model was compiled with optimizer=None, so it cannot be trained.")
    batch = unpack_x_y_sample_weight(data)
    outputs, parts, loss = _forward(model, run, batch, training=True)
    if not run.weights:
        return _update_metrics(model, run, batch, outputs, parts)
    if not loss.requires_grad:
        raise ValueError("The loss does not depend on any weight that is trained, so there is nothing to learn.")
    # Each process' share of the loss: with the sum of the gradients over all processes, its gradient. What layers
    # exchange has its own gradients across processes, which need it here already.
    loss = loss if run.part is None else loss * run.part.share
    gradients: Sequence[Tensor | None]
    if run.sharded:
        assert settings.processes is not None
        # (Which gives the mean, and not the sum, over all processes.)
        loss = optimizer.scale_loss(loss * settings.processes.size)
        gradients = sharded_gradients(loss, run.weights, run.penalties, optimizer.scale_loss)
    else:
        gradients = torch.autograd.grad(optimizer.scale_loss(loss), run.weights, allow_unused=True)
    if not settings.missing_gradients_checked:
        _warn_of_missing(model, run.weights, gradients)
        settings.missing_gradients_checked = True
    # Before the update, so that a metric that does not fit the data stops a model that is as it was.
    outcome = _update_metrics(model, run, batch, outputs, parts)
    optimizer.apply(gradients, run.weights)
    for project in run.constraints:
        project()
    # Else they would keep the graph whose gradients are used up.
    run.clear_call_losses()
    return outcome


def evaluate_batch(model: Trainable, run: RunContext, data: Data) -> Outcome:
    """Update losses and metrics with one batch."""
    batch = unpack_x_y_sample_weight(data)
    outputs, parts, _ = _forward(model, run, batch, training=False)
    return _update_metrics(model, run, batch, outputs, parts)


def predict_batch(model: Trainable, data: Data) -> Any:
    """The outputs for one batch."""
    x = unpack_x_y_sample_weight(data).x
    settings = model._training_settings
    if settings is None or settings.execution.precision.dtype is None:
        return model(*model.prepare_inputs(x))
    with settings.execution.precision.autocast(x):
        return model(*model.prepare_inputs(x))


def _forward(
    model: Trainable, run: RunContext, batch: Batch, training: bool
) -> tuple[TrainingOutputs, list[OutputBatch] | None, Tensor]:
    """The outputs for one batch, their parts if they were matched, and their loss, which is tracked."""
    precision = run.settings.execution.precision
    if precision.dtype is None:
        return _forward_in_precision(model, run, batch, training)
    with precision.autocast(batch.x):
        return _forward_in_precision(model, run, batch, training)


def _forward_in_precision(
    model: Trainable, run: RunContext, batch: Batch, training: bool
) -> tuple[TrainingOutputs, list[OutputBatch] | None, Tensor]:
    settings, objectives = run.settings, run.settings.objectives
    if objectives is None:
        logits_of: Sequence[int] = ()
    elif objectives.logits is None:
        logits_of = objectives.find_logits(model.describe_outputs())
    else:
        logits_of = objectives.logits
    outputs = model.forward_for_training(*model.prepare_inputs(batch.x), logits_of=logits_of)
    if run.overrides_loss:
        parts = None
        run.outputs = outputs
        # Overrides written for early Keras 3 do not know `training`.
        asked = {"training": training} if settings.loss_takes_training else {}
        loss = model.compute_loss(batch.x, batch.y, outputs.y_pred, batch.sample_weight, **asked)
        run.outputs = None
    else:
        parts, loss = total_loss(run, batch, outputs)
    x = batch.x
    settings.loss_tracker.update_state(loss, (x if isinstance(x, Tensor) else first_leaf(x)).shape[0])
    return outputs, parts, loss


def total_loss(run: RunContext, batch: Batch, outputs: TrainingOutputs) -> tuple[list[OutputBatch], Tensor]:
    """The loss of one batch: the outputs' weighted losses, penalties on weights, and what `add_loss` added.

    Returns:
        the batch's parts output by output, and the loss, a scalar.

    Raises:
        ValueError: there is no loss at all, or targets do not fit the outputs.
    """
    objectives = run.settings.objectives or run.settings.objectives_for(outputs.y_pred)
    parts, total = objectives.total_loss(batch, outputs, run.part)
    for loss in run.call_losses:
        total = _added(total, loss)
    for penalty in run.penalties:
        total = _added(total, whole_penalty(penalty()) if run.sharded else penalty())
    if total is None:
        raise ValueError("There is no loss to compute: give `compile` a `loss`, or call `add_loss` in a layer.")
    return parts, total


def _added(total: Tensor | None, loss: Tensor) -> Tensor:
    loss = loss.sum() if loss.ndim else loss
    return loss if total is None else total + loss


def _update_metrics(
    model: Trainable, run: RunContext, batch: Batch, outputs: TrainingOutputs, parts: list[OutputBatch] | None
) -> Outcome:
    if run.overrides_metrics:
        run.outputs = outputs
        logs = model.compute_metrics(batch.x, batch.y, outputs.y_pred, batch.sample_weight)
        run.outputs = None
        return logs, []
    objectives = run.settings.objectives or run.settings.objectives_for(outputs.y_pred)
    if objectives.resolved and not objectives.log_names:
        return None, []
    return None, objectives.update_metrics(parts or objectives.match_batch(batch, outputs))


def _warn_of_missing(model: Trainable, weights: list[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    missing = {id(weight) for weight, gradient in zip(weights, gradients, strict=True) if gradient is None}
    names = [name for name, weight in model.named_parameters() if id(weight) in missing]
    if names and len(missing) < len(weights):
        warnings.warn(
            f"The loss does not depend on {', '.join(names)}, so training leaves them as they are. Was a loss for an "
            "output forgotten?",
            stacklevel=2,
        )


def try_batch(model: Trainable, run: RunContext | None, batch: Batch) -> None:
    """Compute what a step of a run, or without one a prediction, computes for a batch, to no effect."""
    if run is None or not torch.is_grad_enabled():
        predict_batch(model, batch)
        return
    with restored(model.buffers()):
        try:
            _, _, loss = _forward(model, run, batch, training=True)
            torch.autograd.grad(loss, run.weights, allow_unused=True)
        finally:
            run.clear_call_losses()
