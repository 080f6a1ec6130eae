"""What `compile` was given for the outputs of a model: losses, their weights, metrics and their names in the logs."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfunc.batch_parts import BatchPart
from torchfunc.losses import Loss
from torchfunc.losses.adapters import parse_loss
from torchfunc.metrics import Metric
from torchfunc.metrics.adapters import TorchMetric, parse_metric
from torchfunc.metrics.reduction import LossMean
from torchfunc.modules import OutputDescription, TrainingOutputs
from torchfunc.naming import unique_name, unique_names
from torchfunc.structures import leaves, map_structure
from torchfunc.tensor_masks import MASK
from torchfunc.training.data.arrays import Batch, Tensors
from torchfunc.training.matching import (
    MetricGiven,
    PerOutput,
    flatten_outputs,
    match_metrics,
    match_setting,
    match_values,
)

__all__ = ["DeferredUpdate", "Objectives", "OutputBatch", "OutputObjective", "ParsedObjectives", "matching_outputs"]

matching_outputs = threading.RLock()
"""Held while losses and metrics are chosen for the first batch, or copied."""


class OutputBatch(NamedTuple):
    """One output's part of a batch."""

    target: Tensor | None
    prediction: Tensor
    sample_weight: Tensor | None
    mask: Tensor | None
    logits: Tensor | None


class DeferredUpdate(NamedTuple):
    """An update of a metric that cannot be part of a compiled step."""

    metric: Metric
    target: Tensor | None
    prediction: Tensor


class GivenObjectives(NamedTuple):
    """The arguments of `compile` of these names, as they were given."""

    loss: PerOutput
    loss_weights: PerOutput
    metrics: PerOutput
    weighted_metrics: PerOutput


class ParsedObjectives(NamedTuple):
    """The losses and metrics of `compile`, looked up once, in the structures that they were given in.

    Attributes:
        loss: losses, None for outputs without.
        loss_weights: numbers.
        metrics, weighted_metrics: `MetricGiven`s.
        given: what all this was looked up from.
    """

    loss: PerOutput
    loss_weights: PerOutput
    metrics: PerOutput
    weighted_metrics: PerOutput
    given: GivenObjectives

    def losses_and_metrics(self) -> list[Loss | Metric]:
        """All losses and metrics."""
        losses = [loss for loss in leaves(self.loss) if loss is not None]
        given = [each for each in leaves((self.metrics, self.weighted_metrics)) if each is not None]
        return [*losses, *(each.metric for each in given)]

    @classmethod
    def parse(
        cls, loss: PerOutput, loss_weights: PerOutput, metrics: PerOutput, weighted_metrics: PerOutput
    ) -> ParsedObjectives:
        """Look up the arguments of `compile`. Raises ValueError for an unknown name."""

        def as_loss(leaf: Any) -> Loss | None:
            return None if leaf is None else parse_loss(leaf)

        def as_metric(leaf: Any) -> MetricGiven | None:
            return None if leaf is None else MetricGiven(parse_metric(leaf), leaf)

        return cls(
            map_structure(as_loss, loss),
            loss_weights,
            map_structure(as_metric, metrics),
            map_structure(as_metric, weighted_metrics),
            GivenObjectives(loss, loss_weights, metrics, weighted_metrics),
        )


@dataclass
class OutputObjective:
    """What one output is trained for and measured by.

    Attributes:
        name: the output's name, None if it has none.
        loss: the loss; None if the output is not trained.
        weight: what the loss is multiplied by in the total.
        metrics, weighted_metrics: the metrics.
        tracker: the mean of this output's own loss, if it is logged.
        logit_loss: the same loss of logits, where the output is known to be their softmax or sigmoid.
    """

    name: str | None
    loss: Loss | None
    weight: float
    metrics: list[Metric]
    weighted_metrics: list[Metric]
    tracker: LossMean | None = None
    logit_loss: Loss | None = None

    @property
    def needs_target(self) -> bool:
        """Whether anything compares this output with a target."""
        return self.loss is not None or bool(self.metrics or self.weighted_metrics)

    @property
    def of(self) -> str:
        """What messages about this output add: which one it is, if it has a name."""
        return f" of the output {self.name!r}" if self.name else ""

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Within this, errors of the loss about shapes say which output it is."""
        try:
            yield
        except ValueError as error:
            message = str(error)
            if not self.name or repr(self.name) in message:
                raise
            raise ValueError(f"Output {self.name!r}: {message}") from error.__cause__

    def resolve(self, y_true: Tensor | None, y_pred: Tensor) -> None:
        """Choose losses and metrics by the shapes of the first batch, and move them to its device."""
        if not self.needs_target:
            return
        assert y_true is not None
        if self.loss is not None:
            with self.named():
                self.loss = self.loss.for_shapes(y_true.shape, y_pred.shape).to(y_pred.device)
        for found in (self.metrics, self.weighted_metrics):
            found[:] = [metric.for_shapes(y_true.shape, y_pred.shape).to(y_pred.device) for metric in found]

    def loss_of(self, batch: OutputBatch, part: BatchPart | None) -> Tensor:
        """The loss of one batch, tracked if it is logged; `part` as for losses."""
        assert self.loss is not None
        target, prediction, sample_weight, mask, logits = batch
        assert target is not None
        loss = self.loss
        if logits is not None and self.logit_loss is not None:
            loss, prediction = self.logit_loss, logits
        if part is None or type(loss).__call__ is not Loss.__call__:
            value = loss(target, prediction, sample_weight, mask)
        else:
            value = loss(target, prediction, sample_weight, mask, part)
        if self.tracker is not None:
            self.tracker.update_state(value, batch.prediction.shape[0])
        return value if self.weight == 1.0 else value * self.weight


@dataclass
class Objectives:
    """What all outputs are trained for and measured by.

    Attributes:
        outputs: one entry for each output, in order.
        names: the outputs' names, None if they have none.
        resolved: whether the first batch was seen, so that all losses and metrics are chosen.
        log_names: the metrics under the names they have in logs.
        logits: the numbers of the outputs whose loss is computed from logits; None while that is not known.
    """

    outputs: list[OutputObjective]
    names: list[str] | None
    resolved: bool = False
    log_names: list[tuple[str, Metric]] = field(default_factory=list)
    logits: tuple[int, ...] | None = None
    _described: Sequence[OutputDescription] | None = None

    @classmethod
    def match(cls, parsed: ParsedObjectives, names: Sequence[str] | None, count: int) -> Objectives:
        """Match what `compile` was given with `count` outputs.

        Raises:
            ValueError: something names no output, or a list does not fit the outputs.
        """
        per_output = zip(
            match_setting("loss", parsed.loss, names, count),
            match_setting("loss_weights", parsed.loss_weights, names, count),
            match_metrics("metrics", parsed.metrics, names, count),
            match_metrics("weighted_metrics", parsed.weighted_metrics, names, count),
            strict=True,
        )
        used: set[int] = set()

        def own(given: Sequence[MetricGiven]) -> list[Metric]:
            return [_metric_of_output(each, used) for each in given]

        outputs = []
        for index, (loss, weight, plain, weighted_metrics) in enumerate(per_output):
            name = names[index] if names else None
            loss, weight = _loss_of_output(loss, name), _checked_weight(weight)
            outputs.append(OutputObjective(name, loss, weight, own(plain), own(weighted_metrics)))
        return cls(outputs, list(names) if names else None)

    def resolve(self, y: list[Tensor | None], y_pred: list[Tensor]) -> None:
        """Make everything that depends on the shapes of the first batch, and name it for the logs."""
        # These live longer than an evaluation that may be the first to need them.
        with matching_outputs, torch.inference_mode(False):
            for output, target, prediction in zip(self.outputs, y, y_pred, strict=True):
                output.resolve(target, prediction)
            losses = [(output, output.loss) for output in self.outputs if output.loss is not None]
            if len(losses) > 1:
                names = unique_names(f"{output.name or loss.name}_loss" for output, loss in losses)
                for (output, _), name in zip(losses, names, strict=True):
                    output.tracker = LossMean(name).to(y_pred[0].device)
        self.log_names = self._name_metrics()
        self.resolved = True
        self.find_logits(self._described)

    def _name_metrics(self) -> list[tuple[str, Metric]]:
        """Keras' log names: the output's name in front if there are several, a number behind a name met before."""
        named: dict[str, Metric] = {}
        losses = {"loss", *(tracker.name for tracker in self.trackers)}
        for output in self.outputs:
            for metric in output.metrics:
                named[unique_name(self._prefixed(output, metric.name), losses | named.keys())] = metric
        for output in self.outputs:
            for metric in output.weighted_metrics:
                name = self._prefixed(output, metric.name)
                if name in named:
                    name = self._prefixed(output, f"weighted_{metric.name}")
                named[unique_name(name, losses | named.keys())] = metric
        return list(named.items())

    def _prefixed(self, output: OutputObjective, name: str) -> str:
        return f"{output.name}_{name}" if len(self.outputs) > 1 and output.name else name

    @property
    def trackers(self) -> list[LossMean]:
        """The means of the outputs' own losses."""
        return [output.tracker for output in self.outputs if output.tracker is not None]

    def match_batch(self, batch: Batch, outputs: TrainingOutputs) -> list[OutputBatch]:
        """Targets, predictions, weights, masks and logits of one batch, output by output.

        Raises:
            ValueError: something is missing, or belongs to no output.
        """
        y, weight = batch.y, batch.sample_weight
        y_pred, masks, logits = outputs
        targets: list[Tensor | None]
        weights: list[Tensor | None]
        one = self.resolved and len(self.outputs) == 1 and isinstance(y_pred, Tensor)
        if one and isinstance(y, Tensor) and (weight is None or isinstance(weight, Tensor)):
            targets, weights, predictions = [y], [weight], [y_pred]
        else:
            predictions, _ = flatten_outputs(y_pred, self.names)
            if len(predictions) != len(self.outputs):
                raise ValueError(
                    f"The model returned {len(predictions)} outputs, but {len(self.outputs)} were compiled. A model "
                    "that is trained and evaluated returns the same outputs in train and in eval mode."
                )
            for output, prediction in zip(self.outputs, predictions, strict=True):
                if output.needs_target and not isinstance(prediction, Tensor):
                    raise ValueError(
                        f"There is a loss or a metric for an output{output.of}, but the model returned {prediction!r}."
                    )
            targets, weights = self.match_data(y, weight)
            if not self.resolved:
                self.resolve(targets, predictions)
        # (Those that the layers of a model of one's own have given to its outputs.)
        masks = masks or list(map(getattr, predictions, repeat(MASK), repeat(None)))
        return list(map(OutputBatch, targets, predictions, weights, masks, logits or [None] * len(self.outputs)))

    def match_data(self, y: Tensors, sample_weight: Tensors) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Targets and sample weights output by output; one array of weights counts for all outputs.

        Raises:
            ValueError: a target that is needed is missing, or something belongs to no output.
        """
        needed = [output.needs_target for output in self.outputs]
        targets = match_values("y", y, self.names, needed)
        for output, target, wanted in zip(self.outputs, targets, needed, strict=True):
            if wanted and target is None:
                raise ValueError(f"There are no targets for the loss or metrics{output.of}: y is missing.")
        if sample_weight is None or isinstance(sample_weight, Tensor):
            return targets, [sample_weight] * len(self.outputs)
        return targets, match_values("sample_weight", sample_weight, self.names, needed)

    def find_logits(self, described: Sequence[OutputDescription] | None) -> tuple[int, ...]:
        """Find the outputs whose loss can be computed from logits; `described` is what the model knows of them."""
        self._described = described
        found = []
        for index, (output, description) in enumerate(zip(self.outputs, described or (), strict=False)):
            activation, loss = description.activation, output.loss
            output.logit_loss = loss.on_logits(activation) if activation is not None and loss is not None else None
            if output.logit_loss is not None:
                found.append(index)
        self.logits = tuple(found)
        return self.logits

    def total_loss(
        self, batch: Batch, outputs: TrainingOutputs, part: BatchPart | None = None
    ) -> tuple[list[OutputBatch], Tensor | None]:
        """The weighted sum of the outputs' losses, which are tracked on the way; `part` as for losses.

        Returns:
            the parts of the batch, as `match_batch` gives them; the loss, None if no output has one.
        """
        parts = self.match_batch(batch, outputs)
        total: Tensor | None = None
        for output, matched in zip(self.outputs, parts, strict=True):
            if output.loss is not None:
                value = output.loss_of(matched, part)
                total = value if total is None else total + value
        return parts, total

    def update_metrics(self, parts: Sequence[OutputBatch]) -> list[DeferredUpdate]:
        """Update all metrics with one batch, except those that have to stay out of a compiled step."""
        deferred: list[DeferredUpdate] = []
        for output, (target, prediction, sample_weight, mask, _) in zip(self.outputs, parts, strict=True):
            for metrics, given in ((output.metrics, None), (output.weighted_metrics, sample_weight)):
                for metric in metrics:
                    weight = given if mask is None else metric.masked_weight(given, mask)
                    # A metric outside of the step that takes no weights has to say so before anything is changed.
                    if not metric.outside_step or weight is not None:
                        metric.update_state(target, prediction, weight)
                    else:
                        # What a compiled step returns is no part of its graph of gradients.
                        deferred.append(DeferredUpdate(metric, target, prediction.detach()))
        return deferred


def _loss_of_output(loss: Any, name: str | None) -> Loss | None:
    """The loss for one output, which may stand in a list, as its metrics do."""
    if not isinstance(loss, (list, tuple, Mapping)):
        return loss
    if len(loss) != 1 or isinstance(loss, Mapping):
        of = f" of the output {name!r}" if name else ""
        raise ValueError(f"The loss{of} is a {type(loss).__name__} of {len(loss)}, but an output has one loss.")
    return _loss_of_output(loss[0], name)


def _metric_of_output(given: MetricGiven, used: set[int]) -> Metric:
    """The metric for one output: a name that is given for several outputs stands for one metric each."""
    counts = given.metric.metric if isinstance(given.metric, TorchMetric) else given.metric
    if id(counts) not in used:
        used.add(id(counts))
        return given.metric
    if not given.makes_new:
        raise ValueError(
            f"The metric object {given.metric.name!r} is given twice, and would count both times in one place. "
            "Give each output an object of its own, or the metric's name."
        )
    return copy.deepcopy(given.metric)


def _checked_weight(weight: Any) -> float:
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise ValueError(f"`loss_weights` holds numbers, got {weight!r} ({type(weight).__name__}).")
    return float(weight)
