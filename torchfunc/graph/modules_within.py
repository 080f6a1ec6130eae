"""The walk over a module and all in it, for what looks at a model at each call."""

from __future__ import annotations

from torch import nn

__all__ = ["modules_within"]


def modules_within(module: nn.Module) -> list[nn.Module]:
    """What `module.modules()` gives, in its order, each once.

    torch's is a generator for each module within a generator for the one around it: of a small model that takes longer
    than the model's call.
    """
    found: dict[nn.Module, None] = {}
    pending = [module]
    while pending:
        each = pending.pop()
        if each not in found:
            found[each] = None
            children = each._modules
            if children:
                # (By `items()`: of a ScriptModule this is not quite a dict.)
                for _, child in reversed([*children.items()]):
                    if child is not None:
                        pending.append(child)
    return list(found)
