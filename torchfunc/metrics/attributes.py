"""The metrics that modules hold as attributes."""

from __future__ import annotations

from torch import nn

from torchfunc.metrics.base import Metric

__all__ = ["held_metrics"]


def held_metrics(module: nn.Module) -> list[Metric]:
    """The metrics that a module and the modules in it hold as attributes, alone or in a list, tuple or dict."""
    found: list[Metric] = []
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, Metric):
                found.append(value)
            elif isinstance(value, (list, tuple, dict)) and not name.startswith("_"):
                items = value.values() if isinstance(value, dict) else value
                found += [item for item in items if isinstance(item, Metric)]
    return list(dict.fromkeys(found))
