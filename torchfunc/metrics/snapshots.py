"""What metrics have counted, kept while another run of the model uses the same metrics."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfunc.metrics.adapters import TorchMetric
from torchfunc.metrics.base import Metric

__all__ = ["kept_metrics"]


@contextlib.contextmanager
def kept_metrics(read: Callable[[], Sequence[Metric]]) -> Iterator[None]:
    """Restore the state of all metrics when the block ends; those that are only made in it are reset.

    Args:
        read: gives the metrics.
    """
    metrics = list(read())
    states = [_state(metric) for metric in metrics]
    try:
        yield
    finally:
        with torch.no_grad(), torch.inference_mode(False):
            for metric, (values, attributes) in zip(metrics, states, strict=True):
                for variable, value in zip(metric.variables, values, strict=False):
                    variable.data = value if variable.shape != value.shape else variable.data.copy_(value)
                target = metric.metric if isinstance(metric, TorchMetric) else metric
                vars(target).update(attributes)
            for metric in read():
                if metric not in metrics:
                    metric.reset_state()


def _state(metric: Metric) -> tuple[list[Tensor], dict[str, Any]]:
    """The values of the state tensors, and all else that the metric may have counted in."""
    with torch.inference_mode(False):
        values = [variable.clone() for variable in metric.variables]
        if isinstance(metric, TorchMetric):
            return values, copy.deepcopy(vars(metric.metric))
        own = {name: value for name, value in vars(metric).items() if isinstance(value, (bool, int, float, list, dict))}
        return values, {name: copy.copy(value) for name, value in own.items() if not name.startswith("_")}
