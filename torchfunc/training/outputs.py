"""What `compile` was told, output by output: which loss, its weight, which metrics, and their names in the logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from torchfunc import losses, metrics
from torchfunc.metrics.base import add_to, detached
from torchfunc.modules import OutputDescription
from torchfunc.training.matching import flatten_outputs, match_metrics, match_setting, match_values

__all__ = ["Extras", "LossMean", "OutputPlan", "Plan", "check_identifiers"]

Extras: TypeAlias = tuple[Sequence[Tensor | None] | None, Sequence[Tensor | None] | None]
"""The masks and the logits of a model's outputs, in order; None where there are none at all."""

# These stand for one of several, chosen by the shapes of the first batch.
_CHOSEN_BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")


class LossMean(metrics.Mean):
    """The mean of a loss over samples: each batch's loss counts as often as it has rows."""

    direction = "down"

    def update_state(self, value: Tensor, rows: int = 1) -> None:  # type: ignore[override]
        """Add the loss of a batch of `rows`, a scalar."""
        add_to(self.total, detached(value), rows)
        add_to(self.count, rows)


@dataclass
class OutputPlan:
    """What is done with one output.

    Attributes:
        name: its name, None if it has none.
        loss: the loss, or (until the first batch) a name that stands for several; None for no loss.
        weight: what the loss is multiplied by in the total.
        metrics, weighted_metrics: the metrics, or (until the first batch) what they are made from.
        tracker: the mean of this output's own loss, if it is logged.
        logit_loss: the same loss of logits, where the output is known to be their softmax or sigmoid.
    """

    name: str | None
    loss: Any
    weight: float
    metrics: list[Any]
    weighted_metrics: list[Any]
    tracker: LossMean | None = None
    logit_loss: losses.Loss | None = None

    @property
    def needs_target(self) -> bool:
        """Whether anything compares this output with a target."""
        return self.loss is not None or bool(self.metrics or self.weighted_metrics)

    def resolve(self, y_true: Tensor | None, y_pred: Tensor) -> None:
        """Make losses and metrics for the shapes and the device of the first batch."""
        if not self.needs_target:
            return
        assert y_true is not None
        if self.loss is not None:
            self.loss = losses.as_loss(self.loss, None, y_true.shape, y_pred.shape).to(y_pred.device)
        for found in (self.metrics, self.weighted_metrics):
            found[:] = [metrics.as_metric(each, y_true.shape, y_pred.shape).to(y_pred.device) for each in found]

    def find_logit_loss(self, activation: str | None) -> bool:
        """See whether the loss of an output that ends in this activation can be computed from what goes into it."""
        makes = getattr(self.loss, "on_logits", None)
        self.logit_loss = makes(activation) if activation is not None and makes is not None else None
        return self.logit_loss is not None

    def loss_of(
        self, target: Tensor | None, prediction: Tensor, weight: Tensor | None, mask: Tensor | None, logits: Any
    ) -> Tensor:
        """The loss of one batch, tracked if it is logged."""
        assert target is not None
        if logits is not None and self.logit_loss is not None:
            value = self.logit_loss(target, logits, weight, mask)
        else:
            value = self.loss(target, prediction, weight, mask)
        if self.tracker is not None:
            self.tracker.update_state(value, prediction.shape[0])
        return value if self.weight == 1.0 else value * self.weight


@dataclass
class Plan:
    """What is done with all outputs.

    Attributes:
        outputs: one entry for each output, in order.
        names: the outputs' names, None if they have none.
        resolved: whether the first batch was seen, so that all losses and metrics are made.
        log_names: the metrics under the names they have in logs.
        logits: the outputs (by place) whose loss is computed from logits; None while that is not known.
    """

    outputs: list[OutputPlan]
    names: list[str] | None
    resolved: bool = False
    log_names: list[tuple[str, metrics.Metric]] = field(default_factory=list)
    logits: tuple[int, ...] | None = None
    _described: Sequence[OutputDescription] | None = None

    @classmethod
    def make(
        cls,
        loss: Any,
        loss_weights: Any,
        plain_metrics: Any,
        weighted_metrics: Any,
        names: Sequence[str] | None,
        count: int,
    ) -> Plan:
        """Match what `compile` was given with `count` outputs.

        Raises:
            ValueError: something names no output, or a list does not fit the outputs; or a name is unknown.
        """
        per_output = zip(
            match_setting("loss", loss, names, count),
            match_setting("loss_weights", loss_weights, names, count),
            match_metrics("metrics", plain_metrics, names, count),
            match_metrics("weighted_metrics", weighted_metrics, names, count),
            strict=True,
        )
        outputs = [
            OutputPlan(
                name=names[index] if names else None,
                loss=_checked_loss(each_loss),
                weight=_checked_weight(weight),
                metrics=[_checked_metric(metric) for metric in plain],
                weighted_metrics=[_checked_metric(metric) for metric in weighted],
            )
            for index, (each_loss, weight, plain, weighted) in enumerate(per_output)
        ]
        return cls(outputs, list(names) if names else None)

    def resolve(self, y: list[Tensor | None], y_pred: list[Tensor]) -> None:
        """Make everything that depends on the shapes of the first batch, and name it for the logs."""
        # These live longer than an evaluation that may be the first to need them.
        with torch.inference_mode(False):
            for output, target, prediction in zip(self.outputs, y, y_pred, strict=True):
                output.resolve(target, prediction)
            with_loss = [output for output in self.outputs if output.loss is not None]
            if len(with_loss) > 1:
                names = _unique([f"{output.name or output.loss.name}_loss" for output in with_loss])
                for output, name in zip(with_loss, names, strict=True):
                    output.tracker = LossMean(name).to(y_pred[0].device)
        self.log_names = self._name_metrics()
        self.resolved = True
        self.find_logits(self._described)

    def _name_metrics(self) -> list[tuple[str, metrics.Metric]]:
        """Keras' log names: the output's name in front if there are several, a number behind a name met before."""
        named: dict[str, metrics.Metric] = {}
        for output in self.outputs:
            for metric in output.metrics:
                named[_free(self._prefixed(output, metric.name), named)] = metric
        for output in self.outputs:
            for metric in output.weighted_metrics:
                name = self._prefixed(output, metric.name)
                if name in named:
                    name = self._prefixed(output, f"weighted_{metric.name}")
                named[_free(name, named)] = metric
        return list(named.items())

    def _prefixed(self, output: OutputPlan, name: str) -> str:
        return f"{output.name}_{name}" if len(self.outputs) > 1 and output.name else name

    @property
    def trackers(self) -> list[LossMean]:
        """The means of the outputs' own losses."""
        return [output.tracker for output in self.outputs if output.tracker is not None]

    def match_batch(self, y: Any, y_pred: Any) -> tuple[list[Tensor | None], list[Tensor]]:
        """Targets and predictions of one batch, output by output."""
        if self.resolved and len(self.outputs) == 1 and isinstance(y, Tensor) and isinstance(y_pred, Tensor):
            return [y], [y_pred]
        predictions, _ = flatten_outputs(y_pred, self.names)
        if len(predictions) != len(self.outputs):
            raise ValueError(f"The model returned {len(predictions)} outputs, but {len(self.outputs)} were compiled.")
        targets = self.match_targets(y)
        if not self.resolved:
            self.resolve(targets, predictions)
        return targets, predictions

    def match_targets(self, y: Any) -> list[Tensor | None]:
        """Targets of one batch, output by output. Raises ValueError if one that is needed is missing."""
        needed = [output.needs_target for output in self.outputs]
        targets = match_values("y", y, self.names, needed)
        for output, target, wanted in zip(self.outputs, targets, needed, strict=True):
            if wanted and target is None:
                of = f" of the output {output.name!r}" if output.name else ""
                raise ValueError(f"There are no targets for the loss or metrics{of}: y is missing.")
        return targets

    def match_weights(self, sample_weight: Any) -> list[Tensor | None]:
        """Sample weights of one batch, output by output; one array counts for all of them."""
        if sample_weight is None or isinstance(sample_weight, Tensor):
            return [sample_weight] * len(self.outputs)
        return match_values("sample_weight", sample_weight, self.names, [o.needs_target for o in self.outputs])

    def find_logits(self, described: Sequence[OutputDescription] | None) -> tuple[int, ...]:
        """The outputs, by number, whose loss is to be computed from logits; `described` is what the model tells."""
        self._described = described
        pairs = zip(self.outputs, described or (), strict=False)
        self.logits = tuple(i for i, (output, told) in enumerate(pairs) if output.find_logit_loss(told.activation))
        return self.logits

    def total_loss(self, y: Any, y_pred: Any, sample_weight: Any, extras: Extras | None = None) -> Tensor | None:
        """The weighted sum of the outputs' losses, which are tracked on the way; None if there are none.

        Args:
            y, y_pred, sample_weight: targets, predictions and weights as the user and the model give them.
            extras: the outputs' masks and logits, as far as they are known.
        """
        targets, predictions = self.match_batch(y, y_pred)
        weights = self.match_weights(sample_weight)
        masks, logits = self._extras(extras)
        total: Tensor | None = None
        for output, *values in zip(self.outputs, targets, predictions, weights, masks, logits, strict=True):
            if output.loss is not None:
                value = output.loss_of(*values)
                total = value if total is None else total + value
        return total

    def update_metrics(self, y: Any, y_pred: Any, sample_weight: Any, extras: Extras | None = None) -> list[Any]:
        """Let all metrics take in one batch; arguments as for `total_loss`.

        Returns:
            for metrics that cannot be part of a step, what `update_late` needs.
        """
        if self.resolved and not self.log_names:
            return []
        targets, predictions = self.match_batch(y, y_pred)
        weights = self.match_weights(sample_weight)
        masks, _ = self._extras(extras)
        late: list[Any] = []
        for output, target, prediction, weight, mask in zip(
            self.outputs, targets, predictions, weights, masks, strict=True
        ):
            for metric in output.metrics:
                _update(metric, late, target, prediction, metric.masked_weight(None, mask))
            for metric in output.weighted_metrics:
                _update(metric, late, target, prediction, metric.masked_weight(weight, mask))
        return late

    def _extras(self, extras: Extras | None) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        none = [None] * len(self.outputs)
        masks, logits = extras or (None, None)
        return masks or none, logits or none

    @staticmethod
    def update_late(late: list[Any]) -> None:
        """Let the metrics that are no part of a step take in the batch, as `update_metrics` has told."""
        for metric, *values in late:
            metric.update_state(*values)


def _update(
    metric: metrics.Metric, late: list[Any], target: Tensor | None, prediction: Tensor, weight: Tensor | None
) -> None:
    # A metric outside of the step that takes no weights has to say so before the step changes anything.
    if not metric.outside_step or weight is not None:
        metric.update_state(target, prediction, weight)
    else:
        # What a compiled step returns is no part of its graph of gradients.
        late.append((metric, target, prediction.detach()))


def check_identifiers(loss: Any, plain: Any, weighted: Any) -> None:
    """Raise ValueError for unknown names, before it is known what outputs they belong to."""
    for identifier in tree_leaves(loss):
        _checked_loss(identifier)
    for identifier in tree_leaves((plain, weighted)):
        if identifier is not None:
            _checked_metric(identifier)


def _checked_loss(identifier: Any) -> Any:
    if identifier is None or _is_chosen_by_shape(identifier):
        return identifier
    return losses.as_loss(identifier)


def _checked_metric(identifier: Any) -> Any:
    return identifier if _is_chosen_by_shape(identifier) else metrics.as_metric(identifier)


def _is_chosen_by_shape(identifier: Any) -> bool:
    return isinstance(identifier, str) and identifier.lower() in _CHOSEN_BY_SHAPE


def _checked_weight(weight: Any) -> float:
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise ValueError(f"`loss_weights` holds numbers, got {weight!r} ({type(weight).__name__}).")
    return float(weight)


def _free(name: str, taken: Any) -> str:
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        found.append(_free(name, found))
    return found
