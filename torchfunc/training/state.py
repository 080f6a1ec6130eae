"""What a compiled model knows: the settings of `compile`, and what is at hand while it runs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchfunc import config
from torchfunc.metrics import Metric
from torchfunc.metrics.attributes import held_metrics
from torchfunc.modules import TrainingOutputs
from torchfunc.optimizers import Optimizer
from torchfunc.training.compiled_step import CompiledStep
from torchfunc.training.data.arrays import first_leaf
from torchfunc.training.matching import flatten_outputs
from torchfunc.training.outputs import Extras, LossMean, Plan, check_identifiers
from torchfunc.training.payback import Payback
from torchfunc.training.settings import Execution
from torchfunc.training.threads import ThreadProbe
from torchfunc.training.trainable import Trainable

__all__ = ["Compiled", "Outcome", "Session", "device_of", "trainable_weights", "wanted_device"]

_AS_IT_IS = contextlib.nullcontext()
_MATCHED = ("loss", "loss_weights", "metrics", "weighted_metrics")


class Outcome(NamedTuple):
    """What a step leaves behind besides what it changes in place.

    Attributes:
        logs: only if the model makes its own; else the metrics hold them.
        late: what `Plan.update_late` takes.
    """

    logs: dict[str, Any] | None
    late: list[Any]


@dataclass
class Session:
    """What every step of one run needs of the model, looked up once.

    Attributes:
        weights: the parameters that are trained.
        constraints: functions that project weights after an update.
        penalties: functions that give the regularization of weights.
        added: the lists that `add_loss` and activity regularizers fill in a call.
        metrics: the metrics that the model and its parts hold as attributes.
    """

    weights: list[nn.Parameter]
    constraints: list[Callable[[], None]]
    penalties: list[Callable[[], Tensor]]
    added: list[list[Tensor]]
    metrics: list[Metric]

    @classmethod
    def of(cls, model: Trainable) -> Session:
        """Look these up in a built model."""
        added: list[Any] = [module.call_losses for module in model.modules() if hasattr(module, "call_losses")]
        return cls(
            trainable_weights(model), model.weight_constraints(), model.weight_penalties(), added, held_metrics(model)
        )

    def clear_added(self) -> None:
        """Forget what calls have added to the loss."""
        for losses in self.added:
            losses.clear()

    def extra_losses(self) -> list[Tensor]:
        """Penalties on weights, and what the last call added."""
        return [loss for losses in self.added for loss in losses] + [penalty() for penalty in self.penalties]


@dataclass
class Compiled:
    """The settings of `compile`, as given, and what was made of them.

    One plain object, so that nothing in it (a torch loss module, say) is taken for a part of the model.

    Attributes:
        settings: the arguments of `compile` by name.
        optimizer: made of the one given.
        device: where the model is to be; None leaves it where it is.
        loss_tracker: the mean of the total loss, "loss" in the logs.
        plan: what is done with each output; None until the outputs are known.
        session: what is at hand while the model runs; None otherwise.
        gradients_checked: whether weights without a gradient were looked for.
        loss_takes_training: whether the model's `compute_loss` has an argument `training`.
        outputs: what the model gave for the batch at hand, with masks and logits.
        graphs: the compiled steps, by what they have settled; they last as long as these settings.
        payback: says when to compile, if that depends on how long the training takes.
        thread_probe: finds the number of threads for a run, if that is asked for.
    """

    settings: dict[str, Any]
    optimizer: Optimizer | None
    execution: Execution
    device: torch.device | None = None
    loss_tracker: LossMean = field(default_factory=lambda: LossMean("loss"))
    plan: Plan | None = None
    session: Session | None = None
    gradients_checked: bool = False
    loss_takes_training: bool = True
    outputs: TrainingOutputs | None = None
    graphs: dict[Any, CompiledStep] = field(default_factory=dict)
    payback: Payback | None = None
    thread_probe: ThreadProbe | None = None

    def __post_init__(self) -> None:
        check_identifiers(*(self.settings[key] for key in ("loss", "metrics", "weighted_metrics")))

    def expect(self, model: nn.Module, steps: int | None) -> None:
        """Tell how many training steps are to come, None if nobody knows."""
        if self.execution.jit == "payback":
            self.payback = self.payback or Payback(sum(not list(module.children()) for module in model.modules()))
            self.payback.expect(steps)
        probes = config.probes_threads() and device_of(model).type == "cpu"
        self.thread_probe = ThreadProbe() if probes else None

    def __getstate__(self) -> dict[str, Any]:
        # The functions of a session and compiled steps are bound to this very model, not to a copy.
        return {**self.__dict__, "session": None, "outputs": None, "graphs": {}, "payback": None, "thread_probe": None}

    def make_plan(self, names: list[str] | None, count: int) -> Plan:
        """Match the settings with outputs that are now known."""
        loss, loss_weights, plain, weighted = (self.settings[key] for key in _MATCHED)
        self.plan = Plan.make(loss, loss_weights, plain, weighted, names, count)
        return self.plan

    def plan_for(self, outputs: Any) -> Plan:
        """The plan, made now if the model's outputs are only known from a call."""
        if self.plan is None:
            leaves, names = flatten_outputs(outputs, None)
            return self.make_plan(names, len(leaves))
        return self.plan

    def autocast(self, x: Any) -> contextlib.AbstractContextManager[Any]:
        """The setting of the forward pass for these inputs."""
        if self.execution.precision.dtype is None:
            return _AS_IT_IS
        return self.execution.precision.autocast(first_leaf(x).device)

    def logits_of(self, model: Trainable) -> tuple[int, ...]:
        """The outputs, by number, whose loss is to be computed from logits."""
        if self.plan is None:
            return ()
        return self.plan.find_logits(model.describe_outputs()) if self.plan.logits is None else self.plan.logits

    def extras_of(self, y_pred: Any) -> Extras | None:
        """The masks and logits of what the model has just returned."""
        outputs = self.outputs
        return (outputs.masks, outputs.logits) if outputs is not None and outputs.y_pred is y_pred else None

    def clear_added(self) -> None:
        """Forget what calls have added to the loss."""
        if self.session is not None:
            self.session.clear_added()

    def take_late(self, outcome: Outcome) -> dict[str, Any] | None:
        """Update the metrics that cannot be part of a step; returns the logs of the model's own."""
        if outcome.late:
            assert self.plan is not None
            self.plan.update_late(outcome.late)
        return outcome.logs

    @property
    def losses(self) -> list[Any]:
        """The outputs' losses."""
        return [] if self.plan is None else [output.loss for output in self.plan.outputs]

    @property
    def metrics(self) -> list[Metric]:
        """All metrics: the total loss, each output's loss, then those given. Some are known from the first batch on."""
        if self.plan is None or not self.plan.resolved:
            return [self.loss_tracker]
        return [self.loss_tracker, *self.plan.trackers, *(metric for _, metric in self.plan.log_names)]

    def to(self, device: torch.device) -> None:
        """Let metrics and losses follow the model to its device."""
        for metric in self.metrics:
            metric.to(device)
        if self.plan is not None and self.plan.resolved:
            for output in self.plan.outputs:
                if output.loss is not None:
                    output.loss.to(device)

    def results(self) -> dict[str, Any]:
        """The current values under their log names, still on the device."""
        found: dict[str, Any] = {"loss": self.loss_tracker.result()}
        if self.plan is not None:
            found.update({name: metric.result() for name, metric in self.plan.log_names})
            found.update({tracker.name: tracker.result() for tracker in self.plan.trackers})
        return found

    def in_order(self, logs: dict[str, Any]) -> list[str]:
        """The names of `logs` in the order of the list that `evaluate` returns.

        As in Keras: the loss, metrics that are logged under their own name, the outputs' losses, then all else by name.
        """
        first = ["loss"]
        if self.plan is not None:
            first += [metric.name for _, metric in self.plan.log_names]
            first += [tracker.name for tracker in self.plan.trackers]
        first = [name for name in dict.fromkeys(first) if name in logs]
        return first + sorted(name for name in logs if name not in first)


def device_of(model: nn.Module, wanted: torch.device | None = None) -> torch.device:
    """Where batches are needed: `wanted`, else where the model's first weight is, else the CPU."""
    if wanted is not None:
        return wanted
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def wanted_device(model: nn.Module, device: str | torch.device) -> torch.device | None:
    """Where `compile(device=...)` wants the model: "auto" is the accelerator, for a model that is still on the CPU."""
    if device != "auto":
        return torch.device(device)
    here = device_of(model)
    return torch.accelerator.current_accelerator() if here.type == "cpu" and torch.accelerator.is_available() else None


def trainable_weights(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
