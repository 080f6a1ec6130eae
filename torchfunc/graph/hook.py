"""The hook that lets any `torch.nn.Module` be called on symbolic tensors.

It goes in with the first `Input()`, not at import. On real tensors it only looks at the types of the arguments.
Layers and models of this package notice symbolic tensors themselves and need no hook.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from torchfunc.graph.einops_backend import register_with_einops
from torchfunc.graph.recorded_modules import record_module
from torchfunc.graph.symbolic import contains_symbolic
from torchfunc.graph.torch_internals import PROFILER_OF_STACKS
from torchfunc.graph.tracing import once_for_all, pass_over

__all__ = ["are_calls_watched", "entering", "install_hook"]


class _Entered(threading.local):
    """Which modules' calls are not recorded in this thread, but those that their own code makes.

    Attributes:
        by: says of a module whether it is such a one.
    """

    def __init__(self) -> None:
        self.by: Callable[[nn.Module], bool] = _none


def _none(module: nn.Module) -> bool:
    return False


_entered = _Entered()
_lock = threading.Lock()
_installed = False
# What `nn.Module.__call__` is as long as nobody but us has replaced it.
_usual_call = nn.Module._wrapped_call_impl


@once_for_all
@pass_over
def are_calls_watched() -> bool:
    """Whether calls of modules must go through `nn.Module.__call__`, which a layer has no need of for itself.

    Tools that follow calls put a function of their own there (torch.fx, torchview), or look out for that one in the
    calls of Python (torch.profiler, with stacks).
    """
    if nn.Module.__call__ is not _usual_call:
        return True
    profiler = sys.getprofile()
    return profiler is not None and type(profiler).__name__ == PROFILER_OF_STACKS


@contextlib.contextmanager
def entering(modules: Callable[[nn.Module], bool]) -> Iterator[None]:
    """Within this, calls of the modules of which `modules` is true are not recorded, but what they call is."""
    before, _entered.by = _entered.by, modules
    try:
        yield
    finally:
        _entered.by = before


def install_hook() -> None:
    """Make `nn.Module.__call__` record calls on symbolic tensors. Safe to call again and from several threads."""
    global _installed, _usual_call
    if _installed:
        return
    with _lock:
        if _installed:
            return
        original = nn.Module.__call__

        @functools.wraps(original)
        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if contains_symbolic(args, kwargs) and not _entered.by(self):
                return record_module(self, args, kwargs)
            return original(self, *args, **kwargs)

        # As for torch's own __call__.
        pass_over(call)
        nn.Module.__call__ = call  # type: ignore[method-assign]
        if original is _usual_call:
            _usual_call = call
        register_with_einops()
        _installed = True
