"""Modules of a model that an argument of `compile` names: `shard_modules=`, `remat=`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import nn

from torchfunc.errors import did_you_mean
from torchfunc.training.trainable import Trainable

__all__ = ["ChosenModules", "chosen_modules"]

ChosenModules: TypeAlias = "Sequence[nn.Module | str | type[nn.Module]]"
"""Modules, their names as `named_modules()` has them, or their classes."""


def chosen_modules(model: Trainable, chosen: ChosenModules, argument: str) -> list[nn.Module]:
    """The modules of a model that were chosen, each once, inner ones before those around them.

    Args:
        model: the model.
        chosen: what was given.
        argument: the argument of `compile` that it was given as.

    Raises:
        ValueError: something is no module within the model.
    """
    named: dict[str, Any] = {name: module for name, module in model.named_modules() if module is not model}
    kinds = tuple(each for each in chosen if isinstance(each, type))
    found: list[nn.Module] = [module for module in named.values() if kinds and isinstance(module, kinds)]
    for each in chosen:
        module: Any = named.get(each) if isinstance(each, str) else each
        if isinstance(each, type):
            continue
        if not any(module is known for known in named.values()):
            meant = did_you_mean(each, list(named)) if isinstance(each, str) else ""
            raise ValueError(f"`{argument}` holds {each!r}, which is no module of the model {model.name!r}.{meant}")
        found.append(module)
    order = {id(module): number for number, module in enumerate(named.values())}
    return sorted(dict.fromkeys(found), key=lambda module: -order[id(module)])
