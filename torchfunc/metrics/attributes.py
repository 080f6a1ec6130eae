"""The metrics among the attributes of modules."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from torch import nn

from torchfunc.metrics.base import Metric

__all__ = ["metrics_in_attributes"]


def metrics_in_attributes(modules: Iterable[nn.Module]) -> list[Metric]:
    """The metrics among the attributes of these modules, alone or in a list, tuple or dict."""
    found: list[Any] = []
    for module in modules:
        attributes = vars(module)
        for name in _may_hold(tuple(attributes), tuple(map(type, attributes.values()))):
            value = attributes[name]
            if isinstance(value, (list, tuple, dict)):
                found += value.values() if isinstance(value, dict) else value
            else:
                found.append(value)
    return list(dict.fromkeys(value for value in found if isinstance(value, Metric)))


# To look at each of a few hundred attributes takes as long as half a small step.
@functools.lru_cache(maxsize=256)
def _may_hold(names: tuple[str, ...], kinds: tuple[type, ...]) -> list[str]:
    """The names of the attributes that are, or by their types may hold, metrics."""
    containers = (list, tuple, dict)
    return [
        name
        for name, kind in zip(names, kinds, strict=True)
        if issubclass(kind, Metric) or (issubclass(kind, containers) and not name.startswith("_"))
    ]
