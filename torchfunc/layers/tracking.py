"""Tracking: modules in plain lists, tuples and dicts that are attributes of a layer are its submodules.

    self.blocks = []
    self.blocks.append(Dense(3))  # its weights are `blocks.0.weight` and `blocks.0.bias`

The attribute stays a list or dict. Beside it, in the owner's `_modules`, stands a `Children` module with the modules
under their index or key; it is there only while there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from torch import nn

__all__ = ["Children", "TrackedDict", "TrackedList", "track"]

C = TypeVar("C")


class Children(nn.Module):
    """The modules in one list, tuple or dict. A module put in here from outside takes its place there, too."""

    _content: Any

    def __init__(self, content: Any) -> None:
        super().__init__()
        self.__dict__["_content"] = content

    def mirror(self) -> None:
        """Hold the modules that the content holds now."""
        self._modules.clear()
        for key, value in _entries(self._content):
            module = value if isinstance(value, nn.Module) else _children_of(value)
            if module is not None:
                name = str(key).replace(".", "_")
                if name in self._modules:
                    raise ValueError(f"Two keys of a tracked dict are written {name!r}; rename one of them.")
                self._modules[name] = module

    def __setattr__(self, name: str, value: Any) -> None:
        # What replaces a module in a tree (quantization, adapters, SyncBatchNorm) sets it as an attribute.
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self._put(name, value)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(name, module)
        if module is not None:
            self._put(name, module)
