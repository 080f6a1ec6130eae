"""Where torch.compile starts.

It compiles the first function it meets, and keeps only a few graphs for each. What every module's call goes through
must therefore not be where it starts, or all modules of the process would share those few.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TypeVar

from torchfunc.graph.torch_internals import mark_constant, skip_code

__all__ = ["once_for_all", "pass_over", "with_own_code"]

F = TypeVar("F", bound=Callable[..., object])


def pass_over(function: F) -> F:
    """Decorator: torch.compile does not start at this function, but at what it calls.

    Within compiled code the function is traced as any other, which `torch.compiler.disable` would not allow.
    """
    assert isinstance(function, FunctionType)
    skip_code(function.__code__)
    return function


def once_for_all(function: F) -> F:
    """Decorator: torch.compile makes the call itself and takes the result for a constant."""
    mark_constant(function)
    return function


def with_own_code(function: F) -> F:
    """A copy of a function that torch.compile takes for another one, and so keeps its graphs apart."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    own.__kwdefaults__ = function.__kwdefaults__
    return own  # type: ignore[return-value]
