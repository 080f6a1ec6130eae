"""Models within models, at any depth: whatever goes through them takes the innermost first, and so never recurses."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import nn

__all__ = ["announce", "innermost_first", "models_within", "nested_entries"]

T = TypeVar("T")


def innermost_first(root: T, within: Callable[[T], Iterable[T]]) -> Iterator[T]:
    """What is within `root`, directly or not: each once, behind all that is within it.

    Args:
        root: the outermost; it is not among the results.
        within: what is directly within one.
    """
    seen = {id(root)}
    path = [(root, iter(within(root)))]
    while path:
        current, ahead = path[-1]
        following = next(ahead, None)
        if following is None:
            path.pop()
            if path:
                yield current
        elif id(following) not in seen:
            seen.add(id(following))
            path.append((following, iter(within(following))))


def models_within(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    """The models of a kind within another, also those within layers of it, the innermost first."""
    return [module for module in innermost_first(model, nn.Module.children) if isinstance(module, kind)]


class _Announced(threading.local):
    """The models of this thread that a model around them has asked to have pickled before itself."""

    def __init__(self) -> None:
        self.models: weakref.WeakSet[Any] = weakref.WeakSet()


_announced = _Announced()


def announce(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    """The models to pickle before `model`, so that it only has to refer to them; none if one around it has listed them.

    Args:
        model: the model that is being pickled.
        kind: the class of the models.
    """
    if model in _announced.models:
        _announced.models.discard(model)
        return []
    within = models_within(model, kind)
    _announced.models.update(within)
    return within


def nested_entries(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of the models among the layers of a model's config, or of the config in an entry."""
    layers = config.get("config", config).get("layers", ())
    return [entry for entry in layers if isinstance(entry.get("config"), Mapping) and "layers" in entry["config"]]
