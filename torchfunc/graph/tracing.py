"""Where torch.compile starts.

It compiles the first function it meets, and keeps only a few graphs for each. What every module's call goes through
must therefore not be where it starts, or all modules of the process would share those few.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TypeVar

import torch
from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy

__all__ = ["is_exporting", "once_for_all", "pass_over", "with_own_code"]

F = TypeVar("F", bound=Callable[..., object])


def pass_over(function: F) -> F:
    """Decorator: torch.compile does not start at this function, but at what it calls.

    Within compiled code the function is traced as any other, which `torch.compiler.disable` would not allow.
    """
    assert isinstance(function, FunctionType)
    set_code_exec_strategy(function.__code__, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.DEFAULT))
    return function


def once_for_all(function: F) -> F:
    """Decorator: torch.compile makes the call itself and takes the result for a constant.

    That is what `torch.compiler.assume_constant_result` does, which imports the whole compiler to do it.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def is_exporting() -> bool:
    """Whether torch.export runs this.

    As `torch.compiler.is_exporting()`, which under torch.compile is True as well in torch 2.11.
    """
    return torch.compiler._is_exporting_flag


def with_own_code(function: F) -> F:
    """A copy of a function that torch.compile takes for another one, and so keeps its graphs apart."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    own.__kwdefaults__ = function.__kwdefaults__
    return own  # type: ignore[return-value]
