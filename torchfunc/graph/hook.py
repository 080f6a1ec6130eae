"""The hook that lets any `torch.nn.Module` be called on symbolic tensors.

It goes in with the first `Input()`, not at import. On real tensors it only looks at the types of the arguments.
Layers and models of this package notice symbolic tensors themselves and need no hook.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

from torch import nn

from torchfunc.graph.einops_backend import register_with_einops
from torchfunc.graph.symbolic import contains_symbolic, record_module
from torchfunc.graph.tracing import pass_over

__all__ = ["install_hook"]

_lock = threading.Lock()
_installed = False


def install_hook() -> None:
    """Make `nn.Module.__call__` record calls on symbolic tensors. Safe to call again and from several threads."""
    global _installed
    if _installed:
        return
    with _lock:
        if _installed:
            return
        original = nn.Module.__call__

        @functools.wraps(original)
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if contains_symbolic(args, kwargs):
                return record_module(self, args, kwargs)
            return original(self, *args, **kwargs)

        # As for torch's own __call__.
        pass_over(call)
        nn.Module.__call__ = call  # type: ignore[method-assign]
        register_with_einops()
        _installed = True
