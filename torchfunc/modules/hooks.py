"""Whether calling a module is any more than calling its `forward`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

__all__ = ["GLOBAL_HOOKS", "hook_tables", "is_hooked"]

_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# The hooks on all modules of the process, in the same order.
GLOBAL_HOOKS: tuple[Any, ...] = tuple(getattr(torch_module, f"_global{name}") for name in _TABLES)


def hook_tables(module: nn.Module) -> Sequence[Any]:
    """The dicts that hold a module's own hooks; torch changes them in place."""
    return [getattr(module, name) for name in _TABLES]


def is_hooked(module: nn.Module) -> bool:
    """Whether there are hooks on a module, or on all of them, or it has a `forward` of its own."""
    return any(hook_tables(module)) or any(GLOBAL_HOOKS) or "forward" in module.__dict__
