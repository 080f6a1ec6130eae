"""The metrics among the attributes of modules."""

from __future__ import annotations

from torch import nn

from torchfunc.metrics.base import Metric

__all__ = ["metrics_in_attributes"]


def metrics_in_attributes(module: nn.Module) -> list[Metric]:
    """The metrics among the attributes of a module and of the modules in it, alone or in a list, tuple or dict."""
    found: list[Metric] = []
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, Metric):
                found.append(value)
            elif isinstance(value, (list, tuple, dict)) and not name.startswith("_"):
                items = value.values() if isinstance(value, dict) else value
                found += [item for item in items if isinstance(item, Metric)]
    return list(dict.fromkeys(found))
