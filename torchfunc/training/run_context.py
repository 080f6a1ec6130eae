"""`RunContext`: what the steps of one run need of the model, looked up once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from torchfunc.batch_parts import BatchPart
from torchfunc.layers.base.losses import LossHolder, added_losses, forget_losses
from torchfunc.metrics import Metric
from torchfunc.modules import TrainingOutputs
from torchfunc.training.settings import TrainingSettings

__all__ = ["RunContext"]


@dataclass
class RunContext:
    """What the steps of one run (a `fit`, an evaluation, one batch) need of the model, looked up once.

    Attributes:
        settings: what `compile` made.
        weights: the parameters that are trained.
        constraints: functions that project weights after an update.
        penalties: functions that give the regularization of weights.
        loss_holders: the layers that `add_loss` and activity regularizers may add losses to in a call.
        metrics: the metrics among the attributes of the model and its parts.
        overrides_loss, overrides_metrics: whether the model redefines `compute_loss`, `compute_metrics`.
        outputs: what the model returned for the current batch, while a redefined `compute_loss` or `compute_metrics`
            runs, which may call Trainer's with nothing but `y_pred`.
        thread: the thread that it runs on.
        part: the part of the current batch that this process has, if there are several.
        sharded: whether each process has but a shard of each weight.
    """

    settings: TrainingSettings
    weights: list[nn.Parameter]
    constraints: list[Callable[[], None]]
    penalties: list[Callable[[], Tensor]]
    loss_holders: list[LossHolder]
    metrics: list[Metric]
    overrides_loss: bool
    overrides_metrics: bool
    outputs: TrainingOutputs | None = None
    thread: int = field(default_factory=threading.get_ident)
    part: BatchPart | None = None
    sharded: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of a model is in no run.
        return type(None), ()

    @property
    def call_losses(self) -> list[Tensor]:
        """What the calls for the current batch have added to the loss."""
        return added_losses(self.loss_holders) if LossHolder.adds_losses else []

    def clear_call_losses(self) -> None:
        """Forget what calls have added to the loss."""
        if LossHolder.adds_losses:
            forget_losses(self.loss_holders)

    def outputs_for(self, y_pred: Any) -> TrainingOutputs:
        """The outputs with their masks and logits, if `y_pred` is what the model returned for the current batch."""
        outputs = self.outputs
        return outputs if outputs is not None and outputs.y_pred is y_pred else TrainingOutputs(y_pred)
