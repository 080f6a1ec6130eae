"""One step: forward, losses, backward, update and metrics as one function of one batch.

Nothing in a step reads a value back from the device or branches on one, so that a step can be compiled as a whole.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from torchfunc.training.data.arrays import first_leaf, unpack_x_y_sample_weight
from torchfunc.training.state import Outcome, Session
from torchfunc.training.trainable import Trainable

__all__ = ["evaluate_batch", "predict_batch", "train_batch"]


def train_batch(model: Trainable, data: Any) -> Outcome:
    """Train on one batch."""
    compiled = model.compiled_state("train")
    optimizer, session = compiled.optimizer, compiled.session or Session.of(model)
    if optimizer is None:
        raise ValueError("The model was compiled with optimizer=None, so it cannot be trained.")
    x, y, sample_weight = unpack_x_y_sample_weight(data)
    y_pred, loss = _forward(model, x, y, sample_weight, training=True)
    if not loss.requires_grad:
        raise ValueError("The loss does not depend on any weight that is trained, so there is nothing to learn.")
    gradients = torch.autograd.grad(optimizer.scale_loss(loss), session.weights, allow_unused=True)
    if not compiled.gradients_checked:
        _warn_of_missing(model, session.weights, gradients)
        compiled.gradients_checked = True
    # Before the update, so that a metric that does not fit the data stops a model that is as it was.
    logs = _update_metrics(model, x, y, y_pred, sample_weight)
    optimizer.apply(gradients, session.weights)
    for project in session.constraints:
        project()
    # A graph must not leave behind what its gradients have used up.
    session.clear_added()
    return logs


def evaluate_batch(model: Trainable, data: Any) -> Outcome:
    """Take one batch into losses and metrics."""
    x, y, sample_weight = unpack_x_y_sample_weight(data)
    y_pred, _ = _forward(model, x, y, sample_weight, training=False)
    return _update_metrics(model, x, y, y_pred, sample_weight)


def predict_batch(model: Trainable, data: Any) -> Any:
    """The outputs for one batch."""
    x, _, _ = unpack_x_y_sample_weight(data)
    compiled = model._compiled
    if compiled is None:
        return model(*model.prepare_inputs(x))
    with compiled.autocast(x):
        return model(*model.prepare_inputs(x))


def _forward(model: Trainable, x: Any, y: Any, sample_weight: Any, training: bool) -> tuple[Any, Tensor]:
    """The outputs for one batch and their loss, which is tracked."""
    compiled = model.compiled_state("compute_loss")
    with compiled.autocast(x):
        outputs = model.forward_for_training(*model.prepare_inputs(x), logits_of=compiled.logits_of(model))
        compiled.outputs = outputs
        # Overrides written for early Keras 3 do not know `training`.
        asked = {"training": training} if compiled.loss_takes_training else {}
        loss = model.compute_loss(x, y, outputs.y_pred, sample_weight, **asked)
    compiled.loss_tracker.update_state(loss, _rows(x))
    return outputs.y_pred, loss


def _update_metrics(model: Trainable, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Outcome:
    compiled = model.compiled_state("compute_metrics")
    if model.overrides("compute_metrics"):
        outcome = Outcome(model.compute_metrics(x, y, y_pred, sample_weight), [])
    else:
        extras = compiled.extras_of(y_pred)
        outcome = Outcome(None, compiled.plan_for(y_pred).update_metrics(y, y_pred, sample_weight, extras))
    compiled.outputs = None
    return outcome


def _rows(x: Any) -> int:
    return (x if isinstance(x, Tensor) else first_leaf(x)).shape[0]


def _warn_of_missing(model: Trainable, weights: list[Any], gradients: Any) -> None:
    missing = {id(weight) for weight, gradient in zip(weights, gradients, strict=True) if gradient is None}
    names = [name for name, weight in model.named_parameters() if id(weight) in missing]
    if names and len(missing) < len(weights):
        warnings.warn(
            f"The loss does not depend on {', '.join(names)}, so training leaves them as they are. Was a loss for an "
            "output forgotten?",
            stacklevel=2,
        )
